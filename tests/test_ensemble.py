"""Ensembles against hand computation from the members' samples, and what they refuse."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import measures
from torch import Tensor, nn

from dubito.engine import Classification, Engine, Ensemble, Regression, Sampling
from dubito.engine.ensemble import of_member
from dubito.errors import InputError
from dubito_nn import export
from dubito_nn.manifest import Output
from dubito_nn.networks import MLP

SAMPLING = Sampling(40, 7, draw="iid")


def member(
    path: Path,
    seed: int,
    *,
    features: int = 5,
    outputs: int = 3,
    output: Output = "logits",
    classes: Sequence[str] | None = None,
) -> Engine:
    torch.manual_seed(seed)
    pair = output == "mean_and_log_variance"
    network: nn.Module = MLP(features, (16,), outputs, heteroscedastic=pair)
    if output == "log_probs":
        network = nn.Sequential(network, nn.LogSoftmax(-1))
    place = path / f"{seed}-{output}-{features}-{outputs}.dubito"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(
            network,
            torch.randn(4, features),
            place,
            task="regression" if "mean" in output else "classification",
            output=output,
            classes=classes,
            target_scale=([50.0] * outputs, [2.0] * outputs) if pair else None,
        )
    return Engine.load(place)


def rows(count: int, features: int = 5) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(5))


def test_a_classification_is_that_of_all_passes_of_all_members(tmp_path: Path) -> None:
    ensemble = Ensemble(tuple(member(tmp_path, seed) for seed in range(3)))
    got = ensemble.predict(rows(9), sampling=SAMPLING, keep_samples=True)
    assert isinstance(got, Classification)
    raw = [
        one.sample(rows(9), sampling=of_member(SAMPLING, place)).double()
        for place, one in enumerate(ensemble.members)
    ]
    each, logits_TBC = [one.softmax(-1) for one in raw], torch.cat(raw)
    probs_TBC, energy_TB = torch.cat(each), -logits_TBC.logsumexp(-1)
    expected = {
        "energy": energy_TB.mean(0),
        "energy_spread": energy_TB.std(0, correction=0),
        "max_logit": logits_TBC.amax(-1).mean(0),
        "mean": probs_TBC.mean(0),
        "variance": measures.variance(probs_TBC),
        "predictive_entropy": measures.predictive_entropy(probs_TBC),
        "expected_entropy": measures.expected_entropy(probs_TBC),
        "mutual_information": measures.mutual_information(probs_TBC),
        "variation_ratio": measures.variation_ratio(probs_TBC),
        "standard_error": sum(measures.standard_error(one) ** 2 for one in each).sqrt() / 3,
        "samples": probs_TBC,
    }
    for name, column in expected.items():
        np.testing.assert_allclose(
            getattr(got, name), column.numpy(), rtol=1e-5, atol=1e-7, err_msg=name
        )
    assert (got.num_samples_used == 120).all()
    assert (got.sampling.method, got.sampling.seed) == ("ensemble", 7)
    np.testing.assert_array_equal(got.label_index, got.mean.argmax(1))
    np.testing.assert_array_equal(
        got.predictive_entropy, got.expected_entropy + got.mutual_information
    )


def test_the_corrected_information_is_nearer_to_that_of_many_samples(tmp_path: Path) -> None:
    ensemble = Ensemble(tuple(member(tmp_path, seed) for seed in range(2)))
    many = ensemble.predict(rows(24), sampling=Sampling(20_000))
    assert isinstance(many, Classification)
    plain, corrected = [], []
    for seed in range(0, 600, 2):
        few = ensemble.predict(rows(24), sampling=Sampling(8, seed, draw="iid"))
        assert isinstance(few, Classification)
        plain.append(few.mutual_information)
        corrected.append(few.mutual_information_corrected)
    missed, left = (np.mean(one) - many.mutual_information.mean() for one in (plain, corrected))
    assert missed < 0
    assert abs(left) < 0.5 * abs(missed)


def test_the_standard_error_is_the_spread_of_the_mean_over_seeds(tmp_path: Path) -> None:
    ensemble = Ensemble(tuple(member(tmp_path, seed) for seed in range(2)))
    answers = [
        ensemble.predict(rows(4), sampling=Sampling(16, 2 * s, draw="iid")) for s in range(800)
    ]
    spread = np.std([answer.mean for answer in answers], axis=0, ddof=1)
    stated = np.sqrt(np.mean([answer.standard_error**2 for answer in answers], axis=0))
    np.testing.assert_allclose(stated / spread, 1, atol=0.12)


def test_a_regression_adds_the_spread_between_members(tmp_path: Path) -> None:
    ensemble = Ensemble(
        tuple(member(tmp_path, s, outputs=2, output="mean_and_log_variance") for s in range(3))
    )
    got = ensemble.predict(rows(5), sampling=SAMPLING, keep_samples=True)
    assert isinstance(got, Regression)
    raw = torch.cat(
        [
            one.sample(rows(5), sampling=of_member(SAMPLING, place)).double()
            for place, one in enumerate(ensemble.members)
        ]
    ).numpy()
    means, noise = 50 + 2 * raw[:, :, 0], 4 * np.exp(raw[:, :, 1])
    np.testing.assert_allclose(got.mean, means.mean(0))
    np.testing.assert_allclose(got.epistemic_variance, means.var(0))
    np.testing.assert_allclose(got.aleatoric_variance, noise.mean(0))
    np.testing.assert_array_equal(got.variance, got.epistemic_variance + got.aleatoric_variance)
    assert got.samples is not None
    assert got.noise_samples is not None
    np.testing.assert_allclose(got.samples, means)
    np.testing.assert_allclose(got.noise_samples, noise)


def test_passes_come_one_member_after_the_other(tmp_path: Path) -> None:
    ensemble = Ensemble(tuple(member(tmp_path, seed) for seed in range(2)))
    apart = [one.sample(rows(5), sampling=own) for one, own in ensemble.drawn(SAMPLING)]
    assert torch.equal(ensemble.sample(rows(5), sampling=SAMPLING), torch.cat(apart))
    with pytest.raises(InputError, match="features expect one network, got an ensemble"):
        ensemble.features(rows(5))


def test_passes_on_several_scales_are_not_put_together(tmp_path: Path) -> None:
    raw = member(tmp_path, 0, outputs=2, output="mean")
    manifest = replace(raw.manifest, target_scale=((1.0, 1.0), (2.0, 2.0)))
    scaled = replace(raw, bundle=replace(raw.bundle, manifest=manifest, digest=None))
    with pytest.raises(InputError, match="expect one `target_scale`, got several"):
        Ensemble((raw, scaled)).sample(rows(5))


def test_members_have_masks_of_their_own(tmp_path: Path) -> None:
    seeds = [of_member(Sampling(seed=2**63 - 1), place).seed for place in range(3)]
    assert seeds == [2**63 - 1, 0, 1]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"outputs": 4}, ["number of outputs", "got 3 in member 1 and 4 in member 2"]),
        ({"classes": ("a", "b", "c")}, ["classes"]),
        ({"features": 6}, ["inputs"]),
        ({"output": "log_probs"}, ["output", "logits", "log_probs"]),
        ({"output": "mean"}, ["task", "classification", "regression"]),
    ],
)
def test_members_that_disagree_are_refused(
    tmp_path: Path, other: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        Ensemble((member(tmp_path, 0), member(tmp_path, 1, **other)))  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_too_few_members_one_twice_and_a_single_network_are_refused(tmp_path: Path) -> None:
    one = member(tmp_path, 0)
    with pytest.raises(InputError, match="2 to 16 versions, got 1"):
        Ensemble((one,))
    with pytest.raises(InputError, match="got the same one as member 1 and member 2"):
        Ensemble((one, one))
    with pytest.raises(InputError, match="use `Ensemble`"):
        one.predict(rows(1), sampling=Sampling(method="ensemble"))
