"""The HTML report: well-formed, self-contained, and with the figures that it is made of."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from dubito.calibration.page import page_of
from dubito.calibration.record import Calibration
from dubito.engine.calling.sampling import Sampling
from dubito.errors import InputError
from dubito.report import page, words
from dubito.report.curves import score_counts

from .fits import fit_classification, fit_regression

SAMPLING = Sampling(num_samples=8)
ASKED = {"sampling": SAMPLING, "alpha": 0.1, "coverage": 0.8, "seed": 0}


def classes() -> Calibration:
    generator = np.random.default_rng(0)
    logits_TBC = 3 * generator.normal(size=(1, 400, 3)) + generator.normal(size=(8, 400, 3))
    label_B = logits_TBC.mean(axis=0).argmax(axis=-1)
    label_B[::5] = generator.integers(0, 3, 80)
    strange_TNC = generator.normal(size=(8, 60, 3))
    return fit_classification(logits_TBC, label_B, strange=strange_TNC, **ASKED)


def numbers() -> Calibration:
    generator = np.random.default_rng(1)
    mean_TBD = generator.normal(size=(1, 400, 1)) + 0.2 * generator.normal(size=(8, 400, 1))
    deviation_BD = np.exp(0.5 * generator.normal(size=(400, 1)))
    target_BD = mean_TBD.mean(axis=0) + deviation_BD * generator.normal(size=(400, 1))
    log_variance_TBD = np.broadcast_to(2 * np.log(deviation_BD / 2), mean_TBD.shape)
    return fit_regression(mean_TBD, log_variance_TBD, target_BD, **ASKED)


@pytest.fixture(scope="module", params=["classification", "regression"])
def record(request: pytest.FixtureRequest) -> Calibration:
    return classes() if request.param == "classification" else numbers()


@pytest.fixture(scope="module")
def text(record: Calibration) -> str:
    return page.html(page_of(record, "animals <1> & others"))


def test_a_page_is_well_formed_and_every_identifier_is_its_own(text: str) -> None:
    tree = ElementTree.fromstring(text)
    assert tree.tag == "html"
    counts = Counter(one.get("id") for one in tree.iter() if one.get("id"))
    assert set(counts.values()) == {1}
    for target in re.findall(r'(?:href="|url\()#([^")]+)', text):
        assert target in counts
    assert tree.findtext("body/header/h1") == "animals <1> & others"


def test_a_page_needs_nothing_from_elsewhere(text: str) -> None:
    assert "://" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert "src=" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', text))


def test_a_page_is_readable_in_the_light_in_the_dark_and_on_paper(text: str) -> None:
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    svgs = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert svgs
    for svg in svgs:
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#ffffff"}  # of clipped backgrounds
        assert "var(--ink)" in svg


def test_a_page_holds_every_figure_with_its_interval_before_and_after(
    record: Calibration, text: str
) -> None:
    rows = {row.get("id"): row for row in ElementTree.fromstring(text).iter("tr")}
    for name, after in record.report.after.items():
        assert name in words.known()
        values = [cell.text for cell in rows[name].iter("td") if cell.get("class") == "value"]
        assert values == [page.number(record.report.before[name]), page.number(after)]
        ends = [cell.text or "" for cell in rows[name].iter("td")][1::2]
        for shown, when in zip(ends, ("before", "after"), strict=True):
            interval = record.report.intervals[when][name]
            expected = "" if interval is None else " to ".join(map(page.number, interval))
            assert shown == expected
    drawn = [one.text for one in ElementTree.fromstring(text).iter("h3")]
    wanted = ["Reliability", "Risk and coverage"]
    if record.head.task == "regression":
        wanted = ["Nominal and empirical coverage", "Sparsification"]
    assert drawn == [*wanted, "Out-of-distribution score"]


def test_the_same_calibration_gives_the_same_bytes(record: Calibration, tmp_path: Path) -> None:
    again = Calibration.from_json(record.to_json())
    for name, one in (("first", record), ("second", again)):
        page.write(page_of(one, "x"), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_record_of_an_earlier_build_is_read_but_has_no_page(record: Calibration) -> None:
    document = record.to_json()
    del document["curves"], document["report"]["intervals"]  # type: ignore[attr-defined]
    earlier = Calibration.from_json(document)
    assert earlier.report.after == record.report.after
    assert (earlier.curves, earlier.report.intervals) == ({}, {})
    with pytest.raises(InputError, match="calibrate the version again"):
        page_of(earlier, "x")


def test_one_report_alone_has_one_column(record: Calibration) -> None:
    both = page_of(record, "x")
    alone = replace(both, reports={"after": both.reports["after"]})
    tree = ElementTree.fromstring(page.html(alone))
    row = next(row for row in tree.iter("tr") if row.get("id") == "nll")
    assert [cell.get("class") for cell in row.iter("td")] == ["value", "interval"]


def test_scores_are_all_counted_whatever_their_range() -> None:
    generator = np.random.default_rng(0)
    for score_B in (generator.gamma(2.0, size=300), 10 ** generator.normal(0, 2, 300), np.ones(5)):
        found = score_counts("s", score_B, 1000 * score_B[:50], float(np.quantile(score_B, 0.95)))
        assert found is not None
        assert sum(found.counts) == len(score_B)
        assert sum(found.ood_counts or ()) == len(score_B[:50])
        assert list(found.edges) == sorted(set(found.edges))
        assert found.edges[0] <= (found.threshold or 0) <= found.edges[-1]
    assert score_counts("s", np.array([np.nan]), None, None) is None
