"""A machine learning backend for Label Studio that asks a Dubito server.

    python examples/label_studio/backend.py --model digits --field pixels

Label Studio sends tasks and its labelling configuration; Dubito answers with classes and how far
each can be trusted; what goes back has a score that is low where a label tells the network most.

Flow: project → model → version → tasks to rows → predict → choices with a score.
"""

from __future__ import annotations

import argparse
import hmac
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import uvicorn
from asking import Answer, BackendError, Dubito, Network
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from labelling import Choices, ConfigurationError, Json, read_choices
from pydantic import BaseModel, Field
from tasks import Reader, TaskError, name_of

SCORES = ("mutual_information", "predictive_entropy", "confidence")
EMPTY: Json = {"result": [], "score": None}
_log = logging.getLogger("dubito.label_studio")


@dataclass(frozen=True)
class Options:
    """What a person may set.

    Args:
        dubito: address of the Dubito server.
        dubito_key: its bearer key.
        model: for every project that `projects` does not name; None: for none.
        projects: number of a Label Studio project → model.
        shown: field of the task's data; None: the one that the labelling configuration shows.
        score: what orders the tasks, one of `SCORES`.
        label_studio: address of the Label Studio server, for images that were uploaded there.
        label_studio_key: access token of a user there.
        images_from: how other addresses of images may begin; each ends in a slash.
        is_inverted: whether dark ink shall be a large number.
        basic: user and password that Label Studio has to send; None: none.
    """

    dubito: str = "http://127.0.0.1:8000"
    dubito_key: str | None = None
    model: str | None = None
    projects: Mapping[str, str] = field(default_factory=dict)
    shown: str | None = None
    score: str = SCORES[0]
    label_studio: str | None = None
    label_studio_key: str | None = None
    images_from: Sequence[str] = ()
    is_inverted: bool = False
    basic: tuple[str, str] | None = None


class SetupBody(BaseModel):
    """What Label Studio sends when a backend is connected; other fields are not used."""

    project: str
    configuration: str | None = Field(default=None, alias="schema")


class VersionsBody(BaseModel):
    """What Label Studio sends when it asks for versions."""

    project: str


class PredictBody(BaseModel):
    """What Label Studio sends for predictions; other fields are not used."""

    tasks: list[object]
    project: str
    label_config: str


class WebhookBody(BaseModel):
    """An event; other fields are not used."""

    action: str


def create_app(options: Options) -> FastAPI:
    """The backend, ready to be served."""
    dubito = Dubito(options.dubito, options.dubito_key)
    app = FastAPI(
        title="Dubito for Label Studio",
        dependencies=[Depends(_guard(options.basic))],
        lifespan=dubito.lifespan,
    )

    @app.exception_handler(BackendError)
    def refuse(request: Request, error: BackendError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.status)

    @app.get("/")
    @app.get("/health")
    def health() -> Json:
        """Whether the backend is there; it is asked before everything else."""
        return {"status": "UP", "model_class": "Dubito"}

    @app.get("/metrics")
    def metrics() -> Json:
        """Nothing: Dubito has figures of its own."""
        return {}

    @app.post("/setup")
    def setup(body: SetupBody) -> Json:
        """Check that project and network fit; say which version answers."""
        network = dubito.network(_model(options, body.project))
        if body.configuration:
            _choices(body.configuration, network)
        return {"model_version": network.name}

    @app.post("/predict")
    def predict(body: PredictBody) -> Json:
        """Predictions for tasks, in their order."""
        network = dubito.network(_model(options, body.project))
        choices = _choices(body.label_config, network)
        reader = _reader(options, network, choices)
        return {
            "results": _results(dubito, network, choices, reader, options.score, body.tasks),
            "model_version": network.name,
        }

    @app.post("/versions")
    def versions(body: VersionsBody) -> Json:
        """The version that answers; Dubito's alias `default` chooses it."""
        return {"versions": [dubito.network(_model(options, body.project)).name]}

    @app.post("/webhook", status_code=201)
    def webhook(body: WebhookBody) -> Json:
        """Take note of an event; training is done elsewhere."""
        _log.info("event %s", body.action[:40])
        return {"status": "ok", "result": None}

    return app


def _guard(basic: tuple[str, str] | None) -> Callable[..., None]:
    """Asks for user and password, where they are set."""

    def check(
        given: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))],
    ) -> None:
        if basic is None:
            return
        got = ("", "") if given is None else (given.username, given.password)
        pairs = zip(got, basic, strict=True)
        if not all([hmac.compare_digest(one.encode(), own.encode()) for one, own in pairs]):
            raise BackendError(
                401,
                "expected user and password of the backend, got none or others: give them "
                "where Label Studio connects it",
            )

    return check


