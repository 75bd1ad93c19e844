"""Read what a bundle says of itself, and trust nothing of it.

Its job: `manifest_from_json`, which checks every field of parsed JSON before it makes the records
of `manifest.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

import torch

from dubito_nn.errors import BundleError
from dubito_nn.manifest import (
    FORMAT_VERSION,
    LEVELS,
    MAX_AXES,
    MAX_CLASSES,
    MAX_FREE_SIZE,
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
from dubito_nn.preprocess.reader import read_preprocess
from dubito_nn.program import DTYPES
from dubito_nn.strict_fields import (
    read_integer,
    read_number,
    read_one_of,
    read_optional,
    read_table,
    read_text,
    read_tuple,
)

MAX_SITES = 10_000
_ROWS = "(rows)"  # no name of a free dimension
_SIZE = re.compile(r"[A-Za-z0-9_ ()+*/-]{1,200}")


def manifest_from_json(raw: object) -> Manifest:
    """Read a manifest from parsed JSON.

    Raises:
        BundleError: naming the first field that breaks a rule.
    """
    if isinstance(raw, dict):  # written only where they are used
        raw = {**dict.fromkeys(WRITTEN_WHERE_USED), **raw}
    table = read_table(raw, Manifest, "manifest")
    if table["format_version"] != FORMAT_VERSION:
        raise BundleError(
            f"manifest: expects format_version {FORMAT_VERSION}, got"
            f" {str(table['format_version'])[:20]}: export the network again with this version"
        )
    task = read_one_of(table["task"], get_args(Task), "manifest: task")
    output = read_one_of(table["output"], OUTPUTS_OF[task], "manifest: output")
    has_means = output in ("mean", "mean_and_log_variance")
    most_outputs = 1 if task == "sequence" else MAX_CLASSES
    num_outputs = read_integer(table["num_outputs"], 1, most_outputs, "manifest: num_outputs")
    inputs = read_tuple(table["inputs"], _input_spec, 64, "manifest: inputs")
    sites = read_tuple(table["sites"], _site, MAX_SITES, "manifest: sites")
    if not inputs or len({spec.name for spec in inputs}) != len(inputs):
        raise BundleError("manifest: expects at least one input, each with a name of its own")
    deterministic = _deterministic(table["deterministic"], len(sites))
    if [site.index for site in sites] != list(range(len(sites))):
        raise BundleError("manifest: sites expects the indices 0, 1, 2, ... in order")
    return Manifest(
        task=task,
        output=output,
        inputs=inputs,
        num_outputs=num_outputs,
        sites=sites,
        torch_version=read_text(table["torch_version"], "manifest: torch_version"),
        classes=_classes(table["classes"], task, num_outputs),
        target_scale=_scale(table["target_scale"], num_outputs, task),
        features=read_optional(table["features"], read_text, "manifest: features"),
        injected=read_tuple(table["injected"], read_text, MAX_SITES, "manifest: injected"),
        notes=read_optional(table["notes"], read_text, "manifest: notes"),
        warnings=read_tuple(table["warnings"], read_text, 1000, "manifest: warnings"),
        digests=_digests(table["digests"]),
        class_axis=_axis(table["class_axis"], task == "classification", "class_axis", task),
        output_axis=_axis(table["output_axis"], has_means, "output_axis", output),
        quantile_levels=_levels(table["quantile_levels"], output),
        trial_rows=_trial_rows(table["trial_rows"], inputs),
        preprocess=read_preprocess(table["preprocess"], inputs),
        deterministic=deterministic,
        free_sizes=_free_sizes(table["free_sizes"], inputs),
    )


def _deterministic(raw: object, num_sites: int) -> Literal[True] | None:
    """Whether it says that nothing in it is random, which its sites must bear out."""
    if raw is not None and raw is not True:
        raise BundleError("manifest: deterministic expects true, or is left out")
    if raw is None and not num_sites:
        raise BundleError("manifest: expects at least one site, or all samples would be equal")
    if raw is True and num_sites:
        raise BundleError(f"manifest: deterministic expects no sites, got {num_sites}")
    return raw


def _free_sizes(raw: object, inputs: Sequence[InputSpec]) -> dict[str, tuple[int, int]] | None:
    """Least and most of each free dimension that has limits."""
    if raw is None:
        return None
    where = "manifest: free_sizes"
    names = {size for spec in inputs for size in spec.shape if isinstance(size, str)}
    if not isinstance(raw, dict) or not raw or not set(raw) <= names:
        raise BundleError(f"{where} expects an object of free dimensions, of {sorted(names)}")
    limits = {}
    for name, pair in raw.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise BundleError(f"{where} of `{name}` expects the least and the most")
        least = read_integer(pair[0], 1, MAX_FREE_SIZE, f"{where} of `{name}`")
        limits[name] = least, read_integer(pair[1], least, MAX_FREE_SIZE, f"{where} of `{name}`")
    return limits


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
    return read_integer(raw, max(bounds[0], -(2**62)), min(bounds[1], 2**62), where)


def _axis(raw: object, is_allowed: bool, name: str, declared: str) -> int | None:
    if raw is not None and not is_allowed:
        raise BundleError(f"manifest: {name} expects null for {declared}")
    return read_optional(raw, lambda v, at: read_integer(v, 1, MAX_AXES, at), f"manifest: {name}")


def _levels(raw: object, output: str) -> tuple[float, ...] | None:
    if output != "quantiles":
        if raw is not None:
            raise BundleError(f"manifest: quantile_levels expects null for {output}")
        return None
    levels = read_tuple(raw, read_number, MAX_LEVELS, "manifest: quantile_levels")
    if not are_levels(levels):
        raise BundleError(
            f"manifest: quantile_levels expects {LEVELS}, got {str(list(levels))[:80]}"
        )
    return levels


def _classes(raw: object, task: str, num_outputs: int) -> tuple[str, ...] | None:
    if task in ("regression", "sequence"):
        if raw is not None:
            raise BundleError(f"manifest: classes expects null for {task}")
        return None
    names = read_tuple(raw, read_text, MAX_CLASSES, "manifest: classes")
    if len(names) != num_outputs or len(set(names)) != len(names):
        raise BundleError(f"manifest: classes expects {num_outputs} different names")
    return names


def _scale(
    raw: object, num_outputs: int, task: str
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if raw is None:
        return None
    if task == "sequence":
        raise BundleError("manifest: target_scale expects null for sequence")
    halves = read_tuple(
        raw, lambda part, at: read_tuple(part, read_number, MAX_CLASSES, at), 2, "target_scale"
    )
    if len(halves) != 2 or any(len(half) != num_outputs for half in halves):
        raise BundleError(f"manifest: target_scale expects two lists of {num_outputs} numbers")
    if min(halves[1]) <= 0:
        raise BundleError("manifest: target_scale expects positive standard deviations")
    return halves[0], halves[1]


def _digests(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict) or len(raw) > 16:
        raise BundleError("manifest: digests expects an object of entry name to SHA-256")
    return {read_text(key, "digests"): read_text(value, "digests") for key, value in raw.items()}


def _input_spec(raw: object, where: str) -> InputSpec:
    table = read_table(raw, InputSpec, where)
    name = read_text(table["name"], where)
    if not name:
        raise BundleError(f"{where}: expects a name")
    dtype = read_one_of(table["dtype"], tuple(DTYPES), where)
    return InputSpec(
        name,
        dtype,
        read_tuple(table["shape"], _input_size, 16, where),
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
    first = read_integer(low, max(least, -(2**62)), min(most, 2**62), f"{where}: low")
    return first, read_integer(high, first, min(most, 2**62), f"{where}: high, not below low,")


def _input_size(raw: object, where: str) -> int | str:
    if isinstance(raw, str) and not (raw.isidentifier() and len(raw) <= 64):
        raise BundleError(f"{where}: a free dimension expects a plain name, got {raw[:40]!r}")
    return _dimension(raw, where)


def _site(raw: object, where: str) -> Site:
    """Read one row of the site table."""
    if isinstance(raw, dict):  # bundles of earlier builds say nothing of it
        raw = {"keep_prob": None, **raw}
    table = read_table(raw, Site, where)
    drop_prob, keep_prob = (
        read_optional(table[key], read_number, where) for key in ("drop_prob", "keep_prob")
    )
    distribution = read_one_of(table["distribution"], get_args(Distribution), where)
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
        index=read_integer(table["index"], 0, MAX_SITES, where),
        operator=read_text(table["operator"], where),
        distribution=distribution,
        drop_prob=drop_prob,
        learned=table["learned"] is True,
        shape=read_tuple(table["shape"], _dimension, 16, where),
        granularity=read_one_of(table["granularity"], get_args(Granularity), where),
        module_path=read_text(table["module_path"], where),
        batch_dim=read_optional(
            table["batch_dim"], lambda v, at: read_integer(v, 0, 16, at), where
        ),
        rows_outer=table["rows_outer"] is True,
        keep_prob=keep_prob,
    )


def _dimension(raw: object, where: str) -> int | str:
    if isinstance(raw, str):
        if not _SIZE.fullmatch(raw):
            raise BundleError(f"{where}: expects a size or the name of one, got {raw[:40]!r}")
        return raw
    return read_integer(raw, 0, 2**40, where)
