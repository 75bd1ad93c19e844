"""The flag as it is fitted: parts of their own, exact rates, the choice, and serving as fitting."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import nn

from dubito.calibration import splits
from dubito.calibration.choices import Choices, ScalingName
from dubito.calibration.flags.flagging import extra_parts
from dubito.calibration.flags.scorer import OF_CLASSES, OF_NUMBERS
from dubito.calibration.promises.policy import Target
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.engine import Classification, Engine, Regression, Sampling
from dubito.engine.heads.logits import logits
from dubito.engine.heads.numbers import mean_and_variance
from dubito.errors import InputError
from dubito_nn import export

from .fits import fit_classification, fit_regression, served_scores

Floats = NDArray[np.float64]
SAMPLING = Sampling(num_samples=4)
ASKED = {"sampling": SAMPLING, "alpha": 0.1, "coverage": 0.8, "seed": 0}


def classified(rows: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Logits, labels, and features in three clouds."""
    generator = np.random.default_rng(seed)
    label_B = generator.integers(0, 3, rows)
    mean_BC = 3 * np.eye(3)[label_B] + generator.normal(size=(rows, 3))
    logits_TBC = mean_BC + 0.5 * generator.normal(size=(4, rows, 3))
    feature_BF = 4 * np.eye(3, 6)[label_B] + generator.normal(size=(rows, 6))
    return logits_TBC, label_B, feature_BF


def strange(rows: int) -> tuple[Floats, Floats]:
    """Rows with logits as others have them, and features that no class has."""
    logits_TBC, _, _ = classified(rows, seed=99)
    feature_BF = -4 * np.eye(6)[3] + np.random.default_rng(98).normal(size=(rows, 6))
    return logits_TBC, feature_BF


