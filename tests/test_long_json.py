"""Long JSON in pieces: what a parser would say of all of it, with arrays for rows."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.api.border import long_json
from dubito.api.border.bodies import parse_json
from dubito.api.border.errors import FieldsError
from dubito.api.border.long_json import parse_long
from dubito.errors import InputError

from .http import ANIMALS, normals, predicted

LONG = 400_000
texts = st.text('ab\\"[]{},: é', max_size=6)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=25,
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and windows so small that everything is long."""
    monkeypatch.setattr(long_json, "PIECE_BYTES", 5)
    monkeypatch.setattr(long_json, "_WINDOW_BYTES", 7)


def _is_same(one: object, other: object) -> bool:
    return repr(one) == repr(other)  # -0.0, and 1 is not 1.0


def _in_pieces(text: str) -> object:
    """The value; a refusal where something is longer than pieces so small may be, as text."""
    try:
        return parse_long(text.encode(), orjson.loads)
    except InputError as error:
        return error.detail


def _is_beyond_bounds(found: object) -> bool:
    bounds = ("a value of more than 5 bytes", "levels of long", "without a name", "blanks", "twice")
    return isinstance(found, str) and any(bound in found for bound in bounds)


@pytest.mark.usefixtures("tiny")
@settings(max_examples=120)
@given(st.dictionaries(texts, values, max_size=4), st.sampled_from([None, 1]))
def test_pieces_say_what_the_whole_says(value: dict[str, object], indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    found = _in_pieces(text)
    assert _is_beyond_bounds(found) or _is_same(found, orjson.loads(text))


@pytest.mark.usefixtures("tiny")
@settings(max_examples=400)
@given(st.text('[]{},:"\\1a ', max_size=40))
def test_what_is_no_json_as_a_whole_is_none_in_pieces(text: str) -> None:
    found = _in_pieces(text)
    try:
        whole = orjson.loads(text)
    except orjson.JSONDecodeError:
        assert isinstance(found, str)
        assert found.startswith("body: expected JSON")
    else:
        assert _is_beyond_bounds(found) or _is_same(found, whole)


@pytest.mark.parametrize(
    "rows",
    [
        normals(30_000, width=3),
        normals(2, width=60_000),
        normals(60_000, width=3).reshape(1, 60, 3000),
        np.arange(-100_000, 100_000).reshape(-1, 4),
        np.arange(200_000),
        np.arange(300_000).reshape(-1, 3) % 2 == 0,
    ],
)
def test_rows_become_the_array_that_they_would_be_as_a_whole(rows: np.ndarray) -> None:
    body = orjson.dumps({"seed": 3, "inputs": rows.tolist(), "masks": "shared"})
    assert len(body) > LONG
    fields = parse_json(body)
    assert (fields["seed"], fields["masks"], list(fields)) == (
        3,
        "shared",
        ["seed", "inputs", "masks"],
    )
    found = fields["inputs"]
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, np.asarray(rows.tolist()), strict=True)


def test_whole_numbers_and_fractions_mix_as_ever() -> None:
    rows: list[list[float]] = [[1, 2, 3]] * 100_000 + [[0.5, 2**60 + 1, -1]]
    found = parse_json(orjson.dumps({"inputs": {"x": rows}, "labels": [1] * 100_000}))
    inputs = found["inputs"]
    assert isinstance(inputs, dict)
    np.testing.assert_array_equal(inputs["x"], np.asarray(rows), strict=True)
    assert found["labels"] == [1] * 100_000


def test_what_is_no_number_stays_a_list() -> None:
    for row in (["a", 'b"],['], [1, None], [{"a": 1}]):
        rows = [row] * 60_000
        assert parse_json(orjson.dumps({"inputs": rows}))["inputs"] == rows


def _numbers(count: int = 150_000) -> str:
    return ", ".join(["0.5"] * count)


