"""The engine against slow references: loops over samples, brute force over masks."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import measures
from torch import Tensor, nn
from torch.nn import functional

from dubito.engine import Classification, Engine, Regression, Sampling
from dubito.engine.draws.masks import draw
from dubito.engine.heads import head_of
from dubito.errors import BundleRefusedError, InputError
from dubito_nn import Bundle, export
from dubito_nn.manifest import Output


class Cancelling(nn.Module):
    """Two heads of large weights that differ little: float32 rounds by the number of rows."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.hidden, self.drop = nn.Linear(4, 64), nn.Dropout(0.2)
        self.one, self.other = nn.Linear(64, 1), nn.Linear(64, 1)
        with torch.no_grad():
            self.one.weight.mul_(large)
            self.other.weight.copy_(self.one.weight * (1 - 1 / large))

    def forward(self, x: Tensor) -> Tensor:
        units = self.drop(torch.relu(self.hidden(x)))
        return self.one(units) - self.other(units)


class DropConnect(nn.Module):
    """A mask on the weights: one draw for all rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = functional.dropout(self.first.weight, 0.4, self.training)
        return self.last(functional.relu(functional.linear(x, weight, self.first.bias)))


class Positional(nn.Module):
    """Indexes with the rows' own numbers, which must not be repeated from the first sample."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(6, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[0])
        steps = functional.dropout(self.embed(x).view(-1, 3, 4), 0.3, self.training)
        return self.last(steps[rows, x.argmax(1) % 3])


class FlatIndex(nn.Module):
    """Gathers from rows laid end to end, by an index made of row numbers and values."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(6, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        index = torch.arange(x.shape[0]) * 3 + x.argmax(1) % 3
        steps = functional.dropout(self.embed(x).view(-1, 3, 4), 0.3, self.training)
        return self.last(steps.reshape(-1, 4)[index])


class Encoder(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(8, 3)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        steps = x.view(-1, 3, 2).repeat(1, 1, 4)
        if not self.batch_first:
            return self.last(self.encoder(steps.transpose(0, 1)).mean(0))
        return self.last(self.encoder(steps).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 5, 2, dropout=0.4, batch_first=True)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(x.view(-1, 3, 2))
        return self.last(steps[:, -1])


class Relaxed(nn.Module):
    """Concrete dropout written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.logit = nn.Parameter(torch.tensor(-0.8))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first(x))
        uniform = torch.rand_like(hidden).clamp(1e-6, 1 - 1e-6)
        mask = 1 - torch.sigmoid((self.logit + torch.log(uniform / (1 - uniform))) / 0.1)
        return self.last(hidden * mask / (1 - torch.sigmoid(self.logit)))


def perceptron(drop_prob: float = 0.5) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 10),
        nn.ReLU(),
        nn.Dropout(drop_prob),
        nn.Linear(10, 10),
        nn.ReLU(),
        nn.Dropout(drop_prob),
        nn.Linear(10, 3),
    )


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Dropout2d(0.3),
        nn.SELU(),
        nn.AlphaDropout(0.2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": perceptron,
    "convolutional": convolutional,
    "batch-first encoder": lambda: Encoder(batch_first=True),
    "sequence-first encoder": lambda: Encoder(batch_first=False),
    "lstm": Recurrent,
    "concrete": Relaxed,
    "dropconnect": DropConnect,
    "positional": Positional,
    "flat index": FlatIndex,
}


def exported(
    network: nn.Module,
    path: Path,
    *,
    output: Output = "logits",
    features: int = 6,
    target_scale: tuple[float, float] | None = None,
) -> Bundle:
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export(
            network,
            torch.randn(4, features),
            path / "network.dubito",
            task="regression" if "mean" in output else "classification",
            output=output,
            target_scale=target_scale,
        )


@pytest.fixture(scope="module", params=list(NETWORKS))
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    return exported(NETWORKS[request.param](), tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    return exported(perceptron(), tmp_path_factory.mktemp("plain"))


def rows(count: int, features: int = 6) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(5))


