"""Several networks as one: the mixture of their masked passes.

Its job: ask every member for the same rows and merge the answers (`heads/mixture.py`). Every member
counts the same.

Member k draws with seed + k, so that the members' Monte Carlo errors are independent, which with
the same masks they would not be.

Dimensions: M members, T samples, B rows, C classes, D outputs.
Source: Lakshminarayanan, Pritzel, Blundell 2017, arXiv:1612.01474.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.inputs import Inputs
from dubito.engine.calling.prediction import Prediction
from dubito.engine.calling.sampling import SEED_LIMIT, Sampling
from dubito.engine.engine import Engine
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
                (f"member {number}", member.manifest, member.bundle.digest)
                for number, member in enumerate(self.members, start=1)
            ]
        )
        precisions = sorted({member.defaults.precision for member in self.members})
        if len(precisions) > 1:
            raise InputError(
                f"members of an ensemble expect the same precision, got {' and '.join(precisions)}:"
                " choose members that agree in it"
            )

    @property
    def manifest(self) -> Manifest:
        """What the members agree on, as the first one says it."""
        return self.members[0].manifest

    @property
    def device(self) -> torch.device:
        """Device that the first member runs on."""
        return self.members[0].device

    @property
    def shares_features(self) -> bool:
        """Whether a row has one feature vector: no, members have none in common."""
        return False

    def drawn(self, sampling: Sampling) -> list[tuple[Engine, Sampling]]:
        """Return every member with its own sampling."""
        return [(member, _of_engine(member, sampling, k)) for k, member in enumerate(self.members)]

    def with_members(self, members: Sequence[Engine]) -> Ensemble:
        """Return an ensemble of other engines."""
        return Ensemble(tuple(members))

    def read_inputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Check rows against the members' inputs."""
        return self.members[0].read_inputs(inputs)

    def position_shape(self, rows: Mapping[str, Tensor] | None = None) -> tuple[int, ...]:
        """The axes of positions of a row; as of `Engine.position_shape`."""
        return self.members[0].position_shape(rows)

    def numbers_per_row(self, rows: Mapping[str, Tensor] | None = None) -> int:
        """Probabilities, or means, that one pass of one member makes of one row."""
        return self.members[0].numbers_per_row(rows)

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
        """Mean, spread and measures over all passes of all members.

        Args:
            inputs: rows first.
            sampling: of every member, T passes each; member k adds k to the seed.
            temperature: as of `Engine.predict`; classification only.
            keep_samples: return every pass as well, one member after the other.
            check: called between chunks; whatever it raises ends the prediction.
            outputs: that are wanted; all are made, since a mixture needs the members' spread.

        Raises:
            InputError: for rows that the networks do not take, or a temperature not above 0.
        """
        sampling, rows = self._sampling(sampling), self.read_inputs(inputs)
        answers = [
            member.predict(
                rows,
                sampling=member_sampling,
                temperature=temperature,
                keep_samples=keep_samples,
                check=check,
            )
            for member, member_sampling in self.drawn(sampling)
        ]
        head = self.members[0].head
        return head.prediction(head.mixed(answers), sampling)

    def sample(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        check: Check | None = None,
    ) -> Tensor:
        """The declared outputs of all passes of all members, one member after the other.

        Args:
            inputs: rows first.
            sampling: of every member, T passes each; member k adds k to the seed.
            check: called between chunks; whatever it raises ends the sampling.

        Returns:
            Shape (M · T, B, ...), on the CPU.

        Raises:
            InputError: for rows that the networks do not take, or where one pass of a member means
                something else than that of another, since their targets are scaled otherwise.
        """
        if len({member.manifest.target_scale for member in self.members}) > 1:
            raise InputError(
                "passes of several networks expect one `target_scale`, got several: sample each"
                " member alone"
            )
        rows = self.read_inputs(inputs)
        passes = [
            member.sample(rows, sampling=member_sampling, check=check)
            for member, member_sampling in self.drawn(self._sampling(sampling))
        ]
        return torch.cat(passes)

    def predict_with_features(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        temperature: Scaling = 1.0,
        keep_samples: bool = False,
        check: Check | None = None,
    ) -> tuple[Prediction, Tensor]:
        """No features: see `features`.

        Raises:
            InputError: always.
        """
        raise _no_features()

    def feature_maps(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """No features: see `features`.

        Raises:
            InputError: always.
        """
        raise _no_features()

    def features(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """No feature vector: members have none in common.

        Raises:
            InputError: always.
        """
        raise _no_features()

    def _sampling(self, sampling: Sampling | None) -> Sampling:
        return replace(sampling or self.members[0].defaults, method="ensemble")


def _no_features() -> InputError:
    return InputError(
        "features expect one network, got an ensemble, whose members have none in common:"
        " choose one version"
    )


def of_member(sampling: Sampling, k: int) -> Sampling:
    """How member k of an ensemble is drawn, counted from 0."""
    return replace(sampling, method="mc", seed=(sampling.seed + k) % SEED_LIMIT)


def _of_engine(member: Engine, sampling: Sampling, k: int) -> Sampling:
    """How it is drawn; one without randomness goes through its one pass."""
    drawn = of_member(sampling, k)
    if member.manifest.deterministic:
        return replace(drawn, method="point", num_samples=1, sites="all")
    return drawn


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
        for fact, theirs, wanted in _facts(other, manifest):
            if theirs != wanted:
                raise InputError(
                    f"members of an ensemble expect the same {fact}, got {wanted} in {first} and "
                    f"{theirs} in {name}: choose members that agree in it"
                )
        same = [known for known, _, seen in members[:at] if digest is not None and seen == digest]
        if same:
            raise InputError(
                f"members of an ensemble expect different networks, got the same one as {same[0]} "
                f"and {name}: name it once"
            )


def _facts(other: Manifest, first: Manifest) -> list[tuple[str, object, object]]:
    """What members must agree on: name, of this one, of the first."""
    inputs, first_inputs = (
        [(spec.name, spec.dtype, spec.shape) for spec in manifest.inputs]
        for manifest in (other, first)
    )
    return [
        ("task", other.task, first.task),
        ("output", other.output, first.output),
        ("axis of the classes", other.class_axis, first.class_axis),
        ("axis of the outputs", other.output_axis, first.output_axis),
        ("quantile levels", other.quantile_levels, first.quantile_levels),
        ("number of outputs", other.num_outputs, first.num_outputs),
        ("classes", other.classes, first.classes),
        ("inputs", inputs, first_inputs),
        ("preprocess", other.preprocess, first.preprocess),
    ]
