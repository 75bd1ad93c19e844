"""Calibration of rows that have several labels or positions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from dubito.calibration.choices import Choices
from dubito.calibration.heads.classes import ClassHead
from dubito.calibration.promises.conformal import ConformalScores
from dubito.calibration.promises.policy import Target
from dubito.calibration.promises.positions import Positions
from dubito.calibration.record import Calibration
from dubito.engine.calling.sampling import Sampling
from dubito.errors import InputError
from dubito.report.positions import LabelledPositions, position_statistics
from dubito.report.statistics import figures, intervals

from .fits import classification_figures, evaluate_positions, fit_positions

SAMPLING = Sampling(4)
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def maps(
    rows: int, positions: int, classes: int, seed: int, *, sharpness: float = 1.0
) -> tuple[Floats, Indices]:
    """Logits (T, B, P, C) and truths drawn from them, positions of a row much alike."""
    generator = np.random.default_rng(seed)
    of_row = generator.normal(size=(rows, 1, classes))
    own = generator.normal(size=(rows, positions, classes))
    base = 1.5 * (of_row + 0.5 * own)
    shared = generator.random((rows, 1))  # the draws of a row's positions hang together
    place = np.where(
        generator.random((rows, positions)) < 0.7, shared, generator.random((rows, positions))
    )
    label = (place[..., None] > softmax(base).cumsum(axis=-1)[..., :-1]).sum(axis=-1)
    passes = np.stack([base + 0.05 * generator.normal(size=base.shape) for _ in range(4)])
    return sharpness * passes, label


def fitted(rows: int = 200, head: str = "dense", **options: object) -> Calibration:
    classes = 2 if head == "multilabel" else 3
    logits, label = maps(rows, 6, classes, seed=1)
    asked = {"sampling": SAMPLING, "alpha": 0.1, "coverage": 0.9, "seed": 0}
    return fit_positions(logits, label, head, **asked | options)  # type: ignore[arg-type]


def test_one_temperature_over_all_positions_finds_what_the_logits_were_multiplied_by() -> None:
    logits, label = maps(600, 20, 3, seed=2, sharpness=3.0)
    found = fit_positions(
        logits, label, "dense", sampling=SAMPLING, alpha=0.1, coverage=0.9, seed=0
    )
    assert found.head.scaling.applied == pytest.approx(3.0, rel=0.15)
    before, after = found.report.before, found.report.after
    assert (after["nll"] or 9) < (before["nll"] or 0)
    assert (after["ece"] or 9) < (before["ece"] or 0)


def test_a_row_s_score_is_the_share_of_its_labelled_positions() -> None:
    mean = np.array([[[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]]])
    label = np.array([[0, 0, 0, -1]])  # scores 0.1, 0.6, 0.3, and one that counts nowhere
    assert Positions("dense", 1.0).row_scores(mean, label) == pytest.approx([0.6])
    assert Positions("dense", 0.6).row_scores(mean, label) == pytest.approx([0.3])
    assert Positions("dense", 0.1).row_scores(mean, label) == pytest.approx([0.1])


@pytest.mark.parametrize("share", [1.0, 0.75])
def test_the_promise_for_a_row_is_kept_though_its_positions_depend_on_each_other(
    share: float,
) -> None:
    """Over 60 fits the mean coverage of fresh rows is Beta-distributed; 1 false alarm in 10,000."""
    held, fresh, times = 59, 400, 60
    kept = []
    positions = Positions("dense", share)
    for seed in range(times):
        logits, label = maps(held + fresh, 8, 3, seed=100 + seed)
        mean = softmax(logits).mean(axis=0)
        scores = positions.row_scores(mean[:held], label[:held])
        sets = positions.sets(ConformalScores.of([scores]), mean[held:], 0.9)
        kept.append(positions.is_covered(sets, label[held:]).mean())
    k = 54  # ceil(60 * 0.9)
    law = beta(k, held + 1 - k)
    spread = (law.var() + 0.25 / fresh) ** 0.5 / times**0.5
    assert np.mean(kept) > law.mean() - 3.9 * spread
    # no more than the law, but for the class that is always in a set
    assert np.mean(kept) < law.mean() + 0.02


def test_a_set_of_a_position_always_holds_its_most_probable_class() -> None:
    mean = softmax(np.random.default_rng(0).normal(size=(4, 5, 5, 3)))
    sets = Positions("dense").sets(ConformalScores.of([np.zeros(99)]), mean, 0.9)
    assert (sets.sum(axis=-1) == 1).all()
    assert (sets.argmax(axis=-1) == mean.argmax(axis=-1)).all()


def test_labels_that_must_and_that_may_be_on_enclose_those_that_are() -> None:
    logits, label = maps(500, 5, 2, seed=4)
    found = fit_positions(
        logits[:, :200], label[:200], "multilabel",
        sampling=SAMPLING, alpha=0.1, coverage=0.9, seed=0,
    )  # fmt: skip
    mean = softmax(logits[:, 200:] / (found.head.scaling.applied)).mean(axis=0)
    sets = found.head.sets(mean, None)
    may, must = sets[..., 1], sets[..., 1] & ~sets[..., 0]
    is_on = label[200:] == 1
    enclosed = ((must <= is_on) & (is_on <= may)).all(axis=1)
    assert enclosed.mean() > 0.9 - 4 * (0.09 / 300 + 0.09 / 40) ** 0.5


def test_unlabelled_positions_count_nowhere() -> None:
    logits, label = maps(200, 6, 3, seed=1)
    blotted = logits.copy()
    hidden = label.copy()
    hidden[:, 4:] = -1
    blotted[:, :, 4:] *= -7.0  # nonsense where nobody looks
    asked = {"sampling": SAMPLING, "alpha": 0.1, "coverage": 0.9, "seed": 0}
    one = fit_positions(logits[:, :, :4], label[:, :4], "dense", **asked)  # type: ignore[arg-type]
    other = fit_positions(blotted, hidden, "dense", **asked)  # type: ignore[arg-type]
    assert one.head.scaling.applied == other.head.scaling.applied
    assert one.conformal == other.conformal
    for name in ("accuracy", "nll", "brier", "ece", "classwise_ece", "set_coverage", "mean_iou"):
        assert one.report.after[name] == pytest.approx(other.report.after[name])


def test_figures_of_positions_are_those_of_as_many_rows() -> None:
    logits, label = maps(90, 10, 4, seed=3)
    mean = softmax(logits).mean(axis=0)
    rows = LabelledPositions.of(mean, label >= 0, label, "dense")
    statistics = position_statistics(rows, np.arange(90.0), None, None)
    found = figures(statistics, 90)
    plain = classification_figures(mean.reshape(-1, 4), label.reshape(-1), None)
    for name in ("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece"):
        assert found[name] == pytest.approx(plain[name], abs=1e-12), name


@pytest.mark.parametrize("head", ["dense", "multilabel"])
def test_the_loss_of_positions_that_are_wrong_by_100_nats_is_100(head: str) -> None:
    logits = np.zeros((4, 20, 3, 2))
    logits[..., 0] = 100.0
    label = np.ones((20, 3), dtype=np.int64)
    label[:, 2] = -1
    found = evaluate_positions(logits, label, head, calibration=None)  # type: ignore[arg-type]
    assert found.report["nll"] == pytest.approx(100.0)
    logits[:, 5, 1, 1] = -np.inf
    found = evaluate_positions(logits, label, head, calibration=None)  # type: ignore[arg-type]
    assert found.report["nll"] is None
    assert "probability of 0 in 1 rows, the first of them row 5" in found.warnings[0]


def test_mean_iou_and_subset_accuracy_are_what_they_are_elsewhere() -> None:
    from sklearn.metrics import accuracy_score, jaccard_score

    logits, label = maps(60, 5, 3, seed=6)
    found = evaluate_positions(logits, label, "dense", calibration=None).report
    said = softmax(logits).mean(axis=0).argmax(axis=-1)
    expected = jaccard_score(label.ravel(), said.ravel(), average="macro")
    assert found["mean_iou"] == pytest.approx(expected)
    logits, label = maps(60, 5, 2, seed=7)
    found = evaluate_positions(logits, label, "multilabel", calibration=None).report
    said = softmax(logits).mean(axis=0).argmax(axis=-1)
    assert found["subset_accuracy"] == pytest.approx(accuracy_score(label, said))
    on = softmax(logits).mean(axis=0)[..., 1]
    each = [
        classification_figures(np.stack([1 - on[:, p], on[:, p]], -1), label[:, p], None)
        for p in range(5)
    ]
    assert found["classwise_ece"] == pytest.approx(
        np.mean([one["classwise_ece"] or 0 for one in each]), abs=1e-9
    )


def test_intervals_are_wider_where_positions_hang_together() -> None:
    generator = np.random.default_rng(0)
    alone = generator.random((100, 50)) < 0.3
    together = np.repeat(generator.random((100, 1)) < 0.3, 50, axis=1)
    widths = []
    for wrong in (alone, together):
        label = wrong.astype(np.int64)
        mean = np.broadcast_to([0.7, 0.3], (100, 50, 2)).copy()
        rows = LabelledPositions.of(mean, label >= 0, label, "dense")
        statistics = position_statistics(rows, generator.random(100), None, None)
        report = figures(statistics, 100)
        found = intervals(statistics, report, 100)
        low, high = found["accuracy"] or (0.0, 0.0)
        widths.append(high - low)
        for name, interval in found.items():
            if interval is not None:
                assert interval[0] <= (report[name] or 0.0) <= interval[1], name
    assert widths[1] > 4 * widths[0]  # seven times, in theory


def test_the_record_survives_and_old_ones_are_read() -> None:
    found = fitted(share=0.8)
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.head.positions == Positions("dense", 0.8)
    old = found.to_json()
    del old["positions"]
    assert Calibration.from_json(old).head == ClassHead(found.promise, found.head.scaling)


def test_decisions_ask_for_as_many_single_sets_as_are_promised() -> None:
    positions = Positions("dense", 0.75)
    sets = np.zeros((2, 4, 3), bool)
    sets[..., 0] = True
    sets[0, 3, 1] = True  # three of four are decided
    sets[1, 2:, 1] = True  # two of four
    assert positions.set_sizes(sets).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("head", "options", "reason"),
    [
        ("dense", {"choices": Choices(sets="raps")}, "`sets` expects `lac`"),
        ("multilabel", {"choices": Choices(sets="aps")}, "`sets` expects `lac`"),
        ("dense", {"choices": Choices(per_class=True)}, "`per_class` expects"),
        ("multilabel", {"choices": Choices(scaling="vector")}, "`scaling` `vector` expects"),
        ("dense", {"target": Target(risk=0.1)}, "`target_risk` expects"),
        ("dense", {"share": 0.0}, "`position_share` expects"),
        ("dense", {"share": 1.5}, "`position_share` expects"),
    ],
)
def test_what_has_no_meaning_for_positions_is_refused(
    head: str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        fitted(head=head, **options)


@pytest.mark.parametrize("scaling", ["temperature", "isotonic", "vector", "none"])
def test_every_scaling_of_positions_keeps_the_report_sound(scaling: str) -> None:
    found = fitted(450, choices=Choices(scaling=scaling))  # type: ignore[arg-type]
    assert found.head.scaling.name == scaling
    assert (found.report.after["nll"] or 9.0) < 1.5


def test_a_policy_with_a_share_accepts_that_share() -> None:
    found = fitted(400, target=Target(acceptance=0.6))
    assert found.policy.kind == "acceptance"
    assert (found.policy.acceptance or 0) >= 0.6
    labels = fitted(600, "multilabel", target=Target(risk=0.5))
    assert labels.policy.kind == "risk"


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (np.zeros((20, 5), np.int64), "shape \\(20, 6\\)"),
        (np.full((20, 6), 3), "class indices in \\[0, 3\\)"),
        (np.zeros((20, 6)), "integer class indices"),
        (np.full((20, 6), -1), "at least one labelled position in every row"),
        (np.zeros((20, 6), np.int64), "at least 2 classes|at least [0-9]+ labelled rows"),
    ],
)
def test_truths_that_do_not_fit_are_refused(label: Indices, reason: str) -> None:
    logits, _ = maps(20, 6, 3, seed=1)
    with pytest.raises(InputError, match=reason):
        fit_positions(logits, label, "dense", sampling=SAMPLING, alpha=0.1, coverage=0.9, seed=0)


def test_a_record_of_positions_has_no_other_sets() -> None:
    found = fitted()
    with pytest.raises(InputError, match="calibrate the version again"):
        Calibration.from_json(found.to_json() | {"positions": None, "task": "regression"})