BROKEN: dict[str, tuple[str, str]] = {
    "cut off": (f'{{"inputs": [{_numbers()}', "that nothing closes"),
    "a comma too many": (f'{{"inputs": [{_numbers()},]}}', "trailing comma"),
    "two commas": (f'{{"inputs": [{_numbers()},,{_numbers()}]}}', "breaks at line 1"),
    "nan": (f'{{"inputs": [{_numbers()}, NaN]}}', "JSON has no NaN"),
    "a wrong bracket": (f'{{"inputs": [{_numbers()}}}', "that nothing closes"),
    "too many brackets": (f'{{"inputs": [{_numbers()}]]}}', "breaks at line 1"),
    "behind its end": (f'{{"inputs": [{_numbers()}]}} x', "breaks at line 1"),
    "an open text": (f'{{"inputs": [{_numbers()}], "a}}', "that nothing closes"),
    "no name": (f"{{[{_numbers()}]}}", "without a name"),
    "in line 2": (f'{{"inputs":\n[{_numbers()}, x]}}', "line 2"),
    "a list": (f"[{_numbers()}]", "expected a JSON object, got list"),
    "a text": (f'"{_numbers()}"', "expected a JSON object, got str"),
    "blanks": (" " * LONG, "breaks at line 1"),
    "deep": ("[" * LONG + "]" * LONG, "breaks at line 1"),
}


@pytest.mark.parametrize(
    "text",
    [
        f'{{"a": {" " * LONG} 1 {" " * LONG}}}',
        f'{" " * LONG}{{"a": [1]}}',
        f'{{"inputs": {"[" * 40}{_numbers()}{"]" * 40}}}',
        f'{{"a": "{_numbers()}"}}',
    ],
)
def test_long_json_may_be_as_short_json_may(text: str) -> None:
    found = parse_json(text.encode())
    for name, value in json.loads(text).items():
        assert np.array_equal(found[name], value)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", BROKEN)
def test_broken_long_json_is_refused_with_its_place(name: str) -> None:
    body, told = BROKEN[name]
    with pytest.raises(InputError, match="body: expected") as refused:
        parse_json(body.encode())
    assert told in refused.value.detail


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        ([[0.5, 1.5]] * 60_000 + [[0.5]], "inputs"),
        ([[0.5]] * 60_000 + [[0.5, 1.5]] * 60_000, "inputs"),
        ({"x": [[0.5] * 60_000, [0.5] * 60_001]}, "inputs.x"),
    ],
)
def test_ragged_rows_are_refused_by_their_field(rows: object, path: str) -> None:
    with pytest.raises(FieldsError, match="equal length") as refused:
        parse_json(orjson.dumps({"inputs": rows}))
    assert [problem.path for problem in refused.value.problems] == [path]


@pytest.mark.parametrize(
    "write",
    [
        lambda long: f'{{"inputs": [{long}], "seed": 1, "seed": 2}}',
        lambda long: f'{{"seed": 1, "inputs": [{long}], "seed": 2}}',
        lambda long: f'{{"seed": [{long}], "seed": [{long}]}}',
        lambda long: f'{{"a": [{long}], "b": [{{"seed": 1, "s\\u0065ed": 2}}]}}',
    ],
)
def test_a_name_twice_in_long_json_is_refused(write: Callable[[str], str]) -> None:
    with pytest.raises(FieldsError, match=r"seed.* twice"):
        parse_json(write(_numbers()).encode())


@pytest.mark.parametrize("write", ['{"inputs": [%s]}', '{"inputs": {"x": [%s]}}'])
def test_rows_are_counted_before_they_are_all_read(write: str) -> None:
    pieces: list[bytes] = []

    def parse(piece: bytes) -> object:
        pieces.append(piece)
        return orjson.loads(piece)

    body = (write % ", ".join(["{}"] * 200_000)).encode()
    with pytest.raises(InputError, match=r"at most 1000 rows, got \d+ or more: send them in"):
        parse_long(body, parse, 1000)
    assert sum(map(len, pieces)) < len(body) / 5
    nested = (write % f"[{', '.join(['1'] * 200_000)}]").encode()
    read = parse_long(nested, parse, 1)
    assert isinstance(read, dict)
    rows = read["inputs"]
    assert np.shape(rows["x"] if isinstance(rows, dict) else rows) == (1, 200_000)


def test_a_long_body_is_answered_as_its_rows_are_in_short_ones(ready: httpx.Client) -> None:
    rows = normals(6000)
    answer = predicted(ready, rows, num_samples=2, outputs=["mean"])
    assert len(json.dumps(rows.tolist())) > LONG
    few = predicted(ready, rows[-3:], num_samples=2, outputs=["mean"])
    np.testing.assert_allclose(answer["outputs"]["mean"][-3:], few["outputs"]["mean"], atol=1e-6)
    reply = ready.post(f"{ANIMALS}/predict", content=BROKEN["cut off"][0].encode(), headers=JSON)
    assert reply.status_code == 422


JSON = {"Content-Type": "application/json"}
