"""Several labels, or a class at every position, of one row: export and engine."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import measures
from torch import Tensor, nn

from dubito.calibration import heads
from dubito.calibration.flags import scores
from dubito.calibration.heads.logits import LogitScaling
from dubito.calibration.sampled import Sampled
from dubito.engine import Classification, Engine, Ensemble, Sampling
from dubito.engine.heads import class_logits
from dubito.engine.heads.several import GROUPS
from dubito.engine.summing.statistics import ClassificationSums
from dubito.errors import BundleRefusedError, InputError
from dubito_nn import Bundle, ExportError, export, load_bundle
from dubito_nn.bundle import bundle_bytes
from dubito_nn.capturing.capture import capture
from dubito_nn.capturing.declared import Declared, class_names
from dubito_nn.capturing.example import read_example
from dubito_nn.networks.unet import UNet
from dubito_nn.proving.returned import checked_output

LABELS = ("loud", "red", "soft", "wet")
TOLERANCE = 1e-6


class Tagger(nn.Module):
    """Tokens (B, S) to logits of every token, (B, S, C)."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(16, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.table(tokens)))
        return logits


def labeller(num_labels: int = len(LABELS)) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, num_labels))


def exported(path: Path, network: nn.Module, rows: Tensor, **declared: object) -> Bundle:
    return export(network, rows, path, **declared)  # type: ignore[arg-type]


def declare(network: nn.Module, rows: Tensor, **declared: object) -> tuple[Declared, int]:
    """Hold an output against what is declared, without the proofs, which take their time."""
    said = Declared(**declared)  # type: ignore[arg-type]
    example = read_example(network, rows, None)
    captured = capture(network, example, declared=said, output_name=None, features=None)
    found, num_columns = checked_output(captured, said)
    class_names(None, found, num_columns)
    return found, num_columns


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def bundles(folder: Path) -> dict[str, Bundle]:
    torch.manual_seed(0)
    return {
        "labels": exported(
            folder / "labels.dubito",
            labeller(),
            torch.randn(4, 5),
            task="multilabel",
            output="sigmoid_logits",
            classes=LABELS,
        ),
        "map": exported(
            folder / "map.dubito",
            UNet(1, 3, channels=(4, 8)),
            torch.randn(4, 1, 8, 8),
            task="classification",
            output="logits",
            class_axis=1,
        ),
        "tokens": exported(
            folder / "tokens.dubito",
            Tagger(),
            torch.randint(0, 11, (4, 6)),
            task="classification",
            output="logits",
            class_axis=-1,
            free_dims={"tokens": {1: "length"}},
        ),
        "mask": exported(
            folder / "mask.dubito",
            UNet(1, 1, channels=(4, 8)),
            torch.randn(4, 1, 8, 8),
            task="classification",
            output="sigmoid_logits",
            class_axis=1,
            classes=["out", "in"],
        ),
    }


@pytest.fixture(scope="module")
def engines(bundles: dict[str, Bundle]) -> dict[str, Engine]:
    return {name: Engine.load(bundle, num_samples=16) for name, bundle in bundles.items()}


