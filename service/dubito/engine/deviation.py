"""How far figures in another precision are from those in float32.

Its job: predict the same made-up rows under the same masks in both precisions, when a network is
loaded, and refuse it where they are further apart than is allowed.

    classes    largest |Δ| of the probabilities, of the entropy and of the mutual information, nats
    numbers    largest |Δ| of the mean and of the standard deviation, as a share of the targets'
               scale: the declared one, else the root mean square of what is predicted
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dubito.engine.calling.prediction import Prediction
from dubito.engine.calling.sampling import Precision, Sampling
from dubito.engine.findings import Findings
from dubito.engine.kernels.machine import arithmetic
from dubito.engine.kernels.products import compute
from dubito.engine.plans import Plans
from dubito.engine.proving.clock import Clock
from dubito.errors import InputError

if TYPE_CHECKING:
    from dubito.engine.engine import Engine

MAX_DEVIATION = 0.05
_ROWS, _SAMPLES = 4, 16
_OF_CLASSES = ("predictive_entropy", "mutual_information")


@dataclass(frozen=True)
class Deviation:
    """The largest differences from float32 on made-up rows, by the figure's name.

    Args:
        mean: of probabilities; of numbers as a share of their scale.
        predictive_entropy: in nats; None where there are no classes.
        mutual_information: as that.
        standard_deviation: as a share of their scale; None where there are no numbers.
    """

    mean: float
    predictive_entropy: float | None = None
    mutual_information: float | None = None
    standard_deviation: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """Those that there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def worst(self) -> tuple[str, float]:
        """Name of the figure that differs most, and by how much."""
        return max(self.figures.items(), key=lambda figure: figure[1])

    @classmethod
    def from_json(cls, found: object) -> Deviation | None:
        """The deviation whose `figures` were kept; None where it is something else."""
        if not isinstance(found, dict) or not set(found) <= set(cls.__dataclass_fields__):
            return None
        is_sound = "mean" in found and all(isinstance(value, float) for value in found.values())
        return cls(**found) if is_sound else None


def about(engine: Engine) -> dict[str, object]:
    """What a measured deviation holds for."""
    return {
        "found": "deviation",
        "bundle": engine.bundle.digest,
        "sampling": _sampled(engine).to_json(),
        **arithmetic(engine.device),
    }


def measured(engine: Engine, findings: Findings) -> Deviation | None:
    """The deviation of an engine, found now or at an earlier load; None in float32.

    Args:
        engine: that runs.
        findings: of earlier loads.

    Raises:
        InputError: the network does not run in that precision here.
    """
    if engine.defaults.precision == "float32":
        return None
    kept = about(engine)
    found = Deviation.from_json(findings.get(kept))
    if found is None:
        try:
            found = _compared(engine, in_float32(engine))
        except RuntimeError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(
                f"`precision` {engine.defaults.precision} expects operators that run in it on"
                f" {engine.device}, got an error ({reason}): load the network in float32"
            ) from error
        findings.put(kept, found.figures)
    findings.put(_last(engine.bundle.digest, engine.defaults.precision), found.figures)
    return found


def last_known(findings: Findings, digest: str, precision: str) -> Deviation | None:
    """What the last load of a bundle in a precision found; None where it is not known."""
    return Deviation.from_json(findings.get(_last(digest, precision)))


def _last(digest: str | None, precision: str) -> dict[str, object]:
    return {"found": "last deviation", "bundle": digest, "precision": precision}


def check_deviation(found: Deviation | None, precision: Precision, most: float) -> None:
    """Refuse a network whose figures deviate too far.

    Args:
        found: of its figures; None in float32.
        precision: in which it was loaded.
        most: that is allowed.

    Raises:
        InputError: a figure deviates by more.
    """
    if found is not None and not found.worst[1] <= most:
        name, value = found.worst
        raise InputError(
            f"`precision` {precision} expects figures within {most:g} of those in float32, got"
            f" `{name}` off by {value:.3g} on made-up rows: load the network in float32, or raise"
            " `max_deviation` (DUBITO_MAX_DEVIATION) if that is meant"
        )


def in_float32(engine: Engine) -> Engine:
    """The same network in float32, with the same tensors."""
    if engine.defaults.precision == "float32":
        return engine
    defaults = replace(engine.defaults, precision="float32")
    placed = replace(engine.placed, compute=compute)
    budget = engine.memory_budget_bytes
    plans = Plans(engine.bundle, placed, engine.device, defaults, budget, Clock(None))
    plans.trust(engine.made_up_rows())
    return replace(engine, placed=placed, defaults=defaults, plans=plans)


def _compared(engine: Engine, reference: Engine) -> Deviation:
    rows = engine.made_up_rows(_ROWS)
    outputs = engine.fitting_outputs(rows)
    sampling = _sampled(engine)
    made = engine.predict(rows, sampling=sampling, outputs=outputs)
    true = reference.predict(rows, sampling=replace(sampling, precision="float32"), outputs=outputs)
    if hasattr(made, _OF_CLASSES[0]):
        entropies = (_apart(getattr(made, name), getattr(true, name)) for name in _OF_CLASSES)
        return Deviation(_apart(made.mean, true.mean), *entropies)
    scale = _scale(engine, true)
    (wide, of_true) = (np.sqrt(prediction.variance) for prediction in (made, true))
    spread = _apart(wide / scale, of_true / scale)
    return Deviation(_apart(made.mean / scale, true.mean / scale), standard_deviation=spread)


def _sampled(engine: Engine) -> Sampling:
    return replace(
        engine.defaults,
        num_samples=min(engine.defaults.num_samples, _SAMPLES),
        method=engine.manifest.default_method,
        masks="shared",
        tolerance=None,
        sites="all",
    )


def _scale(engine: Engine, true: Prediction) -> NDArray[np.float64]:
    """What numbers are counted in: of each output, or of all."""
    if engine.manifest.target_scale is not None:
        return np.asarray(engine.manifest.target_scale[1])
    squares = _of_each(np.square(true.mean, dtype=np.float64)) + _of_each(true.variance)
    size: NDArray[np.float64] = np.maximum(np.sqrt(squares), np.finfo(np.float32).tiny)
    return size


def _of_each(numbers: NDArray[np.floating]) -> NDArray[np.float64]:
    """The mean over all axes but that of the outputs."""
    outer = tuple(range(max(1, numbers.ndim - 1)))
    mean: NDArray[np.float64] = np.nanmean(numbers, axis=outer, dtype=np.float64)
    return mean


def _apart(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The largest difference; what is nan or infinite in both, in the same way, is the same."""
    is_same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.subtract(first, second, dtype=np.float64))
    return float(np.nan_to_num(np.where(is_same, 0.0, difference), nan=np.inf).max(initial=0.0))
