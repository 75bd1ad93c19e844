"""Traces: a span for each request, and below it those of its wait and of its computation.

Spans go where OpenTelemetry's own environment variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, ...),
which also say how many are kept (`OTEL_TRACES_SAMPLER`) and what the service is called
(`OTEL_SERVICE_NAME`). A process that has a provider of its own gets them there. The names of
attributes are those of OpenTelemetry's conventions for HTTP; ours begin with `dubito.`.

Nobody but `dubito.application` imports this, and only where traces are asked for: OpenTelemetry is
an extra.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from http import HTTPStatus

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import ProxyTracerProvider, Span, SpanKind, StatusCode

from dubito import __version__

_PARENTS = frozenset(propagate.get_global_textmap().fields)
Attributes = Mapping[str, str | int | float | bool]


class Tracing:
    """Makes the spans of one server.

    Args:
        provider: takes them; None: the process's own, or a new one that sends them on.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._made = None
        if provider is None:
            provider = trace.get_tracer_provider()
            if isinstance(provider, ProxyTracerProvider):  # nobody has set one
                provider = self._made = _sending()
        self._tracer = provider.get_tracer("dubito", __version__)

    def begin(self, name: str, headers: Mapping[str, str | bytes]) -> RequestSpan:
        """The span of a request, which what follows in its task and its threads lies in.

        Args:
            name: until it is known better.
            headers: of the request, of which `traceparent` names the span that it belongs to.
        """
        within = propagate.extract({key: headers[key] for key in _PARENTS if key in headers})
        return RequestSpan(self._tracer.start_span(name, context=within, kind=SpanKind.SERVER))

    def here(self) -> Context:
        """The span that the caller runs in."""
        return context.get_current()

    def worked(
        self, within: Context, asked_s: float, began_s: float, ended_s: float, told: Attributes
    ) -> None:
        """The spans `queue` and `compute` of work that is done, where who asked has one.

        There are none below a span that a sampler passed over, so that it costs next to nothing.

        Args:
            within: what it was a part of.
            asked_s: when it was queued, on the clock of `time.monotonic`.
            began_s: when it began, on the same clock.
            ended_s: when it ended, on the same clock.
            told: attributes of both.
        """
        if not trace.get_current_span(within).get_span_context().trace_flags.sampled:
            return
        offset_ns = time.time_ns() - time.monotonic_ns()
        asked, began, ended = (offset_ns + int(at * 1e9) for at in (asked_s, began_s, ended_s))
        for name, start, end in (("queue", asked, began), ("compute", began, ended)):
            self._tracer.start_span(name, within, attributes=dict(told), start_time=start).end(end)

    def close(self) -> None:
        """Send what has not been sent yet."""
        if self._made is not None:
            self._made.shutdown()


class RequestSpan:
    """The span of a request, from its head to the end of its reply."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token = context.attach(trace.set_span_in_context(span))

    @property
    def trace_id(self) -> str:
        """By which a log finds the trace, in hexadecimal."""
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def end(self, name: str, status: int, attributes: Attributes) -> None:
        """It is over.

        Args:
            name: what was asked for, of which there are not many.
            status: of the reply, as in HTTP; 0: there was none.
            attributes: what is known of it.
        """
        context.detach(self._token)
        self._span.update_name(name)
        self._span.set_attributes({"http.response.status_code": status, **attributes})
        if not status or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _sending() -> TracerProvider:
    """A provider that sends spans by OTLP over HTTP, some at a time."""
    # the exporter brings a client of HTTP, which nothing else here needs
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    named = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: "dubito"}
    provider = TracerProvider(
        resource=Resource.create({**named, SERVICE_VERSION: __version__}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
