"""A call: a request that can be sent more than once, and how its answer is read. No I/O here.

Flow: arguments → `Call` → a shell of `client` sends it → `Call.read` → a frozen dataclass.
"""

from __future__ import annotations

import io
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import (
    Any,
    Generic,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

from dubito_client.errors import ReplyError

T_co = TypeVar("T_co", covariant=True)
Page = TypeVar("Page")
Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
Document: TypeAlias = Mapping[str, Any]

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
_CHUNK_BYTES = 2**18


@dataclass(frozen=True)
class File:
    """A file as a body; it is read again for every attempt.

    Args:
        path: where it lies.
        size_bytes: its size, which is announced.
    """

    path: Path
    size_bytes: int

    def pieces(self) -> Iterator[bytes]:
        """Its bytes from the first."""
        with self.path.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                yield piece


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T_co]):
    """A request and the reader of its answer.

    Args:
        method: of HTTP.
        path: from the root, quoted.
        read: makes the result of an answer that is a success.
        query: its parameters.
        headers: beside those that all requests have.
        body: of the request.
        is_repeatable: whether asking twice leaves the same state and answer as asking once, so
            that it may be repeated where it is unknown whether it was done.
        computes: whether the server is told when nobody will wait any longer.
        answers: statuses that are answers though no success.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T_co]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | File | None = None
    is_repeatable: bool = True
    computes: bool = False
    answers: frozenset[int] = frozenset()

    def result(self, response: httpx.Response) -> T_co:
        """What a successful answer says.

        Raises:
            ReplyError: it says something else than the route does.
        """
        try:
            return self.read(response)
        except Exception as error:  # whatever strange bytes lead to
            raise ReplyError(
                f"expected the answer of {self.method} {self.path}, got {len(response.content)} "
                f"bytes of {response.headers.get('content-type', 'no type')} that cannot be read "
                f"({str(error)[:160]}): check the address, any proxy before it, and that server "
                "and client are of one version",
                code=response.status_code,
                request_id=response.headers.get("x-request-id"),
            ) from error


def path_of(*parts: str | int) -> str:
    """A path of the API; what callers name cannot lead out of it."""
    return "/v1/" + "/".join(quote(str(part), safe="") for part in parts)


def model_path(model: str, version: int | str | None, *parts: str) -> str:
    """The path of a model, or of one version of it.

    Args:
        model: its name.
        version: number or alias; None: the alias `default`.
        parts: below it.
    """
    return path_of("models", model, *(() if version is None else ("versions", version)), *parts)


def page(kind: type[Page]) -> Callable[[httpx.Response], Page]:
    """A reader of JSON objects as a dataclass."""
    return lambda response: of_json(kind, response.json())


def pages(kind: type[Page], name: str) -> Callable[[httpx.Response], list[Page]]:
    """A reader of a JSON list under a name, of a dataclass each."""
    return lambda response: [of_json(kind, entry) for entry in response.json()[name]]


def nothing(response: httpx.Response) -> None:
    """A reader of an answer without a body."""


def of_json(kind: type[Page], content: Mapping[str, object]) -> Page:
    """A dataclass from a JSON object by the names of its fields; what is new to us is passed over.

    Raises:
        TypeError: a field is missing.
        ValueError: one is of another type.
    """
    hints = get_type_hints(kind)
    names = [entry.name for entry in fields(kind) if entry.name in content]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], content[name]) for name in names})


def read_npz(content: bytes) -> dict[str, NDArray[np.generic]]:
    """Arrays of a `.npz` file by name; nothing pickled is read."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _value(hint: object, value: object) -> object:
    """A JSON value as its annotation has it: a time, an array, a dataclass, or some of them."""
    origin, parts = get_origin(hint), get_args(hint)
    if isinstance(value, np.ndarray) or (value is None and origin is not np.ndarray):
        return value
    if origin in (Union, types.UnionType):
        (known, *others) = [part for part in parts if part is not type(None)]
        return value if others else _value(known, value)
    if origin is np.ndarray:
        (scalar,) = get_args(parts[1])
        return np.array(value, dtype=scalar)
    if hint is datetime:
        return datetime.fromisoformat(str(value))
    if is_dataclass(hint):
        return of_json(cast("type[object]", hint), cast("Mapping[str, object]", value))
    if origin is list and isinstance(value, Sequence):
        return [_value(parts[0], entry) for entry in value]
    if isinstance(value, Mapping) and parts:
        return {key: _value(parts[1], entry) for key, entry in value.items()}
    return value
