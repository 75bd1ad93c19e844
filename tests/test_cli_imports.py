"""`dubito export` and `dubito import`: what they take, what they say, what they refuse."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.export import Dim

from dubito.cli import main
from dubito.engine import Engine
from dubito.errors import InputError
from dubito.imports import read_example

NETWORKS = """
from torch import nn

def build(hidden=8, p=0.5):
    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Dropout(p), nn.Linear(hidden, 3))

def broken():
    raise KeyError("nothing here")

def number():
    return 3

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.drop, self.out = nn.Embedding(9, 8), nn.Dropout(0.2), nn.Linear(8, 2)

    def forward(self, tokens):
        return self.out(self.drop(self.embed(tokens).mean(1)))
"""
DECLARED = ("--task", "classification", "--output", "logits", "--out", "out.dubito")
Dubito = Callable[..., tuple[int, str, str]]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


@pytest.fixture
def dubito(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Dubito]:
    """Runs a command in a folder that holds `networks.py` and weights of `network()`."""
    monkeypatch.chdir(tmp_path)
    Path("networks.py").write_text(NETWORKS)
    safetensors.torch.save_file(network().state_dict(), "w.safetensors")
    torch.save(network().state_dict(), "w.pt")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dubito", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    yield run
    sys.modules.pop("networks", None)


@pytest.mark.parametrize("factory", ["networks:build", "networks.py:build"])
@pytest.mark.parametrize("weights", ["w.safetensors", "w.pt"])
def test_a_factory_with_its_weights_becomes_a_bundle(
    dubito: Dubito, factory: str, weights: str
) -> None:
    code, out, err = dubito(
        *("export", factory, "--weights", weights, "--example", "8x4", *DECLARED),
        *("--classes", "ant, bee, cat", "--notes", "from the shell"),
    )
    assert code == 0, err
    assert f"note: running the code of {factory} on this machine" in err
    assert "1 random operations" in out
    engine = Engine.load("out.dubito")
    assert engine.manifest.classes == ("ant", "bee", "cat")
    assert engine.manifest.notes == "from the shell"
    rows = torch.randn(3, 4)
    point = engine.bundle.point.run({"input": rows}, engine.bundle.weights)["output"]
    torch.testing.assert_close(point, network().eval()(rows))


def test_options_examples_free_dimensions_and_rates_are_understood(dubito: Dubito) -> None:
    torch.save({"epoch": 3, "state_dict": nn.Sequential(*network()[:2]).state_dict()}, "part.pt")
    from_file = {"embed.weight": torch.randn(9, 8), "out.weight": torch.randn(2, 8)}
    safetensors.torch.save_file(from_file | {"out.bias": torch.zeros(2)}, "tokens.safetensors")
    code, _, err = dubito(
        *("export", "networks:Tokens", "--weights", "tokens.safetensors"),
        *("--example", "tokens=8x5:int64:0..8", "--free-dim", "tokens:1=length", *DECLARED),
    )
    assert code == 0, err
    (spec,) = Engine.load("out.dubito").manifest.inputs
    assert (spec.name, spec.shape, spec.low, spec.high) == ("tokens", ("length",), 0, 8)
    np.save("rows.npy", np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
    code, _, err = dubito(
        *("export", "networks:build", "--weights", "w.pt", "--options", '{"p": 0.1}'),
        *("--example", "rows.npy", "--drop-prob", "2=0.3", *DECLARED),
    )
    assert code == 0, err
    assert Engine.load("out.dubito").manifest.sites[0].drop_prob == pytest.approx(0.3)


BAD: dict[str, tuple[list[str], str]] = {
    "no such module": (["nowhere:build"], "path/to/networks.py:build"),
    "no such file": (["nowhere.py:build"], "expected a Python file"),
    "no such factory": (["networks:nobody"], "expected a function or a class `nobody`"),
    "no factory named": (["networks"], "expected module:factory"),
    "a factory that fails": (["networks:broken"], "KeyError: 'nothing here'"),
    "a factory of a number": (["networks:number"], "expected a torch.nn.Module, got int"),
    "arguments it does not take": (["networks:build", "--options", '{"x": 1}'], "--options"),
    "options that are no JSON": (["networks:build", "--options", "{"], "expected JSON"),
    "options that are a list": (["networks:build", "--options", "[1]"], "expected an object"),
    "weights of another shape": (["networks:build", "--options", '{"hidden": 9}'], "another shape"),
    "weights of another network": (["networks:Tokens"], "lacks `embed.weight`"),
    "no weights": (["networks:build", "--weights", "gone.pt"], "expected a file of weights"),
    "weights with a pickle": (["networks:build", "--weights", "evil.pt"], "state dictionary"),
    "weights of a list": (["networks:build", "--weights", "list.pt"], "expected tensors by name"),
    "weights cut short": (["networks:build", "--weights", "cut.safetensors"], "damaged"),
    "text for weights": (["networks:build", "--weights", "networks.py"], "state dictionary"),
    "an example of nothing": (["networks:build", "--example", "0x4"], "1 to"),
    "an example too large": (["networks:build", "--example", "99999x99999"], "1 to"),
    "an example in words": (["networks:build", "--example", "eight rows"], "8x784"),
    "integers without bounds": (["networks:build", "--example", "8x4:int64"], "least and greatest"),
    "a type nobody knows": (["networks:build", "--example", "8x4:float99"], "for its type"),
    "rows of objects": (["networks:build", "--example", "objects.npy"], "arrays of numbers"),
    "rows that are missing": (["networks:build", "--example", "gone.npy"], "gone.npy"),
    "a rate in words": (["networks:build", "--drop-prob", "2=half"], "PATTERN=P"),
    "a free dimension in words": (["networks:build", "--free-dim", "length"], "INPUT:AXIS=NAME"),
    "a scale of one number": (["networks:build", "--target-scale", "3"], "two numbers"),
    "two classes for three": (["networks:build", "--classes", "a,b"], "3 different names"),
    "an unknown task": (["networks:build", "--task", "ranking"], "declare what the network"),
    "an example of another width": (["networks:build", "--example", "8x5"], "fails on the example"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_export_is_one_line_with_the_remedy(dubito: Dubito, name: str) -> None:
    words, told = BAD[name]

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("touch canary",)

    torch.save({"0.weight": Evil()}, "evil.pt")
    torch.save([torch.zeros(1)], "list.pt")
    Path("cut.safetensors").write_bytes(Path("w.safetensors").read_bytes()[:100])
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    defaults = {"--weights": "w.pt", "--example": "8x4"} | dict(
        zip(DECLARED[::2], DECLARED[1::2], strict=True)
    )
    given = [part for key, value in defaults.items() if key not in words for part in (key, value)]
    code, _, err = dubito("export", *words, *given)
    assert code == 1
    error = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1, err
    assert told in error[0]
    assert not Path("canary").exists()
    assert not Path("out.dubito").exists()


def _program(network: nn.Module, path: str, *, rows: object = Dim.DYNAMIC) -> None:
    shapes = None if rows is None else ({0: rows},)
    program = torch.export.export(network, (torch.randn(5, 4),), dynamic_shapes=shapes)
    torch.export.save(program, path)


def test_a_program_in_training_mode_becomes_a_bundle_with_its_own_example(dubito: Dubito) -> None:
    _program(network().train(), "p.pt2")
    code, out, err = dubito("import", "p.pt2", *DECLARED)
    assert code == 0, err
    assert "note: reading p.pt2 runs code from it on this machine" in err
    assert "1 random operations" in out
    prediction = Engine.load("out.dubito").predict(torch.randn(3, 4))
    assert prediction.variance.max() > 0


def test_a_program_without_randomness_or_with_fixed_rows_is_refused_with_the_remedy(
    dubito: Dubito,
) -> None:
    _program(network().eval(), "eval.pt2")
    code, _, err = dubito("import", "eval.pt2", *DECLARED)
    assert (code, "exported in evaluation mode" in err, "network.train()" in err) == (1, True, True)
    _program(network().train(), "fixed.pt2", rows=None)
    code, _, err = dubito("import", "fixed.pt2", *DECLARED)
    assert (code, "takes 5 rows only" in err, "Dim.DYNAMIC" in err) == (1, True, True)
    Path("text.pt2").write_text("hello")
    code, _, err = dubito("import", "text.pt2", *DECLARED)
    assert (code, "expected a program of torch.export" in err) == (1, True)
    code, _, err = dubito("import", "gone.pt2", *DECLARED)
    assert (code, "expected a .pt2 file" in err) == (1, True)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local MLflow registry in SQLite, empty."""
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    mlflow.set_tracking_uri(uri)
    return uri


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["pickle", "pt2"])
def test_a_model_of_a_registry_and_of_a_folder_becomes_a_bundle(
    dubito: Dubito, registry: str, form: str
) -> None:
    import mlflow
    from mlflow.models import infer_signature

    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    signature = infer_signature(rows, rows[:, :3])
    options = {"serialization_format": form, "signature": signature, "pip_requirements": ["torch"]}
    if form == "pt2":
        options["input_example"] = rows
    with mlflow.start_run():
        mlflow.pytorch.log_model(
            network().train(), name="m", registered_model_name="animals", **options
        )
    mlflow.pytorch.save_model(network().train(), "folder", **options)
    for source in ("models:/animals/1", "folder"):
        code, out, err = dubito("import", source, *DECLARED)
        assert code == 0, err
        assert "runs code from it" in err
        assert "1 random operations" in out
        Path("out.dubito").unlink()


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_mlflow_does_not_have_is_refused(dubito: Dubito, registry: str) -> None:
    code, _, err = dubito("import", "models:/nobody/1", *DECLARED)
    assert (code, "finds no such model" in err) == (1, True)
    code, _, err = dubito("import", "nowhere", *DECLARED)
    assert (code, "finds no such model" in err) == (1, True)


def test_without_mlflow_the_extra_is_named(dubito: Dubito, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.models", None)  # as where it is not installed
    code, _, err = dubito("import", "models:/animals/1", *DECLARED)
    assert (code, "dubito[mlflow]" in err) == (1, True)


def test_rows_of_an_archive_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", image=np.zeros((2, 3)), age=np.zeros((2, 1)))
    assert set(read_example([str(tmp_path / "rows.npz")])) == {"image", "age"}
    with zipfile.ZipFile(tmp_path / "rows.npz", "a") as archive:
        archive.writestr("age", archive.read("age.npy"))
    with pytest.raises(InputError, match="an array twice"):
        read_example([str(tmp_path / "rows.npz")])
