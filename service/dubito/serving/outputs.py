"""The columns of a reply, from the engine's prediction and the calibration that covers it.

Without one, sets, intervals, `quantiles` of a mixture, `decision` and `ood` are null, with a
warning; they are never invented.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.asked import PredictOrder
from dubito.calibration.heads import Request, Served, head_of
from dubito.calibration.heads.served import Columns
from dubito.calibration.promises import draws
from dubito.calibration.record import Calibration
from dubito.columns import Column
from dubito.engine import Prediction, Sampling
from dubito.engine.heads.scaling import Scaling
from dubito.engine.network import Network
from dubito.errors import InputError
from dubito.monitoring.observed import ObservedRows
from dubito.monitoring.observing import observe
from dubito.serving.overflow import decided, flagged, warn_of_overflow
from dubito.serving.worker import Check
from dubito_nn import Manifest

_ON_REQUEST = "samples"
_SCORED = frozenset({"ood", "decision"})


@dataclass(frozen=True)
class Built:
    """Columns, warnings, and whether the samples differed (None where none were drawn).

    `observed` is what monitoring takes, where a calibration covers and the request has an id.
    """

    outputs: Mapping[str, Column]
    warnings: tuple[str, ...]
    varies: bool | None
    calibration: Calibration | None
    observed: ObservedRows | None


def check_outputs(names: Sequence[str] | None, manifest: Manifest, sampling: Sampling) -> None:
    """Refuse names of outputs that a head or a method does not have.

    Raises:
        InputError: a name is unknown, or the list is empty.
    """
    if _ON_REQUEST in (names or ()) and sampling.method == "moments":
        raise InputError("method `moments` makes no masked passes: for `samples` use method `mc`")
    known = (*head_of(manifest).outputs, _ON_REQUEST)
    unknown = [name for name in names or () if name not in known]
    if unknown or (names is not None and not names):
        raise InputError(
            f"`outputs` of a {manifest.head} head: expected some of {', '.join(known)}, "
            f"got {', '.join(unknown)[:160] or 'none'}: correct the names or leave `outputs` out"
        )


def build_outputs(
    order: PredictOrder,
    network: Network,
    inputs: Mapping[str, Tensor],
    sampling: Sampling,
    calibration: Calibration | None,
    check: Check,
    *,
    may_keep_samples: bool,
) -> Built:
    """Run the network and make the columns that are asked for.

    Args:
        order: coverage, names of the outputs.
        network: of the version, or of several.
        inputs: checked rows.
        sampling: what to draw.
        calibration: the active one, if it shall be used.
        check: called between chunks.
        may_keep_samples: whether all passes are few enough to keep them for `quantiles`.
    """
    injected = [member.manifest.injection_warning for member in network.members]
    warnings = list(dict.fromkeys(line for line in injected if line is not None))
    applied = covering(order.calibration, sampling, calibration, warnings)
    head = head_of(network.manifest) if applied is None else applied.head
    names = tuple(order.outputs or head.outputs)
    may_keep = may_keep_samples and sampling.tolerance is None
    is_observed = order.request_id is not None
    is_scored = is_observed or not _SCORED.isdisjoint(names)
    prediction, features = _predicted(
        network,
        inputs,
        sampling,
        head.logit_scaling,
        keep_samples=_ON_REQUEST in names or (may_keep and head.needs_passes(names)),
        with_features=is_scored and needs_features(applied, network),
        check=check,
    )
    uniform_B = draws_of(inputs, sampling.seed) if head.is_randomised else np.zeros(0)
    served = head.served(prediction, Request(order.coverage, features, uniform_B, warnings))
    columns = served.columns() | _shared_columns(prediction, served, applied)
    outputs = {name: columns[name]() for name in names}
    warn_of_overflow({"mean": prediction.mean, **outputs}, warnings)
    varies = served.varies if sampling.method == "mc" else None
    observed = observe(served, applied) if applied is not None and is_observed else None
    return Built(outputs, tuple(warnings), varies, applied, observed)


def _predicted(
    network: Network,
    inputs: Mapping[str, Tensor],
    sampling: Sampling,
    scaling: Scaling,
    *,
    keep_samples: bool,
    with_features: bool,
    check: Check,
) -> tuple[Prediction, NDArray[np.floating] | None]:
    """A prediction, and the features of the rows where they are asked for."""
    ask = network.predict_with_features if with_features else network.predict
    answer = ask(
        dict(inputs),
        sampling=sampling,
        temperature=scaling,
        keep_samples=keep_samples,
        check=check,
    )
    if isinstance(answer, tuple):
        return answer[0], answer[1].float().numpy()
    return answer, None


def covering(
    choice: str,
    sampling: Sampling,
    calibration: Calibration | None,
    warnings: list[str],
) -> Calibration | None:
    """The calibration that a request is answered with; where there is none, a warning says why.

    Args:
        choice: `active` or `none`, as the request has it.
        sampling: what is drawn.
        calibration: the active one.
        warnings: to add to.
    """
    if choice == "none":
        warnings.append("raw figures: the request asked for no calibration")
        return None
    if sampling.method == "ensemble":
        warnings.append(
            "raw figures, and null where a calibration is needed: no calibration covers an ensemble"
        )
        return None
    if calibration is None:
        warnings.append(
            "no active calibration: sets, intervals, decision and ood are null; "
            "POST held-out rows to calibrate"
        )
        return None
    reason = calibration.covers(sampling)
    if reason is not None:
        warnings.append(f"raw figures, and null where a calibration is needed: {reason}")
        return None
    return calibration


def needs_features(calibration: Calibration | None, network: Network) -> bool:
    """Whether the score of the flag reads features of rows."""
    return calibration is not None and calibration.needs_features and network.shares_features


def draws_of(inputs: Mapping[str, Tensor], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per row, for randomised sets, from its content."""
    return draws.by_content({name: tensor.numpy() for name, tensor in inputs.items()}, seed)


def _shared_columns(
    prediction: Prediction, served: Served, calibration: Calibration | None
) -> Columns:
    """The columns that all heads have."""

    @cache
    def strangeness() -> NDArray[np.float64]:
        assert calibration is not None
        return calibration.ood_scores(served.source)

    def ood() -> Column:
        return None if calibration is None else flagged(calibration.ood, strangeness())

    def decision() -> Column:
        if calibration is None:
            return None
        flag_B = calibration.ood.flags(strangeness())
        decisions = calibration.policy.decide(flag_B, served.uncertainty, served.set_sizes)
        return decided(decisions, prediction.mean, strangeness())

    def samples() -> Column:
        """Every pass, the row first: probabilities (B, T, C) or means in target units (B, T, D)."""
        if prediction.samples is None:
            return None
        return served.shown(np.ascontiguousarray(prediction.samples.swapaxes(0, 1)))

    return {"ood": ood, "decision": decision, _ON_REQUEST: samples}