def rows_of(name: str, count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    if name == "labels":
        return torch.randn(count, 5, generator=generator)
    if name == "tokens":
        return torch.randint(0, 11, (count, 9), generator=generator)
    return torch.randn(count, 1, 8, 8, generator=generator)


def plain_probabilities(name: str, raw: Tensor) -> Tensor:
    """(T, B, P, C) of the raw outputs, by plain means."""
    raw = raw.double()
    if name in ("labels", "mask"):
        on = raw.sigmoid().flatten(2)
        return torch.stack([1 - on, on], dim=-1)
    if name == "map":
        return raw.softmax(2).flatten(3).transpose(2, 3)
    return raw.softmax(-1)


NAMES = ("labels", "map", "tokens", "mask")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("draw", ["iid", "stratified"])
def test_every_position_agrees_with_the_slow_reference(
    engines: dict[str, Engine], name: str, draw: str
) -> None:
    engine = engines[name]
    sampling = Sampling(24, seed=3, draw=draw)  # type: ignore[arg-type]
    found = engine.predict(rows_of(name), sampling=sampling)
    assert isinstance(found, Classification)
    assert found.positions is not None
    probs = plain_probabilities(name, engine.sample(rows_of(name), sampling=sampling))
    is_sum = name == "labels"
    each = found.positions
    for measure in ("predictive_entropy", "expected_entropy", "mutual_information"):
        expected = torch.stack(
            [getattr(measures, measure)(probs[:, :, p]) for p in range(probs.shape[2])], dim=1
        )
        got = getattr(each, measure).reshape(expected.shape)
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)
        of_row = expected.sum(1) if is_sum else expected.mean(1)
        np.testing.assert_allclose(getattr(found, measure), of_row, atol=TOLERANCE)
    ratio = torch.stack(
        [measures.variation_ratio(probs[:, :, p]) for p in range(probs.shape[2])], dim=1
    )
    np.testing.assert_allclose(found.variation_ratio, ratio.mean(1), atol=TOLERANCE)
    flat = found.mean.reshape(probs.shape[1:])
    np.testing.assert_allclose(flat, probs.mean(0), atol=TOLERANCE)
    variance = found.variance.reshape(probs.shape[1:])
    np.testing.assert_allclose(variance, probs.var(0, correction=0), atol=TOLERANCE)
    if draw == "iid":
        error = probs.std(0) / 24**0.5
        np.testing.assert_allclose(found.standard_error.reshape(error.shape), error, atol=TOLERANCE)
    np.testing.assert_allclose(
        found.predictive_entropy, found.expected_entropy + found.mutual_information, atol=1e-12
    )
    assert (each.mutual_information_corrected >= each.mutual_information - 1e-12).all()


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_rows_are_the_same_from_passes_as_from_columns(
    bundles: dict[str, Bundle], engines: dict[str, Engine], name: str
) -> None:
    manifest, engine, sampling = bundles[name].manifest, engines[name], Sampling(16)
    found = engine.predict(rows_of(name), sampling=sampling, temperature=1.7)
    assert isinstance(found, Classification)
    logits = class_logits(engine.sample(rows_of(name), sampling=sampling), manifest).numpy()
    flat = logits.reshape(*logits.shape[:2], -1, logits.shape[-1])
    head = dataclasses.replace(heads.head_of(manifest), scaling=LogitScaling("temperature", 1.7))
    for score in scores.CLASSIFICATION:
        by_passes = head.source(Sampled((flat,))).plain(score)
        by_columns = head.served(found, heads.Request()).source.plain(score)
        assert by_passes.shape == (5,)
        np.testing.assert_allclose(by_passes, by_columns, atol=TOLERANCE, err_msg=score)


