"""Long JSON, read in pieces, numbers straight to arrays.

A parser holds the interpreter for as long as it runs, and everybody else waits: a second for 40 MB.
So a long body is cut at commas into pieces that orjson reads in a millisecond or two, between which
others run. What lies between the pieces (brackets, commas, the names of long members) is looked at
here, strings by numpy, so that every byte is either in a piece or checked. Lists of numbers become
arrays piece by piece: the nested lists of a long body, several times as large as it, never exist.

Flow: a span → short: orjson → long: its commas → groups of short elements, and elements that are
long themselves → joined.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from dubito.api.border.errors import FieldProblem, FieldsError
from dubito.errors import InputError

PIECE_BYTES = 64 * 1024
"""Length of what is parsed at once."""

ROWS = frozenset({"inputs", "ood_inputs", "targets"})
"""Members of the body whose numbers become arrays."""

_WINDOW_BYTES = 256 * 1024
_MOST_LEVELS = 16  # of long values within long values; what lies deeper is one piece
_NAME = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:')
_BLANKS = b" \t\r\n"
_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_OPENING, _CLOSING, _TO_BRACE = ord("{"), ord("}"), np.uint8(ord("{") ^ ord("["))
_CLOSED_BY = {ord("["): ord("]"), ord("{"): ord("}")}

Parse = Callable[[bytes], object]


class _BrokenError(Exception):
    """What is no JSON at a byte of the body."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


@dataclass(frozen=True)
class _Span:
    """A part of the body that holds one value, without blanks around it."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def parse_long(body: bytes, parse: Parse, most_rows: int | None = None) -> object:
    """The value of a long body.

    Args:
        body: all of it.
        parse: reads a short piece.
        most_rows: largest number of elements of a list of rows; what is more is not read.

    Returns:
        What `parse` would return of all, but with arrays in the members that `ROWS` names where
        their numbers make a rectangle.

    Raises:
        InputError: it is no JSON, or its rows have several lengths or are too many.
        FieldsError: a name stands twice in one object.
    """
    try:
        return _Reader(body, parse, most_rows).value(_Span(0, len(body)), (), 0)
    except _BrokenError as error:
        before = body[: error.place]
        line = before.count(b"\n") + 1
        column = error.place - before.rfind(b"\n")
        raise InputError(
            f"body: expected JSON, got something that breaks at line {line}, column {column} "
            f"({error.reason}): correct it there (JSON has no NaN or Infinity)"
        ) from error


class _Reader:
    """Reads spans of one body."""

    def __init__(self, body: bytes, parse: Parse, most_rows: int | None = None) -> None:
        self._body = body
        self._most_rows = most_rows
        self._bytes = np.frombuffer(body, dtype=np.uint8)
        self._parse = parse

    def value(self, span: _Span, path: tuple[str, ...], level: int) -> object:
        """The value of a span; `path` is the names of the objects around it."""
        span = self._stripped(span)
        if len(span) <= PIECE_BYTES:
            return self._short(span, b"", b"")
        opening = self._body[span.start]
        if opening not in _CLOSED_BY or level == _MOST_LEVELS:
            return self._short(span, b"", b"")
        if self._body[span.end - 1] != _CLOSED_BY[opening]:
            raise _BrokenError(span.end - 1, "a bracket that nothing closes")
        inner = _Span(span.start + 1, span.end - 1)
        if opening == ord("{"):
            return self._object(inner, path, level)
        if not (path and path[0] in ROWS):
            return _listed(list(self._elements(inner, path, level)))
        parts, num_rows = [], 0
        for part in self._elements(inner, path, level):
            parts.append(part)
            num_rows += len(part)
            if level == len(path) and self._most_rows is not None and num_rows > self._most_rows:
                raise InputError(
                    f"`{path[0]}` expects at most {self._most_rows} rows, got {num_rows} or more: "
                    "send them in several requests"
                )
        return _joined(parts, path)

    def _object(self, inner: _Span, path: tuple[str, ...], level: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for group in self._groups(inner):
            if len(group) <= PIECE_BYTES:
                members = self._short(group, b"{", b"}")
                assert isinstance(members, dict)
            else:
                named = _NAME.match(self._body, group.start, group.start + PIECE_BYTES)
                if named is None:
                    raise _BrokenError(group.start, "an object without a name")
                name = self._short(_Span(*named.span(1)), b"", b"")
                assert isinstance(name, str)
                after = _Span(named.end(), group.end)
                members = {name: self.value(after, (*path, name), level + 1)}
            for name in members.keys() & found.keys():
                raise FieldsError(
                    [FieldProblem(name, "expected once in its object, got it twice: leave one out")]
                )
            found |= members
        return found

    def _elements(
        self, inner: _Span, path: tuple[str, ...], level: int
    ) -> Iterator[list[object] | NDArray[np.generic]]:
        """The elements of a list, some at once."""
        is_rows = bool(path) and path[0] in ROWS
        for group in self._groups(inner):
            if len(group) > PIECE_BYTES:
                element = self.value(group, path, level + 1)
                yield element[None] if isinstance(element, np.ndarray) else [element]
                continue
            some = self._short(group, b"[", b"]")
            assert isinstance(some, list)
            yield _as_array(some, path) if is_rows else some

    def _short(self, span: _Span, before: bytes, after: bytes) -> object:
        time.sleep(0)  # others run
        piece = before + self._body[span.start : span.end] + after
        try:
            return self._parse(piece)
        except orjson.JSONDecodeError as error:
            place = span.start + min(max(error.pos - len(before), 0), len(span))
            raise _BrokenError(place, error.msg) from error

    def _groups(self, inner: _Span) -> Iterator[_Span]:
        """Neighbours of at most a piece's length together; one alone where it is longer."""
        start, last = inner.start, None  # the last comma within a piece's length of the start
        for commas in self._commas(inner):
            at = 0
            while True:
                up_to = int(np.searchsorted(commas, start + PIECE_BYTES, side="right"))
                if up_to > at:
                    last, at = int(commas[up_to - 1]), up_to
                if at == len(commas):
                    break
                if last is None:
                    last, at = int(commas[at]), at + 1
                yield self._whole(start, last)
                start, last = last + 1, None
        if inner.end - start > PIECE_BYTES and last is not None:
            yield self._whole(start, last)
            start = last + 1
        yield self._whole(start, inner.end)

    def _whole(self, start: int, end: int) -> _Span:
        if end - start <= PIECE_BYTES and not self._body[start:end].strip(_BLANKS):
            raise _BrokenError(start, "a comma without a value")
        return self._stripped(_Span(start, end))

    def _commas(self, inner: _Span) -> Iterator[NDArray[np.int64]]:
        """Places of the commas between elements, window by window."""
        depth, is_text, is_escaped = 0, False, False
        for start in range(inner.start, inner.end, _WINDOW_BYTES):
            time.sleep(0)
            window = self._bytes[start : min(start + _WINDOW_BYTES, inner.end)]
            text, is_text, is_escaped = _texts(window, is_text, is_escaped)
            braces = window | _TO_BRACE
            opens, commas = braces == _OPENING, window == _COMMA
            brackets = opens | (braces == _CLOSING)
            if text is not None:
                brackets &= ~text
                commas &= ~text
            places = np.flatnonzero(brackets)
            depths = depth + np.cumsum(np.where(opens[places], 1, -1), dtype=np.int64)
            if len(depths) and depths.min() < 0:
                place = start + int(places[(depths < 0).argmax()])
                raise _BrokenError(place, "a bracket without another")
            behind = np.concatenate(([depth], depths))  # what lies between two brackets
            ends = np.concatenate((places, [len(window)]))
            commas &= np.repeat(behind == 0, np.diff(ends, prepend=0))
            depth = int(behind[-1])
            yield np.flatnonzero(commas) + start
        if is_text or depth:
            raise _BrokenError(inner.end, "a text or a bracket that nothing closes")

    def _stripped(self, span: _Span) -> _Span:
        start, end = span.start, span.end
        while start < end and self._body[start] in _BLANKS:
            window = self._body[start : min(start + _WINDOW_BYTES, end)]
            start += len(window) - len(window.lstrip(_BLANKS))
        while start < end and self._body[end - 1] in _BLANKS:
            window = self._body[max(end - _WINDOW_BYTES, start) : end]
            end -= len(window) - len(window.rstrip(_BLANKS))
        return _Span(start, end)


