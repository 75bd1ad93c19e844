"""Sequences: how likely given tokens are, from an adapted network to a reply and a choice."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

from dubito.cli import make_app
from dubito.engine import Engine, Ensemble, Sampling, SequenceScores
from dubito.errors import InputError
from dubito.settings import Settings
from dubito_nn import Bundle, BundleError, ExportError, load_bundle
from dubito_nn.bundle import bundle_bytes

from .conftest import Server
from .declared import as_declared
from .http import npz, upload
from .sequences import LENGTH, PAD, WORDS, Scorer, exported, tokens, trained

T = 32
PROSE = "/v1/models/prose"
FIGURES = ("mean", "variance", "normalised_mean", "normalised_variance", "num_tokens")
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, and the weights that it was made of."""
    folder = tmp_path_factory.mktemp("sequences")
    net = trained()
    torch.save(net.state_dict(), folder / "prose.pt")
    exported(net, folder / "prose.dubito")
    return folder / "prose.dubito"


@pytest.fixture(scope="module")
def engine(path: Path) -> Engine:
    return Engine.load(path)


def scores(engine: Engine | Ensemble, rows: NDArray[np.int64], **asked: Any) -> SequenceScores:
    keep = asked.pop("keep_samples", False)
    sampling = Sampling(**{"num_samples": T, "seed": 3} | asked)
    found = engine.predict({"tokens": torch.from_numpy(rows)}, sampling=sampling, keep_samples=keep)
    assert isinstance(found, SequenceScores)
    return found


def test_only_the_adapter_rolls_dice_and_what_is_below_it_runs_once(engine: Engine) -> None:
    (site,) = engine.bundle.sites
    assert site.module_path == "adapted.dropout"
    manifest = engine.manifest
    assert (manifest.head, manifest.task, manifest.num_outputs) == ("sequence", "sequence", 1)
    rows = {"tokens": torch.from_numpy(tokens(2, seed=1))}
    plan = engine.pieces("shared", rows).execution.plan
    in_front, behind = ([node.op for node in nodes] for nodes in (plan.prefix, plan.suffix))
    assert {"aten.embedding.default", "aten.cumsum.default"} <= set(in_front)
    assert not {"aten.embedding.default", "aten.cumsum.default"} & set(behind)


def test_figures_are_those_of_the_passes(engine: Engine) -> None:
    """Source: Fomicheva et al. 2020, arXiv:2005.10608: D-TP and D-Var, once more in numpy."""
    rows = tokens(7, seed=2)
    found = scores(engine, rows, keep_samples=True)
    raw = engine.sample({"tokens": torch.from_numpy(rows)}, sampling=found.sampling).double()
    mask = rows[:, 1:] != PAD
    each = np.where(mask, raw[:, :, 0].numpy(), 0.0)
    total, count = each.sum(-1), mask.sum(-1)
    np.testing.assert_array_equal(raw[:, :, 1].numpy(), np.broadcast_to(mask, each.shape))
    np.testing.assert_array_equal(found.num_tokens, count)
    np.testing.assert_array_equal(found.is_token, mask)
    close = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(found.samples, total, **close)
    np.testing.assert_allclose(found.mean, total.mean(0), **close)
    np.testing.assert_allclose(found.variance, total.var(0), **close)
    np.testing.assert_allclose(found.normalised_mean, (total / count).mean(0), **close)
    np.testing.assert_allclose(found.normalised_variance, (total / count).var(0), **close)
    shown = np.where(mask, each.mean(0), np.nan), np.where(mask, each.std(0), np.nan)
    np.testing.assert_allclose(found.token_mean, shown[0], **close)
    np.testing.assert_allclose(found.token_std, shown[1], **close)
    assert (found.variance > 0).all()


def test_passes_are_those_of_the_eager_network(engine: Engine, path: Path) -> None:
    """The mean of many is that of many eager ones; within five standard errors, one in 10^6."""
    net = Scorer()
    net.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
    rows = tokens(4, seed=4)
    net.train()
    with torch.no_grad():
        drawn = torch.stack([_total(net, torch.from_numpy(rows)) for _ in range(400)]).double()
    found = scores(engine, rows, num_samples=400, draw="iid")
    error = np.hypot(drawn.std(0).numpy() / 20, found.standard_error)
    assert (np.abs(drawn.mean(0).numpy() - found.mean) < 5 * error).all()
    with torch.no_grad():
        expected = _total(net.eval(), torch.from_numpy(rows))
    point = scores(engine, rows, method="point", num_samples=1)
    np.testing.assert_allclose(point.mean, expected, atol=1e-5)
    assert not point.variance.any()


