"""The bundle file: a zip of stored entries that holds a lifted network.

Its job: write `*.dubito`, and read it back without executing or evaluating anything from it.

    manifest.json          what it is: task, inputs, site table, digests of the others
    sampling.json          the lifted graph f(x, ω)
    point.json             the evaluation-mode graph (weight scaling, one pass)
    weights.safetensors    tensors that both graphs name
    tokenizer.json         of a network that declares texts; others do not have it

Every limit is checked before the thing it limits is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import safetensors.torch
from torch import Tensor

from dubito_nn.archive import read_archive
from dubito_nn.errors import BundleError
from dubito_nn.manifest import Manifest, Site
from dubito_nn.manifest_reader import manifest_from_json
from dubito_nn.preprocess.parts import tokenizer_of, with_tokenizer
from dubito_nn.preprocess.tokenizer import MAX_BYTES, read_tokenizer
from dubito_nn.program import Program, Ref, from_json, sites_in, to_json
from dubito_nn.strict_json import parse
from dubito_nn.tensors import read_tensors

MANIFEST, SAMPLING, POINT, WEIGHTS, TOKENIZER = (
    "manifest.json",
    "sampling.json",
    "point.json",
    "weights.safetensors",
    "tokenizer.json",
)
ENTRIES = (MANIFEST, SAMPLING, POINT, WEIGHTS, TOKENIZER)
MAX_JSON_BYTES = 8 * 2**20
_LIMITS = {name: MAX_JSON_BYTES for name in ENTRIES} | {WEIGHTS: 2**32, TOKENIZER: MAX_BYTES}
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

    def __repr__(self) -> str:
        """Return the head, inputs and number of sites; graphs and weights would fill pages."""
        inputs = ", ".join(f"{one.name}{list(one.shape)}" for one in self.manifest.inputs)
        return (
            f"<Bundle {self.manifest.head} of {inputs}: {len(self.sites)} sites, "
            f"{self.size_bytes} bytes, {self.digest[:12]}>"
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """The random operations, in order of execution."""
        return self.manifest.sites

    @cached_property
    def table_sizes(self) -> Mapping[str, int]:
        """Entries of the smallest table that an input indexes as it comes, by input name."""
        inputs = {node.name: str(node.args[0]) for node in self.point.of_kind("input")}
        keys = {node.name: str(node.args[0]) for node in self.point.of_kind("weight")}
        sizes: dict[str, int] = {}
        for node in self.point.of_kind("aten.embedding.default"):
            table, index = node.args[:2]
            if not (isinstance(table, Ref) and isinstance(index, Ref)):
                continue
            if index.name in inputs and table.name in keys:
                name, size = inputs[index.name], len(self.weights[keys[table.name]])
                sizes[name] = min(size, sizes.get(name, size))
        return sizes


def bundle_bytes(
    manifest: Manifest, sampling: Program, point: Program, weights: Mapping[str, Tensor]
) -> bytes:
    """The file's content; the same network gives the same bytes."""
    entries = {
        SAMPLING: _dump(to_json(sampling)),
        POINT: _dump(to_json(point)),
        WEIGHTS: safetensors.torch.save({key: weights[key] for key in sorted(weights)}),
    }
    tokenizer = tokenizer_of(manifest.preprocess)
    if tokenizer is not None:
        entries[TOKENIZER] = tokenizer.encode()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in entries.items()}
    entries[MANIFEST] = _dump(replace(manifest, digests=digests).to_json())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in (name for name in ENTRIES if name in entries):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), entries[name])
    return file.getvalue()


def load_bundle(source: str | Path | bytes) -> Bundle:
    """Read a bundle from a path or from its bytes; nothing in it is executed.

    Raises:
        BundleError: naming the first reason why the file is not a sound bundle.
    """
    entries, digest, size = _read(source)
    manifest = manifest_from_json(parse(entries.pop(MANIFEST), MANIFEST))
    _check_digests(manifest, entries)
    manifest = _with_tokenizer(manifest, entries.pop(TOKENIZER, None))
    sampling = from_json(parse(entries.pop(SAMPLING), SAMPLING), where=SAMPLING)
    point = from_json(parse(entries.pop(POINT), POINT), where=POINT)
    weights = read_tensors(entries.pop(WEIGHTS), WEIGHTS)
    for name, program in ((SAMPLING, sampling), (POINT, point)):
        _check_names(program, manifest, weights, name)
    if sites_in(point.nodes):
        raise BundleError(f"{POINT}: a point graph draws nothing, but it names a site")
    drawn = sites_in(sampling.nodes)
    if sorted(drawn) != list(range(len(manifest.sites))):
        raise BundleError(f"{SAMPLING}: expects every site of the manifest to be drawn once")
    return Bundle(manifest, sampling, point, weights, digest, size)


def _read(source: str | Path | bytes) -> tuple[dict[str, bytes], str, int]:
    """The entries, the file's SHA-256 and its size."""
    if isinstance(source, bytes):
        return *read_archive(io.BytesIO(source), len(source), _LIMITS, optional=1), len(source)
    try:
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return *read_archive(file, size, _LIMITS, optional=1), size
    except OSError as error:
        raise BundleError(f"cannot read `{source}`: {error.strerror or error}") from error


def _check_digests(manifest: Manifest, entries: Mapping[str, bytes]) -> None:
    for name, content in entries.items():
        if (manifest.digests or {}).get(name) != hashlib.sha256(content).hexdigest():
            raise BundleError(f"{name} does not have the SHA-256 that the manifest states")


def _with_tokenizer(manifest: Manifest, content: bytes | None) -> Manifest:
    """The manifest whose texts have the tokenizer of the bundle."""
    digest = tokenizer_of(manifest.preprocess)
    if (content is None) != (digest is None):
        found = "lacks one" if content is None else "has one"
        raise BundleError(
            f"{TOKENIZER} belongs to a manifest that declares texts: the file {found}"
        )
    if content is None or manifest.preprocess is None:
        return manifest
    if digest != hashlib.sha256(content).hexdigest():
        raise BundleError(f"{TOKENIZER} does not have the SHA-256 that the texts of it state")
    return replace(
        manifest, preprocess=with_tokenizer(manifest.preprocess, read_tokenizer(content))
    )


def _check_names(
    program: Program, manifest: Manifest, weights: Mapping[str, Tensor], where: str
) -> None:
    declared = {spec.name for spec in manifest.inputs}
    for kind, allowed in (("input", declared), ("weight", set(weights))):
        for node in program.of_kind(kind):
            if node.args[0] not in allowed:
                raise BundleError(f"{where}: {kind} `{str(node.args[0])[:80]}` is not declared")


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
