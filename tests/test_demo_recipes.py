from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

from dubito.engine import Engine
from dubito.engine.heads.numbers import mean_and_variance
from dubito.recipes.demo import DIABETES, DIGITS, RECIPES, DatasetRows, Recipe, Splits
from dubito.recipes.demo.digits import digit_splits
from dubito_nn import load_bundle
from dubito_nn.dropout import ConcreteDropout, ConcreteDropout2d
from dubito_nn.training import Progress, seeded

DROPOUTS = (nn.Dropout, nn.Dropout2d, ConcreteDropout, ConcreteDropout2d)


def _passes(network: nn.Module, rows: NDArray[np.float32], num_samples: int = 64) -> torch.Tensor:
    """Outputs of T masked passes, stacked: (T, B, C) or (T, B, 2 D)."""
    dropouts = [module for module in network.modules() if isinstance(module, DROPOUTS)]
    for module in dropouts:
        module.train()
    try:
        with seeded(0), torch.no_grad():
            outputs = [network(torch.from_numpy(rows)) for _ in range(num_samples)]
    finally:
        network.eval()
    return torch.stack([o if isinstance(o, torch.Tensor) else torch.cat(o, 1) for o in outputs])


def _parts(splits: Splits) -> tuple[DatasetRows, DatasetRows, DatasetRows]:
    return splits.train, splits.calibration, splits.test


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_row_of_the_data_is_in_exactly_one_part(recipe: Recipe) -> None:
    data, _ = (
        load_diabetes(return_X_y=True, scaled=False)
        if recipe is DIABETES
        else load_digits(return_X_y=True)
    )
    parts = np.concatenate([rows.inputs for rows in _parts(recipe.splits())])
    scaled = data if recipe is DIABETES else data / 16.0
    ours = sorted(map(tuple, parts.tolist()))
    assert ours == sorted(map(tuple, scaled.astype(np.float32).tolist()))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_parts_are_the_same_at_each_call_and_of_the_types_that_training_takes(
    recipe: Recipe,
) -> None:
    for first, second in zip(_parts(recipe.splits()), _parts(recipe.splits()), strict=True):
        assert np.array_equal(first.inputs, second.inputs)
        assert len(first) == len(first.targets)
        assert first.inputs.dtype == np.float32
        assert first.targets.dtype == (np.float64 if recipe is DIABETES else np.int64)


def test_the_parts_of_the_digits_hold_the_classes_in_the_same_shares() -> None:
    shares = [np.bincount(rows.targets) / len(rows) for rows in _parts(digit_splits())]
    assert np.abs(np.subtract(shares[1:], shares[0])).max() < 0.005
    assert [len(rows) for rows in _parts(digit_splits())] == [1000, 450, 347]


def test_another_seed_splits_the_digits_otherwise() -> None:
    assert not np.array_equal(digit_splits(0).test.inputs, digit_splits(1).test.inputs)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_gives_the_same_network_twice_and_reports_progress(recipe: Recipe) -> None:
    told: list[Progress] = []
    short = replace(recipe, epochs=1)
    first, second = short.fit(told.append), short.fit()
    assert [p.epoch for p in told] == [1]
    assert first.result == second.result
    rows = recipe.splits().test.inputs
    assert torch.equal(_passes(first.network, rows, 2), _passes(second.network, rows, 2))


def test_the_scale_of_the_target_is_that_of_the_training_rows() -> None:
    targets = DIABETES.splits().train.targets
    assert replace(DIABETES, epochs=1).fit().target_scale == (
        (pytest.approx(targets.mean()),),
        (pytest.approx(targets.std()),),
    )
    assert replace(DIGITS, epochs=1).fit().target_scale is None


def test_the_digits_are_recognised_and_mirrored_ones_are_doubted(
    demonstrated: Callable[[str], Path],
) -> None:
    engine, splits = Engine.load(demonstrated("digits")), digit_splits()

    def mean(rows: NDArray[np.float32]) -> torch.Tensor:
        return engine.sample(rows).double().softmax(2).mean(0)

    def entropy(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return torch.special.entr(mean(rows)).sum(1).numpy()

    assert (mean(splits.test.inputs).argmax(1).numpy() == splits.test.targets).mean() >= 0.97
    # Threshold at a false-alarm rate of 5 %: the conformal quantile of the rows held out.
    held_out = np.sort(entropy(splits.calibration.inputs))
    threshold = held_out[int(np.ceil(0.95 * (len(held_out) + 1))) - 1]
    asymmetric = splits.test.inputs[np.isin(splits.test.targets, [2, 3, 4, 5, 7])]
    mirrored = asymmetric.reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64).copy()
    assert (entropy(mirrored) > threshold).mean() >= 0.4


def test_the_network_with_learned_rates_recognises_digits_and_has_moved_its_rates(
    demonstrated: Callable[[str], Path],
) -> None:
    path, test = demonstrated("digits-concrete"), digit_splits().test
    mean_BC = Engine.load(path).sample(test.inputs).softmax(2).mean(0)
    assert (mean_BC.argmax(1).numpy() == test.targets).mean() >= 0.97
    rates = {site.module_path: site.drop_prob for site in load_bundle(path).sites}
    assert rates.keys() == {"convolutions.3", "hidden.0", "head_dropout"}
    assert all(p is not None and 0.01 < p < 0.6 for p in rates.values())
    assert max(abs(p - 0.1) for p in rates.values() if p is not None) > 0.05


def test_the_diabetes_network_predicts_better_than_the_mean_and_knows_its_noise(
    demonstrated: Callable[[str], Path],
) -> None:
    engine, splits = Engine.load(demonstrated("diabetes")), DIABETES.splits()
    raw = engine.sample(splits.test.inputs)
    mean_TBD, noise_TBD = (part.numpy() for part in mean_and_variance(raw, engine.manifest))
    error_BD = splits.test.targets - mean_TBD.mean(0)
    variance_BD = mean_TBD.var(0) + noise_TBD.mean(0)
    from_mean_BD = splits.test.targets - splits.train.targets.mean(0)
    assert np.mean(error_BD**2) < 0.75 * np.mean(from_mean_BD**2)
    assert 0.5 < np.mean(error_BD**2 / variance_BD) < 1.6


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_each_recipe_is_exported_with_its_words(recipe: Recipe, tmp_path: Path) -> None:
    bundle = replace(recipe, epochs=1).export_to(tmp_path / "demo.dubito")
    manifest = bundle.manifest
    assert (manifest.task, manifest.output, manifest.notes) == (
        recipe.task,
        recipe.output,
        recipe.notes,
    )
    assert manifest.classes == recipe.classes
    assert manifest.warnings == ()
    assert any(site.learned for site in bundle.sites) == (recipe is not DIGITS)
    assert (manifest.target_scale is not None) == (recipe is DIABETES)


def test_a_split_of_another_seed_can_be_put_into_a_recipe() -> None:
    other = replace(DIGITS, splits=partial(digit_splits, 3), epochs=1)
    assert np.array_equal(other.splits().test.inputs, digit_splits(3).test.inputs)
