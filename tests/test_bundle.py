"""The bundle file: it comes back as it was, and a damaged or hostile one is refused by name."""

import hashlib
import io
import json
import pickle
import re
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from dubito_nn import Bundle, BundleError, export, load_bundle

Json = dict[str, Any]
NAMES = ("manifest.json", "sampling.json", "point.json", "weights.safetensors")
SOON_S = 20.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> tuple[Bundle, bytes]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
    path = tmp_path_factory.mktemp("bundle") / "network.dubito"
    written = export(
        network,
        torch.randn(3, 4),
        path,
        task="classification",
        output="logits",
        classes=["a", "b", "c"],
        features="1",
        notes="a note",
    )
    return written, path.read_bytes()


def entries_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def changed(content: bytes, name: str, change: Callable[[Json], object]) -> bytes:
    """The bundle with one JSON entry changed, its digests made right again."""
    entries = entries_of(content)
    table = json.loads(entries[name])
    change(table)
    return sealed(entries | {name: json.dumps(table).encode()})


def sealed(entries: dict[str, bytes]) -> bytes:
    manifest = json.loads(entries["manifest.json"])
    for name in NAMES[1:]:
        manifest["digests"][name] = hashlib.sha256(entries[name]).hexdigest()
    return zipped(entries | {"manifest.json": json.dumps(manifest).encode()})


def refused(content: bytes) -> str:
    start = time.monotonic()
    with pytest.raises(BundleError) as raised:
        load_bundle(content)
    assert time.monotonic() - start < SOON_S
    assert len(str(raised.value)) < 1000
    return str(raised.value)


def test_a_bundle_comes_back_as_it_was_from_bytes_and_from_a_path(bundle, tmp_path):
    written, content = bundle
    path = tmp_path / "copy.dubito"
    path.write_bytes(content)
    for again in (load_bundle(content), load_bundle(path), load_bundle(str(path))):
        assert again.manifest == written.manifest
        assert again.sampling == written.sampling
        assert again.point == written.point
        assert again.digest == hashlib.sha256(content).hexdigest()
        assert again.size_bytes == len(content)
        assert again.weights.keys() == written.weights.keys()
        assert all(torch.equal(again.weights[k], v) for k, v in written.weights.items())
    assert written.manifest.classes == ("a", "b", "c")
    assert written.manifest.notes == "a note"
    assert written.manifest.num_outputs == 3
    assert set(written.sampling.outputs) == {"output", "features"}
    assert [site.module_path for site in written.sites] == ["2"]
    assert written.manifest.to_json()["sites"]


def test_a_bundle_is_shown_in_a_line(bundle):
    shown = repr(bundle[0])
    assert re.fullmatch(r"<Bundle classification of \w+\[4\]: 1 sites, \d+ bytes, \w{12}>", shown)


def test_its_features_are_those_of_the_named_module(bundle):
    written, _ = bundle
    x, weights = torch.randn(2, 4), written.weights
    result = written.point.run({"input": x}, weights)
    expected = torch.relu(nn.functional.linear(x, weights["0.weight"], weights["0.bias"]))
    torch.testing.assert_close(result["features"], expected)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(bundle, share):
    content = bundle[1]
    assert "send the file that `dubito_nn.export` wrote, whole" in refused(
        content[: int(share * len(content))]
    )


def test_no_flipped_byte_goes_by_unnoticed_or_raises_anything_else(bundle):
    content = bundle[1]
    whole = load_bundle(content)
    generator = torch.Generator().manual_seed(0)
    for position in torch.randint(len(content), (300,), generator=generator).tolist():
        flipped = bytearray(content)
        flipped[position] ^= 0xFF
        try:
            again = load_bundle(bytes(flipped))
        except BundleError:
            continue
        assert again.manifest == whole.manifest  # a byte of the zip that carries no content
        assert again.sampling == whole.sampling


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BundleError, match="cannot read"):
        load_bundle(tmp_path / "nowhere.dubito")


@pytest.mark.parametrize("name", ["../evil.json", "/etc/passwd", "data.pkl", "a/../manifest.json"])
def test_an_entry_that_does_not_belong_is_refused(bundle, name):
    entries = entries_of(bundle[1])
    assert "expects 4 entries, got 5" in refused(zipped(entries | {name: b"{}"}))
    weights = entries.pop("weights.safetensors")
    message = refused(zipped(entries | {name: weights}))
    assert f"expects the entry `weights.safetensors` in this place, got `{name}`" in message


def test_entries_missing_doubled_compressed_or_altered_are_refused(bundle):
    entries = entries_of(bundle[1])
    missing = {name: entries[name] for name in NAMES[:-1]}
    assert "expects 4 entries, got 3" in refused(zipped(missing))
    assert "is compressed" in refused(zipped(entries, zipfile.ZIP_DEFLATED))
    altered = entries | {"point.json": entries["point.json"].replace(b"relu", b"gelu")}
    assert "point.json does not have the SHA-256" in refused(zipped(altered))
    file = io.BytesIO(bundle[1])
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("point.json", entries["point.json"])
    assert "expects 4 entries, got 5" in refused(file.getvalue())


def append(node: object) -> Callable[[Json], object]:
    return lambda table: table["nodes"].append(node)


UNDECLARED: dict[str, tuple[Callable[[Json], object], str]] = {
    "an unknown weight": (
        append({"name": "more", "op": "weight", "args": ["../../etc/passwd"]}),
        r"weight `../../etc/passwd` is not declared",
    ),
    "an unknown input": (
        append({"name": "more", "op": "input", "args": ["other"]}),
        r"input `other` is not declared",
    ),
    "a site too many": (
        append({"name": "more", "op": "site", "args": [1, [3], {"dtype": "float32"}]}),
        r"every site of the manifest to be drawn once",
    ),
    "a site drawn twice": (
        append({"name": "more", "op": "site", "args": [0, [3], {"dtype": "float32"}]}),
        r"every site of the manifest to be drawn once",
    ),
    "a negative site": (
        append({"name": "more", "op": "site", "args": [-1, [3], {"dtype": "float32"}]}),
        r"every site of the manifest to be drawn once",
    ),
}