def _total(net: nn.Module, rows: Tensor) -> Tensor:
    scored, mask = net(rows)
    total: Tensor = (scored * mask).sum(-1)
    return total


def test_what_is_padded_changes_nothing(engine: Engine) -> None:
    rows = tokens(3, seed=5)
    longer = np.pad(rows, ((0, 0), (0, 3)))
    short, long = scores(engine, rows), scores(engine, longer)
    for name in FIGURES:
        np.testing.assert_allclose(getattr(long, name), getattr(short, name), rtol=1e-4, atol=1e-6)
    assert np.isnan(long.token_mean[:, LENGTH - 1 :]).all()


def test_rows_answer_alone_as_together_and_some_stop_early(engine: Engine) -> None:
    rows = tokens(9, seed=6)
    together = scores(engine, rows)
    alone = [scores(engine, rows[index : index + 1]) for index in range(3)]
    for name in (*FIGURES, "token_std", "standard_error"):
        each = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(each, getattr(together, name)[:3], rtol=1e-5, atol=1e-7)
    early = scores(engine, rows, num_samples=512, tolerance=float(together.standard_error.max()))
    assert (early.num_samples_used < 512).any()
    frame = pytest.importorskip("pandas") and together.to_pandas()
    assert frame["normalised_variance"].tolist() == together.normalised_variance.tolist()


def test_members_of_an_ensemble_are_mixed(engine: Engine) -> None:
    bundle = engine.bundle
    weights = {name: 1.1 * tensor for name, tensor in bundle.weights.items()}
    other = bundle_bytes(bundle.manifest, bundle.sampling, bundle.point, weights)
    both = Ensemble((engine, Engine.load(load_bundle(other))))
    rows = tokens(5, seed=7)
    found = scores(both, rows, keep_samples=True)
    assert found.samples is not None
    assert found.samples.shape == (2 * T, 5)
    np.testing.assert_allclose(found.variance, found.samples.var(0), rtol=1e-9)
    length = (rows[:, 1:] != PAD).sum(-1)
    np.testing.assert_allclose(found.normalised_variance, found.samples.var(0) / length**2)


@pytest.mark.parametrize("method", ["moments", "laplace", "distilled"])
def test_methods_that_make_nothing_of_it_are_refused(engine: Engine, method: Any) -> None:
    with pytest.raises(InputError, match="sequence head: use `mc`"):
        scores(
            engine, tokens(2, seed=1), method=method, num_samples=1 if method != "laplace" else 2
        )


