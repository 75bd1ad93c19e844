"""What is random in networks of every kind, whether or not they can be exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

import dubito_nn
from dubito_nn.examining import Examination, Operation

from .shell import run_command

X = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))


class Net(nn.Module):
    """Two layers with a dropout between, and what a test puts behind it."""

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(4, 16), nn.Dropout(rate), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.drop(self.first(x).relu())))

    def between(self, hidden: Tensor) -> Tensor:
        return hidden


class Functional(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return dropout(hidden, 0.2, self.training)


class LeftOn(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return dropout(hidden, 0.2)


class Centred(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return hidden - hidden.mean(0)


class Decides(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return -hidden if hidden.sum().item() > 1e9 else hidden


class OfNumpy(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return hidden * float(np.random.rand())  # noqa: NPY002 - what the test is about


class Idle(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return hidden + 0 * torch.rand_like(hidden)


class Normed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def between(self, hidden: Tensor) -> Tensor:
        return self.norm(hidden)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(4, 8, 2, dropout=0.3, batch_first=True)
        self.drop, self.last = nn.Dropout(0.2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, object]:
        states, (state, _) = self.memory(x)
        return {"scores": self.last(self.drop(states[:, -1])), "state": (state.transpose(0, 1),)}


def codes(found: Examination) -> list[str]:
    return [finding.code for finding in found.findings]


def operation(found: Examination, module: str) -> Operation:
    (one,) = [one for one in found.operations if one.module == module]
    return one


def seeded(build: type[nn.Module], *args: float) -> nn.Module:
    torch.manual_seed(0)
    return build(*args)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (Net, []),
        (Functional, ["missed-by-modules"]),
        (LeftOn, ["draws-in-eval"]),
        (Centred, ["rows-interact", "not-exportable"]),
        (Decides, ["not-exportable"]),
        (OfNumpy, ["not-of-torch", "not-exportable"]),
        (Idle, ["draws-in-eval", "changes-nothing"]),
        (Normed, ["statistics-in-train", "variance-shift", "batch-norm-rate"]),
    ],
)
def test_what_goes_wrong_is_found_and_nothing_else(
    build: type[nn.Module], expected: list[str]
) -> None:
    assert codes(dubito_nn.examine(seeded(build), X)) == expected


def test_a_sound_network_has_its_operation_and_what_it_does_under_every_switch() -> None:
    found = dubito_nn.examine(seeded(Net), X)
    (one,) = found.operations
    assert (one.module, one.operator, one.drop_prob) == ("drop", "bernoulli", 0.5)
    assert one.draws == {"eval": 0, "train": 1, "dropout": 1, "sampling": 1}
    by_name = {switch.name: switch for switch in found.switches}
    assert by_name["eval"].spread == 0
    assert one.spread > 0
    assert one.share == pytest.approx(1)
    assert found.refusal is None
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["operations"][0]["module"]


def test_the_spread_of_a_linear_dropout_is_the_closed_one() -> None:
    """y = Σ w_i x_i m_i / (1 - p): variance p / (1 - p) Σ (w_i x_i)², over 8 passes of 5 rows."""
    linear = nn.Linear(400, 1, bias=False)
    nn.init.constant_(linear.weight, 0.05)
    network, rows = nn.Sequential(nn.Dropout(0.2), linear), torch.ones(6, 400)
    rows[0] = 2.0
    (one,) = dubito_nn.examine(network, rows).operations
    deviation = np.sqrt(0.25 * 400 * 0.05**2)
    assert one.spread == pytest.approx(deviation * np.sqrt((4 + 4) / 5), rel=0.5)


def test_recurrent_layers_and_structured_returns_are_examined() -> None:
    rows = torch.from_numpy(np.random.default_rng(2).normal(size=(8, 5, 4)).astype(np.float32))
    found = dubito_nn.examine(seeded(Recurrent), rows, output_name="scores")
    assert codes(found) == ["missed-by-modules"]
    assert operation(found, "memory").draws == {"eval": 0, "train": 1, "dropout": 0, "sampling": 1}
    assert operation(found, "memory").spread < operation(found, "drop").spread
    with pytest.raises(dubito_nn.ExportError, match="which the network does not return"):
        dubito_nn.examine(seeded(Recurrent), rows, output_name="logits")


def test_batch_norm_is_told_apart_from_dropout() -> None:
    network = seeded(Normed)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = dubito_nn.examine(network, X)
    by_name = {switch.name: switch for switch in found.switches}
    assert by_name["train"].mixes_rows
    assert by_name["train"].mixed_from == "norm"
    assert "norm.running_mean" in by_name["train"].changes
    assert not by_name["sampling"].mixes_rows
    assert by_name["sampling"].changes == ()
    assert found.norms == ("norm",)
    assert found.norms_spread is not None
    assert found.norms_spread > 0
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_without_dropout_nothing_varies_and_the_generators_stay_as_they_were() -> None:
    idle, network = (nn.Sequential(nn.Dropout(rate), nn.Linear(4, 2)) for rate in (0.0, 0.5))
    found = dubito_nn.examine(idle, X)
    assert codes(found)[0] == "never-varies"
    assert found.operations == ()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    dubito_nn.examine(network, X)
    assert torch.equal(torch.rand(2), expected)


def test_a_high_rate_of_a_network_that_cannot_be_exported_is_told() -> None:
    found = dubito_nn.examine(seeded(Decides, 0.9), X)
    assert codes(found) == ["not-exportable", "very-high-rate"]
    assert "`drop` (p 0.9)" in found.findings[1].text


def test_what_is_no_network_or_does_not_run_is_refused() -> None:
    with pytest.raises(dubito_nn.ExportError, match=r"expects a torch\.nn\.Module"):
        dubito_nn.examine("network", X)  # type: ignore[arg-type]
    with pytest.raises(dubito_nn.ExportError, match="does not run on the example"):
        dubito_nn.examine(Net(), torch.zeros(8, 5) + torch.arange(8)[:, None])


def test_attention_is_missed_as_the_page_of_examples_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "examine.md").read_text()
    blocks = [block.split("\n", 1) for block in page.split("```")[1::2]]
    (_, source), (_, command), (_, printed), (_, code), (_, codes_printed) = blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks.py").write_text(source)
    status, out, _ = run_command(capsys, monkeypatch, *command.split()[1:])
    assert status == 1
    assert out.endswith(printed)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("networks", None)  # as the command imported it
    names: dict[str, Examination] = {}
    exec(code, names)
    sys.modules.pop("networks", None)
    assert capsys.readouterr().out == codes_printed
    found = names["found"]
    attention = operation(found, "attention")
    assert attention.draws == {"eval": 0, "train": 1, "dropout": 0, "sampling": 1}
    assert (attention.drop_prob, operation(found, "drop").draws["dropout"]) == (0.1, 1)
    assert 0 < attention.spread < found.switches[1].spread


def test_the_command_prints_one_page_and_fails_where_something_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "examined_networks.py"
    source.write_text(
        "import torch.nn.functional as F\nfrom torch import nn\n\n\n"
        "class Loose(nn.Module):\n    def __init__(self, hidden=8):\n        super().__init__()\n"
        "        self.first, self.last = nn.Linear(4, hidden), nn.Linear(hidden, 3)\n\n"
        "    def forward(self, x):\n"
        "        return self.last(F.dropout(self.first(x), 0.2))\n"
    )
    command = ("examine", f"{source}:Loose", "--example", "8x4", "--options", '{"hidden": 16}')
    code, out, _ = run_command(capsys, monkeypatch, *command)
    assert code == 1
    assert "(the network itself)" in out
    assert "draws-in-eval: draws in evaluation mode" in out
    assert "export: would be taken" in out
    code, out, _ = run_command(capsys, monkeypatch, *command, "--ignore", "draws-in-eval", "--json")
    assert code == 0
    assert json.loads(out)["findings"] == []
    assert json.loads(out)["operations"][0]["draws"]["eval"] == 1
    code, _, err = run_command(capsys, monkeypatch, "examine", f"{source}:Loose")
    assert (code, "--example: expected rows" in err) == (1, True)