@pytest.mark.parametrize("name", UNDECLARED)
def test_a_graph_that_names_what_the_bundle_does_not_hold_is_refused(bundle, name):
    change, expected = UNDECLARED[name]
    message = refused(changed(bundle[1], "sampling.json", change))
    assert message.startswith("sampling.json")
    assert re.search(expected, message)


def test_a_graph_with_an_operator_off_the_list_is_refused(bundle):
    content = changed(
        bundle[1],
        "point.json",
        append({"name": "more", "op": "aten.from_file.default", "args": ["/etc/passwd"]}),
    )
    assert "point.json: node `more` names the operator `aten.from_file.default`" in refused(content)


def test_a_point_graph_that_draws_is_refused(bundle):
    content = changed(
        bundle[1],
        "point.json",
        append({"name": "more", "op": "site", "args": [0, [3], {"dtype": "float32"}]}),
    )
    assert refused(content) == "point.json: a point graph draws nothing, but it names a site"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format_version": 99}, r"format_version 1, got 99: export the network again"),
        ({"task": "ranking"}, r"task: expects one of"),
        ({"output": "mean"}, r"output: expects one of"),
        ({"num_outputs": -1}, r"num_outputs: expects an integer"),
        ({"num_outputs": 10**30}, r"num_outputs: expects an integer"),
        ({"classes": ["a", "a", "b"]}, r"classes expects 3 different names"),
        ({"classes": None}, r"classes: expects a list"),
        ({"inputs": []}, r"at least one input"),
        ({"sites": []}, r"at least one site"),
        ({"target_scale": [[0.0], [1.0]]}, r"two lists of 3 numbers"),
        ({"target_scale": [[0.0] * 3, [0.0] * 3]}, r"positive standard deviations"),
        ({"digests": {}}, r"sampling.json does not have the SHA-256"),
        ({"digests": 7}, r"digests expects an object"),
        ({"notes": "x" * 10**6}, r"notes: expects a text"),
        ({"extra": 1}, r"manifest: expects the fields"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(bundle, change, expected):
    entries = entries_of(bundle[1])
    manifest = json.loads(entries["manifest.json"]) | change
    message = refused(zipped(entries | {"manifest.json": json.dumps(manifest).encode()}))
    assert re.search(expected, message)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 3),
        ("distribution", "cauchy"),
        ("drop_prob", 1.5),
        ("drop_prob", None),
        ("drop_prob", True),
        ("keep_prob", -0.1),
        ("keep_prob", "half"),
        ("granularity", "atom"),
        ("batch_dim", -1),
        ("learned", "yes"),
        ("shape", [-3]),
    ],
)
def test_a_site_that_breaks_a_rule_is_refused(bundle, field, value):
    content = changed(bundle[1], "manifest.json", lambda m: m["sites"][0].update({field: value}))
    assert "manifest: sites" in refused(content)


def test_a_site_that_keeps_with_a_probability_must_be_bernoulli(bundle):
    change = {"distribution": "normal", "keep_prob": 0.5}
    content = changed(bundle[1], "manifest.json", lambda m: m["sites"][0].update(change))
    assert "keep_prob expects null" in refused(content)


def test_a_bundle_of_an_earlier_build_says_nothing_of_keep_prob(bundle):
    content = changed(bundle[1], "manifest.json", lambda m: m["sites"][0].pop("keep_prob"))
    assert load_bundle(content).sites == bundle[0].sites


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b'{"a":', b"\xff\xfe", b"[]", b"null", b"9" * 10_000]
)
def test_json_that_cannot_be_read_is_refused(bundle, content):
    entries = entries_of(bundle[1])
    refused(zipped(entries | {"manifest.json": content}))
    assert refused(sealed(entries | {"sampling.json": content})).startswith("sampling.json")


def test_weights_that_cannot_serve_are_refused(bundle):
    written, content = bundle
    entries = entries_of(content)

    def with_weights(**changes: torch.Tensor) -> bytes:
        weights = dict(written.weights) | changes
        return sealed(entries | {"weights.safetensors": safetensors.torch.save(weights)})

    nan = with_weights(**{"0.bias": torch.full((6,), float("nan"))})
    assert "`0.bias` holds NaN" in refused(nan)
    assert "not served" in refused(with_weights(more=torch.zeros(2, dtype=torch.complex64)))
    assert "not readable" in refused(sealed(entries | {"weights.safetensors": b"\xff" * 64}))
    empty = sealed(entries | {"weights.safetensors": safetensors.torch.save({})})
    assert "is not declared" in refused(empty)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_never_runs_wherever_it_stands(bundle, tmp_path):
    canary = tmp_path / "canary"
    bomb = pickle.dumps(Canary(canary))
    entries = entries_of(bundle[1])
    file = io.BytesIO()
    torch.save(Canary(canary), file)
    for content in (bomb, file.getvalue(), zipped(entries | {"data.pkl": bomb})):
        refused(content)
    for name in NAMES:
        refused(zipped(entries | {name: bomb}))
        if name != "manifest.json":
            refused(sealed(entries | {name: bomb}))
    assert not canary.exists()
    pickle.loads(bomb)
    assert canary.exists()  # the bomb was live


def test_reading_a_bundle_imports_nothing_new(bundle):
    before = set(sys.modules)
    load_bundle(bundle[1])
    assert set(sys.modules) == before
