"""The protocol as data: its element types, and messages that are field for field those of the public clients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.protocol.datatypes import DATATYPES, NUMPY

pytest.importorskip("google.protobuf")

from headway.protocol.messages import METHODS, InferRequest, InferResponse, message

FOLDER = Path(__file__).parent.parent / "src" / "headway" / "protocol"


def test_every_element_type_has_one_name_and_the_width_that_its_name_says() -> None:
    assert {NUMPY[name] for name in DATATYPES.values()} == set(DATATYPES)
    for numpy_name, name in DATATYPES.items():
        bits = int("".join(filter(str.isdigit, name)) or 8)
        assert np.dtype(numpy_name).itemsize * 8 == bits
        assert np.dtype(numpy_name).name == numpy_name


def test_the_descriptor_set_is_the_compiled_proto(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    made = tmp_path / "made.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={FOLDER}", f"--descriptor_set_out={made}", "inference.proto"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert made.read_bytes() == (FOLDER / "inference.binpb").read_bytes()


def described(descriptor: Any) -> Iterator[tuple[str, int, int, bool, str]]:
    """Every field of a message and of the messages in it: name, number, type, whether repeated, and its oneof."""
    waiting, known = [descriptor], set()
    while waiting:
        one = waiting.pop()
        if one.full_name in known:
            continue
        known.add(one.full_name)
        for field in one.fields:
            choice = field.containing_oneof.name if field.containing_oneof else ""
            yield f"{one.full_name}.{field.name}", field.number, field.type, field.is_repeated, choice
            if field.message_type is not None:
                waiting.append(field.message_type)


def test_names_numbers_and_types_are_those_of_the_public_client() -> None:
    service = pytest.importorskip("tritonclient.grpc").service_pb2
    theirs = service.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in METHODS.items():
        for ours, public in ((method.request, theirs[name].input_type), (method.response, theirs[name].output_type)):
            assert ours.DESCRIPTOR.full_name == public.full_name
            assert set(described(ours.DESCRIPTOR)) <= set(described(public))
        assert method.streams == theirs[name].server_streaming == theirs[name].client_streaming


def test_values_of_enumerations_are_those_of_the_public_client() -> None:
    public = pytest.importorskip("tritonclient.grpc").model_config_pb2
    ours = message("ModelInput").DESCRIPTOR.fields_by_name["data_type"].enum_type
    assert {value.name: value.number for value in ours.values} == dict(public.DataType.items())
    kinds = message("ModelInstanceGroup").DESCRIPTOR.fields_by_name["kind"].enum_type
    assert {value.name: value.number for value in kinds.values} == dict(public.ModelInstanceGroup.Kind.items())


@given(name=st.text(), number=st.integers(-(2**63), 2**63 - 1), shape=st.lists(st.integers(-(2**63), 2**63 - 1)), raw=st.lists(st.binary()))
def test_the_public_client_reads_our_messages_and_we_read_its(name: str, number: int, shape: list[int], raw: list[bytes]) -> None:
    service = pytest.importorskip("tritonclient.grpc").service_pb2
    ours = InferResponse(
        model_name=name, parameters={name: {"int64_param": number}}, outputs=[{"name": name, "shape": shape}], raw_output_contents=raw
    )
    theirs = service.ModelInferResponse.FromString(ours.SerializeToString())
    assert (theirs.model_name, theirs.parameters[name].int64_param, list(theirs.outputs[0].shape)) == (name, number, shape)
    assert list(theirs.raw_output_contents) == raw
    asked = service.ModelInferRequest(id=name, raw_input_contents=raw)
    asked.inputs.add(name=name, datatype="FP32", shape=shape)
    read = InferRequest.FromString(asked.SerializeToString())
    assert (read.id, list(read.inputs[0].shape), list(read.raw_input_contents)) == (name, shape, raw)
