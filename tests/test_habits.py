"""Habits of code that was not written for a service: what is taken, and how the rest is refused."""

import functools
import json
import random
import re
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributions, nn
from torch.nn import functional

from dubito.engine import Engine, Sampling
from dubito.errors import InputError
from dubito_nn import BundleError, ExportError, export, load_bundle
from dubito_nn.manifest_reader import manifest_from_json

ROWS = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
FILE_WIDE = random.Random(3)


class Layers(nn.Module):
    """Two layers with dropout, and what a forward pass makes of them.

    Args:
        forward: of the network and its rows.
    """

    def __init__(self, forward: Callable[["Layers", Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.dropout, self.head = nn.Linear(8, 6), nn.Dropout(0.3), nn.Linear(6, 3)
        self.filter = nn.Parameter(torch.randn(3, dtype=torch.cfloat))
        self.line = forward

    def hidden(self, x: Tensor) -> Tensor:
        return torch.relu(self.inner(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.line(self, x)))


def forked(network: Layers, x: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        kept = torch.rand(6)
    return network.hidden(x) * kept


def put_back(network: Layers, x: Tensor) -> Tensor:
    state = torch.get_rng_state()
    torch.manual_seed(1)
    kept = torch.rand(6)
    torch.set_rng_state(state)
    return network.hidden(x) * kept


def by_a_fresh_generator(network: Layers, x: Tensor) -> Tensor:
    hidden = network.hidden(x)
    return hidden if np.random.default_rng().random() > 0.1 else 2 * hidden


def by_the_system(network: Layers, x: Tensor) -> Tensor:
    hidden = network.hidden(x)
    return hidden if random.SystemRandom().random() > 0.1 else 2 * hidden


def by_a_generator_of_the_file(network: Layers, x: Tensor) -> Tensor:
    hidden = network.hidden(x)
    return hidden if FILE_WIDE.random() > 0.1 else 2 * hidden


def one_row_apart(network: Layers, x: Tensor) -> Tensor:
    hidden = network.hidden(x)
    return hidden - hidden.mean() if x.shape[0] == 1 else hidden


def one_row_without_dropout(network: Layers, x: Tensor) -> Tensor:
    hidden = network.hidden(x)
    return functional.dropout(hidden, 0.5, network.training) if x.shape[0] > 1 else hidden


def seventeen_apart(network: Layers, x: Tensor) -> Tensor:
    return network.hidden(x) - (1 if x.shape[0] == 17 else 0)


class Merging(Layers):
    """Its own train() and eval() change a weight."""

    def train(self, mode: bool = True) -> "Merging":
        with torch.no_grad():
            self.inner.weight.add_(-1.0 if mode else 1.0)
        super().train(mode)
        return self


class Holding(Layers):
    """Keeps a layer by a generator of its own."""

    def __init__(self, generator: np.random.RandomState) -> None:
        super().__init__(lambda n, x: n.hidden(x) * (1 if n.generator.rand() > 0.3 else 2))  # type: ignore[attr-defined]
        self.generator = generator


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a seed that is undone": (lambda: Layers(forked), "with torch.random.fork_rng(), so that its"),
    "a state put back": (lambda: Layers(put_back), "with torch.manual_seed(), so that its draws"),
    "a fresh generator": (
        lambda: Layers(by_a_fresh_generator),
        "draws in the forward pass with numpy.random.default_rng(), whose numbers a graph",
    ),
    "the system's generator": (lambda: Layers(by_the_system), "with SystemRandom.random(), whose"),
    "a generator held": (
        lambda: Holding(np.random.RandomState(3)),
        "draws from Python's `random` or NumPy, which a graph cannot hold",
    ),
    "a generator of the file": (
        lambda: Layers(by_a_generator_of_the_file),
        "draws from Python's `random` or NumPy, which a graph cannot hold",
    ),
    "one row apart": (
        lambda: Layers(one_row_apart),
        "computes something else for one row than for several",
    ),
    "one row without dropout": (
        lambda: Layers(one_row_without_dropout),
        "computes something else for one row than for several",
    ),
    "seventeen rows apart": (
        lambda: Layers(seventeen_apart),
        "computes something else for 17 of them than its graph, which was recorded for 2 to 16",
    ),
    "weights that a mode changes": (
        lambda: Merging(Layers.hidden),
        "module `inner` changes its weights in train() or eval(), as adapters do",
    ),
    "integers drawn in place": (
        lambda: Layers(lambda n, x: n.hidden(x) * torch.empty(6).random_(0, 2)),
        "draws integers in place (random_), which a graph cannot hold: draw with torch.rand",
    ),
    "NumPy": (
        lambda: Layers(lambda n, x: n.hidden(x) * float(x.detach().numpy().mean())),
        "leaves torch for NumPy in forward() (.numpy()), which a graph cannot hold",
    ),
    "a sparse product": (
        lambda: Layers(lambda n, x: torch.sparse.mm(torch.eye(8).to_sparse(), x.T).T[:, :6]),
        "computes with a sparse tensor, which a graph cannot hold: use a dense one",
    ),
    "a decision by values": (
        lambda: Layers(lambda n, x: n.hidden(x) if x.sum() > 0 else n.hidden(-x)),
        "decides by the values of a tensor (data-dependent control flow)",
    ),
    "the number of rows as a number": (
        lambda: Layers(lambda n, x: n.hidden(x) / x.shape[0] ** 0.5),
        "computes with a size that is free, such as the number of rows (`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_hold_is_refused_in_our_words(name: str, tmp_path: Path) -> None:
    make, expected = REFUSED[name]
    with pytest.raises(ExportError, match=re.escape(expected)) as caught:
        export(make(), ROWS, tmp_path / "n.dubito", task="classification", output="logits")
    assert "torch said" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (ROWS.to_sparse(), "expects a dense tensor with numbers, got torch.sparse_coo"),
        (ROWS.to("meta"), "expects a dense tensor with numbers, got no numbers (device meta)"),
        (ROWS[0], "The one axis of `x` is that of the rows: one row is given as x[None]"),
        ({"x": ROWS, "scale": 2.0}, "takes more than tensors, or a list or mapping of them, is"),
    ],
)
def test_an_example_that_is_none_is_refused_with_what_it_lacks(
    example: object, expected: str, tmp_path: Path
) -> None:
    network = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.3), nn.Linear(6, 3))
    network.forward = lambda x, scale=1.0: nn.Sequential.forward(network, x) * scale  # type: ignore[method-assign,assignment]
    with pytest.raises(ExportError, match=re.escape(expected)):
        export(network, example, tmp_path / "n.dubito", task="classification", output="logits")  # type: ignore[arg-type]


def drawn_on_one_way(network: Layers, x: Tensor) -> Tensor:
    hidden = network.hidden(x)
    if torch.rand(1).item() < 0.4:
        hidden = hidden * torch.rand(x.shape[0], 1)
    return hidden


def in_frequencies(network: Layers, x: Tensor) -> Tensor:
    """As Fourier neural operators do: some frequencies filtered, the others 0."""
    found = torch.fft.rfft(network.hidden(x))
    filtered = torch.zeros(x.shape[0], 4, dtype=torch.cfloat)
    filtered[:, :3] = found[:, :3] * network.filter
    return torch.fft.irfft(filtered, n=6)


@torch.inference_mode()
def inferring(network: Layers, x: Tensor) -> Tensor:
    return network.hidden(x)


TAKEN: dict[str, Callable[[Layers, Tensor], Tensor]] = {
    "a draw on one of two ways": drawn_on_one_way,
    "zeros of complex numbers": in_frequencies,
    "inference mode": inferring,
    "a law with a shape of rows": lambda n, x: (
        n.hidden(x) * distributions.Exponential(1.0).sample((x.shape[0], 6))
    ),
    "a dropped axis of one row": lambda n, x: n.hidden(x).squeeze(),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_graph_can_hold_is_taken(name: str, tmp_path: Path) -> None:
    """`export` proves it against the network at several numbers of rows."""
    path = tmp_path / "n.dubito"
    export(Layers(TAKEN[name]), ROWS, path, task="classification", output="logits")
    assert Engine.load(path, timing_limit_s=0).predict(ROWS[:1].numpy()).mean.shape == (1, 3)


def test_another_thread_may_seed_while_a_network_is_exported(tmp_path: Path) -> None:
    seeds = list[int]()

    def seeding(network: Layers, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: seeds.append(np.random.default_rng(5).integers(10))).result()
        return network.hidden(x)

    path = tmp_path / "n.dubito"
    export(Layers(seeding), ROWS, path, task="classification", output="logits")
    assert seeds
    assert path.exists()


class Tokens(nn.Module):
    """Reads ids of any length.

    Args:
        cut: of the embedded ids, by what is asked of their number.
    """

    def __init__(self, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.table, self.dropout, self.head = nn.Embedding(20, 4), nn.Dropout(0.3), nn.Linear(4, 3)
        self.cut = cut

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.dropout(self.cut(self.table(ids))).mean(1))


IDS = torch.randint(0, 20, (5, 6), generator=torch.Generator().manual_seed(1))
ANY_LENGTH = {"task": "classification", "output": "logits", "free_dims": {"ids": {1: "length"}}}


@pytest.mark.parametrize(
    ("cut", "limits", "taken", "refused"),
    [
        (lambda x: x[:, -8:] if x.shape[1] > 8 else x, (1, 8), 8, 9),
        (lambda x: 2 * x if x.shape[1] < 5 else x, (5, 2**20), 5, 4),
        (lambda x: x - x.mean() if x.shape[1] == 1 else x, (2, 2**20), 2, 1),
    ],
)
def test_a_length_beyond_which_a_network_computes_something_else_is_no_input(
    cut: Callable[[Tensor], Tensor],
    limits: tuple[int, int],
    taken: int,
    refused: int,
    tmp_path: Path,
) -> None:
    path, network = tmp_path / "n.dubito", Tokens(cut)
    bundle = export(network, {"ids": IDS}, path, **ANY_LENGTH)  # type: ignore[arg-type]
    assert bundle.manifest.free_sizes == {"length": limits}
    bound = f"most {limits[1]}" if limits[0] == 1 else f"least {limits[0]}"
    assert f"input `ids`: `length` is at {bound}" in bundle.manifest.warnings
    engine = Engine.load(path, timing_limit_s=0)
    with pytest.raises(InputError, match=f"`length` expects a size of .* got {refused}: "):
        engine.predict({"ids": np.ones((1, refused), np.int64)})
    ids = np.arange(taken)[None]
    answer = engine.predict({"ids": ids}, sampling=Sampling(1, method="point"))
    with torch.no_grad():
        expected = network.eval()(torch.as_tensor(ids)).softmax(-1)
    np.testing.assert_allclose(answer.mean, expected, atol=1e-6)


def test_a_length_apart_from_its_neighbours_is_refused_and_any_other_limit_not_kept(
    tmp_path: Path,
) -> None:
    apart = Tokens(lambda x: 2 * x if x.shape[1] == 9 else x)
    with pytest.raises(ExportError, match="treats the size 9 of `length` apart from others"):
        export(apart, {"ids": IDS}, tmp_path / "n.dubito", **ANY_LENGTH)  # type: ignore[arg-type]
    alike = Tokens(lambda x: x[:, :8] if x.shape[1] < 5 else x)
    bundle = export(alike, {"ids": IDS}, tmp_path / "n.dubito", **ANY_LENGTH)  # type: ignore[arg-type]
    assert bundle.manifest.free_sizes is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([], "expects an object of free dimensions, of ['length']"),
        ({"width": [1, 2]}, "expects an object of free dimensions, of ['length']"),
        ({"length": [1]}, "of `length` expects the least and the most"),
        ({"length": [0, 2]}, "expects an integer in [1, 1048576], got 0"),
        ({"length": [3, 2]}, "expects an integer in [3, 1048576], got 2"),
    ],
)
def test_limits_of_a_strange_manifest_are_refused(
    raw: object, expected: str, tmp_path: Path
) -> None:
    export(Tokens(lambda x: x), {"ids": IDS}, tmp_path / "n.dubito", **ANY_LENGTH)  # type: ignore[arg-type]
    manifest = load_bundle(tmp_path / "n.dubito").manifest
    with pytest.raises(BundleError, match=re.escape(expected)):
        manifest_from_json(json.loads(json.dumps({**manifest.to_json(), "free_sizes": raw})))


