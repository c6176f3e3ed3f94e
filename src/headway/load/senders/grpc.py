"""The open-loop sender over gRPC: ModelInfer of the Open Inference Protocol on one channel; needs grpcio and protobuf.

gRPC's own thread does the socket and reports each answer; requests are encoded before the run, and answers stay bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from headway.load.connection import Answer, Trust
from headway.load.generator import Completion, RawLoad, run_open_loop
from headway.load.live import Live
from headway.protocol.datatypes import DATATYPES, NUMPY
from headway.protocol.messages import METHODS, SERVICE, InferRequest, InferResponse
from headway.records import ConfigError, DataError, MeasurementError, TensorSpec

ASK_S = 10.0
VARIANT = "headway-variant"
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
_REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class GrpcSender:
    """A channel to one server."""

    def __init__(self, place: str, tls: Trust | None, token: str) -> None:
        self.place = place
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel = grpc.secure_channel(place, _credentials(tls), _OPTIONS) if tls else grpc.insecure_channel(place, _OPTIONS)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def model(self) -> str:
        """The name of the server's only model.

        Raises:
            ConfigError: nothing answers there, or it tells none or several.
        """
        names = sorted({told.name for told in self._ask("RepositoryIndex").models})
        if len(names) != 1:
            raise ConfigError(
                f"{self.place}: the model must be named when a server does not tell exactly one, got {names}; add --model NAME"
            )
        return str(names[0])

    def inputs(self, model: str) -> tuple[TensorSpec, ...]:
        """What a model takes.

        Raises:
            ConfigError: nothing answers there, or there is no such model.
        """
        return tuple(
            TensorSpec(name=told.name, dtype=NUMPY.get(told.datatype, "?"), shape=tuple("n" if size == -1 else size for size in told.shape))
            for told in self._ask("ModelMetadata", name=model).inputs
        )

    @staticmethod
    def request(model: str, feeds: Mapping[str, np.ndarray]) -> bytes:
        """One request, encoded.

        Raises:
            DataError: an element type that the protocol does not have.
        """
        made = InferRequest(model_name=model)
        for name, array in feeds.items():
            if array.dtype.name not in DATATYPES:
                raise DataError(f"input {name!r} must be of one of {', '.join(DATATYPES)}, got {array.dtype.name}; convert it")
            made.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
            made.raw_input_contents.append(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
        return bytes(made.SerializeToString())

    @staticmethod
    def outputs(answer: bytes) -> tuple[str, dict[str, NDArray[np.generic]]]:
        """The variant that answered, empty when it is not told, and its outputs, which must be raw.

        Raises:
            MeasurementError: the answer is not one of the protocol, or its sizes do not agree.
        """
        try:
            told = InferResponse.FromString(answer)
            arrays = {
                one.name: np.frombuffer(raw, np.dtype(NUMPY[one.datatype]).newbyteorder("<")).reshape(tuple(one.shape))
                for one, raw in zip(told.outputs, told.raw_output_contents, strict=True)
            }
            return (str(told.parameters[VARIANT].string_param) if VARIANT in told.parameters else ""), arrays
        except Exception as error:  # protobuf's DecodeError has no base of its own worth naming
            raise MeasurementError(f"an answer must follow the Open Inference Protocol v2, got {answer[:80]!r} ({error})") from error

    def run(
        self,
        bodies: Sequence[bytes],
        due_s: NDArray[np.float64],
        *,
        drain_s: float = 5.0,
        timeout_s: float = 30.0,
        most_in_flight: int = 256,
        on_answer: Callable[[Answer], None] | None = None,
        live: Live | None = None,
    ) -> RawLoad:
        """Send body i modulo their number when request i is due, ``most_in_flight`` at most at once; the wait for room counts.

        OK is ok; RESOURCE_EXHAUSTED, UNAVAILABLE and DEADLINE_EXCEEDED are refused, all else failed. ``on_answer`` hears from gRPC's thread.

        Raises:
            ConfigError: no bodies.
            MeasurementError: nothing answers there when the run starts.
        """
        if not bodies:
            raise ConfigError("load needs at least one body, got none")
        self._reach()
        calls = _Calls(self._channel, bodies, self._metadata, timeout_s, most_in_flight, on_answer)
        try:
            return run_open_loop(calls.submit, due_s, drain_s=drain_s, live=live)
        finally:
            calls.end()

    def _reach(self) -> None:
        method = METHODS["ServerLive"]
        call = self._channel.unary_unary(f"/{SERVICE}/ServerLive", request_serializer=method.request.SerializeToString)
        try:
            call(method.request(), timeout=ASK_S, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() in _REFUSED:
                raise MeasurementError(f"a gRPC server must listen at {self.place}, got: {error.details()}; start it first") from error

    def _ask(self, asked: str, **fields: Any) -> Any:
        method = METHODS[asked]
        call = self._channel.unary_unary(
            f"/{SERVICE}/{asked}", request_serializer=method.request.SerializeToString, response_deserializer=method.response.FromString
        )
        try:
            return call(method.request(**fields), timeout=ASK_S, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ConfigError(
                f"{self.place}: a gRPC server of the Open Inference Protocol must answer {asked}, got {error.code().name}: {error.details()}; "
                "start one, or correct the URL or --model"
            ) from error


class _Calls:
    """The calls of one run: as many as may be under way, the others wait in turn."""

    def __init__(
        self,
        channel: grpc.Channel,
        bodies: Sequence[bytes],
        metadata: tuple[tuple[str, str], ...],
        timeout_s: float,
        most: int,
        on_answer: Callable[[Answer], None] | None,
    ) -> None:
        self._infer = channel.unary_unary(f"/{SERVICE}/ModelInfer", request_serializer=None, response_deserializer=None)
        self._bodies, self._metadata, self._timeout_s, self._on_answer = bodies, metadata, timeout_s, on_answer
        self._room = max(1, most)
        self._waiting: deque[tuple[int, Completion]] = deque()
        self._under_way: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._over = False

    def submit(self, number: int, completion: Completion) -> None:
        """Send a request, or put it behind those that wait."""
        with self._lock:
            if self._over:
                return
            if not self._room:
                self._waiting.append((number, completion))
                return
            self._room -= 1
        call = self._infer.future(self._bodies[number % len(self._bodies)], timeout=self._timeout_s, metadata=self._metadata)
        self._under_way[number] = call
        call.add_done_callback(lambda done: self._ended(done, number, completion))

    def end(self) -> None:
        """Forget those that wait, and cancel those under way."""
        with self._lock:
            self._over = True
            self._waiting.clear()
        for call in list(self._under_way.values()):
            call.cancel()

    def _ended(self, call: Any, number: int, completion: Completion) -> None:
        code = call.code()
        if code is grpc.StatusCode.OK:
            if self._on_answer is not None and not self._over:
                self._on_answer(Answer(number, 200, {}, call.result()))
            completion.ok(number)
        elif code in _REFUSED:
            completion.refused(number)
        else:
            completion.failed(number)
        self._under_way.pop(number, None)
        with self._lock:
            self._room += 1
            following = self._waiting.popleft() if self._waiting else None
        if following is not None:
            self.submit(*following)


def open_sender(place: str, tls: Trust | None, token: str) -> GrpcSender:
    """A sender to ``HOST:PORT``, over TLS when it is said whom to trust.

    Raises:
        ConfigError: the certificates cannot be read, or any certificate should be believed, which gRPC cannot.
    """
    return GrpcSender(place, tls, token)


def _credentials(trust: Trust) -> grpc.ChannelCredentials:
    if trust.insecure:
        raise ConfigError("gRPC always checks certificates, so --insecure cannot be kept; name the server's certificate with --ca FILE")
    try:
        return grpc.ssl_channel_credentials(Path(trust.ca).read_bytes() if trust.ca else None)
    except OSError as error:
        raise ConfigError(f"--ca must be a file of certificates in PEM form, got {trust.ca!r}: {error}") from error