def test_the_jackknife_of_positions_is_that_of_eight_groups(engines: dict[str, Engine]) -> None:
    engine = engines["labels"]
    sampling = Sampling(GROUPS * 4, draw="iid")
    found = engine.predict(rows_of("labels"), sampling=sampling)
    assert isinstance(found, Classification)
    assert found.positions is not None
    probs = plain_probabilities("labels", engine.sample(rows_of("labels"), sampling=sampling))
    for place in range(len(LABELS)):
        expected = measures.corrected_mutual_information(probs[:, :, place], group_sizes=[4] * 8)
        got = found.positions.mutual_information_corrected[:, place]
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_the_entropy_of_labels_is_that_of_their_joint_distribution() -> None:
    on = torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64)
    joint = torch.ones(1, dtype=torch.float64)
    for p in on:
        joint = torch.cat([joint * (1 - p), joint * p])
    each = torch.special.entr(torch.stack([1 - on, on])).sum(0)
    assert float(each.sum()) == pytest.approx(float(torch.special.entr(joint).sum()), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_rows_answer_alone_as_they_do_together_and_within_any_budget(
    bundles: dict[str, Bundle], engines: dict[str, Engine], name: str
) -> None:
    rows = rows_of(name)
    engine = engines[name]
    together = engine.predict(rows, sampling=Sampling(32))
    tight = Engine.load(bundles[name], memory_budget_bytes=2**20)
    one_by_one = tight.predict(rows, sampling=Sampling(32))
    for field in ("mean", "standard_error", "predictive_entropy"):
        np.testing.assert_allclose(
            getattr(together, field), getattr(one_by_one, field), atol=TOLERANCE
        )
    if name == "map":
        assert tight.pieces("shared", {"x": rows}).most_rows < len(rows)


def test_a_map_whose_sums_do_not_fit_is_refused_with_the_remedy(
    bundles: dict[str, Bundle],
) -> None:
    engine = Engine.load(bundles["map"], memory_budget_bytes=2**20)
    pieces, shape = engine.pieces("shared", {"x": rows_of("map")}), (2, 3, 512, 512)
    full, lean = (engine.head.sum_bytes(shape, is_lean=is_lean) for is_lean in (False, True))
    assert full > 10 * lean
    with pytest.raises(InputError, match=r"sums over the positions.*DUBITO_MEMORY_BUDGET_BYTES"):
        _ = dataclasses.replace(pieces, sum_bytes=(full, lean)).most_rows


def test_the_sums_of_positions_do_not_grow_with_the_samples() -> None:
    sums = ClassificationSums(0.1, GROUPS)
    sizes = []
    for _ in range(40):
        probs = torch.rand(13, 2, 6, 3, dtype=torch.float64).softmax(-1)
        sums.add(probs, torch.zeros(13, 2, 2))
        assert sums._groups._sum_GBC is not None
        sizes.append(len(sums._groups._sum_GBC))
    assert max(sizes) <= GROUPS
    assert sums.spread.blocks is not None
    assert len(sums.spread.blocks._waiting) < 16


@pytest.mark.parametrize("name", NAMES)
def test_rows_with_positions_stop_at_a_tolerance(engines: dict[str, Engine], name: str) -> None:
    engine = engines[name]
    loose = engine.predict(rows_of(name), sampling=Sampling(400, tolerance=0.08))
    fixed = engine.predict(rows_of(name), sampling=Sampling(32))
    assert (loose.num_samples_used < 400).all()
    done = loose.num_samples_used == 32
    assert done.any()
    np.testing.assert_allclose(loose.mean[done], fixed.mean[done], atol=TOLERANCE)
    assert (loose.standard_error <= 0.08).all()


def test_an_ensemble_mixes_position_by_position(folder: Path, engines: dict[str, Engine]) -> None:
    torch.manual_seed(5)
    other = exported(
        folder / "other.dubito",
        UNet(1, 3, channels=(4, 8)),
        torch.randn(4, 1, 8, 8),
        task="classification",
        output="logits",
        class_axis=1,
    )
    members = (engines["map"], Engine.load(other))
    rows, sampling = rows_of("map"), Sampling(16)
    found = Ensemble(members).predict(rows, sampling=sampling)
    assert isinstance(found, Classification)
    assert found.positions is not None
    raw = [
        one.sample(rows, sampling=dataclasses.replace(sampling, seed=place))
        for place, one in enumerate(members)
    ]
    probs = plain_probabilities("map", torch.cat(raw))
    expected = torch.stack([measures.mutual_information(probs[:, :, p]) for p in range(64)], dim=1)
    np.testing.assert_allclose(
        found.positions.mutual_information.reshape(5, 64), expected, atol=TOLERANCE
    )
    np.testing.assert_allclose(found.mutual_information, expected.mean(1), atol=TOLERANCE)


def test_free_positions_vary_from_request_to_request(engines: dict[str, Engine]) -> None:
    engine = engines["tokens"]
    for length in (3, 12):
        found = engine.predict(torch.zeros(2, length, dtype=torch.int64), sampling=Sampling(4))
        assert found.mean.shape == (2, length, 3)


def test_moments_are_refused(engines: dict[str, Engine]) -> None:
    engine = engines["labels"]
    with pytest.raises(InputError, match=r"`moments` expects one distribution per row.*use `mc`"):
        engine.predict(rows_of("labels"), sampling=Sampling(method="moments"))


@pytest.mark.parametrize(
    ("network", "rows", "declared", "reason"),
    [
        (
            labeller(),
            torch.randn(3, 5),
            {"task": "classification", "output": "sigmoid_logits"},
            "task='multilabel'",
        ),
        (
            labeller(),
            torch.randn(3, 5),
            {"task": "multilabel", "output": "logits"},
            "expects a task",
        ),
        (
            labeller(),
            torch.randn(3, 5),
            {"task": "multilabel", "output": "sigmoid_logits", "class_axis": 1},
            "class_axis belongs to a classification",
        ),
        (
            labeller(),
            torch.randn(3, 5),
            {"task": "multilabel", "output": "sigmoid_logits", "classes": ["a", "b"]},
            "expects 4 different names",
        ),
        (
            labeller(),
            torch.randn(3, 5),
            {"task": "classification", "output": "logits", "class_axis": 1},
            "one or more axes of positions",
        ),
        (
            Tagger(),
            torch.randint(0, 11, (3, 6)),
            {"task": "classification", "output": "logits"},
            "name the axis of the classes with class_axis=",
        ),
        (
            Tagger(),
            torch.randint(0, 11, (3, 6)),
            {"task": "classification", "output": "logits", "class_axis": 3},
            "from 1 to 2",
        ),
        (
            Tagger(),
            torch.randint(0, 11, (3, 6)),
            {"task": "classification", "output": "logits", "class_axis": 1, "classes": ["a", "b"]},
            "expects 6 different names",
        ),
        (
            nn.Sequential(Tagger(), nn.Softmax(-1)),
            torch.randint(0, 11, (3, 6)),
            {"task": "classification", "output": "probs", "class_axis": 1},
            "sum to 1",
        ),
        (
            nn.Sequential(Tagger(), nn.Softmax(-1)),
            torch.randint(0, 11, (3, 6)),
            {"task": "classification", "output": "logits", "class_axis": -1},
            "declare output='probs'",
        ),
        (
            Tagger(1),
            torch.randint(0, 11, (3, 6)),
            {"task": "classification", "output": "logits", "class_axis": -1},
            "at least two classes",
        ),
    ],
)
def test_what_was_declared_otherwise_is_refused(
    tmp_path: Path, network: nn.Module, rows: Tensor, declared: dict[str, object], reason: str
) -> None:
    is_whole = "classes" in declared or declared == {"task": "multilabel", "output": "logits"}
    act = partial(exported, tmp_path / "refused.dubito") if is_whole else declare
    with pytest.raises(ExportError, match=reason):
        act(network, rows, **declared)


def test_the_manifest_says_the_axis_only_where_there_is_one(bundles: dict[str, Bundle]) -> None:
    assert "class_axis" not in bundles["labels"].manifest.to_json()
    assert bundles["labels"].manifest.head == "multilabel"
    assert bundles["map"].manifest.to_json()["class_axis"] == 1
    assert bundles["tokens"].manifest.class_axis == 2
    assert bundles["tokens"].manifest.head == "dense"
    assert bundles["mask"].manifest.classes == ("out", "in")


@pytest.mark.parametrize(
    "changed", [{"class_axis": 2}, {"class_axis": 3}, {"class_axis": None}, {"task": "multilabel"}]
)
def test_a_bundle_that_states_another_head_is_refused(
    bundles: dict[str, Bundle], changed: dict[str, object]
) -> None:
    bundle = bundles["map"]
    fields = {"output": "sigmoid_logits", "class_axis": None} if "task" in changed else {}
    manifest = dataclasses.replace(bundle.manifest, **(fields | changed))  # type: ignore[arg-type]
    content = bundle_bytes(manifest, bundle.sampling, bundle.point, bundle.weights)
    load_bundle(content)
    with pytest.raises(BundleRefusedError, match="the manifest states"):
        Engine.load(content)
