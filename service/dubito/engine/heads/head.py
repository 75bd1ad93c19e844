"""What every kind of head can do: raw passes → parts → sums → figures → a prediction.

Its job: name what the engine asks of a head, so that what an output means is decided once, by
`head_of`, and a new kind is one new file. What a head does not say of itself is that of one
distribution per row.

    raw     declared outputs of some passes, (T, B, ...)
    parts   what is summed: two arrays a head, in float64, samples first
    sums    running sums over the passes, by name, rows first
    columns the figures of a prediction, by name, rows first

Dimensions: T samples, B rows, P positions, C classes, D outputs, N fixed points of `moments`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from dubito.engine.calling.columns import Columns, Sums
from dubito.engine.calling.prediction import Prediction
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.scaling import Scaling, check_scaling
from dubito.engine.laplace.last_map import check_head
from dubito.engine.moments import OutputMoments
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.statistics import RunningSums
from dubito.errors import InputError
from dubito_nn import Manifest

Shape: TypeAlias = tuple[int, ...]


class MomentFigures(Protocol):
    """What a head makes of the moments of its outputs."""

    def passes(self, moments: OutputMoments) -> Tensor:
        """Declared outputs with these moments, (N, B, ...), which stand in for passes."""

    def columns(
        self, moments: OutputMoments, scaling: Scaling, *, keep_nodes: bool
    ) -> dict[str, Tensor]:
        """The columns of a prediction.

        Args:
            moments: of the declared outputs.
            scaling: on the logits of every node; classes only.
            keep_nodes: whether to return the nodes as `samples`.
        """


@dataclass(frozen=True)
class OutputHead(ABC):
    """What the outputs of one network mean.

    Args:
        manifest: what the bundle declares.
    """

    manifest: Manifest

    sample_names: ClassVar[tuple[str, ...]] = ("samples",)
    """Columns that keep every pass, in the order of the parts; their first axis is T."""
    lean_columns: ClassVar[frozenset[str]] = frozenset()
    """Columns for which no spread over the passes is needed, by their names in a reply."""
    spread_columns: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Those that are left out where only `lean_columns` are wanted, with one of the same shape."""
    has_probabilities: ClassVar[bool] = True
    """Whether a tolerance is one of probabilities."""

    @property
    def moments(self) -> MomentFigures | None:
        """What the head makes of propagated moments; None: it cannot."""
        return None

    @property
    def per_position(self) -> int:
        """Numbers that one pass says of each position of a row, or of a row without positions."""
        return self.manifest.num_outputs

    @property
    @abstractmethod
    def is_curved(self) -> bool:
        """Whether a mean is a function of several sums of units (`dubito.engine.additivity`)."""

    @abstractmethod
    def expected_output(self, rows: int, output_shape: Shape) -> Shape | None:
        """The shape that the manifest states for some rows; None where no such shape will do.

        Args:
            rows: how many.
            output_shape: as it is, from which axes of positions are taken.
        """

    def position_shape(self, output_shape: Callable[[], Shape]) -> Shape:
        """The axes of positions of a row; () for one distribution per row.

        Args:
            output_shape: finds the shape of the declared output of some rows.
        """
        return ()

    def sum_bytes(self, output_shape: Shape, *, is_lean: bool) -> int:
        """Bytes that the sums of one row take; 0 where they count for nothing.

        Args:
            output_shape: of the declared output of some rows.
            is_lean: only `lean_columns` are wanted.
        """
        return 0

    def check_method(self, method: str) -> None:
        """Refuse a method of which the head makes nothing, and masks where there are none.

        Raises:
            InputError: naming the remedy.
        """
        if self.manifest.deterministic and method in ("mc", "moments", "distilled"):
            raise InputError(
                f"method `{method}` expects a network with randomness, got one that was exported as"
                " deterministic: fit `laplace` and ask for that, export again with dropout injected"
                " (drop_prob={pattern: p}), or name several versions as `members` of an `ensemble`"
            )
        if method in ("laplace", "distilled"):
            check_head(self.manifest, method)
        if method == "moments" and self.moments is None:
            raise InputError(
                f"method `moments` expects a head that is made of mean and variance, got a"
                f" {self.manifest.head} head: use `mc`"
            )

    def check_scaling(self, scaling: object) -> None:
        """Refuse what cannot scale the logits of this head.

        Raises:
            InputError: naming the remedy.
        """
        check_scaling(scaling, self.manifest.num_outputs)

    @abstractmethod
    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        """What is summed, of some passes after the others."""

    @abstractmethod
    def before_link(self, raw: Tensor) -> Tensor:
        """The outputs on the scale where they are nearly normal: logits, or target units."""

    @abstractmethod
    def sums(self, left: float | None, scaling: Scaling, device: torch.device) -> RunningSums:
        """Empty sums.

        Args:
            left: what a stratified draw leaves; None for `iid`.
            scaling: of each pass's logits; classes only.
            device: where the passes are.
        """

    def columns_at_once(
        self, raw: Tensor, left: float | None, scaling: Scaling, *, is_lean: bool
    ) -> Columns | None:
        """The columns of passes that are few and all there; None: they are to be summed first.

        Args:
            raw: declared outputs of all passes.
            left: what a stratified draw leaves; None for `iid`.
            scaling: of each pass's logits; classes only.
            is_lean: `lean_columns` alone.
        """
        return None

    def lean_sums(self, scaling: Scaling, device: torch.device) -> RunningSums:
        """Empty sums of `lean_columns` alone; all sums where there are no smaller ones."""
        return self.sums(None, scaling, device)

    @abstractmethod
    def figures(self, sums: Sums, draws: Draws) -> Columns:
        """Sums, on the host, as columns."""

    @abstractmethod
    def mixed(self, answers: Sequence[Prediction]) -> Columns:
        """The columns of a mixture of equally weighted networks, for the same rows."""

    @abstractmethod
    def prediction(self, columns: Columns, sampling: Sampling) -> Prediction:
        """Columns as an answer; figures per position become those of the row as well."""
