"""What loading a bundle found out, kept for the next process."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch
from torch import nn

import dubito_nn
from dubito.engine import Engine, plans
from dubito.engine.findings import NOTHING_KEPT, Findings, Timings
from dubito.engine.running.options import FormTiming
from dubito_nn import Bundle

ABOUT = {"found": "something", "bundle": "a" * 64}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Linear(8, 256), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 3)),
        )
    path = tmp_path_factory.mktemp("findings") / "net.dubito"
    example = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    return dubito_nn.export(network, example, path, task="classification", output="logits")


@pytest.fixture
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_TIMINGS", {})


def _measured(engine: Engine) -> list[float | None]:
    (option,) = engine.pieces("shared", engine.made_up_rows()).options
    return [timing.measured for timing in option.timings]


def _pages(folder: Path, found: str) -> list[Path]:
    pages = [path for path in folder.iterdir() if path.suffix == ".json"]
    return [p for p in pages if orjson.loads(p.read_bytes())["about"]["found"] == found]


def test_what_was_put_is_got_and_only_about_the_same_thing(tmp_path: Path) -> None:
    findings = Findings(tmp_path / "findings")
    assert findings.get(ABOUT) is None
    findings.put(ABOUT, {"size": 8})
    assert findings.get(dict(reversed(ABOUT.items()))) == {"size": 8}
    assert findings.get({**ABOUT, "torch": "another"}) is None
    findings.put(ABOUT, 16)
    assert findings.get(ABOUT) == 16
    NOTHING_KEPT.put(ABOUT, 8)
    assert NOTHING_KEPT.get(ABOUT) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"about": {}, "found": 8}'])
def test_a_damaged_page_is_as_if_it_were_not_there(tmp_path: Path, content: bytes) -> None:
    findings = Findings(tmp_path)
    findings.put(ABOUT, 8)
    (page,) = _pages(tmp_path, "something")
    page.write_bytes(content)
    assert findings.get(ABOUT) is None


def test_a_folder_that_cannot_be_made_keeps_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    findings = Findings(tmp_path / "file" / "findings")
    findings.put(ABOUT, 8)
    assert findings.get(ABOUT) is None


def test_timings_are_read_as_they_were_written_and_refused_where_they_do_not_fit() -> None:
    forms = ((FormTiming(1, 2.0, 0.5, 0.25), FormTiming(4, 2.0)),)
    timings = Timings(forms, None, False)
    page = orjson.loads(orjson.dumps(timings.to_json()))
    assert Timings.from_json(page, 1) == timings
    assert Timings.from_json(page, 2) is None
    for damaged in (None, 8, {}, {**page, "forms": [[[1]]]}, {**page, "chunk_share": "much"}):
        assert Timings.from_json(damaged, 1) is None


def test_a_bundle_is_timed_once_on_a_machine(
    bundle: Bundle, tmp_path: Path, as_in_a_new_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = Findings(tmp_path)
    first = Engine.load(bundle, findings=findings, timing_limit_s=None)
    monkeypatch.setattr(plans, "_TIMINGS", {})
    again = Engine.load(bundle, findings=findings, timing_limit_s=None)
    assert _measured(again) == _measured(first)  # which no clock says twice
    (page,) = _pages(tmp_path, "timings")
    kept = orjson.loads(page.read_bytes())
    for timing in kept["found"]["forms"][0]:
        timing[2] = 123.0
    page.write_bytes(orjson.dumps(kept))
    monkeypatch.setattr(plans, "_TIMINGS", {})
    read = Engine.load(bundle, findings=findings, timing_limit_s=0)
    assert set(_measured(read)) == {123.0}
    other = Engine.load(bundle, num_samples=32, findings=findings, timing_limit_s=0)
    assert set(_measured(other)) == {None}


def test_without_time_nothing_is_timed_nor_kept(
    bundle: Bundle, tmp_path: Path, as_in_a_new_process: None
) -> None:
    engine = Engine.load(bundle, findings=Findings(tmp_path), timing_limit_s=0)
    assert set(_measured(engine)) == {None}
    assert not _pages(tmp_path, "timings")


def test_a_bundle_that_was_proved_is_not_proved_again_but_where_that_is_asked(
    bundle: Bundle, tmp_path: Path
) -> None:
    findings = Findings(tmp_path)
    Engine.load(bundle, findings=findings, proof_limit_s=60.0)
    (page,) = _pages(tmp_path, "proof")
    kept = orjson.loads(page.read_bytes())
    assert kept["found"] == 8
    kept["found"] = 16  # a size that free dimensions do not need: seen where it is taken over
    page.write_bytes(orjson.dumps(kept))
    assert Engine.load(bundle, findings=findings)._free == 16
    assert Engine.load(bundle, findings=findings, proof_limit_s=60.0)._free == 8
    kept["found"] = 17  # none that a proof finds
    page.write_bytes(orjson.dumps(kept))
    assert Engine.load(bundle, findings=findings)._free == 8
