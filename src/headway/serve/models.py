"""The models of one server: loaded, found, swapped, shared out between versions. Used on the event loop; slow work runs on other threads."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headway.records import HeadwayError
from headway.runtime.cores import usable_cores
from headway.serve.call import Call
from headway.serve.limits import Limits
from headway.serve.refusal import Refusal, invalid
from headway.serve.repository import Place, newest, scan
from headway.serve.seen import Batch, Refused
from headway.serve.served import Served, Settings
from headway.serve.start import start
from headway.serve.traffic import Comparison, Shares, Traffic
from headway.serve.turns import Pressure, Turns

READY, UNAVAILABLE, LOADING, UNLOADING = "READY", "UNAVAILABLE", "LOADING", "UNLOADING"


class Model:
    """All versions of one model, and how requests that name none are shared out."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[str, Served] = {}
        self.states: dict[str, tuple[str, str]] = {}
        self.traffic = Traffic()
        self.comparison = Comparison()
        self.primary: Served | None = None
        self._shares: Shares | None = None
        self.loading = asyncio.Lock()

    def direct(self, traffic: Traffic) -> None:
        """Share requests out in another way from now on.

        Raises:
            Refusal: a version that it names is not ready.
        """
        named = [traffic.primary, traffic.canary and traffic.canary.version, traffic.shadow and traffic.shadow.version]
        for version in named:
            if version is not None and version not in self.versions:
                raise invalid(f"traffic must go to versions that are ready, {sorted(self.versions, key=int)}, got {version[:40]!r}")
        if traffic.shadow != self.traffic.shadow:
            self.comparison = Comparison()
        self.traffic = traffic
        self.settle()

    def settle(self) -> None:
        """Follow a change of the versions: a version that is gone gets no traffic."""
        traffic, there = self.traffic, self.versions
        canary = traffic.canary if traffic.canary is not None and traffic.canary.version in there else None
        shadow = traffic.shadow if traffic.shadow is not None and traffic.shadow.version in there else None
        primary = traffic.primary if traffic.primary in there else None
        self.traffic = Traffic(primary, canary, shadow)
        others = {canary.version if canary else "", shadow.version if shadow else ""}
        candidates = {version: there[version] for version in there if version not in others} or there
        self.primary = there[primary] if primary is not None else candidates[newest(candidates)] if candidates else None
        self._shares = Shares(canary.share) if canary else None

    def share(self, version: str) -> float:
        """What part of the requests that name no version this one gets."""
        canary = self.traffic.canary
        given = canary.share if canary else 0.0
        if canary is not None and version == canary.version:
            return given
        return 1.0 - given if self.primary is not None and version == self.primary.version else 0.0

    def pick(self) -> Served | None:
        """The version for the next request that names none."""
        if self._shares is not None and self.traffic.canary is not None and self._shares.next():
            return self.versions[self.traffic.canary.version]
        return self.primary

    def mirror(self, call: Call, served: Served) -> Call | None:
        """The shadow's copy of a request that ``served`` is about to get, if there is a shadow."""
        shadow = self.traffic.shadow
        return self.comparison.pair(call) if shadow is not None and shadow.version != served.version else None


