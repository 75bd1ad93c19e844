"""What a bundle says of itself: task, inputs, outputs, and the table of its sites.

Its job: frozen records, their JSON, and a reader that trusts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, TypeVar, get_args

import torch

from dubito_nn.errors import BundleError
from dubito_nn.program import DTYPES

FORMAT_VERSION = 1
MAX_SITES = 10_000
MAX_CLASSES = 100_000
MAX_TEXT = 10_000
_NO_TEXT = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f\\ud800-\\udfff]")
_SIZE = re.compile(r"[A-Za-z0-9_ ()+*/-]{1,200}")

Task = Literal["classification", "multilabel", "regression"]
Head = Literal["classification", "multilabel", "dense", "regression"]
Output = Literal["logits", "log_probs", "probs", "sigmoid_logits", "mean", "mean_and_log_variance"]
Distribution = Literal["bernoulli", "uniform", "normal"]
Granularity = Literal["element", "channel", "token", "time", "path", "weight", "batch"]

OUTPUTS_OF: dict[str, tuple[str, ...]] = {
    "classification": ("logits", "log_probs", "probs", "sigmoid_logits"),
    "multilabel": ("sigmoid_logits",),
    "regression": ("mean", "mean_and_log_variance"),
}
MAX_AXES = 16
T = TypeVar("T")


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
        task: `classification`, `multilabel` (independent yes-or-no labels) or `regression`.
        output: what the numbers of the output are; declared, never guessed.
        inputs: the network's inputs.
        num_outputs: C classes, L labels or D outputs.
        sites: the random operations, in order of execution.
        torch_version: of the exporting machine.
        classes: names of the C classes or L labels; None for regression.
        target_scale: means and standard deviations (D each) that take a standardised target back.
        features: module whose output is the feature vector, if one was named.
        injected: module paths whose dropout was set or added at export.
        notes: the exporter's own words.
        warnings: what the export noticed.
        digests: SHA-256 of the other entries by name.
        format_version: of the bundle.
        class_axis: axis of the classes, the rows being axis 0, in an output that has a class at
            every position; None: one distribution for each row.
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

    def to_json(self) -> dict[str, object]:
        """The manifest as plain JSON values; `class_axis` only where there is one."""
        values = asdict(self)
        if self.class_axis is None:
            del values["class_axis"]  # as in bundles of earlier builds
        return values

    @property
    def family(self) -> Literal["classification", "regression"]:
        """Whether the network speaks of classes or of numbers."""
        return "regression" if self.task == "regression" else "classification"

    @property
    def head(self) -> Head:
        """The task, and `dense` for a classification with a class at every position."""
        return self.task if self.class_axis is None else "dense"

    @property
    def has_positions(self) -> bool:
        """Whether a row has several distributions: one for each label or position."""
        return self.head in ("multilabel", "dense")

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


def manifest_from_json(raw: object) -> Manifest:
    """Read a manifest from parsed JSON.

    Raises:
        BundleError: naming the first field that breaks a rule.
    """
    if isinstance(raw, dict):  # only bundles with a class at every position say it
        raw = {"class_axis": None, **raw}
    table = _table(raw, Manifest, "manifest")
    if table["format_version"] != FORMAT_VERSION:
        raise BundleError(
            f"manifest: expects format_version {FORMAT_VERSION}, got"
            f" {str(table['format_version'])[:20]}: export the network again with this version"
        )
    task = _one_of(table["task"], get_args(Task), "manifest: task")
    output = _one_of(table["output"], OUTPUTS_OF[task], "manifest: output")
    num_outputs = _integer(table["num_outputs"], 1, MAX_CLASSES, "manifest: num_outputs")
    inputs = _tuple(table["inputs"], _input_spec, 64, "manifest: inputs")
    sites = _tuple(table["sites"], _site, MAX_SITES, "manifest: sites")
    if not inputs or len({spec.name for spec in inputs}) != len(inputs):
        raise BundleError("manifest: expects at least one input, each with a name of its own")
    if not sites:
        raise BundleError("manifest: expects at least one site, or all samples would be equal")
    if [site.index for site in sites] != list(range(len(sites))):
        raise BundleError("manifest: sites expects the indices 0, 1, 2, ... in order")
    return Manifest(
        task=task,  # type: ignore[arg-type]
        output=output,  # type: ignore[arg-type]
        inputs=inputs,
        num_outputs=num_outputs,
        sites=sites,
        torch_version=_text(table["torch_version"], "manifest: torch_version"),
        classes=_classes(table["classes"], task, num_outputs),
        target_scale=_scale(table["target_scale"], num_outputs),
        features=_optional(table["features"], _text, "manifest: features"),
        injected=_tuple(table["injected"], _text, MAX_SITES, "manifest: injected"),
        notes=_optional(table["notes"], _text, "manifest: notes"),
        warnings=_tuple(table["warnings"], _text, 1000, "manifest: warnings"),
        digests=_digests(table["digests"]),
        class_axis=_class_axis(table["class_axis"], task),
    )


def _class_axis(raw: object, task: str) -> int | None:
    if raw is not None and task != "classification":
        raise BundleError(f"manifest: class_axis expects null for {task}")
    return _optional(raw, lambda v, at: _integer(v, 1, MAX_AXES, at), "manifest: class_axis")


def _classes(raw: object, task: str, num_outputs: int) -> tuple[str, ...] | None:
    if task == "regression":
        if raw is not None:
            raise BundleError("manifest: classes expects null for regression")
        return None
    names = _tuple(raw, _text, MAX_CLASSES, "manifest: classes")
    if len(names) != num_outputs or len(set(names)) != len(names):
        raise BundleError(f"manifest: classes expects {num_outputs} different names")
    return names


def _scale(raw: object, num_outputs: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if raw is None:
        return None
    halves = _tuple(raw, lambda part, at: _tuple(part, _number, MAX_CLASSES, at), 2, "target_scale")
    if len(halves) != 2 or any(len(half) != num_outputs for half in halves):
        raise BundleError(f"manifest: target_scale expects two lists of {num_outputs} numbers")
    if min(halves[1]) <= 0:
        raise BundleError("manifest: target_scale expects positive standard deviations")
    return halves[0], halves[1]


def _digests(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict) or len(raw) > 16:
        raise BundleError("manifest: digests expects an object of entry name to SHA-256")
    return {_text(key, "digests"): _text(value, "digests") for key, value in raw.items()}


def _input_spec(raw: object, where: str) -> InputSpec:
    table = _table(raw, InputSpec, where)
    name = _text(table["name"], where)
    if not name:
        raise BundleError(f"{where}: expects a name")
    dtype = _one_of(table["dtype"], tuple(DTYPES), where)
    return InputSpec(
        name,
        dtype,
        _tuple(table["shape"], _input_size, 16, where),
        *_bounds(table["low"], table["high"], DTYPES[dtype], where),
    )


def _bounds(
    low: object, high: object, dtype: torch.dtype, where: str
) -> tuple[int, int] | tuple[None, None]:
    """Least and greatest value of an integer input; both or none."""
    if low is None and high is None:
        return None, None
    if dtype.is_floating_point or dtype == torch.bool or low is None or high is None:
        raise BundleError(f"{where}: low and high expect an input of integers, and both numbers")
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    first = _integer(low, max(least, -(2**62)), min(most, 2**62), f"{where}: low")
    return first, _integer(high, first, min(most, 2**62), f"{where}: high, not below low,")


def _input_size(raw: object, where: str) -> int | str:
    if isinstance(raw, str) and not (raw.isidentifier() and len(raw) <= 64):
        raise BundleError(f"{where}: a free dimension expects a plain name, got {raw[:40]!r}")
    return _dimension(raw, where)


def _site(raw: object, where: str) -> Site:
    if isinstance(raw, dict):  # bundles of earlier builds say nothing of it
        raw = {"keep_prob": None, **raw}
    table = _table(raw, Site, where)
    drop_prob, keep_prob = (
        _optional(table[key], _number, where) for key in ("drop_prob", "keep_prob")
    )
    distribution = _one_of(table["distribution"], get_args(Distribution), where)
    for key, number in (("drop_prob", drop_prob), ("keep_prob", keep_prob)):
        if number is not None and not 0 <= number <= 1:
            raise BundleError(f"{where}: {key} expects a number in [0, 1], got {number}")
    if keep_prob is not None and distribution != "bernoulli":
        raise BundleError(f"{where}: keep_prob expects null for a {distribution} site")
    if distribution == "bernoulli" and drop_prob is None:
        raise BundleError(f"{where}: a bernoulli site expects its drop_prob")
    if distribution == "bernoulli" and drop_prob is not None:
        drawn = 1 - drop_prob if keep_prob is None else keep_prob
        if not 0 < drawn < 1:
            raise BundleError(
                f"{where}: expects a chance to be kept between 0 and 1, got {drawn}: all its draws"
                " would be equal"
            )
    for key in ("learned", "rows_outer"):
        if not isinstance(table[key], bool):
            raise BundleError(f"{where}: {key} expects true or false")
    return Site(
        index=_integer(table["index"], 0, MAX_SITES, where),
        operator=_text(table["operator"], where),
        distribution=distribution,  # type: ignore[arg-type]
        drop_prob=drop_prob,
        learned=table["learned"] is True,
        shape=_tuple(table["shape"], _dimension, 16, where),
        granularity=_one_of(table["granularity"], get_args(Granularity), where),  # type: ignore[arg-type]
        module_path=_text(table["module_path"], where),
        batch_dim=_optional(table["batch_dim"], lambda v, at: _integer(v, 0, 16, at), where),
        rows_outer=table["rows_outer"] is True,
        keep_prob=keep_prob,
    )


def _table(raw: object, kind: type, where: str) -> dict[str, object]:
    names = {field.name for field in fields(kind)}
    if not isinstance(raw, dict) or set(raw) != names:
        got = sorted(str(key)[:40] for key in raw)[:20] if isinstance(raw, dict) else type(raw)
        raise BundleError(f"{where}: expects the fields {sorted(names)}, got {got}")
    return raw


def _tuple(raw: object, read: Callable[[object, str], T], limit: int, where: str) -> tuple[T, ...]:
    if not isinstance(raw, (list, tuple)) or len(raw) > limit:
        raise BundleError(f"{where}: expects a list of at most {limit} entries")
    return tuple(read(item, f"{where}[{position}]") for position, item in enumerate(raw))


def _optional(raw: object, read: Callable[[object, str], T], where: str) -> T | None:
    return None if raw is None else read(raw, where)


def _one_of(raw: object, allowed: Sequence[str], where: str) -> str:
    if not isinstance(raw, str) or raw not in allowed:
        raise BundleError(f"{where}: expects one of {list(allowed)}, got {str(raw)[:40]!r}")
    return raw


def _text(raw: object, where: str) -> str:
    if not isinstance(raw, str) or len(raw) > MAX_TEXT:
        raise BundleError(f"{where}: expects a text of at most {MAX_TEXT} characters")
    if _NO_TEXT.search(raw):
        raise BundleError(f"{where}: expects a text without control characters")
    return raw


def _integer(raw: object, low: int, high: int, where: str) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
        raise BundleError(f"{where}: expects an integer in [{low}, {high}], got {str(raw)[:40]}")
    return raw


def _number(raw: object, where: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not abs(raw) < 1e300:
        raise BundleError(f"{where}: expects a finite number, got {str(raw)[:40]}")
    return float(raw)


def _dimension(raw: object, where: str) -> int | str:
    if isinstance(raw, str):
        if not _SIZE.fullmatch(raw):
            raise BundleError(f"{where}: expects a size or the name of one, got {raw[:40]!r}")
        return raw
    return _integer(raw, 0, 2**40, where)
