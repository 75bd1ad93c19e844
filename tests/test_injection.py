"""Dropout that is set or added at export, and stated in the manifest."""

import pytest
import torch
from torch import Tensor, nn

from dubito_nn import Bundle, ExportError, export
from dubito_nn.dropout import ConcreteDropout, VariationalLSTM


@pytest.fixture
def written(tmp_path):
    def write(network: nn.Module, drop_prob: dict[str, float], *row: int) -> Bundle:
        torch.manual_seed(0)
        return export(
            network,
            torch.randn(2, *row),
            tmp_path / "network.dubito",
            task="classification",
            output="logits",
            drop_prob=drop_prob,
        )

    return write


def table(bundle: Bundle) -> list[tuple[str, float | None]]:
    return [(site.module_path, site.drop_prob) for site in bundle.sites]


def network(p: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, 16),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(16, 16),
        nn.Dropout(p),
        nn.Linear(16, 3),
    )


def test_a_network_trained_without_dropout_is_doubted_where_the_user_says(written):
    bundle = written(network(0.0), {"2": 0.25, "1": 0.1}, 8)
    assert table(bundle) == [("1", 0.1), ("2", 0.25)]
    assert bundle.manifest.injected == ("2", "1")
    assert bundle.manifest.warnings[0].startswith("dropout injected at export: `2`, `1`: ")
    assert bundle.manifest.warnings[0] == bundle.manifest.injection_warning
    assert sum("injected" in warning for warning in bundle.manifest.warnings) == 1


def test_a_pattern_overrides_the_probabilities_of_all_that_it_matches(written):
    bundle = written(network(0.5), {"[24]": 0.2}, 8)
    assert table(bundle) == [("2", 0.2), ("4", 0.2)]


def test_the_point_graph_drops_nothing(written):
    plain = network(0.0).eval()
    bundle = written(plain, {"0": 0.25}, 8)
    x = torch.randn(3, 8)
    with torch.no_grad():
        point = bundle.point.run({"input": x}, bundle.weights)["output"]
        torch.testing.assert_close(point, plain(x))


def test_of_nested_matches_the_innermost_count(written):
    nested = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3))
    assert [path for path, _ in table(written(nested, {"0*": 0.1}, 8))] == ["0.0", "0.1"]


class Recurrent(nn.Module):
    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(8, 6, num_layers, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0].mean(1))


@pytest.mark.parametrize(("num_layers", "batch_dim"), [(1, 0), (3, 1)])
def test_a_recurrent_network_drops_between_layers_or_behind_its_only_one(
    written, num_layers, batch_dim
):
    bundle = written(Recurrent(num_layers), {"rnn": 0.3}, 4, 8)
    assert {site.module_path for site in bundle.sites} <= {"rnn", "(the network itself)"}
    assert [site.batch_dim for site in bundle.sites] == [batch_dim] * max(1, num_layers - 1)
    assert {site.drop_prob for site in bundle.sites} == {0.3}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_attention_drops_its_weights(written):
    bundle = written(Attention(), {"attention*": 0.3}, 4, 8)
    assert table(bundle) == [("attention", 0.3)]
    assert bundle.sites[0].shape == (2, 4, 4)


def test_a_module_that_does_not_run_is_no_place_for_dropout(written):
    idle = network(0.5)
    idle.spare = nn.Identity()
    idle.forward = lambda x: idle[5](idle[4](idle[3](x.repeat(1, 2))))
    with pytest.raises(ExportError, match=r"`0` is not called in the forward pass"):
        written(idle, {"0": 0.3}, 8)


def test_a_module_without_a_tensor_to_drop_from_is_refused(written):
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pairs, self.head = Pairs(), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pairs(x)["x"])

    with pytest.raises(ExportError, match=r"`pairs` does not return a tensor.*name a module"):
        written(Net(), {"pairs": 0.3}, 8)


def test_p_of_a_layer_of_several_parts_is_overridden_and_not_doubled(written) -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = VariationalLSTM(4, 5, 0.3)
            self.last = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.lstm(x)[0][:, -1])

    bundle = written(Sequence(), {"lstm": 0.45}, 3, 4)
    assert {site.drop_prob for site in bundle.sites} == {0.45}


def test_a_learned_p_is_not_overridden(written) -> None:
    network = nn.Sequential(nn.Linear(4, 6), ConcreteDropout(6), nn.Linear(6, 3))
    with pytest.raises(ExportError, match=r"module `1` learned its p.* leave it out"):
        written(network, {"1": 0.2}, 4)