def _model(options: Options, project: str) -> str:
    """The model of a project, which Label Studio calls NUMBER.TIME."""
    number = project.partition(".")[0]
    model = options.projects.get(number, options.model)
    if model is None:
        known = ", ".join(options.projects) or "none"
        raise BackendError(
            404,
            f"expected a project that has a model ({known}), got {number[:40]!r}: start the "
            f"backend with --project {number[:40]}=MODEL, or with --model for all",
        )
    return model


def _choices(configuration: str, network: Network) -> Choices:
    try:
        return read_choices(configuration, network.classes)
    except ConfigurationError as error:
        raise BackendError(422, str(error)) from error


def _reader(options: Options, network: Network, choices: Choices) -> Reader:
    return Reader(
        field=options.shown or choices.field,
        shape=network.shape,
        dtype=network.dtype,
        label_studio=options.label_studio,
        token=options.label_studio_key,
        allowed=options.images_from,
        is_inverted=options.is_inverted,
    )


def _results(
    dubito: Dubito,
    network: Network,
    choices: Choices,
    reader: Reader,
    score: str,
    tasks: Sequence[object],
) -> list[Json]:
    """One prediction per task; an empty one for a task without an answer, if another has one."""
    rows: list[list[object]] = []
    places: list[int] = []
    problems: list[str] = []
    for place, task in enumerate(tasks):
        try:
            rows.append(reader.row(task))
            places.append(place)
        except TaskError as error:
            problems.append(str(error))
    answers: dict[int, Answer] = {}
    for place, found in zip(places, dubito.predict(network, rows) if rows else [], strict=True):
        if isinstance(found, Answer):
            answers[place] = found
        else:
            problems.append(f"{name_of(tasks[place])}: {found}")
    for problem in problems:
        _log.warning("%s", problem)
    if problems and not answers:
        raise BackendError(422, "; ".join(problems[:3]))
    results: list[Json] = [{**EMPTY, "model_version": network.name} for _ in tasks]
    for place, answer in answers.items():
        certain = answer.certainty(score, len(network.classes))
        results[place] = choices.prediction(answer.label, answer.confidence, certain, network.name)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the backend until it is stopped."""
    options, host, port = read_options(arguments)
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(create_app(options), host=host, port=port, log_level="info")


def read_options(arguments: Sequence[str] | None = None) -> tuple[Options, str, int]:
    """Options from the command line and the environment, then the address to serve on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dubito", default="http://127.0.0.1:8000", help="address of the server")
    parser.add_argument("--model", help="for all projects without one of their own")
    parser.add_argument("--project", action="append", default=[], metavar="NUMBER=MODEL")
    parser.add_argument("--field", help="of the task's data; else what the configuration shows")
    parser.add_argument("--score", choices=SCORES, default=SCORES[0], help="low: label it first")
    parser.add_argument("--label-studio", metavar="URL", help="where uploaded images are")
    parser.add_argument("--images-from", action="append", default=[], metavar="PREFIX/")
    parser.add_argument("--invert", action="store_true", help="dark ink becomes large numbers")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9090)
    given = parser.parse_args(arguments)
    projects = dict(pair.partition("=")[::2] for pair in given.project)
    if not all(projects) or not all(projects.values()):
        parser.error(f"--project expects NUMBER=MODEL, got {' '.join(given.project)}")
    if given.model is None and not projects:
        parser.error("expected --model MODEL or --project NUMBER=MODEL, got neither")
    if any(not start.endswith("/") or start.count("/") < 3 for start in given.images_from):
        parser.error("--images-from expects a beginning that ends in /, such as https://host/")
    user, password = os.environ.get("BASIC_AUTH_USER"), os.environ.get("BASIC_AUTH_PASS")
    options = Options(
        dubito=given.dubito,
        dubito_key=os.environ.get("DUBITO_API_KEY"),
        model=given.model,
        projects=projects,
        shown=given.field,
        score=given.score,
        label_studio=given.label_studio,
        label_studio_key=os.environ.get("LABEL_STUDIO_API_KEY"),
        images_from=tuple(given.images_from),
        is_inverted=given.invert,
        basic=(user, password) if user and password else None,
    )
    return options, given.host, given.port


if __name__ == "__main__":
    main()