def one_by_one(bundle: Bundle, inputs: Tensor, sampling: Sampling) -> Tensor:
    """Every sample of every row on its own, through the graph's plain interpreter."""

    def passes(t: int, row: int) -> Tensor:
        def source(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            own = draw(
                bundle.sites[index],
                sampling.seed,
                range(t, t + 1),
                size,
                masks=sampling.masks,
                rows=range(row, row + 1),
                kind=sampling.draw,
                dtype=dtype,
            )
            return own.reshape(size)

        name = bundle.manifest.inputs[0].name
        with torch.no_grad():
            return bundle.sampling.run({name: inputs[row : row + 1]}, bundle.weights, source)[
                "output"
            ]

    count = range(sampling.num_samples)
    return torch.stack([torch.cat([passes(t, r) for r in range(len(inputs))]) for t in count])


@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_folded_samples_are_those_of_one_sample_and_one_row_at_a_time(
    bundle: Bundle, masks: str
) -> None:
    sampling = Sampling(5, 3, masks)  # type: ignore[arg-type]
    got = Engine.load(bundle).sample(rows(4), sampling=sampling)
    torch.testing.assert_close(got, one_by_one(bundle, rows(4), sampling), atol=1e-5, rtol=1e-5)


def test_rows_together_equal_rows_alone(bundle: Bundle) -> None:
    engine = Engine.load(bundle, num_samples=16)
    together = engine.predict(rows(6))
    for row in range(6):
        alone = engine.predict(rows(6)[row : row + 1])
        np.testing.assert_allclose(alone.mean[0], together.mean[row], atol=1e-5)
        np.testing.assert_allclose(alone.variance[0], together.variance[row], atol=1e-5)


def test_the_first_32_of_64_samples_are_the_32(bundle: Bundle) -> None:
    engine = Engine.load(bundle)
    few = engine.sample(rows(3), sampling=Sampling(32))
    many = engine.sample(rows(3), sampling=Sampling(64))
    torch.testing.assert_close(few, many[:32], atol=1e-5, rtol=1e-5)


def test_the_budget_and_so_the_chunks_do_not_change_the_answer(bundle: Bundle) -> None:
    wide = Engine.load(bundle, num_samples=20).predict(rows(7))
    least = look_at_row_bytes(bundle)
    for budget in (least, 3 * least, 40 * least):
        narrow = Engine.load(bundle, num_samples=20, memory_budget_bytes=budget).predict(rows(7))
        np.testing.assert_allclose(narrow.mean, wide.mean, atol=1e-6)
        np.testing.assert_allclose(narrow.variance, wide.variance, atol=1e-6)


def look_at_row_bytes(bundle: Bundle) -> int:
    with pytest.raises(InputError) as caught:
        Engine.load(bundle, memory_budget_bytes=1)
    return int(str(caught.value).split("which takes ")[1].split(":")[0])


def test_a_budget_too_small_for_one_row_says_what_one_row_takes(plain: Bundle) -> None:
    with pytest.raises(InputError, match=r"memory budget of 8 bytes .* raise memory_budget_bytes"):
        Engine.load(plain, memory_budget_bytes=8)


def test_a_seed_gives_the_same_numbers_again_and_another_seed_others(bundle: Bundle) -> None:
    engine = Engine.load(bundle)
    first, again = (engine.sample(rows(2), sampling=Sampling(8, 1)) for _ in range(2))
    other = engine.sample(rows(2), sampling=Sampling(8, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_equal_rows_agree_with_shared_masks_and_differ_with_independent_ones(
    plain: Bundle,
) -> None:
    engine, twins = Engine.load(plain), rows(1).repeat(2, 1)
    shared = engine.sample(twins, sampling=Sampling(8))
    independent = engine.sample(twins, sampling=Sampling(8, masks="independent"))
    torch.testing.assert_close(shared[:, 0], shared[:, 1])
    assert not torch.allclose(independent[:, 0], independent[:, 1])


def test_what_depends_on_no_draw_runs_once_per_row_and_what_on_no_row_once_per_sample(
    plain: Bundle,
) -> None:
    engine = Engine.load(plain)
    plan = engine.pieces("shared", engine.read_inputs(rows(1))).execution.plan
    assert [node.op for node in plan.prefix if node.op.startswith("aten")] == [
        "aten.linear.default",
        "aten.relu.default",
    ]
    assert [node.op for node in plan.masks] == ["site", "aten.mul.Scalar"] * 2
    assert [node.op for node in plan.suffix].count("aten.linear.default") == 2


def test_columns_agree_with_the_reference_measures(plain: Bundle) -> None:
    engine = Engine.load(plain, num_samples=150, draw="iid")
    got = engine.predict(rows(9))
    assert isinstance(got, Classification)
    probs_TBC = engine.sample(rows(9)).double().softmax(-1)
    expected = {
        "mean": probs_TBC.mean(0),
        "variance": measures.variance(probs_TBC),
        "standard_error": measures.standard_error(probs_TBC),
        "predictive_entropy": measures.predictive_entropy(probs_TBC),
        "expected_entropy": measures.expected_entropy(probs_TBC),
        "mutual_information": measures.mutual_information(probs_TBC),
        "mutual_information_corrected": measures.corrected_mutual_information(
            probs_TBC, group_sizes=[4] * 37 + [2]
        ),
        "variation_ratio": measures.variation_ratio(probs_TBC),
    }
    for name, column in expected.items():
        np.testing.assert_allclose(
            getattr(got, name), column.numpy(), rtol=1e-5, atol=1e-7, err_msg=name
        )
    assert (got.num_samples_used == 150).all()


def test_the_point_method_is_the_network_in_evaluation_mode(tmp_path: Path) -> None:
    network = perceptron()
    engine = Engine.load(exported(network, tmp_path))
    got = engine.predict(rows(4), sampling=Sampling(method="point"))
    network.eval()
    with torch.no_grad():
        expected = network(rows(4)).softmax(-1)
    np.testing.assert_allclose(got.mean, expected.numpy(), atol=1e-6)
    assert not got.variance.any()
    assert (got.num_samples_used == 1).all()


def brute_force(network: nn.Sequential, inputs: Tensor, drop_prob: float) -> Tensor:
    """Exact mean probabilities over all masks of both hidden layers, in float64."""
    first, second, last = (part.double() for part in network if isinstance(part, nn.Linear))
    total = torch.zeros(len(inputs), last.out_features, dtype=torch.float64)
    widths = first.out_features, second.out_features
    for bits in itertools.product((0.0, 1.0), repeat=sum(widths)):
        one, two = torch.tensor(bits, dtype=torch.float64).split(widths)  # type: ignore[no-untyped-call]
        kept = sum(bits)
        weight = (1 - drop_prob) ** kept * drop_prob ** (len(bits) - kept)
        hidden = functional.relu(first(inputs.double())) * one / (1 - drop_prob)
        hidden = functional.relu(second(hidden)) * two / (1 - drop_prob)
        total += weight * last(hidden).softmax(-1)
    return total


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Tensor]:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Linear(2, 5),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(5, 5),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(5, 3),
    )
    for part in network:
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=1.2)
    engine = Engine.load(exported(network, tmp_path_factory.mktemp("small"), features=2))
    with torch.no_grad():
        return engine, brute_force(network, rows(3, 2), 0.3)


def test_the_mean_agrees_with_brute_force_over_all_masks(small: tuple[Engine, Tensor]) -> None:
    engine, exact = small
    got = engine.predict(rows(3, 2), sampling=Sampling(10_000, 11))
    errors = np.abs(got.mean - exact.numpy()) / got.standard_error
    assert errors.max() < 4
    assert got.standard_error.max() < 0.01


def test_the_standard_error_is_the_spread_of_the_mean_over_seeds(
    small: tuple[Engine, Tensor],
) -> None:
    engine, _ = small
    answers = [
        engine.predict(rows(3, 2), sampling=Sampling(32, seed, draw="iid")) for seed in range(2000)
    ]
    spread = np.std([answer.mean for answer in answers], axis=0, ddof=1)
    stated = np.sqrt(np.mean([answer.standard_error**2 for answer in answers], axis=0))
    np.testing.assert_allclose(stated / spread, 1, atol=0.1)


class Heteroscedastic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3))
        self.mean, self.log_variance = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.mean(hidden), self.log_variance(hidden)


def test_regression_adds_up_in_target_units(tmp_path: Path) -> None:
    bundle = exported(
        Heteroscedastic(), tmp_path, output="mean_and_log_variance", target_scale=(100.0, 20.0)
    )
    engine = Engine.load(bundle, num_samples=50)
    got, raw = engine.predict(rows(5), keep_samples=True), engine.sample(rows(5)).double().numpy()
    assert isinstance(got, Regression)
    assert raw.shape == (50, 5, 2, 2)
    means, noise = 100 + 20 * raw[:, :, 0], 400 * np.exp(raw[:, :, 1])
    np.testing.assert_allclose(got.mean, means.mean(0))
    np.testing.assert_allclose(got.epistemic_variance, means.var(0))
    np.testing.assert_allclose(got.aleatoric_variance, noise.mean(0))
    np.testing.assert_array_equal(got.variance, got.epistemic_variance + got.aleatoric_variance)
    assert got.samples is not None
    assert got.noise_samples is not None
    np.testing.assert_allclose(got.samples, means)
    np.testing.assert_allclose(got.noise_samples, noise)


@pytest.mark.parametrize("output", ["log_probs", "probs", "sigmoid_logits"])
def test_every_declared_output_becomes_probabilities(tmp_path: Path, output: Output) -> None:
    columns = 1 if output == "sigmoid_logits" else 3
    ending = {"log_probs": nn.LogSoftmax(-1), "probs": nn.Softmax(-1)}.get(output, nn.Identity())
    network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.Linear(8, columns), ending)
    engine = Engine.load(exported(network, tmp_path, output=output))
    got, raw = engine.predict(rows(4)), engine.sample(rows(4)).double()
    probs = {
        "log_probs": raw.exp(),
        "probs": raw,
        "sigmoid_logits": torch.cat([1 - raw.sigmoid(), raw.sigmoid()], -1),
    }[output]
    np.testing.assert_allclose(got.mean, probs.mean(0).numpy(), atol=1e-6)
    np.testing.assert_allclose(got.mean.sum(1), 1, atol=1e-12)


def test_a_temperature_divides_the_logits_of_every_pass(plain: Bundle) -> None:
    engine = Engine.load(plain)
    cool = engine.predict(rows(3), temperature=2.5)
    expected = (engine.sample(rows(3)).double() / 2.5).softmax(-1).mean(0)
    np.testing.assert_allclose(cool.mean, expected.numpy(), atol=1e-12)
    with pytest.raises(InputError, match="temperature"):
        engine.predict(rows(3), temperature=0.0)


def test_classes_that_tie_but_for_rounding_are_labelled_by_the_first(plain: Bundle) -> None:
    engine, sampling = Engine.load(plain), Sampling(num_samples=4)
    found = engine.predict(rows(2), sampling=sampling)
    assert isinstance(found, Classification)
    made = ("sampling", "classes", "label_index", "samples", "positions")
    columns = {name: value for name, value in vars(found).items() if name not in made}
    columns["mean"] = np.array([[0.2, 0.4, 0.4 - 1e-9], [0.2, 0.4 - 1e-9, 0.4]])
    told = head_of(engine.manifest).prediction(columns, sampling)
    assert isinstance(told, Classification)
    assert told.label_index.tolist() == [1, 1]


def test_a_check_between_chunks_can_end_a_prediction(plain: Bundle) -> None:
    engine = Engine.load(plain, num_samples=40)
    narrow = Engine.load(plain, num_samples=40, memory_budget_bytes=look_at_row_bytes(plain))
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        narrow.predict(rows(1), check=stop)
    assert len(calls) == 3
    np.testing.assert_allclose(narrow.predict(rows(1)).mean, engine.predict(rows(1)).mean)


def test_a_free_dimension_may_have_any_length(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 8)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.last = nn.Linear(8, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.last(self.encoder(self.embed(tokens)).mean(1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = export(
            Tokens(),
            torch.randint(0, 20, (4, 7)),
            tmp_path / "tokens.dubito",
            task="classification",
            output="logits",
            free_dims={"tokens": {1: "length"}},
        )
    engine = Engine.load(bundle, num_samples=6)
    tokens = torch.randint(0, 20, (2, 5))
    for wrong in (20, -1):
        tokens[1, 3] = wrong
        with pytest.raises(InputError, match=rf"from 0 to 19, .* got {wrong} at position \[1, 3\]"):
            engine.sample(tokens)
    for length in (5, 11):
        tokens = torch.randint(0, 20, (3, length))
        got = engine.sample(tokens)
        expected = one_by_one(bundle, tokens, engine.defaults)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_what_is_no_bundle_is_refused_with_the_reason() -> None:
    with pytest.raises(BundleRefusedError, match="not a readable bundle"):
        Engine.load(b"no zip at all")


def test_rounding_of_terms_that_cancel_is_no_interaction_of_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, rows = Cancelling(1e5).eval(), torch.randn(8, 4)
    alone = torch.cat([network(row) for row in rows.split(1)])
    assert (network(rows) - alone).abs().max() > 1e-3  # else it shows nothing
    bundle = export(network, rows, tmp_path / "c.dubito", task="regression", output="mean")
    assert Engine.load(bundle).predict(rows).mean.shape == (8, 1)
