"""Read what a bundle says of itself, and trust nothing of it.

Its job: `manifest_from_json`, which checks every field of parsed JSON before it makes the records
of `manifest.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TypeVar, get_args

import torch

from dubito_nn.errors import BundleError
from dubito_nn.manifest import (
    FORMAT_VERSION,
    LEVELS,
    MAX_AXES,
    MAX_CLASSES,
    MAX_LEVELS,
    MAX_TRIAL_ROWS,
    OUTPUTS_OF,
    WRITTEN_WHERE_USED,
    Distribution,
    Granularity,
    InputSpec,
    Manifest,
    Nested,
    Site,
    Task,
    are_levels,
)
from dubito_nn.program import DTYPES

MAX_SITES = 10_000
MAX_TEXT = 10_000
_ROWS = "(rows)"  # no name of a free dimension
_NO_TEXT = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f\\ud800-\\udfff]")
_SIZE = re.compile(r"[A-Za-z0-9_ ()+*/-]{1,200}")
T = TypeVar("T")


def manifest_from_json(raw: object) -> Manifest:
    """Read a manifest from parsed JSON.

    Raises:
        BundleError: naming the first field that breaks a rule.
    """
    if isinstance(raw, dict):  # written only where they are used
        raw = {**dict.fromkeys(WRITTEN_WHERE_USED), **raw}
    table = _table(raw, Manifest, "manifest")
    if table["format_version"] != FORMAT_VERSION:
        raise BundleError(
            f"manifest: expects format_version {FORMAT_VERSION}, got"
            f" {str(table['format_version'])[:20]}: export the network again with this version"
        )
    task = _one_of(table["task"], get_args(Task), "manifest: task")
    output = _one_of(table["output"], OUTPUTS_OF[task], "manifest: output")
    has_means = output in ("mean", "mean_and_log_variance")
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
        task=task,
        output=output,
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
        class_axis=_axis(table["class_axis"], task == "classification", "class_axis", task),
        output_axis=_axis(table["output_axis"], has_means, "output_axis", output),
        quantile_levels=_levels(table["quantile_levels"], output),
        trial_rows=_trial_rows(table["trial_rows"], inputs),
    )


def _trial_rows(raw: object, inputs: Sequence[InputSpec]) -> dict[str, Nested] | None:
    """Rows of integers, as many of each input that has any, in the shapes that it states."""
    if raw is None:
        return None
    specs = {spec.name: spec for spec in inputs}
    if not isinstance(raw, dict) or not raw or not set(raw) <= set(specs):
        raise BundleError("manifest: trial_rows expects an object of input name to rows")
    known: dict[str, int] = {}
    kept = {}
    for name, rows in raw.items():
        where = f"manifest: trial_rows of `{name}`"
        if DTYPES[specs[name].dtype].is_floating_point:
            raise BundleError(f"{where}: expects an input of integers")
        kept[name] = _nested(rows, (_ROWS, *specs[name].shape), known, specs[name], where)
    if known[_ROWS] > MAX_TRIAL_ROWS:
        raise BundleError(f"manifest: trial_rows expects at most {MAX_TRIAL_ROWS} rows")
    return kept


def _nested(
    raw: object,
    shape: tuple[int | str, ...],
    known: dict[str, int],
    spec: InputSpec,
    where: str,
) -> Nested:
    """Nested lists of a shape whose named sizes are those of the first lists, of integers."""
    if shape:
        size, *rest = shape
        parts = raw if isinstance(raw, list) else []
        wanted = size if isinstance(size, int) else known.setdefault(size, len(parts))
        if not parts or len(parts) != wanted:
            raise BundleError(f"{where}: expects lists of shape {spec.shape} for each row")
        return tuple(_nested(part, tuple(rest), known, spec, where) for part in parts)
    dtype = DTYPES[spec.dtype]
    bounds = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    return _integer(raw, max(bounds[0], -(2**62)), min(bounds[1], 2**62), where)


def _axis(raw: object, is_allowed: bool, name: str, declared: str) -> int | None:
    if raw is not None and not is_allowed:
        raise BundleError(f"manifest: {name} expects null for {declared}")
    return _optional(raw, lambda v, at: _integer(v, 1, MAX_AXES, at), f"manifest: {name}")


def _levels(raw: object, output: str) -> tuple[float, ...] | None:
    if output != "quantiles":
        if raw is not None:
            raise BundleError(f"manifest: quantile_levels expects null for {output}")
        return None
    levels = _tuple(raw, _number, MAX_LEVELS, "manifest: quantile_levels")
    if not are_levels(levels):
        raise BundleError(
            f"manifest: quantile_levels expects {LEVELS}, got {str(list(levels))[:80]}"
        )
    return levels


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
    """Read one row of the site table."""
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
        distribution=distribution,
        drop_prob=drop_prob,
        learned=table["learned"] is True,
        shape=_tuple(table["shape"], _dimension, 16, where),
        granularity=_one_of(table["granularity"], get_args(Granularity), where),
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


def _one_of(raw: object, allowed: Sequence[T], where: str) -> T:
    if not isinstance(raw, str) or raw not in allowed:
        raise BundleError(f"{where}: expects one of {list(allowed)}, got {str(raw)[:40]!r}")
    return allowed[allowed.index(raw)]


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
