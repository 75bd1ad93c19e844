"""`dubito_client` says what `dubito` says: fields, replies, errors. It never imports it."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import dubito
import dubito.errors
import dubito_client
from dubito import asked, asked_fits
from dubito.api import create_app
from dubito.api.pages import calibrations as calibration_pages
from dubito.api.pages import fits as fit_pages
from dubito.api.pages import models, monitoring, work
from dubito.api.pages.predictions import OutputColumns, PredictPage
from dubito.settings import Settings
from dubito_client import (
    AsyncClient,
    Client,
    calibrations,
    errors,
    fits,
    outcomes,
    predictions,
    versions,
)
from dubito_client import fields as client_fields
from dubito_client import work as client_work
from dubito_client.calls import Call

ROOT = Path(__file__).parent.parent
SENT = {"inputs", "labels", "targets", "ood_inputs", "pool", "model", "version", "request_id"}
PAGES = {
    predictions.Prediction: PredictPage,
    predictions.Selection: work.SelectPage,
    calibrations.Fitted: calibration_pages.CalibratePage,
    calibrations.Reports: calibration_pages.ReportsEntry,
    calibrations.Calibration: calibration_pages.CalibrationPage,
    calibrations.Evaluation: calibration_pages.EvaluatePage,
    fits.StoredFit: fit_pages.FitEntry,
    fits.VersionFits: fit_pages.FitsPage,
    fits.MadeFit: fit_pages.MadeFitPage,
    versions.Alias: models.AliasPage,
    versions.AliasTarget: models.AliasEntry,
    versions.Version: models.VersionEntry,
    versions.VersionDetails: models.VersionDetailsPage,
    versions.Model: models.ModelPage,
    versions.Uploaded: models.UploadedPage,
    versions.Change: models.ChangeEntry,
    versions.LoadedVersion: models.HealthEntry,
    versions.ServedDevice: models.DeviceEntry,
    versions.Health: models.ReadyPage,
    outcomes.Stored: monitoring.StoredEntry,
    outcomes.Drift: monitoring.DriftEntry,
    outcomes.Rate: monitoring.RateEntry,
    outcomes.Outcomes: monitoring.OutcomesEntry,
    outcomes.Monitoring: monitoring.MonitoringDetailsPage,
    client_work.Column: work.ColumnEntry,
    client_work.Pool: work.PoolPage,
    client_work.PooledRows: work.PoolRowsPage,
    client_work.Job: work.JobPage,
}


@pytest.mark.parametrize(
    ("call", "known", "options"),
    [
        (predictions.predict, client_fields.PredictFields, asked.PredictOptions),
        (predictions.predict_pool, client_fields.PredictFields, asked.PredictBody),
        (calibrations.calibrate, client_fields.CalibrateFields, asked.CalibrateBody),
        (calibrations.evaluate, client_fields.EvaluateFields, asked.EvaluateBody),
        (fits.fit, client_fields.FitFields, asked_fits.FitBody),
        (fits.fit_pool, client_fields.FitFields, asked_fits.FitBody),
        (predictions.select, client_fields.SelectFields, asked.SelectBody),
        (predictions.select_pool, client_fields.SelectFields, asked.SelectBody),
    ],
)
def test_every_field_of_a_request_can_be_asked_and_no_other(
    call: types.FunctionType, known: type, options: type
) -> None:
    parameters = {*inspect.signature(call).parameters} - {"fields"}
    served = {field.name for field in fields(options)}
    assert (parameters | get_type_hints(known).keys()) - SENT == served - SENT


@pytest.mark.parametrize(
    ("known", "options"),
    [
        (client_fields.PredictFields, asked.PredictOptions),
        (client_fields.CalibrateFields, asked.CalibrateOptions),
        (client_fields.EvaluateFields, asked.EvaluateOptions),
        (client_fields.SelectFields, asked.SelectOptions),
    ],
)
def test_fields_of_a_request_have_the_types_of_the_server(known: type, options: type) -> None:
    served = get_type_hints(options)
    for name, hint in get_type_hints(known).items():
        ours, theirs = _scalars(hint), _scalars(served[name])
        assert ours == theirs or (ours - {type(None)} == {str} and str in map(type, theirs)), name


def _scalars(hint: Any) -> set[Any]:
    """The types in an annotation, whatever holds them; the words of a Literal."""
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    parts = get_args(hint)
    return {hint} if not parts else set().union(*map(_scalars, parts))


@pytest.mark.parametrize("kind", PAGES, ids=lambda kind: kind.__name__)
def test_every_field_of_a_reply_can_be_read_and_no_other(kind: type) -> None:
    served = {*PAGES[kind].model_fields}
    known = {field.name for field in fields(kind)}
    if kind is predictions.Prediction:
        served = served - {"outputs"} | {*OutputColumns.model_fields}
        lazy = {"label", "prediction_set", "certain_set", "decision", "method_used"}
        known = known - {"arrays", "classes"} | (lazy & {*dir(kind)})
    assert known == served


def test_every_dataclass_of_the_client_is_held_against_a_page() -> None:
    for module in (calibrations, versions, outcomes, predictions, client_work):
        for kind in vars(module).values():
            if inspect.isclass(kind) and is_dataclass(kind) and kind.__module__ == module.__name__:
                parts = (predictions.Interval, predictions.OutOfDistribution)
                assert kind in PAGES or kind in parts, kind


def test_errors_are_one_tree_on_both_sides() -> None:
    ours = {kind.__name__: kind for kind in _below(errors.DubitoError)}
    theirs = {kind.__name__: kind for kind in vars(dubito.errors).values() if inspect.isclass(kind)}
    alone = {"ReplyError", "UnreachableError"}  # of no answer, or of proxies
    assert ours.keys() - alone <= {name for name in theirs if name.endswith("Error")} <= ours.keys()
    for name in ours.keys() & theirs.keys():
        assert (ours[name].status, ours[name].kind) == (theirs[name].status, theirs[name].kind)
        assert ours[name].__base__.__name__ == theirs[name].__base__.__name__
    assert ours.keys() <= {*dubito_client.__all__}


def _below(kind: type) -> Iterator[type]:
    yield kind
    for below in kind.__subclasses__():
        yield from _below(below)


def test_both_clients_have_the_same_methods_and_all_calls_are_methods() -> None:
    public = [
        {name for name in dir(kind) if not name.startswith("_")} - {"close", "aclose"}
        for kind in (Client, AsyncClient)
    ]
    assert public[0] == public[1]
    inner = {"prediction_of", "events", "job_of_line"}
    for module in (calibrations, versions, outcomes, predictions, client_work):
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                assert name.startswith("_") or name in inner or hasattr(Client, name), name


def test_a_method_of_the_class_makes_the_call_without_sending_it() -> None:
    call = Client.models()
    assert isinstance(call, Call)
    assert (call.method, call.path) == ("GET", "/v1/models")
    with Client() as client:
        assert inspect.signature(client.predict) == inspect.signature(predictions.predict)
        assert client.predict.__doc__ == predictions.predict.__doc__


ROWS = [[1.0, 2.0]]
CALLS = [
    Client.models(),
    Client.model("m"),
    Client.upload("m", __file__),
    Client.version("m"),
    Client.delete_version("m", 1),
    Client.load("m"),
    Client.unload("m"),
    Client.retire("m", 1, "old"),
    Client.restore("m", 1),
    Client.alias("m", "a"),
    Client.set_alias("m", "a", 1),
    Client.delete_alias("m", "a"),
    Client.audit("m"),
    Client.add_pool(ROWS),
    Client.pools(),
    Client.pool("p"),
    Client.pool_rows("p", [0]),
    Client.delete_pool("p"),
    Client.jobs(),
    Client.job("j"),
    Client.cancel("j"),
    Client.job_result("j"),
    client_work.events("j"),
    Client.is_live(),
    Client.health(),
]
for number in (None, 1):
    CALLS += [
        Client.predict("m", ROWS, version=number),
        Client.select("m", ROWS, strategy="bald", k=1, version=number),
        Client.calibrate("m", ROWS, version=number),
        Client.evaluate("m", ROWS, version=number),
        Client.calibration("m", version=number),
        Client.activate("m", 1, version=number),
        Client.fit("m", ROWS, version=number),
        Client.fits("m", version=number),
        Client.activate_fits("m", {"laplace": 1}, version=number),
        Client.feedback("m", "id", [0], version=number),
        Client.monitoring("m", version=number),
    ]


def test_every_route_can_be_asked(tmp_path: Path) -> None:
    asked = [f"{call.method.lower()} {call.path}" for call in CALLS]
    for path, methods in create_app(Settings(data_dir=tmp_path)).openapi()["paths"].items():
        if path.startswith(("/v2", "/metrics")):  # for the clients of other protocols
            continue
        for method in methods:
            pattern = re.sub(r"\{\w+\}", "[^/]+", f"{method} {path}")
            assert any(re.fullmatch(pattern, one) for one in asked), f"{pattern}: give it a call"


def test_names_cannot_lead_out_of_their_path() -> None:
    assert Client.model("../jobs?x#y").path == "/v1/models/..%2Fjobs%3Fx%23y"


def test_every_method_and_error_is_documented() -> None:
    page = (ROOT / "docs/client.md").read_text()
    named = {*re.findall(r"`(\w+)(?:`|\()", page)}
    methods = {name for name in dir(Client) if not name.startswith("_")}
    assert methods <= named
    assert {kind.__name__ for kind in _below(errors.DubitoError)} <= named


def _run(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    path = {"PYTHONPATH": ":".join(str(ROOT / part) for part in ("service/client", "service"))}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_client_imports_httpx_and_numpy_alone() -> None:
    told = _run(
        "import sys, dubito_client\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    strange = {"torch", "dubito", "dubito_nn", "pydantic", "pandas", "orjson", "fastapi"}
    assert "'httpx'" in told
    assert not strange & {*re.findall(r"'(\w+)'", told)}


def test_dubito_hands_the_client_on_without_torch_and_says_where_it_is_missing() -> None:
    assert dubito.Client is Client
    assert dubito.AsyncClient is AsyncClient
    told = _run("import sys, dubito\nprint(dubito.Client, 'torch' in sys.modules)")
    assert told == "<class 'dubito_client.client.Client'> False\n"
    told = _run(
        "import sys\nsys.modules['dubito_client'] = None\nimport dubito\n"
        "try:\n    dubito.Client\nexcept ImportError as error:\n    print(error)"
    )
    assert "pip install dubito-client" in told
    with pytest.raises(AttributeError, match="Clients"):
        dubito.Clients  # noqa: B018
