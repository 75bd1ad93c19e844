"""The columns of a reply, from the engine's prediction and the calibration that covers it.

Flow: what is asked → `Outputs`, before any row is computed → `Computed`, which may be of rows of
several requests → cut to the request's own → `Built`.

Without one, sets, intervals, `quantiles` of a mixture, `decision` and `ood` are null, with a
warning; they are never invented.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.asked import PredictOrder
from dubito.calibration.heads import Head, Request, Served, head_of
from dubito.calibration.heads.served import Columns
from dubito.calibration.promises import draws
from dubito.calibration.record import Calibration
from dubito.columns import Column
from dubito.engine import Prediction, Sampling
from dubito.engine.calling.cutting import in_one, part_of
from dubito.engine.network import Network
from dubito.errors import InputError
from dubito.monitoring.observed import ObservedRows
from dubito.monitoring.observing import observe
from dubito.serving.overflow import decided, flagged, warn_of_overflow
from dubito.serving.worker import Check
from dubito_nn import Manifest

_ON_REQUEST = "samples"
METHOD_USED = "method_used"
_STRANGE, _MOST = 0.05, 0.5
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
    if _ON_REQUEST in (names or ()) and sampling.method in ("moments", "distilled"):
        raise InputError(
            f"method `{sampling.method}` makes no masked passes: for `samples` use method `mc`"
        )
    whose = (METHOD_USED,) if sampling.method == "distilled" else ()
    known = (*head_of(manifest).outputs, *whose, _ON_REQUEST)
    unknown = [name for name in names or () if name not in known]
    if unknown or (names is not None and not names):
        raise InputError(
            f"`outputs` of a {manifest.head} head: expected some of {', '.join(known)}, "
            f"got {', '.join(unknown)[:160] or 'none'}: correct the names or leave `outputs` out"
        )


@dataclass(frozen=True, eq=False)
class Computed:
    """What the network makes of rows.

    Args:
        prediction: of the rows.
        features: (B, F) of them, where they were asked for.
    """

    prediction: Prediction
    features: NDArray[np.floating] | None

    def cut(self, part: range) -> Computed:
        """What was made of some neighbouring rows."""
        features = self.features
        own = None if features is None else features[part.start : part.stop].copy()
        return Computed(part_of(self.prediction, part), own)

    def joined(self, others: Sequence[Computed]) -> Computed:
        """What was made of these rows and then of others."""
        parts = [self, *others]
        features = [part.features for part in parts if part.features is not None]
        return Computed(
            in_one([part.prediction for part in parts]),
            np.concatenate(features) if features else None,
        )


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a prediction is asked for, and what the network has to make for that.

    Args:
        order: coverage, names of the outputs.
        network: of the version, or of several.
        sampling: what to draw.
        calibration: that covers the prediction; None: raw figures.
        warnings: of all that is known before the rows are.
        may_keep_samples: whether all passes may be kept for `quantiles`.
    """

    order: PredictOrder
    network: Network
    sampling: Sampling
    calibration: Calibration | None
    warnings: tuple[str, ...]
    may_keep_samples: bool

    @classmethod
    def begin(
        cls,
        order: PredictOrder,
        network: Network,
        sampling: Sampling,
        calibration: Calibration | None,
        *,
        may_keep_samples: bool,
    ) -> Outputs:
        """See which calibration covers what is asked.

        Args:
            order: coverage, names of the outputs.
            network: of the version, or of several.
            sampling: what to draw.
            calibration: the active one, if it shall be used.
            may_keep_samples: whether all passes are few enough to keep them for `quantiles`.
        """
        manifests = [member.manifest for member in network.members]
        lines = [one.injection_warning for one in manifests]
        if sampling.method == "point":
            lines += [one.certainty_warning for one in manifests]
        warnings = list(dict.fromkeys(line for line in lines if line is not None))
        applied = covering(order.calibration, sampling, calibration, warnings)
        may_keep = may_keep_samples and sampling.tolerance is None
        return cls(order, network, sampling, applied, tuple(warnings), may_keep)

    @cached_property
    def keeps_samples(self) -> bool:
        """Whether every pass is returned as well."""
        is_asked = _ON_REQUEST in self._names
        return is_asked or (self.may_keep_samples and self._head.needs_passes(self._names))

    @cached_property
    def takes_features(self) -> bool:
        """Whether the features of the rows are returned as well."""
        is_scored = self._is_observed or not _SCORED.isdisjoint(self._names)
        return is_scored and needs_features(self.calibration, self.network)

    def kind(self, shape: tuple[object, ...]) -> Hashable:
        """What is equal where rows may be computed together.

        Args:
            shape: of one row of every input.
        """
        scaling = None if self.calibration is None else id(self.calibration)
        kept = scaling, self.keeps_samples, self.takes_features, self._made
        return self.network.members, self.sampling, kept, shape

    def compute(self, inputs: Mapping[str, Tensor], check: Check) -> Computed:
        """Run the network.

        Args:
            inputs: checked rows.
            check: called between chunks.
        """
        network = self.network
        everything = partial(network.predict, outputs=self._made)
        ask = network.predict_with_features if self.takes_features else everything
        answer = ask(
            dict(inputs),
            sampling=self.sampling,
            temperature=self._head.logit_scaling,
            keep_samples=self.keeps_samples,
            check=check,
        )
        if isinstance(answer, tuple):
            return Computed(answer[0], answer[1].float().numpy())
        return Computed(answer, None)

    def build(self, inputs: Mapping[str, Tensor], computed: Computed) -> Built:
        """Make the columns that are asked for.

        Args:
            inputs: checked rows.
            computed: of these.
        """
        warnings, head, applied = list(self.warnings), self._head, self.calibration
        prediction, sampling = computed.prediction, self.sampling
        uniform_B = draws_of(inputs, sampling.seed) if head.is_randomised else np.zeros(0)
        request = Request(self.order.coverage, computed.features, uniform_B, warnings)
        served = head.served(prediction, request)
        columns = served.columns() | _shared_columns(prediction, served, applied)
        outputs = {name: columns[name]() for name in self._names if name != METHOD_USED}
        if sampling.method == "distilled":
            outputs[METHOD_USED] = _methods(prediction)
            warnings.extend(_unlike(prediction, sampling))
        warn_of_overflow({"mean": prediction.mean, **outputs}, warnings)
        varies = served.varies if sampling.method == "mc" else None
        is_kept = applied is not None and self._is_observed
        observed = observe(served, applied) if is_kept and applied is not None else None
        return Built(outputs, tuple(warnings), varies, applied, observed)

    @cached_property
    def _head(self) -> Head:
        applied = self.calibration
        return head_of(self.network.manifest) if applied is None else applied.head

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.order.outputs or self._head.outputs)

    @property
    def _made(self) -> frozenset[str] | None:
        """Columns that are made; None: all, where others are made of them."""
        is_scored = self.calibration is not None and self._is_observed
        return None if is_scored or self.order.outputs is None else frozenset(self._names)

    @property
    def _is_observed(self) -> bool:
        return self.order.request_id is not None


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


def _methods(prediction: Prediction) -> Column:
    """Which method answered each row: passes were taken by `mc` alone."""
    return ["mc" if used > 1 else "distilled" for used in prediction.num_samples_used.tolist()]


def _unlike(prediction: Prediction, sampling: Sampling) -> list[str]:
    """A warning where most rows are none of those that the head has learned from."""
    p_value_B = prediction.fit_p_value
    if p_value_B is None or sampling.fallback is not None:
        return []
    count = int((p_value_B <= _STRANGE).sum())
    if count <= _MOST * len(p_value_B):
        return []
    return [
        f"{count} of {len(p_value_B)} rows are unlike those that fit {sampling.fit} of `distilled`"
        " learned from, and its figures for them may be far from those of the passes: ask for a"
        " `fallback`, by which `mc` answers such rows, or fit it to rows like these"
    ]


def _shared_columns(
    prediction: Prediction, served: Served, calibration: Calibration | None
) -> Columns:
    """The columns that all heads have."""
    known: list[NDArray[np.float64]] = []

    def strangeness() -> NDArray[np.float64]:
        assert calibration is not None
        if not known:
            known.append(calibration.ood_scores(served.source))
        return known[0]

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