class Models:
    """Every model of the server.

    Args:
        places: where each version's bundle lies, by name and version.
        folder: a repository that is looked at again whenever a model is loaded.
        control: whether clients may load and unload models and direct traffic.
    """

    def __init__(
        self,
        places: Mapping[str, Mapping[str, Place]],
        *,
        folder: Path | None,
        settings: Settings,
        limits: Limits,
        control: bool,
        seen: Callable[[Batch], None],
        refused: Callable[[Refused], None],
        told: Callable[..., None] = lambda event, **fields: None,
    ) -> None:
        self.control, self.limits = control, limits
        self.draining = False
        self._places = {name: dict(versions) for name, versions in places.items()}
        self._folder, self._settings = folder, settings
        self._seen, self._refused, self._told = seen, refused, told
        self._models: dict[str, Model] = {}
        self._cores = max(1, usable_cores() // max(1, sum(len(versions) for versions in places.values())))
        self._leaving: set[asyncio.Task[None]] = set()
        self._turns: Turns | None = None

    # --- finding

    def find(self, name: str, version: str = "") -> Served:
        """The version of a model that answers a request.

        Raises:
            Refusal: 404, no such model or version; 503, it is being loaded or unloaded.
        """
        model = self._models.get(name)
        if model is None:
            raise Refusal(404, "unknown", f"the model must be one of {self.names()}, got {name[:100]!r}")
        served = model.versions.get(version) if version else model.pick()
        if served is None:
            state, reason = model.states.get(version, (UNAVAILABLE, "")) if version else (UNAVAILABLE, "no version is ready")
            if version and version not in model.states:
                raise Refusal(404, "unknown", f"model {name!r} has the versions {sorted(model.versions, key=int)}, got {version[:40]!r}")
            raise Refusal(503, "not_ready", f"model {name!r} is not ready: {state.lower()}{', ' + reason if reason else ''}")
        return served

    def show(self, name: str, version: str = "") -> Served:
        """A version to tell about: the one named, or the primary.

        Raises:
            Refusal: as in ``find``.
        """
        model = self.model(name)
        return self.find(name, version or (model.primary.version if model.primary is not None else ""))

    def direct(self, name: str, traffic: Traffic) -> None:
        """Share a model's requests out in another way from now on.

        Raises:
            Refusal: 404, no such model; 400, a version that is not ready.
        """
        self.model(name).direct(traffic)
        canary, shadow = traffic.canary, traffic.shadow
        self._told(
            "traffic", model=name, primary=traffic.primary, canary=canary.version if canary else None, share=canary.share if canary else 0.0,
            shadow=shadow.version if shadow else None,
        )  # fmt: skip

    def submit(self, served: Served, call: Call) -> None:
        """Hand a request to a version, and a copy of it to the shadow.

        Raises:
            Refusal: it cannot be answered, or not in time.
        """
        model = self._models[served.name]
        copy = model.mirror(call, served) if model.traffic.shadow is not None else None
        served.submit(call)
        if copy is not None and model.traffic.shadow is not None:
            try:
                model.versions[model.traffic.shadow.version].submit(copy)
            except Refusal:
                model.comparison.skip()

    def model(self, name: str) -> Model:
        """A model by its name.

        Raises:
            Refusal: 404, no such model.
        """
        if name not in self._models:
            raise Refusal(404, "unknown", f"the model must be one of {self.names()}, got {name[:100]!r}")
        return self._models[name]

    def names(self) -> list[str]:
        """Names of all models that have been loaded."""
        return list(self._models)

    def all(self) -> Iterator[Served]:
        """Every version that is ready; from any thread."""
        for model in list(self._models.values()):
            yield from list(model.versions.values())

    @property
    def turns(self) -> Turns:
        """The turns of the event loop that the models are used on."""
        if self._turns is None:
            cores = usable_cores()
            pressure = Pressure(
                busy_until_s=lambda: min([served.busy_until_s for served in self.all()], default=0.0),
                missed=lambda: sum(served.missed for served in self.all()),
                deadline_s=lambda: min((served.deadline_s for served in self.all()), default=math.inf),
                instances=lambda: sum(served.plan.instances for served in self.all()),
                share=lambda: sum(served.plan.instances * served.plan.threads for served in self.all()) >= cores,
            )
            self._turns = Turns(asyncio.get_running_loop(), pressure)
        return self._turns

    @property
    def ready(self) -> bool:
        """Whether every model has a version that accepts requests."""
        return not self.draining and bool(self._models) and all(model.primary is not None for model in self._models.values())

    def index(self, ready: bool = False) -> list[dict[str, Any]]:
        """Every version known, with its state; only those that are ready, if asked."""
        known: list[dict[str, Any]] = []
        for name in sorted({*self._models, *self._places}):
            states = self._models[name].states if name in self._models else {}
            for version in sorted({*states, *self._places.get(name, {})}, key=int):
                state, reason = states.get(version, (UNAVAILABLE, "not loaded"))
                if state == READY or not ready:
                    known.append({"name": name, "version": version, "state": state, "reason": reason})
        return known

    # --- loading

    async def start(self) -> None:
        """Load every model.

        Raises:
            HeadwayError: the first that cannot be loaded, when it is the only one or comes from no repository.
        """
        for name in list(self._places):
            try:
                await self._load(name, again=False)
            except HeadwayError:
                if self._folder is None:
                    raise
        if not any(self._models[name].versions for name in self._models):
            reasons = [f"{entry['name']} {entry['version']}: {entry['reason']}" for entry in self.index()]
            raise HeadwayError(
                f"at least one model must be served, and none could be loaded: {'; '.join(reasons) or 'the repository is empty'}"
            )

    async def load(self, name: str) -> None:
        """Load a model, or its changed and new versions; versions that are gone are unloaded. Those that answer now answer until then.

        Raises:
            Refusal: 404, there is no such model; 400, a version cannot be loaded.
        """
        if self._folder is not None:
            self._places = scan(self._folder)
        if name not in self._places:
            raise Refusal(404, "unknown", f"the model must be one of {sorted(self._places)}, got {name[:100]!r}")
        try:
            await self._load(name, again=True)
        except HeadwayError as error:
            raise invalid(f"model {name!r} could not be loaded: {error}") from error

    async def _load(self, name: str, *, again: bool) -> None:
        model = self._models.setdefault(name, Model(name))
        failure: HeadwayError | None = None
        async with model.loading:
            places = self._places[name]
            for version, place in places.items():
                try:
                    await self._load_version(model, place, again=again)
                except HeadwayError as error:
                    failure = error
                    kept = version in model.versions
                    model.states[version] = (READY, f"an older bundle still answers: {error}") if kept else (UNAVAILABLE, str(error))
                    self._told("load_failed", model=name, version=version, reason=str(error))
            for version in [version for version in model.versions if version not in places]:
                self._retire(model, version)
        if failure is not None:
            raise failure

    async def _load_version(self, model: Model, place: Place, *, again: bool) -> None:
        before = model.versions.get(place.version)
        loop = asyncio.get_running_loop()
        bundle = place.bundle if place.bundle is not None and not again else await loop.run_in_executor(None, place.open)
        if before is not None and before.bundle.manifest == bundle.manifest:
            return
        if before is None:
            model.states[place.version] = (LOADING, "")
        begun_s = time.perf_counter()
        started = await loop.run_in_executor(
            None, lambda: start(bundle, self._settings.variant, levels=self._settings.levels, cores=self._cores, pad=self._settings.pad)
        )
        served = Served(
            place.name, place.version, bundle, started,
            settings=self._settings, limits=self.limits, turns=self.turns, seen=self._seen, refused=self._refused,
        )  # fmt: skip
        model.versions[place.version] = served
        model.states[place.version] = (READY, "")
        model.settle()
        event = "load" if before is None else "swap"
        self._told(
            event, model=place.name, version=place.version, variant=served.variant.variant.name, seconds=time.perf_counter() - begun_s
        )
        if before is not None:
            self._leave(before)

    async def unload(self, name: str) -> None:
        """Unload a model: it refuses from now on, and answers what it has accepted.

        Raises:
            Refusal: 404, there is no such model.
        """
        model = self.model(name)
        async with model.loading:
            for version in list(model.versions):
                self._retire(model, version)

    def _retire(self, model: Model, version: str) -> None:
        served = model.versions.pop(version)
        model.states[version] = (UNAVAILABLE, "unloaded")
        model.settle()
        self._told("unload", model=model.name, version=version)
        self._leave(served)

    def _leave(self, served: Served) -> None:
        """Let a version that gets no more requests answer those it has, then close it."""
        task = asyncio.get_running_loop().create_task(self._end(served))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _end(self, served: Served) -> None:
        await served.drain(self.limits.drain_s)
        await asyncio.get_running_loop().run_in_executor(None, served.close)

    # --- the clock and the end

    def tick(self, now_s: float) -> None:
        """Called about twice a second: let every model step along its frontier."""
        for served in self.all():
            stepped = served.tick(now_s)
            if stepped is not None:
                self._told("step", model=served.name, version=served.version, left=stepped[0], taken=stepped[1])

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests, and wait until all accepted ones are answered; false when time ran out first."""
        self.draining = True
        answered = await asyncio.gather(*(served.drain(timeout_s) for served in self.all()))
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=timeout_s)
        return all(answered)

    def close(self) -> None:
        """End everything, drained or not."""
        for served in self.all():
            served.close()
