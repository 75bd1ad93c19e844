"""What can be asked: one engine, or several that answer as one.

Its job: name what callers need of a network, so that nobody asks which of the two it is; and give
the view of a network whose every call waits its turn.

Dimensions: T samples, B rows, C classes, D outputs, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.inputs import Inputs
from dubito.engine.calling.prediction import Prediction
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.scaling import Scaling
from dubito_nn import Manifest

if TYPE_CHECKING:
    from dubito.engine.engine import Engine

T = TypeVar("T")


class Network(Protocol):
    """One engine, or several that answer as one."""

    @property
    def manifest(self) -> Manifest:
        """What the network says of itself; of several, what they agree on."""

    @property
    def members(self) -> tuple[Engine, ...]:
        """The engines that answer, as many as a row goes through."""

    @property
    def device(self) -> torch.device:
        """Device that the network runs on; of several members, that of the first."""

    @property
    def shares_features(self) -> bool:
        """Whether a row has one feature vector, where it has any."""

    def drawn(self, sampling: Sampling) -> list[tuple[Engine, Sampling]]:
        """Return every member with its own sampling."""

    def with_members(self, members: Sequence[Engine]) -> Network:
        """Return the same kind of network made of other engines, as many."""

    def read_inputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Check rows against the network's inputs."""

    def position_shape(self, rows: Mapping[str, Tensor] | None = None) -> tuple[int, ...]:
        """The axes of positions of a row."""

    def numbers_per_row(self, rows: Mapping[str, Tensor] | None = None) -> int:
        """Probabilities, or means, that one pass makes of one row."""

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
        """Mean, spread and measures over all passes of all members."""

    def sample(
        self, inputs: Inputs, *, sampling: Sampling | None = None, check: Check | None = None
    ) -> Tensor:
        """The declared outputs of all passes, one member after the other, (T, B, ...)."""

    def predict_with_features(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        temperature: Scaling = 1.0,
        keep_samples: bool = False,
        check: Check | None = None,
    ) -> tuple[Prediction, Tensor]:
        """What `predict` and `feature_maps` return, where passes make them no pass more."""

    def features(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """The feature vector of each row, (B, F)."""

    def feature_maps(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """The features of each row as the network has them, (B, ...)."""


def num_values(
    network: Network, sampling: Sampling, rows: int, inputs: Mapping[str, Tensor] | None = None
) -> int:
    """Numbers that all passes over some rows make.

    Args:
        network: one, or several.
        sampling: how many passes.
        rows: how many.
        inputs: rows of the same shape; None: as made-up rows are.
    """
    per_row = network.numbers_per_row(inputs)
    return rows * per_row * sampling.num_returned * len(network.members)


class Turns(Protocol):
    """Runs tasks when their turn has come, each with a check that gives way to what is urgent."""

    def __call__(self, task: Callable[[Check], T], /) -> T:
        """Return what the task returns."""


@dataclass(frozen=True, eq=False)
class Behind:
    """A network whose every call waits its turn; what needs no device is answered at once.

    The check of a call is not called: turns have their own.

    Args:
        network: that is asked.
        turns: run its calls.
    """

    network: Network
    turns: Turns

    @property
    def manifest(self) -> Manifest:
        """Manifest of the network."""
        return self.network.manifest

    @property
    def members(self) -> tuple[Engine, ...]:
        """Members of the network, which do not wait."""
        return self.network.members

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.network.device

    @property
    def shares_features(self) -> bool:
        """Whether a row of the network has one feature vector, where it has any."""
        return self.network.shares_features

    def drawn(self, sampling: Sampling) -> list[tuple[Engine, Sampling]]:
        """Return the members of the network, which do not wait, each with its sampling."""
        return self.network.drawn(sampling)

    def with_members(self, members: Sequence[Engine]) -> Behind:
        """Return a network of other engines, which wait their turn as well."""
        return Behind(self.network.with_members(members), self.turns)

    def read_inputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Check rows at once."""
        return self.network.read_inputs(inputs)

    def position_shape(self, rows: Mapping[str, Tensor] | None = None) -> tuple[int, ...]:
        """Return the axes of positions of a row at once."""
        return self.network.position_shape(rows)

    def numbers_per_row(self, rows: Mapping[str, Tensor] | None = None) -> int:
        """Return the numbers that one pass makes of one row at once."""
        return self.network.numbers_per_row(rows)

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
        """Predict when its turn has come."""
        return self.turns(
            lambda turn_check: self.network.predict(
                inputs,
                sampling=sampling,
                temperature=temperature,
                keep_samples=keep_samples,
                check=turn_check,
                outputs=outputs,
            )
        )

    def sample(
        self, inputs: Inputs, *, sampling: Sampling | None = None, check: Check | None = None
    ) -> Tensor:
        """Sample when its turn has come."""
        return self.turns(
            lambda turn_check: self.network.sample(inputs, sampling=sampling, check=turn_check)
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
        """Predict when its turn has come."""
        return self.turns(
            lambda turn_check: self.network.predict_with_features(
                inputs,
                sampling=sampling,
                temperature=temperature,
                keep_samples=keep_samples,
                check=turn_check,
            )
        )

    def features(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """Compute features when its turn has come."""
        return self.turns(lambda turn_check: self.network.features(inputs, check=turn_check))

    def feature_maps(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """Compute features when its turn has come."""
        return self.turns(lambda turn_check: self.network.feature_maps(inputs, check=turn_check))
