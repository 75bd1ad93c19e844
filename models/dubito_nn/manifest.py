"""What a bundle says of itself: task, inputs, outputs, and the table of its sites.

Its job: frozen records and their JSON, which `manifest_reader.py` reads and trusts in nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from dubito_nn.preprocess.parts import Part, written

FORMAT_VERSION = 1
MAX_CLASSES = 100_000
MAX_AXES = 16
MAX_LEVELS = 1000
MAX_TRIAL_ROWS = 16
LEVELS = (
    f"3 to {MAX_LEVELS} levels between 0 and 1 in ascending order, .5 among them with levels on"
    " both of its sides"
)

Task = Literal["classification", "multilabel", "regression", "sequence"]
Family = Literal["classification", "regression"]
Head = Literal[
    "classification",
    "multilabel",
    "dense",
    "regression",
    "dense_regression",
    "quantiles",
    "sequence",
]
Output = Literal[
    "logits",
    "log_probs",
    "probs",
    "sigmoid_logits",
    "mean",
    "mean_and_log_variance",
    "quantiles",
    "token_log_probs",
]
Distribution = Literal["bernoulli", "uniform", "normal"]
Nested: TypeAlias = "int | tuple[Nested, ...]"
Granularity = Literal["element", "channel", "token", "time", "path", "weight", "batch"]

OUTPUTS_OF: dict[Task, tuple[Output, ...]] = {
    "classification": ("logits", "log_probs", "probs", "sigmoid_logits"),
    "multilabel": ("sigmoid_logits",),
    "regression": ("mean", "mean_and_log_variance", "quantiles"),
    "sequence": ("token_log_probs",),
}
_FAMILY_OF: dict[Task, Family] = {
    "classification": "classification",
    "multilabel": "classification",
    "regression": "regression",
    "sequence": "regression",
}
_HEADS_WITH_POSITIONS: tuple[Head, ...] = ("multilabel", "dense", "dense_regression", "sequence")
WRITTEN_WHERE_USED = (
    *("class_axis", "output_axis", "quantile_levels", "trial_rows", "preprocess"),
    *("deterministic", "free_sizes"),
)
MAX_FREE_SIZE = 2**20
"""A limit on a free dimension beyond this is none."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of the network, without its first axis (the rows).

    Args:
        name: as the network's `forward` calls it.
        dtype: such as `float32` or `int64`.
        shape: of one row; a text is the name of a free dimension.
        low: least value seen in the example; integer inputs only.
        high: greatest value seen in the example; integer inputs only.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """One random operation lifted out of the network.

    Args:
        index: position in the order of execution; a key of the generator.
        operator: the `aten` operator it was.
        distribution: of ω: `bernoulli` (1 keeps), `uniform` on [0, 1) or standard `normal`.
        drop_prob: probability of dropping, as the layer states it, where known.
        learned: whether `drop_prob` was learned in training.
        shape: of one draw, without the rows.
        granularity: what one number of ω acts on.
        module_path: the module whose call rolled the dice.
        batch_dim: axis that holds the rows; None where all rows share the draw by nature.
        rows_outer: on that axis, rows vary slowest (row x k) or fastest (k x row).
        keep_prob: P(ω = 1) of a Bernoulli draw where it is not 1 - drop_prob, as for DropBlock,
            where one draw drops a whole block; else None.
    """

    index: int
    operator: str
    distribution: Distribution
    drop_prob: float | None
    learned: bool
    shape: tuple[int | str, ...]
    granularity: Granularity
    module_path: str
    batch_dim: int | None
    rows_outer: bool = True
    keep_prob: float | None = None

    @property
    def bernoulli_mean(self) -> float:
        """P(ω = 1) of a Bernoulli draw."""
        assert self.drop_prob is not None
        return 1 - self.drop_prob if self.keep_prob is None else self.keep_prob


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Args:
        task: `classification`, `multilabel` (independent yes-or-no labels), `regression` or
            `sequence` (log-probabilities of given tokens).
        output: what the numbers of the output are; declared, never guessed.
        inputs: the network's inputs.
        num_outputs: C classes, L labels or D outputs; of a sequence 1.
        sites: the random operations, in order of execution.
        torch_version: of the exporting machine.
        classes: names of the C classes or L labels; None for regression and sequences.
        target_scale: means and standard deviations (D each) that take a standardised target back.
        features: module whose output is the feature vector, if one was named.
        injected: module paths whose dropout was set or added at export.
        notes: the exporter's own words.
        warnings: what the export noticed.
        digests: SHA-256 of the other entries by name.
        format_version: of the bundle.
        class_axis: axis of the classes, the rows being axis 0, in an output that has a class at
            every position; None: one distribution for each row.
        output_axis: axis of the outputs, the rows being axis 0, in a mean or a log-variance that
            has numbers at every position; None: one distribution for each row.
        quantile_levels: of the Q quantiles of every output, in ascending order; None for every
            other head.
        trial_rows: rows of the inputs of integers and truth values to try the network with, by
            input, where it takes no made-up ones; as nested tuples, or None.
        preprocess: what makes the inputs of rows as people have them; None: rows are sent as the
            network reads them.
        deterministic: that nothing in it is random.
        free_sizes: least and most of each free dimension that has limits; None: none has.
    """

    task: Task
    output: Output
    inputs: tuple[InputSpec, ...]
    num_outputs: int
    sites: tuple[Site, ...]
    torch_version: str
    classes: tuple[str, ...] | None = None
    target_scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    features: str | None = None
    injected: tuple[str, ...] = ()
    notes: str | None = None
    warnings: tuple[str, ...] = ()
    digests: Mapping[str, str] | None = None
    format_version: int = FORMAT_VERSION
    class_axis: int | None = None
    output_axis: int | None = None
    quantile_levels: tuple[float, ...] | None = None
    trial_rows: Mapping[str, Nested] | None = None
    preprocess: tuple[Part, ...] | None = None
    deterministic: Literal[True] | None = None
    free_sizes: Mapping[str, tuple[int, int]] | None = None

    def to_json(self) -> dict[str, object]:
        """The manifest as plain JSON values; what later builds added only where it is used."""
        parts = None if self.preprocess is None else written(self.preprocess)
        return {
            key: value
            for key, value in {**asdict(self), "preprocess": parts}.items()
            if value is not None or key not in WRITTEN_WHERE_USED
        }

    @property
    def head(self) -> Head:
        """What one row's outputs say, which decides all that differs between kinds of networks.

        `classification`: one of C classes; `multilabel`: which of L labels are on; `dense`: a class
        at every position; `regression`: D numbers; `dense_regression`: D numbers at every position;
        `quantiles`: Q quantiles of each of D numbers; `sequence`: how likely given tokens are.
        """
        if self.quantile_levels is not None:
            return "quantiles"
        if self.output_axis is not None:
            return "dense_regression"
        return self.task if self.class_axis is None else "dense"

    @property
    def family(self) -> Family:
        """Whether the network speaks of classes or of numbers."""
        return _FAMILY_OF[self.task]

    @property
    def has_positions(self) -> bool:
        """Whether a row has several distributions: one for each label, position or token."""
        return self.head in _HEADS_WITH_POSITIONS

    @property
    def channel_axis(self) -> int | None:
        """Axis of the classes or outputs where a row has positions, which are its other axes.

        The rows are axis 0. Of a `mean_and_log_variance` it is counted without the axis of the
        pair, as in the mean alone.
        """
        return self.class_axis if self.output_axis is None else self.output_axis

    @property
    def default_method(self) -> Literal["mc", "point"]:
        """How it is asked where nobody says how: `point` where nothing in it is random."""
        return "point" if self.deterministic else "mc"

    @property
    def certainty_warning(self) -> str | None:
        """What a reader of method `point` must know where nothing in the network is random."""
        if not self.deterministic:
            return None
        return (
            "the network was exported as deterministic: one pass, whose figures hold no epistemic"
            " uncertainty; a fit of `laplace` gives it one"
        )

    @property
    def injection_warning(self) -> str | None:
        """What a reader of the spread must know where dropout was set or added at export."""
        if not self.injected:
            return None
        where = named_modules([f"`{path}`" for path in self.injected])
        return (
            f"dropout injected at export: {where}: the network was not trained with it, so its"
            " spread is no posterior's; calibrate before you rely on it"
        )


def named_modules(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def are_levels(levels: Sequence[float]) -> bool:
    """Whether numbers can be the levels of a head of quantiles; `LEVELS` says it in words."""
    return (
        3 <= len(levels) <= MAX_LEVELS
        and all(0 < level < 1 for level in levels)
        and all(low < high for low, high in pairwise(levels))
        and 0.5 in levels[1:-1]
    )
