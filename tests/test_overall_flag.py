"""The default of the flag on networks as people have them, and what it says that it is blind to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dubito.calibration import splits
from dubito.calibration.choices import Choices
from dubito.calibration.flags.distances import FeatureBank
from dubito.calibration.flags.made import blind_to, made_rows
from dubito.calibration.flags.scorer import OVERALL, profiles
from dubito.calibration.flags.transitions import Transitions
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.calibration.terms import Terms
from dubito.engine import Engine, Sampling
from dubito.engine.network import Network
from dubito.errors import InputError
from dubito.serving.labelled import LabelledRows, calibrate
from dubito_nn import export
from dubito_nn.training import seeded

from .fits import fit_classification, fit_regression

Floats = NDArray[np.float64]
ASKED = {"sampling": Sampling(num_samples=4), "alpha": 0.1, "coverage": 0.8, "seed": 0}
NUM_COLUMNS, NUM_CLASSES = 10, 3


def classified(count: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Logits, labels, and maps of 3 channels and 4 places."""
    generator = np.random.default_rng(seed)
    label_B = generator.integers(0, 3, count)
    logits_TBC = 3 * np.eye(3)[label_B] + generator.normal(size=(4, count, 3))
    return logits_TBC, label_B, label_B[:, None, None] + generator.normal(size=(count, 3, 4))


def test_the_profile_of_a_map_is_its_means_along_every_axis() -> None:
    maps = np.random.default_rng(0).normal(size=(5, 3, 1, 4))
    expected = np.concatenate([maps.mean(axis=(2, 3)), maps.mean(axis=(1, 2))], axis=1)
    np.testing.assert_allclose(profiles(maps), expected, atol=1e-12)
    assert profiles(maps[:, :, 0, 0]).shape == (5, 0)


def test_the_overall_score_weighs_features_as_much_as_outputs() -> None:
    logits_TBC, label_B, map_B = classified(600)
    record = fit_classification(logits_TBC, label_B, features=map_B, **ASKED)
    assert record.ood.score == OVERALL
    assert record.ood_fitted is not None
    tails = {tail.score: tail for tail in record.ood_fitted.tails}
    weights = {"predictive_entropy": 1.0, "mahalanobis": 0.5, "profile": 0.5, "transitions": 0.5}
    assert list(tails) == list(weights)
    source = record.head.source(Sampled((logits_TBC,), features=map_B))
    by_name = {name: record.ood_fitted.score(name, source) for name in tails}
    held_b = splits.parts(600, alpha=0.1, coverage=0.8, seed=0, label_B=label_B)["conformal"]
    for name, weight in weights.items():
        rank = np.sort(by_name[name][held_b])
        share_b = (len(rank) - np.searchsorted(rank, rank) + 1) / (len(rank) + 1)
        np.testing.assert_allclose(tails[name].surprise(rank), -weight * np.log(share_b), atol=0.02)
    total_B = sum(tail.surprise(by_name[name]) for name, tail in tails.items())
    np.testing.assert_allclose(record.ood_scores(source), total_B, rtol=1e-12)


def chains(of: NDArray[np.int64], seed: int) -> Floats:
    """Embedded words, each led to by the one before as the chain of its row says, (B, 24, 16)."""
    fixed, generator = np.random.default_rng(0), np.random.default_rng(seed)
    follows = fixed.dirichlet(np.full(10, 0.3), (4, 10)).cumsum(-1)
    embedding = fixed.normal(size=(10, 16))
    words = generator.integers(0, 10, (len(of), 24))
    for place in range(1, 24):
        drawn_B1 = generator.random((len(of), 1))
        words[:, place] = (drawn_B1 > follows[of, words[:, place - 1]]).sum(1).clip(max=9)
    return embedding[words] + 0.1 * np.sin(np.arange(24))[:, None]


def test_transitions_tell_rows_whose_positions_follow_each_other_as_in_no_class() -> None:
    label_B = np.random.default_rng(1).integers(0, 3, 600)
    fitted = Transitions.fit(chains(label_B[:300], 2), label_B[:300])
    usual = chains(label_B[300:], 3)
    shuffled = np.random.default_rng(4).permuted(usual, axis=1)
    other = chains(np.full(300, 3), 5)
    is_strange = np.repeat([0, 1], 300)
    for strange in (shuffled, other):
        score = np.r_[fitted.score(usual), fitted.score(strange)]
        assert roc_auc_score(is_strange, score) > 0.99
        bank = FeatureBank.fit(chains(label_B[:300], 2).reshape(300, -1), label_B[:300])
        flat = np.r_[usual, strange].reshape(600, -1)
        assert roc_auc_score(is_strange, bank.mahalanobis(flat)) < 0.9
    u_BLP = usual @ fitted.directions.array() - fitted.means.array()
    by_class = [
        [
            np.mean(
                [
                    np.square(fitted.whitening.array() @ (row[at + 1] - row[at] @ map_PP)).sum()
                    for at in range(len(row) - 1)
                ]
            )
            for map_PP in fitted.maps.array()
        ]
        for row in u_BLP[:20]
    ]
    np.testing.assert_allclose(fitted.score(usual[:20]), np.min(by_class, axis=1), rtol=1e-9)


