"""The gRPC server: its port, its threads, and the frame of a call.

From the outside in: key → request id, unforeseen errors → message → method. Errors have the text
that HTTP answers them with, as the details of a status code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from dubito.api.border.access import Access
from dubito.api.border.auth import MISSING_KEY, is_key
from dubito.api.border.context import CALLERS_ID, internal_error
from dubito.api.rpc.methods import MAX_INFERENCES, Methods, RemoteCall
from dubito.errors import DubitoError, InputError

SERVICE = "inference.GRPCInferenceService"
_MAX_CALLS = MAX_INFERENCES + 16  # so that health is answered while inferences wait
_DIGEST_BYTES = 12
_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
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
        key = settings.api_key
        self._server = grpc.server(
            ThreadPoolExecutor(_MAX_CALLS, thread_name_prefix="dubito-grpc"),
            interceptors=() if key is None else (_KeyInterceptor(key.get_secret_value()),),
            maximum_concurrent_rpcs=_MAX_CALLS,
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
            ),
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                _framed(name, kind, answer), response_serializer=_to_bytes
            )
            for name, (kind, answer) in Methods(held).by_name().items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        host = settings.host.strip("[]")
        address = f"[{host}]" if ":" in host else host
        try:
            self.port: int = self._server.add_insecure_port(f"{address}:{settings.grpc_port}")
        except RuntimeError as error:
            raise InputError(
                f"DUBITO_GRPC_PORT: expected a port of {settings.host} that is free, got "
                f"{settings.grpc_port}: end what listens there, or choose another"
            ) from error

    def start(self) -> None:
        """Take calls."""
        self._server.start()
        _log.info("gRPC is served", port=self.port)

    def close(self, grace_s: float) -> None:
        """Take no more calls, and let those that run finish within the time."""
        self._server.stop(grace_s).wait()


class _KeyInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Refuses every call without the key, of methods that there are and of others."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Let one call through, or refuse it."""
        sent = dict(handler_call_details.invocation_metadata).get("authorization", "")
        if isinstance(sent, str) and is_key(sent, self._key):
            return continuation(handler_call_details)

        def refuse(unread: Iterator[bytes], context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, MISSING_KEY)

        return grpc.stream_unary_rpc_method_handler(refuse)  # which reads no message


def _framed(
    name: str, kind: type[Message], answer: Callable[..., Message]
) -> Callable[[bytes, grpc.ServicerContext], Message]:
    """A method with its frame: what it raises becomes a status code."""

    def call(content: bytes, context: grpc.ServicerContext) -> Message:
        sent = dict(context.invocation_metadata())
        request_id = _request_id(name, content, sent.get("x-request-id", ""))
        context.send_initial_metadata((("x-request-id", request_id),))
        made = RemoteCall(
            len(content),
            request_id,
            is_observed="x-unobserved" not in sent,
            left_s=context.time_remaining(),
            when_gone=context.add_callback,
        )
        try:
            return answer(_parsed(kind, content), made)
        except DubitoError as error:
            failure = error
        except Exception:
            _log.exception("unforeseen error", request_id=request_id, method=name)
            failure = internal_error()
        if failure.retry_after_s is not None:
            context.set_trailing_metadata((("retry-after", f"{failure.retry_after_s:.0f}"),))
        code = _CODES.get(failure.status, grpc.StatusCode.INTERNAL)
        context.abort(code, failure.detail)
        raise AssertionError("abort raises")

    return call


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
