"""`/v2/models/...`: the Open Inference Protocol for one version of a model.

Flow of an inference: `intake` reads the body → decoded → queued → wait → outputs.
"""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.answered import PredictReply
from dubito.api.border.access import access
from dubito.api.border.auth import caller_of, needs
from dubito.api.border.context import request_id
from dubito.api.border.fields import no_query
from dubito.api.border.replies import json_response
from dubito.api.intake import AtOnce, Received, answered, is_short
from dubito.api.open_inference.description import describe
from dubito.api.open_inference.pages import (
    InferPage,
    ModelConfigPage,
    ModelMetadataPage,
    ModelReadyPage,
    StatisticsPage,
)
from dubito.api.open_inference.refusals import ProtocolRoute
from dubito.api.open_inference.reply import inferred, written
from dubito.api.open_inference.repository import is_ready, versions
from dubito.api.open_inference.request import Addressee, Inference, read_inference
from dubito.api.open_inference.schemas import InferBody
from dubito.api.open_inference.statistics import count_failure, statistics
from dubito.api.open_inference.tensors import JSON_LENGTH
from dubito.api.openapi import (
    TIMEOUT,
    UNOBSERVED,
    ModelName,
    VersionName,
    asked_version,
    both,
    gives,
    header,
    takes,
)
from dubito.application import Application
from dubito.asked import PredictOrder
from dubito.keys import KeyScope
from dubito.media import JSON, OCTETS
from dubito.serving.asking import Queued
from dubito.serving.inferences import Course
from dubito.serving.worker import Job

router = APIRouter(prefix="/v2/models", tags=["open inference protocol"], route_class=ProtocolRoute)

_KINDS = (JSON, OCTETS, "")  # clients of the protocol name none
_LENGTH = header(JSON_LENGTH, "Bytes of the JSON at the start of the body; without it, all is.")
_GIVEN = gives(OCTETS, headers={JSON_LENGTH: "Bytes of the JSON before binary outputs."})
_RETRY = {"Retry-After": "5"}


@router.get("/stats", summary="Statistics of all models", response_model=StatisticsPage)
@needs(KeyScope.PREDICT)
def all_statistics(request: Request) -> Response:
    """Tell how many inferences each version made under `/v2` since the server started."""
    return json_response(statistics(access(request).application, caller_of(request)))


@both(
    router.post,
    "infer",
    summary="Infer",
    response_model=InferPage,
    responses={200: _GIVEN},
    openapi_extra=takes(InferBody, OCTETS, headers=(_LENGTH, TIMEOUT, UNOBSERVED)),
)
@needs(KeyScope.PREDICT)
async def infer(request: Request, model: ModelName) -> Response:
    """Predict rows by the Open Inference Protocol, as JSON or with tensors as bytes behind it.

    Without a version in the path, the alias `default` names it.
    """
    asking = _Asking(request, Addressee(model, asked_version(request)))
    try:
        at_once = AtOnce(asking.at_once, is_short)
        return await answered(request, _KINDS, asking.start, asking.answer, at_once)
    except Exception:
        await to_thread.run_sync(asking.failed)
        raise


@both(
    router.get,
    "ready",
    summary="Is a version ready?",
    response_model=ModelReadyPage,
    responses={503: {"model": ModelReadyPage, "description": "It is not ready."}},
)
@needs(KeyScope.PREDICT)
def ready(request: Request, model: ModelName) -> Response:
    """Answer 200 where a version is loaded or its first request will load it, else 503."""
    is_well = is_ready(access(request).application, model, asked_version(request))
    page = ModelReadyPage(name=model, ready=is_well)
    return json_response(page, 200 if is_well else 503, None if is_well else _RETRY)


@both(router.get, "config", summary="Configuration of a version", response_model=ModelConfigPage)
@needs(KeyScope.PREDICT)
def config(request: Request, model: ModelName) -> Response:
    """Show what a version takes and gives, in the form of Triton's model configuration."""
    held = access(request)
    described = describe(held.application, model, asked_version(request))
    return json_response(ModelConfigPage.of_version(described, held.settings.max_rows))


@both(router.get, "stats", summary="Statistics of a model", response_model=StatisticsPage)
@needs(KeyScope.PREDICT)
def model_statistics(request: Request, model: ModelName) -> Response:
    """Tell how many inferences were made under `/v2` since the server started, and their times.

    Without a version in the path, all versions of the model are listed.
    """
    reference = request.path_params.get("version")
    application = access(request).application
    return json_response(statistics(application, caller_of(request), model, reference))


@router.get("/{model}", summary="Metadata of a model", response_model=ModelMetadataPage)
@needs(KeyScope.PREDICT)
def metadata(request: Request, model: ModelName) -> Response:
    """Show inputs and outputs of the version that the alias `default` points to."""
    return _metadata(access(request).application, model, asked_version(request))


@router.get(
    "/{model}/versions/{version}", summary="Metadata of a version", response_model=ModelMetadataPage
)
@needs(KeyScope.PREDICT)
def version_metadata(request: Request, model: ModelName, version: VersionName) -> Response:
    """Show inputs and outputs of a version."""
    return _metadata(access(request).application, model, version)


def _metadata(application: Application, model: str, reference: str) -> Response:
    described = describe(application, model, reference)
    return json_response(ModelMetadataPage.of_version(described, versions(application, model)))


class _Asking:
    """One inference over HTTP, from its body to its reply, with the times that it takes."""

    def __init__(self, request: Request, to: Addressee) -> None:
        self._request = request
        self._application = access(request).application
        self._to = to
        self._course = Course()
        self._asked: Inference | None = None
        self._job: Job[PredictReply] | None = None

    def start(self, received: Received) -> Job[PredictReply]:
        """Decode a body and queue what it asks."""
        order = self._read(received)
        return self._begun(self._application.ask(order, **self._queued(received)))

    def at_once(self, received: Received) -> Job[PredictReply] | None:
        """Do so where that takes no time."""
        if self._application.library.at_hand(self._to.model, self._to.version) is None:
            return None
        order = self._read(received)
        job = self._application.ask.at_once(order, **self._queued(received))
        return None if job is None else self._begun(job)

    def _read(self, received: Received) -> PredictOrder:
        self._course = Course()
        no_query(received.query)
        length = self._request.headers.get(JSON_LENGTH)
        library = self._application.library
        self._asked = read_inference(received.body, length, library, self._to)
        is_observed = (
            received.held.settings.monitoring and UNOBSERVED["name"] not in self._request.headers
        )
        return self._asked.order(self._to, request_id(self._request) if is_observed else None)

    def _queued(self, received: Received) -> Queued:
        assert self._asked is not None
        deadline_s = self._asked.deadline_s(received.deadline_s)
        return {"reservation": received.reservation, "deadline_s": deadline_s}

    def _begun(self, job: Job[PredictReply]) -> Job[PredictReply]:
        self._job = job
        self._course.mark()
        return job

    def answer(self, reply: PredictReply) -> Response:
        """Write the outputs that were asked for."""
        self._course.mark()
        assert self._asked is not None
        assert self._job is not None
        self._course.waited_s = self._job.waited_s
        answer = inferred(self._asked, reply, request_id(self._request))
        body, json_length = written(answer, self._asked)
        self._course.mark()
        self._application.inferences.succeeded(
            reply.model, reply.version, self._course, self._asked.num_rows
        )
        if json_length is None:
            return Response(body, media_type=JSON)
        return Response(body, headers={JSON_LENGTH: str(json_length)}, media_type=OCTETS)

    def failed(self) -> None:
        """Count an inference that was refused or failed."""
        count_failure(self._application, self._to, self._course)