def test_transitions_of_features_that_never_vary_are_those_of_one_row() -> None:
    same = np.ones((40, 3, 4))
    fitted = Transitions.fit(same, None)
    np.testing.assert_allclose(fitted.score(same), 0, atol=1e-9)
    assert (fitted.score(same + np.random.default_rng(0).normal(size=same.shape)) > 1).all()
    with pytest.raises(InputError, match="features of shape"):
        fitted.score(same[:, :2])


def test_the_default_takes_no_rows_from_the_other_fits() -> None:
    logits_TBC, label_B, map_B = classified(600)
    for scaling in ("temperature", "none"):
        asked = ASKED | {"choices": Choices(scaling)}  # type: ignore[arg-type]
        plain = fit_classification(logits_TBC, label_B, score="energy", **asked)
        record = fit_classification(logits_TBC, label_B, features=map_B, **asked)
        assert record.splits == plain.splits
        assert record.conformal == plain.conformal
        assert Calibration.from_json(record.to_json()) == record
        assert (record.head, record.ood.score) == (plain.head, OVERALL)


def test_with_few_rows_or_features_that_overflow_the_default_reads_outputs_and_says_so() -> None:
    logits_TBC, label_B, map_B = classified(70)
    wide_B = np.where(np.arange(70)[:, None, None] == 3, np.inf, map_B)
    for features, reason in ((map_B, "20 rows or more for distances"), (wide_B, "finite numbers")):
        record = fit_classification(logits_TBC, label_B, features=features, **ASKED)
        assert record.ood.score == "predictive_entropy"
        assert any("reads the outputs alone" in line and reason in line for line in record.warnings)
        with pytest.raises(InputError, match=f"`overall` expects .*{reason}"):
            fit_classification(logits_TBC, label_B, features=features, score="overall", **ASKED)
    with pytest.raises(InputError, match="got none: export with features="):
        fit_classification(logits_TBC, label_B, score="overall", **ASKED)


def test_a_regression_flags_far_features_though_its_passes_agree_on_them() -> None:
    generator = np.random.default_rng(1)
    mean_TBD = generator.normal(size=(1, 500, 1)) + 0.2 * generator.normal(size=(4, 500, 1))
    target_BD = mean_TBD.mean(axis=0) + generator.normal(size=(500, 1))
    feature_BF = generator.normal(size=(500, 140))
    record = fit_regression(mean_TBD, None, target_BD, features=feature_BF, **ASKED)
    assert [tail.score for tail in record.ood_fitted.tails] == [  # type: ignore[union-attr]
        *("epistemic_variance", "mahalanobis", "outside"),
    ]
    far = Sampled((np.zeros((4, 3, 1)),), features=np.full((3, 140), 9.0))
    assert record.ood.flags(record.ood_scores(record.head.source(far))).all()


