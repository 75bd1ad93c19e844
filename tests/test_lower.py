"""Composite operators: those that a bundle may name stay whole, others are taken apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import exported_program
from torch.nn import functional

from dubito_nn import Bundle, ExportError, export
from dubito_nn.program import Program


class Written(nn.Module):
    """A network that calls what a subclass says behind its dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm, self.head = nn.Dropout(0.3), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.between(self.norm(self.drop(x))))
        return result

    def between(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Composite(Written):
    """Calls torch by names that stand for other operators."""

    def between(self, x: Tensor) -> Tensor:
        x = torch.hstack([torch.clip(x, -1.0, 1.0)[:, :4], torch.negative(x[:, 4:])])
        x = torch.multiply(x, torch.special.expit(x)).subtract(0.5)
        x = x + functional.one_hot(x.argmax(1), 8) * torch.quantile(x, 0.3, 1, keepdim=True)
        return torch.true_divide(x, 1.0 + torch.linalg.norm(x, dim=1, keepdim=True))


class SingularValues(Written):
    """Calls an operator that is one step of its own, and no bundle may name that either."""

    def between(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x.view(-1, 2, 4)).repeat(1, 4)


class Differences(nn.Module):
    """Differences of neighbours, twice, with a column before; and where two bits differ."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        twice = torch.diff(self.dropout(x), n=2, prepend=x[:, :1])
        return self.head(twice) * (1.0 + torch.diff(x > 0, dim=-1).float().mean(1, keepdim=True))


class Squeezed(nn.Module):
    """Asks for the shapes of what a recurrent network and attention with dropout return."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.GRU(8, 8, 2, dropout=0.2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, last = self.recurrent(x.unsqueeze(0))
        seen = last[-1:].squeeze(0).reshape(-1, 1, 2, 4)
        p = 0.3 if self.training else 0.0
        seen = functional.scaled_dot_product_attention(seen, seen, seen, dropout_p=p).squeeze(1)
        result: Tensor = self.head(seen.squeeze(-3).flatten(1))
        return result


def exported(network: nn.Module, x: Tensor, folder: Path) -> Bundle:
    path = folder / "network.dubito"
    return export(network, x, path, task="classification", output="logits")


def operators(program: Program) -> set[str]:
    return {node.op for node in program.nodes}


@pytest.mark.parametrize("kind", [Composite, Differences, Squeezed])
def test_what_is_taken_apart_answers_as_the_network(kind: type[nn.Module], tmp_path: Path) -> None:
    network, x = kind().eval(), torch.randn(4, 8)
    bundle = exported(network, x, tmp_path)
    (name,) = (spec.name for spec in bundle.manifest.inputs)
    with torch.no_grad():
        point = bundle.point.run({name: x}, bundle.weights)["output"]
        torch.testing.assert_close(point, network(x))


def test_operators_that_a_bundle_may_name_stay_whole(tmp_path: Path) -> None:
    bundle = exported(Composite(), torch.randn(4, 8), tmp_path)
    for program in (bundle.sampling, bundle.point):
        assert {"aten.linear.default", "aten.layer_norm.default"} <= operators(program)
        assert {"aten.cat.default", "aten.clamp.default", "aten.mul.Tensor"} <= operators(program)


def test_a_refusal_names_the_operator_that_the_network_calls(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"operator `aten\.linalg_svdvals\.default`.*plain torch"):
        exported(SingularValues(), torch.randn(4, 8), tmp_path)


def test_torch_takes_as_many_operators_for_composite_as_before(tmp_path: Path) -> None:
    before = exported_program._collect_all_valid_cia_ops()
    with pytest.raises(ExportError):
        exported(SingularValues(), torch.randn(4, 8), tmp_path)
    assert exported_program._collect_all_valid_cia_ops() == before
