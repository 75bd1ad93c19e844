"""The gRPC server: its port, its threads, and the frame of a call.

From the outside in: key → request id, unforeseen errors → message → method. Errors have the text
that HTTP answers them with, as the details of a status code.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from dubito.api.border.access import Access
from dubito.api.border.context import CALLERS_ID, internal_error
from dubito.api.rpc.methods import MAX_INFERENCES, Method, Methods, RemoteCall
from dubito.application import Application
from dubito.errors import DubitoError, InputError
from dubito.keys import Caller, Keyring
from dubito.settings import Settings

SERVICE = "inference.GRPCInferenceService"
_MAX_CALLS = MAX_INFERENCES + 16  # so that health is answered while inferences wait
_DIGEST_BYTES = 12
_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_log = structlog.get_logger(__name__)


class RpcServer:
    """Serves the Open Inference Protocol over gRPC.

    Args:
        held: the application, and the settings with port and key.

    Attributes:
        port: that it listens on.

    Raises:
        InputError: the port is taken, or not allowed.
    """

    def __init__(self, held: Access) -> None:
        settings = held.settings
        methods = Methods(held).by_name()
        self._server = grpc.server(
            ThreadPoolExecutor(_MAX_CALLS, thread_name_prefix="dubito-grpc"),
            interceptors=(_KeyInterceptor(held.application, methods),),
            maximum_concurrent_rpcs=_MAX_CALLS,
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
            ),
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                _framed(name, method, held.application), response_serializer=_to_bytes
            )
            for name, method in methods.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        host = settings.host.strip("[]")
        address = f"[{host}]" if ":" in host else host
        try:
            self.port: int = self._listen(f"{address}:{settings.grpc_port}", settings)
        except RuntimeError as error:
            raise InputError(
                f"DUBITO_GRPC_PORT: expected a port of {settings.host} that is free, got "
                f"{settings.grpc_port}: end what listens there, or choose another"
            ) from error

    def _listen(self, address: str, settings: Settings) -> int:
        """Listen on an address; return its port."""
        if settings.tls_cert is None or settings.tls_key is None:
            return int(self._server.add_insecure_port(address))
        pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
        return int(self._server.add_secure_port(address, grpc.ssl_server_credentials([pair])))

    def start(self) -> None:
        """Take calls."""
        self._server.start()
        _log.info("gRPC is served", port=self.port)

    def close(self, grace_s: float) -> None:
        """Take no more calls, and let those that run finish within the time."""
        self._server.stop(grace_s).wait()


class _KeyInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Refuses every call without a key that opens it, before its message is read.

    So are calls of methods that there are not.
    """

    def __init__(self, application: Application, methods: Mapping[str, Method]) -> None:
        self._keys = application.keys
        self._telemetry = application.telemetry
        self._methods = methods

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Let one call through, or refuse it."""
        method = self._methods.get(handler_call_details.method.rpartition("/")[2])
        try:
            caller = _caller(self._keys, dict(handler_call_details.invocation_metadata))
            if method is not None:
                caller.check(method.scope, None)
            return continuation(handler_call_details)
        except DubitoError as error:
            refusal = error
            self._telemetry.rejected(error.kind)

        def refuse(unread: Iterator[bytes], context: grpc.ServicerContext) -> None:
            _abort(context, refusal)

        return grpc.stream_unary_rpc_method_handler(refuse)  # which reads no message


def _framed(
    name: str, method: Method, application: Application
) -> Callable[[bytes, grpc.ServicerContext], Message]:
    """A method with its frame: what it raises becomes a status code."""

    def answer(content: bytes, made: RemoteCall) -> Message:
        request = _parsed(method.kind, content)
        made.caller.check(method.scope, _model(request))
        allowance = made.caller.allowance
        if allowance is None:
            return method.answer(request, made)
        allowance.begin()
        try:
            return method.answer(request, made)
        finally:
            allowance.end()

    def call(content: bytes, context: grpc.ServicerContext) -> Message:
        sent = dict(context.invocation_metadata())
        request_id = _request_id(name, content, sent.get("x-request-id", ""))
        context.send_initial_metadata((("x-request-id", request_id),))
        began_s, failure = time.perf_counter(), None
        telemetry, path = application.telemetry, f"/{SERVICE}/{name}"
        span = None if telemetry.tracing is None else telemetry.tracing.begin(path, sent)
        try:
            made = RemoteCall(
                caller=_caller(application.keys, sent),
                num_bytes=len(content),
                request_id=request_id,
                is_observed="x-unobserved" not in sent,
                left_s=context.time_remaining(),
                when_gone=context.add_callback,
            )
            message = answer(content, made)
        except DubitoError as error:
            failure = error
        except Exception:
            _log.exception("unforeseen error", request_id=request_id, method=name)
            failure = internal_error()
        status = 200 if failure is None else failure.status
        telemetry.request(path, "POST", status, time.perf_counter() - began_s)
        if span is not None:
            span.end(path, status, {"rpc.system": "grpc", "dubito.request_id": request_id})
        if failure is None:
            return message
        telemetry.rejected(failure.kind)
        _abort(context, failure)
        raise AssertionError("abort raises")

    return call


def _abort(context: grpc.ServicerContext, failure: DubitoError) -> None:
    """End a call with the status code of an error."""
    if failure.retry_after_s is not None:
        retry = str(math.ceil(failure.retry_after_s))
        context.set_trailing_metadata((("retry-after", retry),))
    context.abort(_CODES.get(failure.status, grpc.StatusCode.INTERNAL), failure.detail)


def _caller(keys: Keyring, sent: Mapping[str, str | bytes]) -> Caller:
    """Who sends the metadata.

    Raises:
        UnauthorizedError: they have no key that is valid.
    """
    if keys.is_stale:
        keys.refresh()
    header = sent.get("authorization", "")
    return keys.caller(header if isinstance(header, bytes) else header.encode())


def _model(request: Message) -> str | None:
    """The model that a request is about; None: none, or several."""
    names = (getattr(request, field, None) for field in ("model_name", "name"))
    return next((name for name in names if isinstance(name, str)), None) or None


def _parsed(kind: type[Message], content: bytes) -> Message:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise InputError(
            f"message: expected {kind.DESCRIPTOR.full_name}, got bytes that are none: write it by "
            "the protocol's definition"
        ) from error


def _request_id(name: str, content: bytes, sent: str | bytes) -> str:
    """The caller's id where it follows the pattern, else a digest of the call."""
    if isinstance(sent, str) and CALLERS_ID.fullmatch(sent):
        return sent
    digest = hashlib.blake2b(f"{name}\0".encode() + content, digest_size=_DIGEST_BYTES)
    return digest.hexdigest()


def _to_bytes(message: Message) -> bytes:
    content: bytes = message.SerializeToString()
    return content