def test_what_a_network_closes_over_is_in_the_copy_that_is_recorded(tmp_path: Path) -> None:
    """In evaluation mode the caller's own layers drop nothing."""
    network = Layers(lambda n, x: n.hidden(x))
    second, third = nn.Dropout(0.2), nn.Dropout(0.1)
    network.second, network.third = second, third
    network.line = lambda n, x: second(n.hidden(x))
    network.inner.register_forward_hook(lambda module, args, result: third(result))
    network.seen = weakref.ref(network)  # type: ignore[assignment]
    network.eval()
    bundle = export(network, ROWS, tmp_path / "n.dubito", task="classification", output="logits")
    assert [site.drop_prob for site in bundle.sites] == pytest.approx([0.1, 0.2, 0.3])
    assert network.line(network, ROWS) is not None
    assert not second.training


@functools.lru_cache
def positions(width: int) -> Tensor:
    return torch.sin(torch.arange(width) * 0.1)


def test_what_a_file_keeps_of_a_first_pass_is_no_part_of_a_recording(tmp_path: Path) -> None:
    positions.cache_clear()
    network = Layers(lambda n, x: n.hidden(x) + positions(6))
    export(network, ROWS, tmp_path / "n.dubito", task="classification", output="logits")
    assert type(positions(6)) is Tensor
    assert network(ROWS).detach().numpy().shape == (5, 3)


def test_an_index_beyond_its_axis_is_refused_by_the_engine(tmp_path: Path) -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.head = nn.Dropout(0.3), nn.Linear(4, 3)

        def forward(self, x: Tensor, place: Tensor) -> Tensor:
            chosen = x.gather(1, place[:, None, None].expand(-1, 1, 4)).squeeze(1)
            return self.head(self.dropout(chosen))

    path, rows = tmp_path / "n.dubito", torch.randn(4, 5, 4)
    export(
        Chosen(), (rows, torch.tensor([0, 4, 2, 1])), path, task="classification", output="logits"
    )
    engine = Engine.load(path, timing_limit_s=0)
    with pytest.raises(InputError, match="looks up an entry that it does not have"):
        engine.predict({"x": rows[:1].numpy(), "place": np.array([5])})
    answer = engine.predict({"x": rows[:1].numpy(), "place": np.array([4])})
    assert answer.mean.shape == (1, 3)
