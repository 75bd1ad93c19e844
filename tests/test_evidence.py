"""The evidence scripts run, on data made up here; their figures are not looked at."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EVIDENCE = Path(__file__).parent.parent / "benchmarks" / "evidence"
NUM_TRAIN, NUM_TEST = 400, 100
SCRIPTS = (
    *("sparse_variational", "concrete_dropout", "mnist_mlp", "stratified", "tolerance"),
    "active_learning",
)
MODULES = ("data", "record", "doubters", *SCRIPTS)

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(EVIDENCE))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, modules: dict[str, ModuleType]) -> Path:
    """Digits of bars: class c has a bright row c."""
    for name in ("mnist", "fashion_mnist"):
        (tmp_path / name).mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        labels = generator.integers(0, 10, count).astype(np.uint8)
        images = generator.integers(0, 80, (count, 28, 28)).astype(np.uint8)
        images[np.arange(count), 2 * labels] = 255
        for name in ("mnist", "fashion_mnist"):
            home = tmp_path / name
            modules["data"].write_idx(home / f"{part}-images-idx3-ubyte.gz", images)
            modules["data"].write_idx(home / f"{part}-labels-idx1-ubyte.gz", labels)
    return tmp_path


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_quick_run_leaves_a_record_with_settings_versions_and_figures(
    name: str, modules: dict[str, ModuleType], folder: Path
) -> None:
    results = folder / "results"
    figures = modules[name].main(
        ["--data", str(folder), "--quick", "--results", str(results), "--threads", "1"]
    )
    assert figures
    record = json.loads((results / f"{name}_quick.json").read_text())
    assert record["quick"]
    assert {"torch", "commit", "seconds"} <= record.keys()
    assert record["settings"]["seed"] == 0


def test_held_out_rows_are_measured_and_not_trained_on(
    modules: dict[str, ModuleType], folder: Path
) -> None:
    digits = modules["data"].mnist(folder)
    parts = modules["sparse_variational"]._parts(digits, 50, is_quick=False)
    assert len(parts.images) == NUM_TRAIN - 50
    assert parts.test_images.equal(digits.images[-50:])
    assert parts.test_labels.equal(digits.labels[-50:])


def test_idx_files_come_back_as_they_were_written(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    modules["data"].write_idx(tmp_path / "values.gz", values)
    assert np.array_equal(modules["data"].read_idx(tmp_path / "values.gz"), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x0d\x01\0\0\0\x01\0", "magic 0xd01"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "expected 5 bytes"),
    ],
)
def test_files_that_are_not_idx_or_not_whole_are_refused(
    content: bytes, message: str, modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    path = tmp_path / "bad.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=message):
        modules["data"].read_idx(path)