@pytest.mark.parametrize("name", OF_CLASSES.named)
def test_every_score_flags_fresh_rows_at_the_exact_rate(name: str) -> None:
    """Counts over 25 sets of 40 rows, by exact mean and 3.5 deviations: by chance 1 in 2,000."""
    flagged, asked = 0, ASKED | {"coverage": 0.5}
    for seed in range(25):
        logits_TBC, label_B, feature_BF = classified(200 + 40, seed)
        fitted = fit_classification(
            logits_TBC[:, :200],
            label_B[:200],
            score=name,
            features=feature_BF[:200],
            **asked | {"seed": seed},
        )
        fresh = fitted.head.source(Sampled((logits_TBC[:, 200:],), features=feature_BF[200:]))
        flagged += int(fitted.ood.flags(fitted.ood_scores(fresh)).sum())
        held_out = len(fitted.ood.held_out)
    law = stats.betabinom(40, (held_out + 1) // 10, held_out + 1 - (held_out + 1) // 10)
    assert abs(flagged - 25 * law.mean()) < 3.5 * 5 * law.std()


def test_scores_that_are_fitted_take_parts_that_no_other_fit_sees() -> None:
    logits_TBC, label_B, feature_BF = classified(700)
    strange_TNC, strange_NF = strange(60)
    asked = ASKED | {"score": "auto", "features": feature_BF, "ood_features": strange_NF}
    asked |= {"target": Target(acceptance=0.8)}
    record = fit_classification(logits_TBC, label_B, strange=strange_TNC, **asked)
    assert record.splits == {
        **{"fit": 100, "conformal": 80, "ood": 120, "report": 100},
        **{"features": 100, "choice": 100, "policy": 100},
        **{"strange_choice": 30, "strange_report": 30},
    }
    parts = splits.parts(
        *(700,),
        **{"alpha": 0.1, "coverage": 0.8, "seed": 0, "label_B": label_B},
        extra=extra_parts("auto", has_features=True) | {splits.POLICY: splits.Share(5, 4, "")},
    )
    together = np.concatenate(list(parts.values()))
    assert sorted(together.tolist()) == list(range(700))
    for name in ("features", "choice"):
        counts = np.bincount(label_B[parts[name]])
        assert np.abs(counts - np.bincount(label_B) / 7).max() <= 2
    moved_TBC = logits_TBC.copy()
    moved_TBC[:, parts["report"]] += np.random.default_rng(1).normal(size=(4, 100, 3))
    moved = fit_classification(moved_TBC, label_B, strange=strange_TNC, **asked)
    assert (moved.ood, moved.ood_fitted, moved.policy) == (
        record.ood,
        record.ood_fitted,
        record.policy,
    )
    assert moved.report != record.report


def test_auto_takes_the_score_that_parts_the_strange_rows_best_and_says_what_it_compared() -> None:
    logits_TBC, label_B, feature_BF = classified(600)
    strange_TNC, strange_NF = strange(60)
    record = fit_classification(
        logits_TBC,
        label_B,
        strange=strange_TNC,
        score="auto",
        features=feature_BF,
        ood_features=strange_NF,
        **ASKED,
    )
    assert record.ood_fitted is not None
    compared = record.ood_fitted.compared
    assert compared is not None
    assert tuple(compared) == OF_CLASSES.known(has_features=True)
    assert compared[record.ood.score] == max(compared.values()) > 0.95
    assert compared["predictive_entropy"] < 0.7
    assert record.report.after["ood_auroc"] > record.report.before["ood_auroc"]  # type: ignore[operator]
    assert Calibration.from_json(json.dumps(record.to_json())) == record
    page = record.summary()
    assert page["ood"]["compared"] == compared  # type: ignore[index]
    assert len(json.dumps(page["ood_fitted"])) < 300


def test_without_features_auto_compares_the_scores_that_need_none() -> None:
    logits_TBC, label_B, _ = classified(400)
    record = fit_classification(
        logits_TBC,
        label_B,
        strange=0.2 * strange(40)[0],
        score="auto",
        **ASKED,
    )
    assert record.ood_fitted is not None
    assert tuple(record.ood_fitted.compared or ()) == OF_CLASSES.known(has_features=False)
    assert not record.needs_features


def test_a_regression_takes_distances_and_a_share_of_accepted_rows() -> None:
    generator = np.random.default_rng(3)
    mean_TBD = generator.normal(size=(1, 500, 2)) + 0.2 * generator.normal(size=(4, 500, 2))
    target_BD = mean_TBD.mean(axis=0) + generator.normal(size=(500, 2))
    feature_BF = generator.normal(size=(500, 5))
    record = fit_regression(
        *(mean_TBD, None, target_BD),
        score="mahalanobis",
        features=feature_BF,
        target=Target(acceptance=0.75),
        **ASKED,
    )
    assert record.needs_features
    assert record.policy.kind == "acceptance"
    far = record.head.source(Sampled((np.zeros((4, 3, 2)),), features=np.full((3, 5), 9.0)))
    assert record.ood.flags(record.ood_scores(far)).all()
    with pytest.raises(InputError, match="neither right nor wrong"):
        fit_regression(mean_TBD, None, target_BD, target=Target(risk=0.1), **ASKED)
    with pytest.raises(InputError, match="expected one of epistemic_variance"):
        fit_regression(
            *(mean_TBD, None, target_BD),
            score="relative_mahalanobis",
            features=feature_BF,
            **ASKED,
        )


def test_a_score_that_cannot_be_fitted_is_refused_with_the_reason() -> None:
    logits_TBC, label_B, feature_BF = classified(400)
    for score, features, message in (
        ("wild", None, "expected one of predictive_entropy"),
        ("auto", None, "send `ood_inputs`, or name a score"),
        ("knn", None, "export named features="),
        ("knn", np.full_like(feature_BF, np.nan), "expected finite numbers"),
    ):
        with pytest.raises(InputError, match=message):
            fit_classification(logits_TBC, label_B, score=score, features=features, **ASKED)
    with pytest.raises(InputError, match=r"at least 20 strange rows, .* got 19"):
        fit_classification(
            *(logits_TBC, label_B),
            **ASKED,
            score="auto",
            strange=strange(19)[0],
        )
    asked = ASKED | {"score": "combined", "features": feature_BF[:70]}
    with pytest.raises(InputError, match=r"20 for distances between features.*of its own"):
        fit_classification(logits_TBC[:, :70], label_B[:70], **asked)


def engine_of(task: str, folder: Path) -> Engine:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 12), nn.ReLU())
    network = nn.Sequential(nn.Dropout(0.1), body, nn.Dropout(0.4), nn.Linear(12, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = export(
            network,
            torch.randn(4, 4),
            folder / "network.dubito",
            task=task,  # type: ignore[arg-type]
            output="logits" if task == "classification" else "mean",
            features="1",
        )
    return Engine.load(bundle, num_samples=4)


@pytest.mark.parametrize(
    ("method", "scaling"),
    [("mc", "temperature"), ("point", "temperature"), ("mc", "vector"), ("mc", "none")],
)
def test_scores_of_a_prediction_are_those_that_the_fit_saw(
    method: str, scaling: ScalingName, tmp_path: Path
) -> None:
    engine = engine_of("classification", tmp_path)
    rows = np.random.default_rng(2).normal(size=(300, 4)).astype(np.float32)
    count = 1 if method == "point" else 4
    sampling = Sampling(num_samples=count, method=method)  # type: ignore[arg-type]
    logits_TBC = logits(engine.sample(rows, sampling=sampling), "logits").numpy()
    label_B = logits_TBC.mean(axis=0).argmax(axis=-1)
    label_B[::5] = (label_B[::5] + 1) % 3
    features = engine.features(rows).numpy()
    for name in OF_CLASSES.named:
        asked = ASKED | {"sampling": sampling, "score": name, "features": features}
        record = fit_classification(logits_TBC, label_B, choices=Choices(scaling), **asked)
        seen_B = record.ood_scores(record.head.source(Sampled((logits_TBC,), features=features)))
        served = engine.predict(rows[:7], sampling=sampling, temperature=record.head.logit_scaling)
        assert isinstance(served, Classification)
        served_B = served_scores(record, served, engine.features(rows[:7]).numpy())
        np.testing.assert_allclose(served_B, seen_B[:7], rtol=1e-5, atol=1e-6)


def test_scores_of_a_served_regression_are_those_that_the_fit_saw(tmp_path: Path) -> None:
    engine = engine_of("regression", tmp_path)
    rows = np.random.default_rng(2).normal(size=(300, 4)).astype(np.float32)
    mean_TBD = mean_and_variance(engine.sample(rows, sampling=SAMPLING), engine.manifest)[0].numpy()
    target_BD = mean_TBD.mean(axis=0) + 0.1 * np.random.default_rng(3).normal(size=(300, 3))
    features = engine.features(rows).numpy()
    for name in OF_NUMBERS.named:
        asked = ASKED | {"score": name, "features": features}
        record = fit_regression(mean_TBD, None, target_BD, **asked)
        seen_B = record.ood_scores(record.head.source(Sampled((mean_TBD,), features=features)))
        served = engine.predict(rows[:7], sampling=SAMPLING)
        assert isinstance(served, Regression)
        served_B = served_scores(record, served, engine.features(rows[:7]).numpy())
        np.testing.assert_allclose(served_B, seen_B[:7], rtol=1e-5, atol=1e-6)


def test_the_combined_score_finds_what_either_of_its_parts_finds() -> None:
    """Half of the strange rows are strange in their logits alone, half in their features alone."""
    logits_TBC, label_B, feature_BF = classified(900)
    record = fit_classification(logits_TBC, label_B, score="combined", features=feature_BF, **ASKED)
    usual_TBC, _, usual_BF = classified(200, seed=50)
    vague_TBC, _, vague_BF = classified(200, seed=51)
    far_TBC, far_BF = strange(200)
    mixed_TBC = np.concatenate([usual_TBC, 0.1 * vague_TBC, far_TBC], axis=1)
    mixed_BF = np.concatenate([usual_BF, vague_BF, far_BF])
    mixed = record.head.source(Sampled((mixed_TBC,), features=mixed_BF))
    assert record.ood_fitted is not None
    is_strange = np.repeat([0, 1], [200, 400])
    found = {
        name: roc_auc_score(is_strange, record.ood_fitted.score(name, mixed))
        for name in ("combined", "mahalanobis", "predictive_entropy")
    }
    assert found["combined"] > 0.93
    assert found["combined"] > max(found["mahalanobis"], found["predictive_entropy"]) + 0.1
