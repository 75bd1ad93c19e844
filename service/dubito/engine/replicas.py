"""One network on several devices: every call runs on the device of the thread that makes it.

Its job: let callers hold one engine while each of the threads that own a device computes on its
own. A thread says once which device is its own; any other thread has the first.

All engines of a network have the same plans, forms and masks, so that devices of one kind answer
with the same bits.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.inputs import Inputs
from dubito.engine.calling.prediction import Prediction
from dubito.engine.calling.sampling import Masks, Sampling, Sites
from dubito.engine.deviation import MAX_DEVIATION
from dubito.engine.distilled import Students
from dubito.engine.engine import Engine
from dubito.engine.findings import NOTHING_KEPT, Findings
from dubito.engine.heads.scaling import Scaling
from dubito.engine.laplace import Fits
from dubito.engine.running.passes import Passes
from dubito_nn import Bundle

_own = threading.local()


@contextmanager
def at_device(number: int) -> Iterator[None]:
    """Within the block this thread computes on one device.

    Args:
        number: its place among the devices of the server, from 0.
    """
    _own.number = number
    try:
        yield
    finally:
        del _own.number


def load_on(
    devices: Sequence[str],
    source: str | Path | bytes | Bundle,
    *,
    defaults: Sampling,
    memory_budget_bytes: int | None = None,
    findings: Findings = NOTHING_KEPT,
    timing_limit_s: float | None = 1.0,
    max_deviation: float = MAX_DEVIATION,
) -> Engine:
    """Load a bundle on each of some devices.

    Args:
        devices: as torch names them, at least one; all of one kind.
        source: as for `Engine.load`, as is all else.
        defaults: T, seed, masks, draw and precision where a call names none.
        memory_budget_bytes: for the values of one chunk, on each device.
        findings: of earlier loads.
        timing_limit_s: on the wall, for finding out which forms pay.
        max_deviation: from float32.

    Raises:
        BundleRefusedError: where the bundle is unsound or does not run.
    """
    engines: list[Engine] = []
    for device in devices:
        engine = Engine.load(
            engines[0].bundle if engines else source,
            device=device,
            num_samples=defaults.num_samples,
            seed=defaults.seed,
            masks=defaults.masks,
            draw=defaults.draw,
            memory_budget_bytes=memory_budget_bytes,
            findings=findings,
            timing_limit_s=timing_limit_s,
            precision=defaults.precision,
            max_deviation=max_deviation,
        )
        engines.append(engine)
    return engines[0] if len(engines) == 1 else ReplicatedEngine.of(engines)


def replicas(engine: Engine) -> tuple[Engine, ...]:
    """The engine on each of its devices."""
    return engine.replicas if isinstance(engine, ReplicatedEngine) else (engine,)


class ReplicatedEngine(Engine):
    """An engine on each of several devices, which says of itself what the first one does.

    Attributes:
        replicas: by the numbers of their devices.
    """

    replicas: tuple[Engine, ...]

    @classmethod
    def of(cls, engines: Sequence[Engine]) -> ReplicatedEngine:
        """One engine made of those on several devices."""
        first = engines[0]
        made = cls(**{field.name: getattr(first, field.name) for field in fields(first)})
        made.replicas = tuple(engines)
        return made

    @property
    def here(self) -> Engine:
        """The engine on the device of this thread."""
        return self.replicas[getattr(_own, "number", 0)]

    @property
    def fits(self) -> Fits:
        """What method `laplace` draws from here."""
        return self.here.fits

    @property
    def students(self) -> Students:
        """What method `distilled` answers by here."""
        return self.here.students

    def of_sites(self, sites: Sites) -> Engine:
        """The engine here that samples some sites."""
        return self.here.of_sites(sites)

    def pieces(self, masks: Masks, rows: Mapping[str, Tensor]) -> Passes:
        """The plan here for rows of that shape."""
        return self.here.pieces(masks, rows)

    def sample(
        self, inputs: Inputs, *, sampling: Sampling | None = None, check: Check | None = None
    ) -> Tensor:
        """Sample here."""
        return self.here.sample(inputs, sampling=sampling, check=check)

    def predict(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        temperature: Scaling = 1.0,
        keep_samples: bool = False,
        check: Check | None = None,
        outputs: Collection[str] | None = None,
    ) -> Prediction:
        """Predict here."""
        return self.here.predict(
            inputs,
            sampling=sampling,
            temperature=temperature,
            keep_samples=keep_samples,
            check=check,
            outputs=outputs,
        )

    def predict_with_features(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        temperature: Scaling = 1.0,
        keep_samples: bool = False,
        check: Check | None = None,
    ) -> tuple[Prediction, Tensor]:
        """Predict here, and return the features."""
        return self.here.predict_with_features(
            inputs,
            sampling=sampling,
            temperature=temperature,
            keep_samples=keep_samples,
            check=check,
        )

    def feature_maps(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """Compute features here."""
        return self.here.feature_maps(inputs, check=check)
