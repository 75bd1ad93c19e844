"""What export writes can be served, or there is no file."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dubito.engine import Engine
from dubito.errors import BundleRefusedError
from dubito_nn import BundleError, ExportError, InputSpec, export, load_bundle
from dubito_nn.manifest_reader import manifest_from_json
from dubito_nn.trial import CHECKS, made_up_rows

ROOT = Path(__file__).parent.parent


class LookedUp(nn.Module):
    """Takes an index from a number that may be any."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.dropout, self.head = nn.Embedding(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.table(x[:, 0].long())))


class Boxes(nn.Module):
    """Looks up the width of each box, which is never negative, and takes the mean over a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.widths = nn.Embedding(10, 8), nn.Embedding(10, 8)
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(8, 3)

    def forward(self, ids: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
        hidden = self.words(ids) + self.widths(boxes[..., 1] - boxes[..., 0])
        weight = mask.unsqueeze(-1).float()
        return self.head(self.dropout((hidden * weight).sum(1) / weight.sum(1)))


def boxes(rows: int, length: int = 6) -> dict[str, Tensor]:
    start, size = torch.randint(0, 5, (2, rows, length, 1))
    mask = torch.arange(length) < torch.arange(2, rows + 2)[:, None]
    return {
        "ids": torch.randint(0, 10, (rows, length)),
        "boxes": torch.cat([start, start + size], -1),
        "mask": mask,
    }


def written(network: nn.Module, example: Tensor, path: Path) -> Path:
    export(network, example, path, task="classification", output="logits")
    return path


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def test_a_network_that_fails_on_made_up_rows_leaves_no_file(tmp_path: Path) -> None:
    example = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    with pytest.raises(ExportError, match="rows that a server makes up"):
        written(LookedUp(), example, tmp_path / "network.dubito")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rows", [2, 6])
def test_integers_that_belong_together_are_kept_for_trials(rows: int, tmp_path: Path) -> None:
    path, example = tmp_path / "network.dubito", boxes(rows)
    terms = {"task": "classification", "output": "logits"}
    free = {name: {1: "length"} for name in example}
    bundle = export(Boxes(), example, path, free_dims=free, **terms)
    kept = bundle.manifest.trial_rows
    assert kept == {name: as_tuples(tensor[:4].long()) for name, tensor in example.items()}
    assert load_bundle(path).manifest == bundle.manifest
    engine = Engine.load(path)
    made_up = engine.made_up_rows(3)
    torch.testing.assert_close(made_up["boxes"], example["boxes"][torch.arange(3) % min(rows, 4)])
    assert engine.predict(boxes(3, 9)).mean.shape == (3, 3)
    with pytest.raises(ExportError, match="trial_rows above 0"):
        export(Boxes(), example, tmp_path / "none.dubito", trial_rows=0, **terms)
    assert not (tmp_path / "none.dubito").exists()


def test_a_single_row_of_such_integers_asks_for_more(tmp_path: Path) -> None:
    torch.manual_seed(1)
    with pytest.raises(ExportError, match="give 5 real rows"):
        export(Boxes(), boxes(1), tmp_path / "x", task="classification", output="logits")


@pytest.mark.parametrize(
    "wrong",
    [
        {"words": [[1]]},
        {"ids": [[1, 2, 3, 4, 5]]},
        {"ids": [[1, 2, 3, 4, 5, 6], [1]]},
        {"ids": [[1, 2, 3, 4, 5, 0.5]]},
        {"ids": [[1, 2, 3, 4, 5, 2**70]]},
        {"ids": [[1] * 6], "boxes": [[[1, 2]] * 6] * 2},
        {"mask": [[2] * 6]},
        {"ids": []},
        {"ids": [[[1]] * 6]},
        {},
    ],
)
def test_trial_rows_of_a_stranger_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    terms = {"task": "classification", "output": "logits"}
    bundle = export(Boxes(), boxes(6), tmp_path / "network.dubito", **terms)
    stated = json.loads(json.dumps(bundle.manifest.to_json()))
    assert manifest_from_json(stated) == bundle.manifest
    with pytest.raises(BundleError, match="manifest"):
        manifest_from_json({**stated, "trial_rows": wrong})


def as_tuples(tensor: Tensor) -> object:
    return tuple(map(as_tuples, tensor)) if tensor.ndim else int(tensor)


def test_who_serves_bundles_here_is_asked_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, out = tmp_path / "installed", tmp_path / "out"
    about = installed / "strict_server-1.dist-info"
    about.mkdir(parents=True)
    out.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strict-server\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        f"[{CHECKS}]\nstrict = strict_server:check\nhalf = no_such_module:check\n"
    )
    (installed / "strict_server.py").write_text(
        "def check(bundle):\n"
        "    if len(bundle.sites) > 1:\n"
        "        raise ValueError('takes one site, got more')\n"
    )
    monkeypatch.syspath_prepend(installed)
    example, path = torch.randn(3, 2), out / "network.dubito"
    before = written(plain(), example, path).read_bytes()
    with pytest.raises(ExportError, match="cannot be served: takes one site, got more"):
        written(nn.Sequential(nn.Dropout(0.5), plain()), example, path)
    assert [file.read_bytes() for file in out.iterdir()] == [before]


def test_the_entry_point_of_dubito_loads_a_bundle_as_a_server_does(tmp_path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    (target,) = declared[CHECKS].values()
    check = EntryPoint("engine", target, CHECKS).load()
    bundle = load_bundle(written(plain(), torch.randn(3, 2), tmp_path / "network.dubito"))
    check(bundle)
    wider = replace(bundle.manifest.inputs[0], shape=(5,))
    with pytest.raises(BundleRefusedError):
        check(replace(bundle, manifest=replace(bundle.manifest, inputs=(wider,))))


def test_rows_beside_trial_rows_have_their_free_sizes_and_are_bounded(tmp_path: Path) -> None:
    example, free = boxes(6), {"ids": {1: "length"}, "boxes": {1: "length"}, "mask": {1: "length"}}
    terms = {"task": "classification", "output": "logits"}
    bundle = export(Boxes(), example, tmp_path / "network.dubito", free_dims=free, **terms)
    square = InputSpec("square", "float32", ("length", "length"))
    manifest = replace(bundle.manifest, inputs=(*bundle.manifest.inputs, square))
    assert made_up_rows(manifest, 8, 3)["square"].shape == (3, 6, 6)
    huge = replace(square, shape=("length",) * 16)
    with pytest.raises(BundleRefusedError, match="two rows of the inputs take"):
        Engine.load(
            replace(bundle, manifest=replace(manifest, inputs=(*manifest.inputs[:3], huge)))
        )