class Ended(nn.Module):
    """A network of one number a token, with an end that a test writes."""

    def __init__(self, end: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(16, 4), nn.Dropout(0.3)
        self.end = end

    def forward(self, tokens: Tensor) -> object:
        hidden = self.dropout(self.embedding(tokens))
        return self.end(nn.functional.logsigmoid(hidden), tokens)


@pytest.mark.parametrize(
    ("end", "declared", "said"),
    [
        (lambda h, x: h, {}, r"\(rows, length\), alone or with a mask.*gather"),
        (lambda h, x: (h[..., 0], x[:, :1]), {}, r"got \(rows, s?\w+\) and \(rows, 1\)"),
        (lambda h, x: (h[..., 0].exp(), x != PAD), {}, r"at 0 or below.*log_softmax"),
        (lambda h, x: (h[..., 0], x), {}, r"1 at tokens and 0 at padding"),
        (lambda h, x: (h[..., 0], x > WORDS - 2), {}, r"a token in every row"),
        (lambda h, x: (h[..., 0], x != PAD), {"classes": ("a", "b")}, r"leave them out"),
        (lambda h, x: (h[..., 0], x != PAD), {"target_scale": (0, 1)}, r"is for regression"),
        (lambda h, x: (h[..., 0], x != PAD), {"output": "log_probs"}, r"one of its outputs"),
        (lambda h, x: (h[..., 0], x != PAD), {"class_axis": 1}, r"class_axis belongs to"),
    ],
)
def test_what_is_no_score_of_tokens_is_refused_with_the_remedy(
    tmp_path: Path, end: Any, declared: dict[str, object], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        exported(Ended(end), tmp_path / "none.dubito", **declared)
    assert not list(tmp_path.iterdir())


def test_without_a_mask_every_token_counts(tmp_path: Path) -> None:
    exported(Ended(lambda h, x: h[..., 0]), tmp_path / "whole.dubito")
    found = scores(Engine.load(tmp_path / "whole.dubito"), tokens(3, seed=1))
    assert found.num_tokens.tolist() == [LENGTH] * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_outputs": 2}, "num_outputs"),
        ({"target_scale": ((0.0,), (1.0,))}, "target_scale expects null for sequence"),
        ({"classes": ("a",)}, "classes expects null for sequence"),
        ({"output_axis": 1}, "output_axis expects null"),
    ],
)
def test_a_manifest_that_says_more_is_refused(
    engine: Engine, changes: dict[str, Any], said: str
) -> None:
    bundle: Bundle = engine.bundle
    manifest = dataclasses.replace(bundle.manifest, **changes)
    content = bundle_bytes(manifest, bundle.sampling, bundle.point, bundle.weights)
    with pytest.raises(BundleError, match=said):
        load_bundle(content)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, path: Path) -> Iterator[httpx.Client]:
    torch.set_num_threads(1)
    server = Server(Settings(data_dir=tmp_path_factory.mktemp("data"), num_samples=T))
    server.start()
    hooks = {"response": [as_declared]}
    with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
        upload(client, "prose", path).raise_for_status()
        yield client
    server.stop()


