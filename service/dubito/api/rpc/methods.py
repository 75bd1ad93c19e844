"""What each method of the protocol's service answers; the same pages as HTTP, as messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import NamedTuple, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from dubito import __version__
from dubito.answered import PredictReply
from dubito.api.border.access import Access
from dubito.api.border.fields import read_fields
from dubito.api.open_inference import repository
from dubito.api.open_inference.description import describe
from dubito.api.open_inference.pages import ModelConfigPage, ModelMetadataPage
from dubito.api.open_inference.reply import inferred
from dubito.api.open_inference.request import Addressee
from dubito.api.open_inference.schemas import LoadBody, UnloadBody
from dubito.api.open_inference.statistics import count_failure, statistics
from dubito.api.pages.base import JsonPage
from dubito.api.rpc import inference_pb2 as pb
from dubito.api.rpc.messages import read_parameters, read_request, write_reply
from dubito.errors import DeadlineError, NotFoundError, QueueFullError, UnavailableError
from dubito.keys import Caller, KeyScope
from dubito.names import DEFAULT_ALIAS
from dubito.serving.inferences import Course
from dubito.serving.turns.backlog import WaitingLine
from dubito.serving.worker import Job, Urgency

M = TypeVar("M", bound=Message)
MAX_INFERENCES = 112
"""Inferences at once, each of which holds a thread."""


class Method(NamedTuple):
    """The type of a method's request, what answers it, and the scope that it needs."""

    kind: type[Message]
    answer: Callable[..., Message]
    scope: KeyScope


@dataclass(frozen=True)
class RemoteCall:
    """One call, as its method sees it.

    Args:
        caller: who asks.
        num_bytes: length of the message.
        request_id: of the call.
        is_observed: whether monitoring may see it.
        left_s: time that the caller waits; None: no limit.
        when_gone: takes what is called once the caller is gone, or the call over.
    """

    caller: Caller
    num_bytes: int
    request_id: str
    is_observed: bool
    left_s: float | None
    when_gone: Callable[[Callable[[], None]], object]