def _texts(
    window: NDArray[np.uint8], is_text: bool, is_escaped: bool
) -> tuple[NDArray[np.bool_] | None, bool, bool]:
    """Which bytes of a window lie in texts (None: none does), and how it ends.

    Args:
        window: bytes.
        is_text: whether it begins within a text.
        is_escaped: whether its first byte stands behind a backslash.
    """
    quotes = window == _QUOTE
    if not is_text and not quotes.any():
        return None, False, False
    slashes = np.flatnonzero(window == _BACKSLASH)
    if is_escaped:
        quotes[0] = False
        slashes = slashes[slashes > 0]
    begins = np.flatnonzero(np.diff(slashes, prepend=-2) > 1)  # of runs of backslashes
    lengths = np.diff(begins, append=len(slashes))
    behind = (slashes[begins] + lengths)[lengths % 2 == 1]
    quotes[behind[behind < len(window)]] = False
    text = (np.cumsum(quotes, dtype=np.int32) + is_text) % 2 == 1
    return text, bool(text[-1]), bool(len(behind)) and int(behind[-1]) == len(window)


def _as_array(some: list[object], path: tuple[str, ...]) -> list[object] | NDArray[np.generic]:
    """Numbers as an array; anything else as it is.

    Raises:
        FieldsError: the elements have several lengths.
    """
    try:
        array = np.asarray(some)
    except (ValueError, OverflowError) as error:
        raise _ragged(path) from error
    return array if array.dtype.kind in "fib" else some


def _joined(
    parts: Sequence[list[object] | NDArray[np.generic]], path: tuple[str, ...]
) -> list[object] | NDArray[np.generic]:
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) < len(parts):
        return _listed([part.tolist() if isinstance(part, np.ndarray) else part for part in parts])
    if len({array.shape[1:] for array in arrays}) > 1:
        raise _ragged(path)
    return np.concatenate(arrays)


def _listed(parts: Sequence[list[object] | NDArray[np.generic]]) -> list[object]:
    values: list[object] = []
    for part in parts:
        values.extend(part)
    return values


def _ragged(path: tuple[str, ...]) -> FieldsError:
    problem = "expected rows of equal length, got ragged ones: send a rectangle of numbers"
    return FieldsError([FieldProblem(".".join(path), problem)])
