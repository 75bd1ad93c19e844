"""The examples run to their end, in small, and draw what they found."""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"
MODULES = ("active_learning", "optimise")


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


def check_picture(path: Path) -> None:
    text = path.read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert len(text) < 60_000
    assert "<dc:date>" not in text


def test_active_learning_labels_what_the_server_names(
    examples: dict[str, ModuleType], tmp_path: Path
) -> None:
    out = tmp_path / "curves.svg"
    small = ["--rounds", "1", "--seeds", "1", "--steps", "5", "--num-samples", "4", "-k", "3"]
    curves = examples["active_learning"].main(
        [*small, "--strategies", "batchbald", "random", "--out", str(out)]
    )
    assert {name: [len(curve) for curve in many] for name, many in curves.items()} == {
        "batchbald": [2],
        "random": [2],
    }
    assert all(0 < accuracy <= 1 for many in curves.values() for accuracy in many[0])
    # The same labels and the same networks at first.
    assert curves["batchbald"][0][0] == pytest.approx(curves["random"][0][0], abs=0.02)
    check_picture(out)


def test_curves_are_drawn_the_same_every_time_and_labels_to_a_goal_are_counted(
    examples: dict[str, ModuleType], tmp_path: Path
) -> None:
    example = examples["active_learning"]
    curves = {"bald": [[0.5, 0.8, 0.95]], "random": [[0.5, 0.6, 0.7]]}
    for name in ("one", "two"):
        example._draw(curves, Namespace(k=10, rounds=2, out=tmp_path / f"{name}.svg"))
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert example._labels_to(0.9, curves["bald"][0], 10) == example.FIRST + 20
    assert example._labels_to(0.9, curves["random"][0], 10) == np.inf


def test_the_search_for_a_top_tries_what_was_named_and_keeps_the_best(
    examples: dict[str, ModuleType], tmp_path: Path
) -> None:
    out = tmp_path / "top.svg"
    optimise = examples["optimise"]
    best = optimise.main(["--rounds", "1", "--epochs", "5", "--out", str(out)])
    first = optimise.function(torch.tensor([0.4, 2.2, 4.3, 6.6, 9.8])).max()
    assert best >= float(first) - 1e-6
    assert best <= 7.917
    check_picture(out)
