"""What a replica puts around the application: headers of every reply, one page of metrics, warmth.

Flow: start → the application starts → it learns to reach the others → pinned models are loaded, or
      seen not to be there → Serve is told that it began.
      request → the application → headers of browsers; of `/metrics`, the series of all replicas.

`Server` of `dubito.api` does the first two for one process; behind Serve no such server stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from dubito.api.border.access import Access
from dubito.api.border.browsers import security_headers
from dubito.cluster.headers import NO_ID
from dubito.cluster.peers import Peers
from dubito.settings import Settings

_WARM_WITHIN_S = 300.0
_LOOK_S = 0.05
_METRICS = "/metrics"


class ReplicaFrame:
    """The application of a replica.

    Args:
        app: what `create_app` returned.
        name: of the replica.
        peers: all replicas.
    """

    def __init__(self, app: FastAPI, name: str, peers: Peers) -> None:
        self._app = app
        self._name = name
        self._peers = peers
        settings: Settings = app.state.settings
        self._headers = security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application's life, or one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._warm(send))
            return
        if scope["type"] == "http":
            scope = {**scope, "headers": _of_the_caller(scope["headers"])}
        send = self._decorated(send)
        is_metrics = scope["type"] == "http" and scope["path"] == _METRICS
        await self._app(scope, receive, self._merged(send) if is_metrics else send)

    def _decorated(self, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers:
                    headers.setdefault(name, value)
            await send(message)

        return send_with_headers

    def _warm(self, send: Send) -> Send:
        """Tell that the start is complete once pinned models were tried, or a time is over."""

        async def send_once_warm(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                access: Access = self._app.state.access
                self._peers.join(access.application)
                loop = asyncio.get_running_loop()
                until_s = loop.time() + _WARM_WITHIN_S
                while not access.application.vitals.may_begin() and loop.time() < until_s:
                    await asyncio.sleep(_LOOK_S)
            await send(message)

        return send_once_warm

    def _merged(self, send: Send) -> Send:
        """Answer `/metrics` with the series of all replicas, once this one has let the key pass."""
        start: Message = {}
        parts: list[bytes] = []

        async def send_all(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = b"".join(parts)
            if start["status"] == 200:
                body = merged({**await self._peers.counted(), self._name: body})
                MutableHeaders(scope=start)["content-length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        return send_all


def _of_the_caller(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that the caller sent: the id of a request may be Serve's own."""
    names = {name for name, _ in headers}
    left_out = {b"x-request-id", NO_ID} if NO_ID in names else set()
    return [(name, value) for name, value in headers if name not in left_out]


def merged(texts: Mapping[str, bytes]) -> bytes:
    """Several pages of metrics as one: each series with the label `replica`, each family once.

    Args:
        texts: in the text format of Prometheus, by the names of replicas.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for name, text in sorted(texts.items()):
        family = ""
        for line in text.decode().splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known:
                    known.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, name))
    lines = [line for family in heads for line in (*heads[family], *samples.get(family, ()))]
    return ("\n".join(lines) + "\n").encode()


def _labelled(line: str, replica: str) -> str:
    """A sample with one label more, before the others."""
    label = f'replica="{replica}"'
    series, _, value = line.rpartition(" ")
    if series.endswith("}"):
        name, _, labels = series.partition("{")
        return f"{name}{{{label},{labels} {value}"
    return f"{series}{{{label}}} {value}"