def spread(count: int, seed: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Rows about three centres, in ten columns that depend on each other."""
    generator = np.random.default_rng(seed)
    label_B = generator.integers(0, NUM_CLASSES, count)
    mixing = np.random.default_rng(7).normal(size=(4, NUM_COLUMNS)) / 2
    centres = np.random.default_rng(8).normal(size=(NUM_CLASSES, 4))
    hidden = 1.5 * centres[label_B] + generator.normal(size=(count, 4))
    x = hidden @ mixing + 0.2 * generator.normal(size=(count, NUM_COLUMNS))
    return torch.from_numpy(x).float(), label_B


@pytest.fixture(scope="module", params=[0.0, 0.1], ids=["hidden", "inputs"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A perceptron as people have it, with dropout of hidden units, or of inputs as well."""
    first = [nn.Dropout(request.param)] if request.param else []
    x, label_B = spread(600, 0)
    with seeded(0):
        network = nn.Sequential(
            *first, nn.Linear(NUM_COLUMNS, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3)
        )
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(150):
            optimiser.zero_grad()
            cross_entropy(network(x), torch.from_numpy(label_B)).backward()
            optimiser.step()
    path = tmp_path_factory.mktemp("plain") / "plain.dubito"
    export(network.eval(), x[:4], path, task="classification", output="logits")
    return Engine.load(path, num_samples=16, draw="iid")


def calibrated(engine: Network, score: str | None) -> Calibration:
    """As `calibrate` fits it."""
    x, label_B = spread(600, 1)
    terms = Terms(Sampling(16, draw="iid"), 0.05, 0.9, 0, score=score)
    rows = LabelledRows({engine.manifest.inputs[0].name: x}, label_B, None, len(x))
    return calibrate(engine, rows, terms, lambda: None, 10**7)


def scored(engine: Engine, record: Calibration, rows: Tensor) -> Floats:
    """The flag's scores as served."""
    sampling = record.sampling
    asked = {"sampling": sampling, "temperature": record.head.logit_scaling}
    passes = engine.sample(rows, sampling=sampling).numpy()
    assert asked["temperature"] is not None
    maps = engine.feature_maps(rows).numpy()
    return record.ood_scores(record.head.source(Sampled((passes,), features=maps)))


def test_the_default_finds_what_the_outputs_of_a_plain_network_hide(engine: Engine) -> None:
    usual, _ = spread(400, 2)
    made = made_rows({"x": spread(400, 3)[0]}, 5)
    by_default, by_outputs = (calibrated(engine, name) for name in (None, "predictive_entropy"))
    areas = {}
    for record in (by_default, by_outputs):
        for kind, rows in made.items():
            score = [scored(engine, record, some) for some in (usual, rows["x"])]
            is_strange = np.repeat([0, 1], [len(part) for part in score])
            areas[record.ood.score, kind] = roc_auc_score(is_strange, np.concatenate(score))
    assert areas[OVERALL, "far"] > 0.99
    assert areas[OVERALL, "noise"] > 0.95
    assert areas[OVERALL, "shuffled"] > 0.9
    assert areas["predictive_entropy", "far"] < 0.8


def test_a_calibration_says_what_its_flag_is_blind_to(engine: Engine) -> None:
    by_default, by_outputs = (calibrated(engine, name) for name in (None, "predictive_entropy"))
    assert by_default.made_rows is not None
    assert by_default.made_rows["far"] > 0.95
    assert by_default.summary()["ood"]["blind_to"] == []  # type: ignore[index]
    assert "far" in by_outputs.summary()["ood"]["blind_to"]  # type: ignore[index]
    assert "made_rows" not in by_outputs.summary()
    assert Calibration.from_json(by_outputs.to_json()) == by_outputs
    assert "made_rows" not in replace(by_outputs, made_rows=None).to_json()


def test_made_rows_are_far_noisy_or_shuffled() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, 3, generator=generator) * torch.tensor([1.0, 10.0, 0.0]) + 5
    words = torch.randint(3, 9, (300, 4), generator=generator)
    made = made_rows({"x": x, "words": words}, 0)
    assert list(made) == ["far", "noise", "shuffled"]
    for rows in made.values():
        assert rows["x"].shape == (100, 2, 3)
        assert (rows["x"].dtype, rows["words"].dtype) == (x.dtype, words.dtype)
        assert torch.equal(rows["x"][..., 2], torch.full((100, 2), 5.0))
        assert (rows["words"].min(), rows["words"].max()) == (3, 8)
    far = (made["far"]["x"] - 5)[..., :2] / torch.tensor([1.0, 10.0])
    assert 5 < float(far.std()) < 7
    assert (made["noise"]["x"] <= x.amax(0)).all()
    assert (made["noise"]["x"] >= x.amin(0)).all()
    columns = zip(made["shuffled"]["x"].flatten(1).T, x.flatten(1).T, strict=True)
    assert all(torch.isin(some, usual).all() for some, usual in columns)
    assert list(made_rows({"words": words[:, :1]}, 0)) == ["noise"]
    assert blind_to({"far": 1.0, "noise": 0.49, "shuffled": 0.5}) == ["noise"]


def test_far_rows_are_far_from_what_is_usual_though_some_rows_are_farther() -> None:
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    plain = made_rows({"x": x}, 1)["far"]["x"]
    with_strays = made_rows({"x": torch.cat([x[:290], torch.full((10, 4), 1e6)])}, 1)["far"]["x"]
    assert 4 < plain.std() < 8
    assert 4 < with_strays.std() < 8
