"""Several networks as one: the mixture of their masked passes.

Its job: ask every member for the same rows and merge the answers. Every member counts the same.

    mean       1/M Σ_m mean_m
    variance   1/M Σ_m variance_m + 1/M Σ_m (mean_m - mean)²     law of total variance, ddof = 0
    entropy    H[mean] = 1/M Σ_m expected_m + mutual information, within and between members
    error      √(Σ_m error_m²) / M: the members are given, their draws are independent

The corrected mutual information adds what M·T passes take from H[mean] on average, to second order:
½ Σ_c error_c² / mean_c.

Member k draws with seed + k, so that the members' Monte Carlo errors are independent, which with
the same masks they would not be.

Dimensions: M members, T samples, B rows, C classes, D outputs.
Source: Lakshminarayanan, Pritzel, Blundell 2017, arXiv:1612.01474; Miller 1955 for the correction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import entr
from torch import Tensor

from dubito import ties
from dubito.engine.calling.columns import Column
from dubito.engine.calling.inputs import Inputs
from dubito.engine.calling.prediction import Classification, Prediction, Regression, folded
from dubito.engine.calling.sampling import SEED_LIMIT, Sampling
from dubito.engine.engine import Engine
from dubito.engine.heads.positions import position_shape
from dubito.engine.heads.scaling import Scaling
from dubito.errors import InputError
from dubito_nn import Manifest

MAX_MEMBERS = 16


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Loaded networks that answer together.

    Args:
        members: 2 to 16 engines that take the same inputs and give the same outputs.

    Raises:
        InputError: too few or too many, one twice, or members that do not agree.
    """

    members: tuple[Engine, ...]

    def __post_init__(self) -> None:
        check_members(range(1, len(self.members) + 1))
        check_agreement(
            [
                (f"member {place}", member.manifest, member.bundle.digest)
                for place, member in enumerate(self.members, start=1)
            ]
        )

    @property
    def manifest(self) -> Manifest:
        """What the members agree on, as the first one says it."""
        return self.members[0].manifest

    def read_inputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Check rows against the members' inputs."""
        return self.members[0].read_inputs(inputs)

    def predict(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        temperature: Scaling = 1.0,
        keep_samples: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Prediction:
        """Mean, spread and measures over all passes of all members.

        Args:
            inputs: rows first.
            sampling: of every member, T passes each; member k adds k to the seed.
            temperature: as of `Engine.predict`; classification only.
            keep_samples: return every pass as well, one member after the other.
            check: called between chunks; whatever it raises ends the prediction.

        Raises:
            InputError: for rows that the networks do not take, or a temperature not above 0.
        """
        sampling = replace(sampling or self.members[0].defaults, method="ensemble")
        read = self.read_inputs(inputs)
        answers = [
            member.predict(
                read,
                sampling=of_member(sampling, place),
                temperature=temperature,
                keep_samples=keep_samples,
                check=check,
            )
            for place, member in enumerate(self.members)
        ]
        return mixture(answers, sampling)


def of_member(sampling: Sampling, place: int) -> Sampling:
    """How the member at a place of an ensemble is drawn."""
    return replace(sampling, method="mc", seed=(sampling.seed + place) % SEED_LIMIT)


def numbers_per_row(network: Engine | Ensemble, rows: Mapping[str, Tensor] | None = None) -> int:
    """Probabilities, or means, that one pass makes of one row.

    Args:
        network: one, or several.
        rows: of the shape in question; None: as made-up rows are.
    """
    manifest = network.manifest
    if manifest.class_axis is None:
        return manifest.num_outputs
    engine = network.members[0] if isinstance(network, Ensemble) else network
    shape = position_shape(engine.bundle, engine.made_up_rows() if rows is None else rows)
    return manifest.num_outputs * int(np.prod(shape))


def check_members(members: Sequence[int]) -> None:
    """Refuse too few or too many members, or one twice.

    Args:
        members: numbers of the versions.

    Raises:
        InputError: naming what is wrong.
    """
    if not 2 <= len(members) <= MAX_MEMBERS:
        raise InputError(
            f"`members` expects 2 to {MAX_MEMBERS} versions, got {len(members)}: name as many"
        )
    twice = sorted({number for number in members if list(members).count(number) > 1})
    if twice:
        raise InputError(
            f"`members` expects different versions, got {', '.join(map(str, twice))} more than"
            " once: name each once"
        )


def check_agreement(members: Sequence[tuple[str, Manifest, str | None]]) -> None:
    """Refuse networks that do not answer the same question, or one twice.

    Args:
        members: what to call each, its manifest, and the digest of its bundle.

    Raises:
        InputError: naming the two that do not agree, and in what.
    """
    (first, manifest, _), *others = members
    for at, (name, other, digest) in enumerate(others, start=1):
        for fact, own, wanted in _facts(other, manifest):
            if own != wanted:
                raise InputError(
                    f"members of an ensemble expect the same {fact}, got {wanted} in {first} and "
                    f"{own} in {name}: choose members that agree in it"
                )
        same = [known for known, _, seen in members[:at] if digest is not None and seen == digest]
        if same:
            raise InputError(
                f"members of an ensemble expect different networks, got the same one as {same[0]} "
                f"and {name}: name it once"
            )


def mixture(answers: Sequence[Prediction], sampling: Sampling) -> Prediction:
    """The prediction of equally weighted members.

    Args:
        answers: of the members, for the same rows, all of one task.
        sampling: stated in the result.
    """
    shared = {
        "mean": _mean([one.mean for one in answers]),
        "standard_error": _error([one.standard_error for one in answers]),
        "num_samples_used": np.sum([one.num_samples_used for one in answers], axis=0),
        "samples": _joined([one.samples for one in answers]),
    }
    regressions = [one for one in answers if isinstance(one, Regression)]
    if regressions:
        return _regression(regressions, sampling, shared)
    return _classification(
        [one for one in answers if isinstance(one, Classification)], sampling, shared
    )


def _classification(
    answers: Sequence[Classification], sampling: Sampling, shared: Mapping[str, Column]
) -> Classification:
    mean_BC, positions = shared["mean"], answers[0].positions
    each = [one.positions or one for one in answers]
    expected_B = _mean([one.expected_entropy for one in each])
    # by concavity; rounding must not undo it
    predictive_B = np.maximum(entr(mean_BC).sum(-1), expected_B)
    error_BC = shared["standard_error"]
    bias_BC = np.divide(error_BC**2, 2 * mean_BC, out=np.zeros_like(mean_BC), where=mean_BC > 0)
    vote_share_BC = _mean([one.vote_share for one in answers])
    measures = {
        "predictive_entropy": predictive_B,
        "expected_entropy": expected_B,
        "mutual_information": predictive_B - expected_B,
        "mutual_information_corrected": predictive_B - expected_B + bias_BC.sum(-1),
        # a pass that overflowed votes for nothing
        "variation_ratio": 1 - vote_share_BC.max(-1) + 0 * expected_B,
    }
    return Classification(
        sampling=sampling,
        classes=answers[0].classes,
        label_index=ties.most_probable(mean_BC),
        variance=_variance([one.variance for one in answers], [one.mean for one in answers]),
        vote_share=vote_share_BC,
        **(measures if positions is None else folded(measures, positions.head)),
        energy=_mean([one.energy for one in answers]),
        energy_spread=np.sqrt(
            _variance([one.energy_spread**2 for one in answers], [one.energy for one in answers])
        ),
        max_logit=_mean([one.max_logit for one in answers]),
        **shared,  # type: ignore[arg-type]
    )


def _regression(
    answers: Sequence[Regression], sampling: Sampling, shared: Mapping[str, Column]
) -> Regression:
    epistemic_BD = _variance(
        [one.epistemic_variance for one in answers], [one.mean for one in answers]
    )
    aleatoric_BD = _mean([one.aleatoric_variance for one in answers])
    return Regression(
        sampling=sampling,
        variance=epistemic_BD + aleatoric_BD,
        epistemic_variance=epistemic_BD,
        aleatoric_variance=aleatoric_BD,
        noise_samples=_joined([one.noise_samples for one in answers]),
        **shared,  # type: ignore[arg-type]
    )


def _mean(columns: Sequence[Column]) -> Column:
    mean: Column = np.mean(columns, axis=0)
    return mean


def _variance(variances: Sequence[Column], means: Sequence[Column]) -> Column:
    total: Column = np.mean(variances, axis=0) + np.var(means, axis=0)
    return total


def _error(errors: Sequence[Column]) -> Column:
    error: Column = np.sqrt(np.sum(np.square(errors), axis=0)) / len(errors)
    return error


def _joined(samples: Sequence[Column | None]) -> Column | None:
    kept = [one for one in samples if one is not None]
    return np.concatenate(kept) if kept else None


def _facts(other: Manifest, first: Manifest) -> list[tuple[str, object, object]]:
    """What members must agree on: name, of this one, of the first."""
    own, wanted = (
        [(spec.name, spec.dtype, spec.shape) for spec in one.inputs] for one in (other, first)
    )
    return [
        ("task", other.task, first.task),
        ("output", other.output, first.output),
        ("axis of the classes", other.class_axis, first.class_axis),
        ("number of outputs", other.num_outputs, first.num_outputs),
        ("classes", other.classes, first.classes),
        ("inputs", own, wanted),
    ]
