"""Dropout that is set or added at export, and stated in the manifest."""

import pytest
import torch
from torch import Tensor, nn

from dubito_nn import Bundle, ExportError, export
from dubito_nn.dropout import ConcreteDropout, DropBlock2d, VariationalLSTM


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


class Power(nn.Module):
    """Generalised mean: its p is no probability."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.p, self.drop = 3.0, drop

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.dropout(x, self.drop, self.training) if self.drop else x
        return x.clamp(min=1e-6).pow(self.p).mean(-1, keepdim=True).pow(1 / self.p)


def test_a_number_that_is_no_probability_is_left_alone(written):
    plain = nn.Sequential(nn.Linear(8, 8), Power(), nn.Dropout(0.2), nn.Linear(1, 3)).eval()
    bundle = written(plain, {"1": 0.1}, 8)
    assert table(bundle) == [("1", 0.1), ("2", 0.2)]  # dropout behind it
    x = torch.randn(3, 8)
    with torch.no_grad():
        point = bundle.point.run({"input": x}, bundle.weights)["output"]
        torch.testing.assert_close(point, plain(x))


def test_a_layer_that_drops_by_other_means_than_the_number_is_refused(written):
    drops = nn.Sequential(nn.Linear(8, 8), Power(0.3), nn.Linear(1, 3))
    with pytest.raises(ExportError, match=r"`1` draws random.*`p` did not change.*set p in the"):
        written(drops, {"1": 0.1}, 8)


class Kept(nn.Module):
    """Drops with what was computed once, or with one of several numbers."""

    def __init__(self, **numbers: float) -> None:
        super().__init__()
        vars(self).update(numbers)
        self.keep = 1 - next(iter(numbers.values()))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.ones_like(x), self.kept()) if self.training else x

    def kept(self) -> float:
        return self.keep


class Read(Kept):
    """Drops with `p`."""

    def kept(self) -> float:
        return 1 - self.p


class Compared(Read):
    """Drops with `p`, where uniform numbers are below it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) >= self.p) if self.training else x


class KeepRate(Kept):
    """`p` is the probability of keeping."""

    def kept(self) -> float:
        return self.p


@pytest.mark.parametrize(
    "layer", [Kept(drop_prob=0.49), Kept(rate=0.5), KeepRate(p=0.9)], ids=["stale", "rate", "keep"]
)
def test_an_override_that_does_not_take_is_refused(written, layer):
    with pytest.raises(ExportError, match=r"module `1` draws random numbers itself"):
        written(nn.Sequential(nn.Linear(8, 6), layer, nn.Linear(6, 3)), {"1": 0.1}, 8)


def test_of_two_numbers_the_one_that_is_dropped_with_is_set(written):
    layers = [Read(p=0.5, drop_prob=0.4), Compared(p=0.5), Compared(p=0.3, drop_prob=0.4)]
    bundle = written(nn.Sequential(nn.Linear(8, 6), *layers, nn.Linear(6, 3)), {"[123]": 0.1}, 8)
    assert table(bundle) == [("1", 0.1), ("2", None), ("3", None)]  # the last two do not tell
    below = [n for n in bundle.sampling.nodes if n.op == "aten.ge.Scalar"]
    assert [node.args[1] for node in below] == [0.1, 0.1]


def test_p_of_a_layer_whose_draws_follow_from_it_is_overridden(written):
    image = nn.Sequential(
        nn.Conv2d(1, 4, 3), DropBlock2d(0.1, 2), DropBlock2d(0.0, 2), nn.Flatten(), nn.Linear(64, 3)
    )
    bundle = written(image, {"[12]": 0.3}, 1, 6, 6)
    assert table(bundle) == [("1", 0.3), ("2", 0.3)]
    gamma = 0.3 * 16 / 9 / 4
    assert [site.keep_prob for site in bundle.sites] == pytest.approx([1 - gamma] * 2)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"0": 0.3, "[0]": 0.2}, [("0", 0.2), ("2", 0.5), ("4", 0.5)]),
        ({"2": 0.3, "*": 0.2}, [(str(place), 0.2) for place in range(6)]),
        ({"*": 0.2, "2": 0.3}, [(str(p), 0.3 if p == 2 else 0.2) for p in range(6)]),
    ],
)
def test_of_patterns_that_match_one_module_the_last_counts(written, patterns, expected):
    assert table(written(network(0.5), patterns, 8)) == expected


@pytest.mark.parametrize("given", [[("1", 0.3)], "1", {1: 0.3}])
def test_drop_prob_in_another_form_is_refused(written, given):
    with pytest.raises(ExportError, match="drop_prob expects patterns of module paths"):
        written(network(0.5), given, 8)
