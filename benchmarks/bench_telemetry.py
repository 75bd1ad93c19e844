"""What telemetry costs a request, in processor time.

    python benchmarks/bench_telemetry.py [--pairs 150] [--requests 40]

One server in this process, without a network between: requests of one row as JSON go straight to
its application, so that there is nothing to hide behind. The network is as small as networks are
(4 inputs, 16 units, 3 classes, T = 64). Blocks of requests with telemetry and without it take
turns, in an order that changes, and count with the processor time of the whole process. Shown is
the median of the differences within pairs, with its 95 % interval (by bootstrap), of the median
without; first the same side against itself. Without: the methods of `Telemetry` do nothing. Beside
it stands the same for a line in the log (`DUBITO_LOG_REQUESTS`), and for traces (`DUBITO_TRACING`)
of every request and of one in ten, handed over in batches to an exporter that drops them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from scipy.stats import bootstrap
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "service"), str(ROOT / "models")]

from dubito.api import create_app  # noqa: E402
from dubito.settings import Settings  # noqa: E402
from dubito.telemetry.tracing import Tracing  # noqa: E402
from dubito_nn import export  # noqa: E402

FEATURES = 4
BODY = json.dumps({"inputs": [[0.1, -0.2, 0.3, 0.4]]}).encode()
PATH = "/v1/models/small/predict"
SILENT: dict[str, Callable[..., Any]] = {
    "request": lambda *told: None,
    "replied": lambda *told: None,
    "batches": lambda compute, passes: compute,
}


class Dropping(SpanExporter):
    """Takes spans, and sends them nowhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--requests", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(io.StringIO()),
    )
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), options.pairs, options.requests))


async def _measure(folder: Path, pairs: int, requests: int) -> None:
    app = create_app(Settings(data_dir=folder / "data"))
    async with app.router.lifespan_context(app):
        held = app.state.access
        _publish(folder, held.application)
        telemetry, settings = held.application.telemetry, held.settings

        def speak() -> None:
            for name in SILENT:
                vars(telemetry).pop(name, None)
            object.__setattr__(held, "settings", settings)
            telemetry.tracing = None

        def be_silent() -> None:
            vars(telemetry).update(SILENT)

        def trace(share: float) -> Callable[[], None]:
            provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)))
            provider.add_span_processor(BatchSpanProcessor(Dropping()))
            tracing = Tracing(provider)
            return lambda: setattr(telemetry, "tracing", tracing)

        def log() -> None:
            logging = settings.model_copy(update={"log_requests": True})
            object.__setattr__(held, "settings", logging)

        for name, with_it, without in (
            ("nothing (the same twice)", lambda: speak(), speak),
            ("telemetry", speak, be_silent),
            ("a line in the log", log, speak),
            ("traces of all requests", trace(1.0), speak),
            ("traces of one in ten", trace(0.1), speak),
        ):
            spent: dict[Any, list[float]] = {with_it: [], without: []}
            await _block(app, requests)
            for pair in range(pairs):
                for arm in (with_it, without) if pair % 2 else (without, with_it):
                    speak()
                    arm()
                    spent[arm].append(await _block(app, requests))
            more = np.array(spent[with_it]) - np.array(spent[without])
            less = float(np.median(spent[without]))
            found = bootstrap((more,), np.median, n_resamples=2000, rng=0).confidence_interval
            share, low, high = (100 * at / less for at in (np.median(more), *found))
            print(
                f"{name}: {share:.1f} % [{low:.1f}, {high:.1f}] more processor time per request, "
                f"{1e6 * np.median(more):.0f} us of {1e6 * less:.0f} us"
            )
            speak()


def _publish(folder: Path, application: Any) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    path = folder / "small.dubito"
    export(network, torch.randn(3, FEATURES), path, task="classification", output="logits")
    application.library.register("small", path)


async def _block(app: Any, requests: int) -> float:
    """Processor time of one request, in seconds."""
    began_s = time.process_time()
    for _ in range(requests):
        await _ask(app)
    return (time.process_time() - began_s) / requests


async def _ask(app: Any) -> None:
    sent: list[dict[str, Any]] = [{"type": "http.request", "body": BODY, "more_body": False}]
    never = asyncio.get_running_loop().create_future()

    async def receive() -> dict[str, Any]:
        return sent.pop() if sent else await never

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 200) == 200

    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "app": app,
        "root_path": "",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 0),
        "client": ("127.0.0.1", 0),
    }
    await app(scope, receive, send)


if __name__ == "__main__":
    main()