def _ok(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code in (200, 201, 202), response.text
    body: dict[str, Any] = response.json()
    return body


def test_json_and_arrays_say_the_same_and_padding_is_null(client: httpx.Client) -> None:
    rows = tokens(4, seed=8)
    rows[3, 1:] = PAD
    asked = {"inputs": rows.tolist(), "seed": 3}
    reply = _ok(client.post(f"{PROSE}/predict", json=asked))
    found, is_token = reply["outputs"], rows[:, 1:] != PAD
    assert found["num_tokens"] == is_token.sum(1).tolist()
    assert [[value is not None for value in row] for row in found["token_std"]] == is_token.tolist()
    assert found["normalised_mean"][3] is None
    assert found["mean"][3] == 0
    assert any("padding alone" in warning for warning in reply["warnings"])
    assert not any("overflows" in warning for warning in reply["warnings"])
    assert "ood" not in found
    content = client.post(
        f"{PROSE}/predict?seed=3",
        content=npz(tokens=rows),
        headers={"Content-Type": "application/x-npz", "Accept": "application/x-npz"},
    ).content
    arrays = np.load(io.BytesIO(content))
    assert arrays["token_mean"].shape == (4, LENGTH - 1)
    assert (np.isnan(arrays["token_mean"]) == ~is_token).all()
    np.testing.assert_allclose(arrays["mean"], found["mean"])
    kept = _ok(client.post(f"{PROSE}/predict", json=asked | {"outputs": ["samples", "variance"]}))
    np.testing.assert_allclose(np.var(kept["outputs"]["samples"], 1), found["variance"], rtol=1e-9)


def test_an_inference_answers_what_the_metadata_say(client: httpx.Client) -> None:
    rows = tokens(2, seed=9)
    page = _ok(client.get("/v2/models/prose"))
    sent = {**page["inputs"][0], "shape": list(rows.shape), "data": rows.ravel().tolist()}
    outputs = _ok(client.post("/v2/models/prose/infer", json={"inputs": [sent]}))["outputs"]
    said = {one["name"]: (one["datatype"], one["shape"]) for one in page["outputs"]}
    assert list(said) == [one["name"] for one in outputs]
    for one in outputs:
        datatype, shape = said[one["name"]]
        assert (datatype, len(shape)) == (one["datatype"], len(one["shape"])), one["name"]
        assert all(size in (-1, other) for size, other in zip(shape, one["shape"], strict=True))
    assert said["token_std"] == ("FP64", [-1, -1])


def test_rows_are_chosen_by_the_variance_for_each_token(client: httpx.Client) -> None:
    rows = tokens(12, seed=10)
    body = {"inputs": rows.tolist(), "k": 3}
    found = _ok(client.post(f"{PROSE}/predict", json={"inputs": rows.tolist()}))["outputs"]
    chosen = _ok(client.post(f"{PROSE}/select", json=body | {"strategy": "variance"}))
    order = np.argsort(-np.array(found["normalised_variance"]))[:3]
    assert chosen["indices"] == order.tolist()
    some = _ok(client.post(f"{PROSE}/select", json=body | {"strategy": "random"}))
    assert len(set(some["indices"])) == 3
    reply = client.post(f"{PROSE}/select", json=body | {"strategy": "bald"})
    assert "one of a sequence: variance, random" in reply.json()["detail"]


def test_what_needs_truths_is_refused_with_the_remedy(client: httpx.Client) -> None:
    rows = tokens(4, seed=11).tolist()
    for action in ("calibrate", "evaluate"):
        for truths in ({"labels": [0, 1, 0, 1]}, {"targets": [0.0, 1.0, 2.0, 3.0]}, {}):
            reply = client.post(f"{PROSE}/{action}", json={"inputs": rows, **truths})
            assert reply.status_code == 422
            assert "hold their own tokens: predict" in reply.json()["detail"], action
    body = {"request_id": "never", "rows": [{"row": 0, "target": 1.0}]}
    reply = client.post(f"{PROSE}/feedback", json=body)
    assert "none beside its tokens" in reply.json()["detail"]
    fit = client.post(f"{PROSE}/fit", json={"inputs": rows, "method": "laplace"})
    assert "sequence head" in fit.json()["detail"]
    assert _ok(client.post(f"{PROSE}/predict", json={"inputs": rows}))["outputs"]["mean"]


def test_a_pool_is_predicted_and_its_ways_are_measured(client: httpx.Client) -> None:
    rows = tokens(120, seed=12)
    stored = client.post(
        "/v1/pools?name=lines",
        content=npz(tokens=rows),
        headers={"Content-Type": "application/x-npz"},
    )
    _ok(stored)
    result = _result(client, "predict", {"pool": "lines", "seed": 3})
    arrays = np.load(io.BytesIO(result.content))
    assert (np.isnan(arrays["token_std"]) == (rows[:, 1:] == PAD)).all()
    made = _result(client, "fit", {"pool": "lines", "method": "agreement"}).json()
    assert {way["method"] for way in made["report"]["ways"]} == {"mc"}
    asked = {"inputs": rows[:2].tolist(), "method": "auto", "tolerance": 100.0}
    assert _ok(client.post(f"{PROSE}/predict", json=asked))["agreement"]["spearman"] > 0


def _result(client: httpx.Client, action: str, body: dict[str, object]) -> httpx.Response:
    """What a job comes to, once it is done."""
    job = _ok(client.post(f"{PROSE}/{action}", json=body))["job"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        for _ in events.iter_lines():
            pass
    assert _ok(client.get(f"/v1/jobs/{job}"))["state"] == "succeeded"
    return client.get(f"/v1/jobs/{job}/result")


def test_the_command_line_goes_from_weights_to_a_choice(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    np.save(tmp_path / "rows.npy", tokens(4, seed=13))
    source, out = Path(__file__).with_name("sequences.py"), tmp_path / "prose.dubito"
    example = tmp_path / "example.npz"
    np.savez(example, tokens=np.concatenate([tokens(4, seed=0), [np.arange(1, LENGTH + 1)]]))
    rows = tmp_path / "rows.npy"
    _run(
        *("export", f"{source}:Scorer", "--weights", path.with_suffix(".pt"), "--out", out),
        *("--example", example, "--task", "sequence", "--output", "token_log_probs"),
    )
    assert "sequence" in _run("inspect", out)
    _run("register", out, "--model", "prose")
    assert "normalised variance" in _run("predict", "prose", "--inputs", rows)
    reply = json.loads(_run("predict", "prose", "--inputs", rows, "--json"))
    assert len(reply["outputs"]["token_std"][0]) == LENGTH - 1
    chosen = _run("select", "prose", "--data", rows, "--strategy", "variance", "-k", "2", "--json")
    assert len(json.loads(chosen)["indices"]) == 2


def _run(*words: object) -> str:
    result = CliRunner().invoke(make_app(), [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout
