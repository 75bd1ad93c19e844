"""The bundle file: a zip of stored entries that holds a lifted network.

Its job: write `*.dubito`, and read it back without executing or evaluating anything from it.

    manifest.json          what it is: task, inputs, site table, digests of the others
    sampling.json          the lifted graph f(x, ω)
    point.json             the evaluation-mode graph (weight scaling, one pass)
    weights.safetensors    tensors that both graphs name

Every limit is checked before the thing it limits is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from dubito_nn.errors import BundleError
from dubito_nn.manifest import Manifest, Site, manifest_from_json
from dubito_nn.program import DTYPES, Program, from_json, sites_in, to_json

MANIFEST, SAMPLING, POINT, WEIGHTS = (
    "manifest.json",
    "sampling.json",
    "point.json",
    "weights.safetensors",
)
ENTRIES = (MANIFEST, SAMPLING, POINT, WEIGHTS)
MAX_JSON_BYTES = 64 * 2**20
MAX_TENSORS = 100_000
_EPOCH = (1980, 1, 1, 0, 0, 0)  # entries carry no time, so that equal networks give equal files


@dataclass(frozen=True)
class Bundle:
    """A lifted network with all that is needed to run it.

    Args:
        manifest: what it says of itself.
        sampling: the lifted graph f(x, ω).
        point: the evaluation-mode graph; it draws nothing.
        weights: tensors by name, shared by both graphs.
        digest: SHA-256 of the file, in hexadecimal.
        size_bytes: of the file.
    """

    manifest: Manifest
    sampling: Program
    point: Program
    weights: Mapping[str, Tensor]
    digest: str
    size_bytes: int

    @property
    def sites(self) -> tuple[Site, ...]:
        """The random operations, in order of execution."""
        return self.manifest.sites


def bundle_bytes(
    manifest: Manifest, sampling: Program, point: Program, weights: Mapping[str, Tensor]
) -> bytes:
    """The file's content; the same network gives the same bytes."""
    entries = {
        SAMPLING: _dump(to_json(sampling)),
        POINT: _dump(to_json(point)),
        WEIGHTS: safetensors.torch.save({key: weights[key] for key in sorted(weights)}),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in entries.items()}
    entries[MANIFEST] = _dump(replace(manifest, digests=digests).to_json())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in ENTRIES:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), entries[name])
    return file.getvalue()


def load_bundle(source: str | Path | bytes) -> Bundle:
    """Read a bundle from a path or from its bytes; nothing in it is executed.

    Raises:
        BundleError: naming the first reason why the file is not a sound bundle.
    """
    content = source if isinstance(source, bytes) else _read_file(Path(source))
    entries = _read_entries(content)
    manifest = manifest_from_json(_parse(entries[MANIFEST], MANIFEST))
    _check_digests(manifest, entries)
    sampling = from_json(_parse(entries[SAMPLING], SAMPLING), where=SAMPLING)
    point = from_json(_parse(entries[POINT], POINT), where=POINT)
    weights = _read_weights(entries[WEIGHTS])
    for name, program in ((SAMPLING, sampling), (POINT, point)):
        _check_names(program, manifest, weights, name)
    if sites_in(point.nodes):
        raise BundleError(f"{POINT}: a point graph draws nothing, but it names a site")
    drawn = sites_in(sampling.nodes)
    if sorted(drawn) != list(range(len(manifest.sites))):
        raise BundleError(f"{SAMPLING}: expects every site of the manifest to be drawn once")
    digest = hashlib.sha256(content).hexdigest()
    return Bundle(manifest, sampling, point, weights, digest, len(content))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read `{path}`: {error.strerror or error}") from error


def _read_entries(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            _check_infos(infos, len(content))
            return {info.filename: archive.read(info) for info in infos}
    except BundleError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BundleError(
            f"not a readable bundle, {error}: send the file that `dubito_nn.export` wrote, whole"
        ) from error


def _check_infos(infos: list[zipfile.ZipInfo], size: int) -> None:
    names = [info.filename for info in infos]
    for name in names:
        if name not in ENTRIES:
            raise BundleError(f"unexpected entry `{name[:80]}`: a bundle holds {list(ENTRIES)}")
    if sorted(names) != sorted(ENTRIES):
        missing = sorted(set(ENTRIES) - set(names))
        raise BundleError(f"entries missing or twice there, missing {missing}: export it again")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise BundleError(f"entry `{info.filename}` is compressed: entries are stored as is")
        if info.flag_bits & 0x1:
            raise BundleError(f"entry `{info.filename}` is encrypted")
        if info.file_size > (size if info.filename == WEIGHTS else MAX_JSON_BYTES):
            raise BundleError(f"entry `{info.filename}` is larger than it may be")
    if sum(info.file_size for info in infos) > size:
        raise BundleError("the entries overlap: together they are larger than the file")


def _parse(content: bytes, name: str) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not readable JSON: {str(error)[:100]}") from error


def _check_digests(manifest: Manifest, entries: Mapping[str, bytes]) -> None:
    for name in (SAMPLING, POINT, WEIGHTS):
        found = hashlib.sha256(entries[name]).hexdigest()
        if (manifest.digests or {}).get(name) != found:
            raise BundleError(f"{name} does not have the SHA-256 that the manifest states")


def _read_weights(content: bytes) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise BundleError(f"{WEIGHTS} is not readable: {str(error)[:100]}") from error
    if len(weights) > MAX_TENSORS:
        raise BundleError(f"{WEIGHTS} holds {len(weights)} tensors, more than {MAX_TENSORS}")
    for name, tensor in weights.items():
        if tensor.dtype not in DTYPES.values():
            raise BundleError(f"{WEIGHTS}: `{name[:80]}` has the type {tensor.dtype}, not served")
        if tensor.is_floating_point() and tensor.isnan().any():
            raise BundleError(f"{WEIGHTS}: `{name[:80]}` holds NaN: train the network again")
    return weights


def _check_names(
    program: Program, manifest: Manifest, weights: Mapping[str, Tensor], where: str
) -> None:
    declared = {spec.name for spec in manifest.inputs}
    for kind, known in (("input", declared), ("weight", set(weights))):
        for node in program.of_kind(kind):
            if node.args[0] not in known:
                raise BundleError(f"{where}: {kind} `{str(node.args[0])[:80]}` is not declared")


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
