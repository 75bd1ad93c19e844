"""What a version takes and gives: names, datatypes and shapes; the rows are the axis of -1.

Outputs are those of a request that names none, as the version answers it now: what needs a
calibration is listed once one covers the version's defaults, and `samples`, which are made only on
request, never.

Dimensions: P positions or tokens, C classes, L labels, D outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dubito.api.open_inference.datatypes import TEXT, of_input
from dubito.application import Application
from dubito.asked import SamplingOptions
from dubito.calibration.heads import head_of
from dubito.calibration.record import Calibration
from dubito.models.sampling import merge_sampling
from dubito.registry import VersionFact
from dubito_nn import Manifest
from dubito_nn.manifest_reader import manifest_from_json

FREE = -1
_GROUPS = {"ood": ("score", "p_value", "flag"), "interval": ("lower", "upper")}
_PROMISED = frozenset({"prediction_set", "certain_set", "interval", "decision", "ood"})
_SETS = frozenset({"prediction_set", "certain_set"})
_WIDE = frozenset({"mean", "quantiles", "interval", *_SETS})
_SPREADS = frozenset({"variance", "standard_error", "epistemic_variance", "aleatoric_variance"})
_OF_TOKENS = frozenset({"token_mean", "token_std"})
_OF_TYPE = {
    "num_samples_used": "INT64",
    "num_tokens": "INT64",
    "decision": TEXT,
    "ood.flag": "BOOL",
}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output without its rows; -1 where a size is free."""

    name: str
    datatype: str
    dims: tuple[int, ...]

    @property
    def shape(self) -> list[int]:
        """The shape with the rows."""
        return [FREE, *self.dims]


@dataclass(frozen=True)
class Description:
    """What one version takes and gives."""

    version: VersionFact
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...] | None


def describe(application: Application, model: str, reference: str) -> Description:
    """Describe a version; one with positions is loaded for it, since only its engine knows them.

    Raises:
        DubitoError: it is unknown, or cannot be loaded.
    """
    version = application.library.version(model, reference)
    manifest = manifest_from_json(version.manifest)
    inputs = tuple(
        TensorSpec(
            spec.name,
            of_input(spec.dtype),
            tuple(FREE if isinstance(size, str) else size for size in spec.shape),
        )
        for spec in manifest.inputs
    )
    positions = _positions(application, version, manifest, inputs)
    names = _names(manifest, _covering(application, version))
    outputs = tuple(_spec(name, manifest, positions) for name in names)
    return Description(version, inputs, outputs, manifest.classes)


def _positions(
    application: Application,
    version: VersionFact,
    manifest: Manifest,
    inputs: tuple[TensorSpec, ...],
) -> tuple[int, ...]:
    if _is_of_labels(manifest):
        return (manifest.num_outputs,)
    if manifest.channel_axis is not None or _is_of_tokens(manifest):
        shape = application.library.engine(version).position_shape()
        is_free = any(FREE in spec.dims for spec in inputs)
        return (FREE,) * len(shape) if is_free else shape
    return ()


def _is_of_labels(manifest: Manifest) -> bool:
    return "certain_set" in head_of(manifest).outputs


def _is_of_tokens(manifest: Manifest) -> bool:
    return not _OF_TOKENS.isdisjoint(head_of(manifest).outputs)


def _covering(application: Application, version: VersionFact) -> Calibration | None:
    """The active calibration, where a request that chooses nothing is covered by it."""
    fact = application.library.active_calibration(version)
    if fact is None:
        return None
    calibration = application.ask.calibrations.of(fact)
    limit = application.ask.settings.max_num_samples
    sampling = merge_sampling(SamplingOptions(), version.defaults, max_num_samples=limit)
    return calibration if calibration.covers(sampling) is None else None


def _names(manifest: Manifest, calibration: Calibration | None) -> Iterator[str]:
    for name in head_of(manifest).outputs:
        if name in _PROMISED and calibration is None:
            continue
        if name == "quantiles":
            for level in _levels(manifest, calibration):
                yield f"{name}.{level:.10g}"
        elif name in _GROUPS:
            yield from (f"{name}.{part}" for part in _GROUPS[name])
        else:
            yield name


def _levels(manifest: Manifest, calibration: Calibration | None) -> tuple[float, ...]:
    """The network's own, or those of a mixture: both ends of the coverage, and the median."""
    if manifest.quantile_levels is not None:
        return manifest.quantile_levels
    if calibration is None:
        return ()
    return (1 - calibration.coverage) / 2, 0.5, (1 + calibration.coverage) / 2


def _spec(name: str, manifest: Manifest, positions: tuple[int, ...]) -> TensorSpec:
    group, width = name.partition(".")[0], (manifest.num_outputs,)
    wide = positions if _is_of_labels(manifest) else (*positions, *width)
    is_of_numbers = manifest.classes is None
    dims: tuple[int, ...] = ()
    if _is_of_tokens(manifest):
        dims = positions if group in _OF_TOKENS else ()
    elif group in _WIDE:
        dims = wide
    elif group in _SPREADS:
        dims = width if is_of_numbers else wide
    elif group == "label":
        dims = positions
    elif group.startswith("position_"):
        dims = wide if is_of_numbers else positions
    datatype = _OF_TYPE.get(name, "BOOL" if group in _SETS else "FP64")
    if group == "label":
        datatype = "BOOL" if _is_of_labels(manifest) else TEXT
    return TensorSpec(name, datatype, dims)