@dataclass(frozen=True)
class Methods:
    """The methods of the service by name.

    Args:
        held: the application and its settings.
    """

    held: Access
    _places: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(MAX_INFERENCES))

    def by_name(self) -> dict[str, Method]:
        """The methods, each with the scope that it needs."""
        predict, admin = KeyScope.PREDICT, KeyScope.ADMIN
        return {
            "ServerLive": Method(pb.ServerLiveRequest, self.server_live, predict),
            "ServerReady": Method(pb.ServerReadyRequest, self.server_ready, predict),
            "ModelReady": Method(pb.ModelReadyRequest, self.model_ready, predict),
            "ServerMetadata": Method(pb.ServerMetadataRequest, self.server_metadata, predict),
            "ModelMetadata": Method(pb.ModelMetadataRequest, self.model_metadata, predict),
            "ModelInfer": Method(pb.ModelInferRequest, self.infer, predict),
            "ModelConfig": Method(pb.ModelConfigRequest, self.config, predict),
            "ModelStatistics": Method(pb.ModelStatisticsRequest, self.statistics, predict),
            "RepositoryIndex": Method(pb.RepositoryIndexRequest, self.index, predict),
            "RepositoryModelLoad": Method(pb.RepositoryModelLoadRequest, self.load, admin),
            "RepositoryModelUnload": Method(pb.RepositoryModelUnloadRequest, self.unload, admin),
        }

    def server_live(self, request: pb.ServerLiveRequest, call: RemoteCall) -> pb.ServerLiveResponse:
        """Whether the device worker responds."""
        return pb.ServerLiveResponse(live=self.held.application.vitals.is_live())

    def server_ready(
        self, request: pb.ServerReadyRequest, call: RemoteCall
    ) -> pb.ServerReadyResponse:
        """Whether requests are taken and all pinned models are loaded."""
        return pb.ServerReadyResponse(ready=self.held.application.vitals.health().is_ready)

    def model_ready(self, request: pb.ModelReadyRequest, call: RemoteCall) -> pb.ModelReadyResponse:
        """Whether a version is loaded, or will be by its first request."""
        version = request.version or DEFAULT_ALIAS
        is_ready = repository.is_ready(self.held.application, request.name, version)
        return pb.ModelReadyResponse(ready=is_ready)

    def server_metadata(
        self, request: pb.ServerMetadataRequest, call: RemoteCall
    ) -> pb.ServerMetadataResponse:
        """What the server is."""
        return pb.ServerMetadataResponse(
            name=repository.NAME, version=__version__, extensions=repository.EXTENSIONS
        )

    def model_metadata(
        self, request: pb.ModelMetadataRequest, call: RemoteCall
    ) -> pb.ModelMetadataResponse:
        """Inputs and outputs of a version."""
        application = self.held.application
        described = describe(application, request.name, request.version or DEFAULT_ALIAS)
        versions = repository.versions(application, request.name)
        page = ModelMetadataPage.of_version(described, versions)
        return _message(page, pb.ModelMetadataResponse())

    def config(self, request: pb.ModelConfigRequest, call: RemoteCall) -> pb.ModelConfigResponse:
        """The configuration of a version."""
        version = request.version or DEFAULT_ALIAS
        described = describe(self.held.application, request.name, version)
        page = ModelConfigPage.of_version(described, self.held.settings.max_rows)
        return pb.ModelConfigResponse(config=_message(page, pb.ModelConfig()))

    def statistics(
        self, request: pb.ModelStatisticsRequest, call: RemoteCall
    ) -> pb.ModelStatisticsResponse:
        """What inferences took: of a version, of a model, or of all."""
        named = request.name or None, request.version or None
        page = statistics(self.held.application, call.caller, *named)
        return _message(page, pb.ModelStatisticsResponse())

    def index(
        self, request: pb.RepositoryIndexRequest, call: RemoteCall
    ) -> pb.RepositoryIndexResponse:
        """All versions of all models, with their states."""
        _check_repository(request.repository_name)
        message = pb.RepositoryIndexResponse()
        entries = repository.index(self.held.application, call.caller, only_ready=request.ready)
        for entry in entries:
            message.models.add(**entry.model_dump())
        return message

    def load(
        self, request: pb.RepositoryModelLoadRequest, call: RemoteCall
    ) -> pb.RepositoryModelLoadResponse:
        """Load what the alias `default` points to."""
        _check_repository(request.repository_name)
        read_fields(LoadBody, {"parameters": read_parameters(request.parameters)})
        repository.load(self.held.application, request.model_name, call.caller)
        return pb.RepositoryModelLoadResponse()

    def unload(
        self, request: pb.RepositoryModelUnloadRequest, call: RemoteCall
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload all versions of a model."""
        _check_repository(request.repository_name)
        read_fields(UnloadBody, {"parameters": read_parameters(request.parameters)})
        repository.unload(self.held.application, request.model_name, call.caller)
        return pb.RepositoryModelUnloadResponse()

    def infer(self, request: pb.ModelInferRequest, call: RemoteCall) -> pb.ModelInferResponse:
        """Predict rows."""
        to = Addressee(request.model_name, request.model_version or DEFAULT_ALIAS)
        course = Course()
        try:
            return self._infer(request, to, call, course)
        except Exception:
            count_failure(self.held.application, to, course)
            raise

    def _infer(
        self, request: pb.ModelInferRequest, to: Addressee, call: RemoteCall, course: Course
    ) -> pb.ModelInferResponse:
        application, settings = self.held.application, self.held.settings
        waits_s = settings.request_timeout_ms / 1000
        until_s = time.monotonic() + min(waits_s, waits_s if call.left_s is None else call.left_s)
        line = WaitingLine(Urgency.PREDICTIONS, to.model)
        application.admission.look(line, until_s)
        if not self._places.acquire(blocking=False):
            raise QueueFullError(
                f"inferences over gRPC: at most {MAX_INFERENCES} at once: try again later",
                retry_after_s=1.0,
            )
        try:
            with application.admission.holding() as room:
                room.take(call.num_bytes)
                room.expect(line, until_s)
                with application.admission.passage.passing():
                    asked = read_request(request)
                    is_observed = call.is_observed and settings.monitoring
                    order = asked.order(to, call.request_id if is_observed else None)
                    until_s = asked.deadline_s(until_s)
                    job = application.ask(order, reservation=room.reservation, deadline_s=until_s)
                course.mark()
                call.when_gone(job.abandon)
                reply = _outcome(job, until_s)
                course.waited_s = job.waited_s
                course.mark()
                with application.admission.passage.passing():
                    answer = inferred(asked, reply, call.request_id)
                    message = write_reply(answer)
        finally:
            self._places.release()
        course.mark()
        application.inferences.succeeded(reply.model, reply.version, course, asked.num_rows)
        return message


def _outcome(job: Job[PredictReply], until_s: float) -> PredictReply:
    """Wait for what a job returns.

    Raises:
        DubitoError: whatever the job raised, or its time is over.
    """
    try:
        return job.future.result(max(0.0, until_s - time.monotonic()))
    except CancelledError as error:
        raise UnavailableError("the caller went away before the answer was there") from error
    except TimeoutError as error:
        job.abandon()
        raise DeadlineError(
            "expected an answer before the deadline, got none in time: allow more time, or ask for "
            "fewer rows or samples"
        ) from error


def _message(page: JsonPage, message: M) -> M:
    filled: M = ParseDict(page.model_dump(), message)
    return filled


def _check_repository(name: str) -> None:
    if name:
        raise NotFoundError(f"no repository {name[:80]!r}: there is one, which has no name")
