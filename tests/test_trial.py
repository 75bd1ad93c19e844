"""What export writes can be served, or there is no file."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dubito.errors import BundleRefusedError
from dubito_nn import ExportError, export, load_bundle
from dubito_nn.trial import CHECKS

ROOT = Path(__file__).parent.parent


class LookedUp(nn.Module):
    """Takes an index from a number that may be any."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.dropout, self.head = nn.Embedding(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.table(x[:, 0].long())))


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
