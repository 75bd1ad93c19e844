"""`Client` and `AsyncClient`: the two shells that send calls, wait, and read answers.

Every method is a function of `predictions`, `calibrations`, `fits`, `versions`, `work` or
`outcomes` that makes a `Call`, listed once; `Method` makes it a method of both shells with the same
arguments.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from copy import copy
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx

from dubito_client import calibrations, outcomes, predictions, versions, work
from dubito_client import fits as fit_calls
from dubito_client.calls import Call, File
from dubito_client.errors import InputError
from dubito_client.sending import Attempts

P = ParamSpec("P")
T = TypeVar("T")
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

_LONGEST_MS = 24 * 3600 * 1000  # that the server takes
_SLACK_S = 5.0  # the server's own answer to a deadline shall come before ours


class Method(Generic[P, T]):
    """A function that makes a call, as a method of both clients that sends it.

    Args:
        make: the function, which the class itself has under the same name.
    """

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self._make = make

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[T]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Callable[P, object]:
        """The function of a class; the method of a client, which returns, or awaits, its result."""
        if client is None:
            return self._make

        @wraps(self._make)
        def ask(*args: P.args, **kwargs: P.kwargs) -> object:
            return client.send(self._make(*args, **kwargs))

        return ask


class _Shell(Generic[Http]):
    """What both clients hold, and their methods."""

    _http: Http

    predict = Method(predictions.predict)
    predict_pool = Method(predictions.predict_pool)
    select = Method(predictions.select)
    select_pool = Method(predictions.select_pool)
    calibrate = Method(calibrations.calibrate)
    evaluate = Method(calibrations.evaluate)
    calibration = Method(calibrations.calibration)
    activate = Method(calibrations.activate)
    fit = Method(fit_calls.fit)
    fit_pool = Method(fit_calls.fit_pool)
    fits = Method(fit_calls.fits)
    activate_fits = Method(fit_calls.activate_fits)
    feedback = Method(outcomes.feedback)
    monitoring = Method(outcomes.monitoring)
    models = Method(versions.models)
    model = Method(versions.model)
    version = Method(versions.version)
    upload = Method(versions.upload)
    delete_version = Method(versions.delete_version)
    load = Method(versions.load)
    unload = Method(versions.unload)
    retire = Method(versions.retire)
    restore = Method(versions.restore)
    alias = Method(versions.alias)
    set_alias = Method(versions.set_alias)
    delete_alias = Method(versions.delete_alias)
    audit = Method(versions.audit)
    is_live = Method(versions.is_live)
    health = Method(versions.health)
    add_pool = Method(work.add_pool)
    add_pool_from = Method(work.add_pool_from)
    pools = Method(work.pools)
    pool = Method(work.pool)
    pool_rows = Method(work.pool_rows)
    delete_pool = Method(work.delete_pool)
    jobs = Method(work.jobs)
    job = Method(work.job)
    cancel = Method(work.cancel)
    job_prediction = Method(work.job_prediction)
    job_selection = Method(work.job_selection)
    job_fit = Method(fit_calls.job_fit)
    job_result = Method(work.job_result)

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float | None = 60.0,
        patience_s: float = 60.0,
        http: Http | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(
                f"url: expected http://... or https://..., got {url!r}: add the scheme"
            )
        self._url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._is_owner = http is None
        self._http = self._new() if http is None else http

    def within(self, timeout_s: float | None) -> Self:
        """The same client over the same connections, with another `timeout_s`."""
        other = copy(self)
        other._timeout_s = timeout_s
        other._is_owner = False
        return other

    def _new(self) -> Http:
        raise NotImplementedError

    def _request(self, call: Call[Any], content: object) -> httpx.Request:
        headers = {"Accept": "application/json", **call.headers}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        if isinstance(call.body, File):
            headers["Content-Length"] = str(call.body.size_bytes)
        if call.computes and self._timeout_s is not None:
            timeout_ms = min(max(1, round(self._timeout_s * 1000)), _LONGEST_MS)
            headers["X-Request-Timeout-Ms"] = str(timeout_ms)
        waits_s = None if self._timeout_s is None else self._timeout_s + _SLACK_S
        return self._http.build_request(
            call.method,
            self._url + call.path,
            params=dict(call.query) or None,
            headers=headers,
            content=content,  # type: ignore[arg-type]  # bytes, or pieces as the shell takes them
            timeout=httpx.Timeout(waits_s, connect=10.0),
        )


class Client(_Shell[httpx.Client]):
    """A Dubito server, asked one call after the other; may be shared by threads.

    Use it as a context manager, or `close` it.

    Args:
        url: where the server answers.
        key: its key, if it has one.
        timeout_s: time that the server is given for one request; None: what the server gives.
        patience_s: time within which a refused request is sent again.
        http: a client of httpx with settings of one's own (certificates, proxies, limits), whose
            owner closes it; None: one with httpx's settings, closed with this one.
    """

    def send(self, call: Call[T]) -> T:
        """Send a call, wait and send it again where that helps, and return what it answers."""
        return call.result(self._answer(call, Attempts(call, self._patience_s)))

    def progress(self, job: str) -> Iterator[work.Job]:
        """A job whenever it moved, until it is finished; the last is how it ended."""
        call = work.events(job)
        attempts = Attempts(call, self._patience_s)
        while True:
            response = self._answer(call, attempts, stream=True)
            failure: httpx.RequestError = httpx.RemoteProtocolError("the stream ended too early")
            try:
                for line in response.iter_lines():
                    if (state := work.job_of_line(line)) is not None:
                        yield state
                        if state.is_finished:
                            return
                        attempts = Attempts(call, self._patience_s)
            except httpx.RequestError as error:
                failure = error
            finally:
                response.close()
            time.sleep(attempts.after_failure(failure))  # a server that shuts down ends streams

    def wait(
        self, job: str, on_progress: Callable[[work.Job], object] = lambda state: None
    ) -> work.Job:
        """Wait until a job is finished, and return how it ended.

        Args:
            job: its identifier.
            on_progress: called with the job whenever it moved.
        """
        for state in self.progress(job):
            on_progress(state)
        return state

    def close(self) -> None:
        """Close the connections."""
        if self._is_owner:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _new(self) -> httpx.Client:
        return httpx.Client()

    def _answer(
        self, call: Call[Any], attempts: Attempts, *, stream: bool = False
    ) -> httpx.Response:
        while True:
            content = call.body.pieces() if isinstance(call.body, File) else call.body
            try:
                response = self._http.send(self._request(call, content), stream=stream)
                if not response.is_success:
                    response.read()
                wait_s = attempts.after_answer(response)
            except httpx.RequestError as failure:
                wait_s = attempts.after_failure(failure)
            if wait_s is None:
                return response
            time.sleep(wait_s)


class AsyncClient(_Shell[httpx.AsyncClient]):
    """A Dubito server, asked without waiting in between; its methods are those of `Client`.

    Use it as an asynchronous context manager, or await `aclose`. Arguments as of `Client`,
    with a client of httpx that is asynchronous too.
    """

    async def send(self, call: Call[T]) -> T:
        """Send a call, wait and send it again where that helps, and return what it answers."""
        return call.result(await self._answer(call, Attempts(call, self._patience_s)))

    async def progress(self, job: str) -> AsyncIterator[work.Job]:
        """A job whenever it moved, until it is finished; the last is how it ended."""
        call = work.events(job)
        attempts = Attempts(call, self._patience_s)
        while True:
            response = await self._answer(call, attempts, stream=True)
            failure: httpx.RequestError = httpx.RemoteProtocolError("the stream ended too early")
            try:
                async for line in response.aiter_lines():
                    if (state := work.job_of_line(line)) is not None:
                        yield state
                        if state.is_finished:
                            return
                        attempts = Attempts(call, self._patience_s)
            except httpx.RequestError as error:
                failure = error
            finally:
                await response.aclose()
            await asyncio.sleep(
                attempts.after_failure(failure)
            )  # a server that ends ends its streams

    async def wait(
        self, job: str, on_progress: Callable[[work.Job], object] = lambda state: None
    ) -> work.Job:
        """Wait until a job is finished, and return how it ended. Arguments as of `Client`."""
        async for state in self.progress(job):
            on_progress(state)
        return state

    async def aclose(self) -> None:
        """Close the connections."""
        if self._is_owner:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _new(self) -> httpx.AsyncClient:
        return httpx.AsyncClient()

    async def _answer(
        self, call: Call[Any], attempts: Attempts, *, stream: bool = False
    ) -> httpx.Response:
        while True:
            content = _async_pieces(call.body) if isinstance(call.body, File) else call.body
            try:
                response = await self._http.send(self._request(call, content), stream=stream)
                if not response.is_success:
                    await response.aread()
                wait_s = attempts.after_answer(response)
            except httpx.RequestError as failure:
                wait_s = attempts.after_failure(failure)
            if wait_s is None:
                return response
            await asyncio.sleep(wait_s)


async def _async_pieces(file: File) -> AsyncIterator[bytes]:
    for piece in file.pieces():
        yield piece
