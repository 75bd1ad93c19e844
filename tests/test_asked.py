"""Fields of a request, declared once: read from JSON, queries, options and rows of jobs alike."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest
from typer.main import get_command

from dubito.acquisition import Acquisition
from dubito.api.border.fields import read_fields, read_query
from dubito.asked import (
    CalibrateOptions,
    CalibrateOrder,
    EvaluateOptions,
    EvaluateOrder,
    PredictBody,
    PredictOptions,
    PredictOrder,
    SelectOptions,
    SelectOrder,
    order_of,
    own_fields,
)
from dubito.cli import make_app
from dubito.engine import Sampling
from dubito.jobs.orders import predict_fields, predict_order, sampling_of, select_order, settled
from dubito.registry import JobFact

LABELLED = {"inputs", "labels", "targets", "ood_inputs"}
NO_OPTIONS = {  # that the rows or the command itself say, or that this kind of order refuses
    "predict": {"inputs", "format", "request_id"},
    "calibrate": {*LABELLED, "members", "tolerance", "actor"},
    "evaluate": {*LABELLED, "tolerance", "compare"},
    "select": {"inputs"},
}
ROW = {  # as builds before this test wrote it
    "sampling": {
        "num_samples": 32,
        "seed": 7,
        "masks": "shared",
        "draw": "iid",
        "method": "mc",
        "tolerance": None,
    },
    "members": None,
    "pool_format": "npz",
    "coverage": 0.8,
    "calibration": "active",
    "active": 3,
    "outputs": ["mean", "prediction_set"],
    "format": "parquet",
}


def _job(kind: str, order: dict[str, object]) -> JobFact:
    now = datetime.now(UTC)
    missing = dict.fromkeys(JobFact.__dataclass_fields__)
    known = {"id": "a", "kind": kind, "model": "digits", "version": 2, "order": order}
    return JobFact(**{**missing, **known, "created_at": now})  # type: ignore[arg-type]


def test_a_query_and_a_body_that_say_the_same_are_the_same_options() -> None:
    query = [("num_samples", "8"), ("members", "1,best"), ("tolerance", "0.5"), ("coverage", "1")]
    body = {"num_samples": 8, "members": ["1", "best"], "tolerance": 0.5, "coverage": 1.0}
    assert read_query(PredictOptions, query) == read_fields(PredictOptions, body)
    for text, sites in (("last", "last"), ("3,head.*", [3, "head.*"])):
        named = read_fields(PredictOptions, {"sites": sites})
        assert read_query(PredictOptions, [("sites", text)]) == named
    chosen = read_query(SelectOptions, [("strategy", "bald"), ("k", "3"), ("exclude", "1,2")])
    assert (chosen.k, chosen.exclude, chosen.maximize) == (3, [1, 2], True)


def test_an_order_has_all_that_was_read_and_what_stands_beside_it() -> None:
    body = read_fields(PredictBody, {"inputs": [[1.0]], "seed": 3, "outputs": ["mean"]})
    order = order_of(PredictOrder, body, model="digits", version="best")
    assert own_fields(order, PredictBody) == own_fields(body)
    assert (order.model, order.version, order.request_id) == ("digits", "best", None)
    options = read_query(PredictOptions, [("seed", "3")])
    assert order_of(PredictOrder, options, model="digits", inputs=[[1.0]]).inputs == [[1.0]]


def test_a_selection_asks_the_search_what_its_fields_say() -> None:
    options = SelectOptions(strategy="bald", k=2, exclude=[5], per_class=1, xi=0.5)
    expected = Acquisition("bald", 2, seed=9, exclude=(5,), per_class=1, xi=0.5)
    assert options.acquisition(9) == expected


@pytest.mark.parametrize(
    ("command", "order"),
    [
        ("predict", PredictOrder),
        ("calibrate", CalibrateOrder),
        ("evaluate", EvaluateOrder),
        ("select", SelectOrder),
    ],
)
def test_every_field_of_an_order_is_an_option_or_comes_with_the_rows(
    command: str, order: type[object]
) -> None:
    offered = get_command(make_app(command)).commands[command].params  # type: ignore[attr-defined]
    words = {word for one in offered for word in (*one.opts, *one.secondary_opts)}
    fields = (
        {field.name for field in dataclasses.fields(order)}
        - NO_OPTIONS[command]
        - {"model", "maximize", "preprocess"}  # which stand as a word of the opposite meaning
    )
    assert {f"--{name.replace('_', '-')}" for name in fields} <= words
    assert "--tensors" in words
    assert {word for word in words if word.startswith("--no-")} <= {"--no-minimize"}


def test_every_option_is_described() -> None:
    for options in (PredictOptions, CalibrateOptions, EvaluateOptions, SelectOptions):
        for name, field in options.__pydantic_fields__.items():  # type: ignore[attr-defined]
            assert field.description, (options, name)


def test_a_row_of_an_earlier_build_is_read_and_written_again_as_it_was() -> None:
    job = _job("predict", ROW)
    order, sampling = predict_order(job), sampling_of(job)
    expected = PredictOrder(
        model="digits",
        version="2",
        inputs=[],
        coverage=0.8,
        outputs=["mean", "prediction_set"],
        format="parquet",
    )
    assert (order, sampling) == (expected, Sampling(32, 7, draw="iid"))
    written = settled(sampling, None, "npz", active=3, **predict_fields(order))
    assert {name: written[name] for name in ROW} == ROW
    assert all(written[name] is None for name in written.keys() - ROW), "new, not asked for"


def test_a_row_of_a_selection_is_read_with_its_options() -> None:
    acquisition = {
        **{"strategy": "expected_improvement", "k": 4, "seed": 7, "exclude": [1, 2]},
        **{"candidates": 100, "per_class": None, "diversity": 3, "maximize": False},
        **{"incumbent": 2, "beta": None, "xi": 0.0, "noise_variance": 0.25},
    }
    job = _job("select", {"acquisition": acquisition, "targets": None})
    order = select_order(job, None)
    asked = Acquisition(**{**acquisition, "exclude": (1, 2)})  # type: ignore[arg-type]
    assert order.acquisition(7) == asked
    assert dataclasses.replace(asked, seed=8) == order.acquisition(8)
