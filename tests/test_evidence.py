"""The evidence scripts run, on data made up here; their figures are not looked at."""

from __future__ import annotations

import copy
import gzip
import importlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import MLP
from dubito_nn.training import seeded, squared_error, train

EVIDENCE = Path(__file__).parent.parent / "benchmarks" / "evidence"
NUM_TRAIN, NUM_TEST = 400, 100
SCRIPTS = (
    *("sparse_variational", "concrete_dropout", "mnist_mlp", "stratified", "tolerance"),
    *("drift", "uci_regression", "fashion", "sites", "ties", "flags", "methods", "methods_many"),
)
MODULES = (
    *("data", "record", "doubters", "garments", "side_by_side", "uci"),
    *("plain_networks", "strangers", "methods_distilled"),
    *("active_learning", "learning_curves", "near_copies"),
    *SCRIPTS,
)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(EVIDENCE))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, modules: dict[str, ModuleType]) -> Path:
    """Digits of bars, class c with a bright row c; and a line with noise in splits of 40 and 10."""
    _write_splits(tmp_path / "uci_regression" / "yacht" / "data")
    for name in ("mnist", "fashion_mnist"):
        (tmp_path / name).mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        labels = generator.integers(0, 10, count).astype(np.uint8)
        images = generator.integers(0, 80, (count, 28, 28)).astype(np.uint8)
        images[np.arange(count), 2 * labels] = 255
        for name in ("mnist", "fashion_mnist"):
            home = tmp_path / name
            modules["data"].write_idx(home / f"{part}-images-idx3-ubyte.gz", images)
            modules["data"].write_idx(home / f"{part}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def _write_splits(home: Path) -> None:
    home.mkdir(parents=True)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((50, 3))
    np.savetxt(home / "data.txt", np.c_[x, x.sum(1) + 0.1 * generator.standard_normal(50)])
    np.savetxt(home / "index_features.txt", np.arange(3))
    np.savetxt(home / "index_target.txt", [3])
    for number in range(2):
        order = generator.permutation(50)
        np.savetxt(home / f"index_train_{number}.txt", order[:40])
        np.savetxt(home / f"index_test_{number}.txt", order[40:])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_quick_run_leaves_a_record_with_settings_versions_and_figures(
    name: str, modules: dict[str, ModuleType], folder: Path
) -> None:
    results = folder / "results"
    figures = modules[name].main(
        ["--data", str(folder), "--quick", "--results", str(results), "--threads", "1"]
    )
    assert figures
    _check_record(results / f"{name}_quick.json")


def test_the_network_of_garments_can_learn_digits_instead(
    modules: dict[str, ModuleType], folder: Path
) -> None:
    results = ["--results", str(folder), "--threads", "1"]
    figures = modules["fashion"].main(["--data", str(folder), "--quick", "--swap", *results])
    assert set(figures["strange"]) >= {"mahalanobis", "predictive_entropy"}
    _check_record(folder / "fashion_swapped_quick.json")


def _check_record(path: Path) -> None:
    record = json.loads(path.read_text())
    assert record["quick"]
    assert {"torch", "commit", "seconds"} <= record.keys()
    assert record["settings"]["seed"] == 0


@pytest.mark.slow
def test_learning_curves_go_on_where_they_were_cut_off_side_by_side_as_in_turn(
    modules: dict[str, ModuleType], folder: Path
) -> None:
    """By chance and by weight scaling: no score of a form that a timing chose."""
    options = ["--data", str(folder), "--quick", "--results", str(folder / "results")]
    options += ["--strategies", "random", "bald"]
    figures = modules["active_learning"].main([*options, "--work", str(folder / "work")])
    _check_record(folder / "results" / "active_learning_quick.json")
    whole, ended = (
        folder / "work" / f"active_learning_{n}_0_quick.json" for n in ("random", "bald")
    )
    run, before = json.loads(whole.read_text()), ended.read_text()
    begun = {**run, "accuracies": run["accuracies"][:1]}
    assert len(run["accuracies"]) == 2
    whole.write_text(json.dumps(begun))
    again = modules["active_learning"].main(
        [*options, "--work", str(whole.parent), "--workers", "2"]
    )
    assert again["random"]["accuracies"] == figures["random"]["accuracies"]
    assert again["bald"] == figures["bald"]
    assert ended.read_text() == before
    assert (folder / "results" / "active_learning_quick.svg").read_text().count("</svg>") == 1


def test_a_learning_curve_kept_from_other_settings_is_not_gone_on_with(
    modules: dict[str, ModuleType], folder: Path
) -> None:
    loop = modules["active_learning"]
    run = loop.Run("bald", 0, list(range(20)), [0.5])
    (folder / "run.json").write_text(json.dumps(asdict(run)))
    digits = modules["data"].mnist(folder)
    with pytest.raises(ValueError, match=r"30 labelled rows after 1 round.*got 20: name another"):
        loop.finished("bald", 0, digits, loop.Settings(pool_rows=60), folder / "run.json")


@pytest.mark.parametrize("name", ["near_copies", "near_copies_mnist"])
def test_near_copies_are_counted_on_digits_and_on_mnist(
    name: str, modules: dict[str, ModuleType], folder: Path
) -> None:
    results = folder / "results"
    data = [] if name == "near_copies" else ["--data", str(folder)]
    figures = modules["near_copies"].main([*data, "--quick", "--results", str(results)])
    assert all(0 <= found["near_copies"][0] <= 6 for found in figures.values())
    _check_record(results / f"{name}_quick.json")


def test_a_copy_is_near_its_original_and_stands_beside_it(modules: dict[str, ModuleType]) -> None:
    near_copies = modules["near_copies"]
    rows = torch.arange(5.0)[:, None].expand(5, 200)
    made = near_copies._copies(rows, 0, near_copies.Settings())
    assert made.shape == (15, 200)
    assert torch.allclose(made.mean(1), torch.arange(5.0).repeat_interleave(3), atol=0.05)
    assert float((made - rows.repeat_interleave(3, 0)).std()) == pytest.approx(0.1, rel=0.1)


def test_held_out_rows_are_measured_and_not_trained_on(
    modules: dict[str, ModuleType], folder: Path
) -> None:
    digits = modules["data"].mnist(folder)
    parts = modules["sparse_variational"]._parts(digits, 50, is_quick=False)
    assert len(parts.images) == NUM_TRAIN - 50
    assert parts.test_images.equal(digits.images[-50:])
    assert parts.test_labels.equal(digits.labels[-50:])


def test_idx_files_come_back_as_they_were_written(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    modules["data"].write_idx(tmp_path / "values.gz", values)
    assert np.array_equal(modules["data"].read_idx(tmp_path / "values.gz"), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x0d\x01\0\0\0\x01\0", "magic 0xd01"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "expected 5 bytes"),
    ],
)
def test_files_that_are_not_idx_or_not_whole_are_refused(
    content: bytes, message: str, modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    path = tmp_path / "bad.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=message):
        modules["data"].read_idx(path)


def test_networks_trained_side_by_side_are_those_trained_alone(
    modules: dict[str, ModuleType],
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, 3, generator=generator)
    y = torch.randn(20, 2, generator=generator)
    with seeded(0):
        networks = [_perceptron(0.0), _perceptron(0.0)]
    alone = copy.deepcopy(networks)
    options = {"loss": squared_error, "epochs": 20, "batch_size": 8, "learning_rate": 1e-2}
    module = modules["side_by_side"].SideBySide(networks)
    train(module, x, y, **options)
    together = module.give_back()
    for place, network in enumerate(alone):
        before = network(x[:, place])
        train(network, x[:, place], y[:, place, None], **options)
        after = network(x[:, place])
        assert torch.allclose(together[place](x[:, place]), after, atol=1e-4)
        assert not torch.allclose(before, after, atol=1e-2)


def test_each_network_side_by_side_drops_units_at_its_own_rate(
    modules: dict[str, ModuleType],
) -> None:
    """Means over 20,000 masks, within five of their standard errors."""
    drop_probs = (0.1, 0.6)
    networks = [_perceptron(p) for p in drop_probs]
    for network in networks:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(1.0)
    module = modules["side_by_side"].SideBySide(networks).train()
    num_masks, units = 20_000, 3
    with seeded(0), torch.no_grad():
        inputs = module._mapped(torch.ones(2, num_masks, units), module.maps[0]) - 1.0
    for place, p in enumerate(drop_probs):
        value = inputs[place, :, 0]
        error = math.sqrt(units * p / (1.0 - p) / num_masks)
        assert abs(float(value.mean()) - units) < 5.0 * error
        assert torch.isin((value * (1.0 - p)).round().long(), torch.arange(units + 1)).all()


def test_networks_whose_rates_differ_inside_are_not_taken_side_by_side(
    modules: dict[str, ModuleType],
) -> None:
    without = MLP(3, (4,), 1, dropout=StandardFamily(0.1))
    with pytest.raises(ValueError, match="one p before every map"):
        modules["side_by_side"].SideBySide([without])


def test_a_split_that_lacks_rows_is_refused(modules: dict[str, ModuleType], folder: Path) -> None:
    home = folder / "uci_regression"
    np.savetxt(home / "yacht" / "data" / "index_test_1.txt", [0, 1])
    assert len(modules["uci"].read_split(home, "yacht", 0).test_inputs) == 10
    with pytest.raises(ValueError, match="each of 50 rows once"):
        modules["uci"].read_split(home, "yacht", 1)


def test_a_network_kept_from_other_settings_is_not_taken(
    modules: dict[str, ModuleType], folder: Path
) -> None:
    garments = modules["garments"]
    digits = modules["data"].mnist(folder, "fashion_mnist")
    training = garments.Training((8, 8, 8), 16, held_out=100, epochs=1)
    first, was_trained = garments.bundle_of(digits, training, folder / "kept")
    assert was_trained
    again, was_trained = garments.bundle_of(digits, training, folder / "kept")
    assert not was_trained
    assert again.digest == first.digest
    with pytest.raises(ValueError, match="another folder"):
        garments.bundle_of(digits, replace(training, seed=1), folder / "kept")


def test_images_are_turned_about_their_middle(modules: dict[str, ModuleType]) -> None:
    image = torch.zeros(28, 28)
    image[3, 10] = 1.0
    quarter = modules["fashion"].turned(image.view(1, -1), 90.0).view(28, 28)
    assert torch.allclose(quarter, torch.rot90(image), atol=1e-4)


def _perceptron(p: float) -> MLP:
    return MLP(3, (4,), 1, dropout=StandardFamily(p), drop_inputs=True)
