"""JSON of one meaning, and what is told of fields that are wrong."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.api.border.bodies import parse_json
from dubito.api.border.errors import FieldsError
from dubito.api.border.fields import named, names_of, read_fields, read_query, unnamed
from dubito.api.open_inference.schemas import LoadBody
from dubito.api.schemas import FeedbackBody
from dubito.arrays import Arrays, load, read_npy, read_npz, write_npz
from dubito.asked import PredictBody, PredictOptions, SelectBody
from dubito.cli.console import read_rows
from dubito.errors import InputError
from dubito.imports.example import read_example

JSON = {"Content-Type": "application/json"}
MODEL = "/v1/models/animals"
ROWS = '{"inputs": [[0, 0, 0, 0]], '
TWICE = {
    ("POST", f"{MODEL}/predict"): (ROWS + '"seed": 1, "seed": 2}', "seed"),
    ("POST", f"{MODEL}/versions/1/predict"): ('{"inputs": {"x": [[0]], "x": [[1]]}}', "x"),
    ("POST", f"{MODEL}/select"): (ROWS + '"strategy": "bald", "k": 1, "k": 1}', "k"),
    ("POST", f"{MODEL}/calibrate"): (ROWS + '"labels": [0], "labels": [1]}', "labels"),
    ("POST", f"{MODEL}/evaluate"): (ROWS + '"labels": ["a:{"], "labels": [1]}', "labels"),
    ("POST", f"{MODEL}/fit"): (ROWS + '"method": "laplace", "method": "laplace"}', "method"),
    ("PUT", f"{MODEL}/fits"): ('{"active": {"laplace": 1, "laplace": null}}', "laplace"),
    ("POST", f"{MODEL}/feedback"): (
        *('{"request_id": "a", "rows": [{"row": 0, "label": 1}, {"row": 1, "row": 2}]}', "row"),
    ),
    ("PUT", f"{MODEL}/aliases/best"): ('{"version": 1, "version": 1}', "version"),
    ("PUT", f"{MODEL}/calibration"): ('{"active": 1, "active": null}', "active"),
    ("POST", f"{MODEL}/versions/1/retire"): ('{"reason": "a", "\\u0072eason": "b"}', "reason"),
    ("POST", "/v1/pools"): ('{"address": "s3://a/b", "address": {"address": 1}}', "address"),
}


def test_a_key_given_twice_is_refused_wherever_json_is_read(ready: httpx.Client) -> None:
    documented = {
        (method.upper(), path.replace("{model}", "animals"))
        for path, methods in ready.get("/openapi.json").json()["paths"].items()
        for method, about in methods.items()
        if "application/json" in about.get("requestBody", {}).get("content", {})
        if not path.startswith("/v2")  # whose error body is another
    }
    asked = {(method, path.replace("/1/", "/{version}/")) for method, path in TWICE}
    asked |= {(method, path.replace("best", "{alias}")) for method, path in asked}
    of_versions = {path for _, path in documented if "/versions/" in path and "retire" not in path}
    assert {one for one in documented if one[1] not in of_versions} <= asked
    for (method, path), (body, key) in TWICE.items():
        reply = ready.request(method, path, content=body, headers=JSON)
        assert reply.status_code == 422, (path, reply.text)
        assert reply.json()["fields"] == [
            {"path": key, "message": "expected once in its object, got it twice: leave one out"}
        ]


keys = st.text('ab:{"\\', max_size=2)
integers = st.integers(-(2**63), 2**64 - 1)  # which orjson does not make floats of
single = integers | st.text('x:{}"\\', max_size=3) | st.none()


def _holding(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Values, lists of them, and objects of them as pairs, among which a key may stand twice."""
    pairs = st.lists(st.tuples(keys, inner), max_size=3).map(tuple)
    return inner | st.lists(inner, max_size=3) | pairs


values = _holding(_holding(single))


def _written(value: object) -> str:
    """JSON in which a tuple of pairs is an object, keys as they come."""
    if isinstance(value, tuple):
        pairs = (f"{json.dumps(name)}: {_written(inner)}" for name, inner in value)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value)


def _has_twice(value: object) -> bool:
    if isinstance(value, tuple):
        names = [name for name, _ in value]
        return len(set(names)) != len(names) or any(_has_twice(inner) for _, inner in value)
    return isinstance(value, list) and any(map(_has_twice, value))


@settings(max_examples=300)
@given(st.lists(st.tuples(keys, values), max_size=3).map(tuple))
def test_exactly_the_texts_with_a_key_twice_are_refused(value: tuple[tuple[str, object]]) -> None:
    text = _written(value)
    if _has_twice(value):
        with pytest.raises(FieldsError, match="twice"):
            parse_json(text.encode())
    else:
        assert parse_json(text.encode()) == json.loads(text)


def test_a_key_twice_in_a_text_too_deep_for_pythons_reader_is_refused_too() -> None:
    body = '{"a": 1, "a": ' + "[" * 1000 + "]" * 1000 + "}"
    with pytest.raises(FieldsError, match="twice"):
        parse_json(body.encode())


def test_a_key_twice_in_a_file_of_the_command_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for text in ('{"inputs": [[1]], "inputs": [[2]]}', '[{"inputs": 1, "inputs": 2}]'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"rows\.json: .*inputs.* twice"):
            read_rows(path)
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="expected JSON"):
        read_rows(path)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_array_is_read_in_every_version_of_its_format(version: tuple[int, int]) -> None:
    array, file = np.arange(6.0).reshape(2, 3), io.BytesIO()
    np.lib.format.write_array(file, array, version)
    np.testing.assert_array_equal(read_npy(file.getvalue()), array)
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("inputs.npy", file.getvalue())
    np.testing.assert_array_equal(read_npz(packed.getvalue(), 1000)["inputs"], array)


def test_arrays_come_back_as_they_were_written(tmp_path: Path) -> None:
    arrays = {"one": np.array(3), "many": np.arange(6.0).reshape(2, 3).T, "names": np.array(["a"])}
    back = load(io.BytesIO(write_npz(arrays)))
    assert isinstance(back, dict)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, strict=True)


@pytest.mark.parametrize("read", [read_rows, lambda path: read_example([str(path)])])
@pytest.mark.parametrize("cut", [8, 90, -30])
def test_a_damaged_archive_of_the_command_line_is_refused(
    tmp_path: Path, read: Callable[[Path], object], cut: int
) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(write_npz({"inputs": np.ones((2, 3))})[:cut])
    with pytest.raises(InputError, match=r"rows\.npz: expected .* got something else"):
        read(path)


TOLD: list[tuple[type[object], dict[str, object], str]] = [
    (
        FeedbackBody,
        {"request_id": "a", "rows": [{"row": 0, "label": 1.5}]},
        "`rows.0.label`: expected a whole number or text, got 1.5: correct it",
    ),
    (
        FeedbackBody,
        {"request_id": "a", "rows": [{"row": 0, "target": [1, True]}]},
        "`rows.0.target.1`: expected a number, got true: correct it",
    ),
    (FeedbackBody, {"rows": []}, "`rows`: expected a list of 1 or more, got a list of 0: "),
    (SelectBody, {"k": "3"}, "`k`: expected a whole number, got '3': write it without quotes"),
    (SelectBody, {"k": 3}, "`strategy`: expected a value, got nothing: add it"),
    (PredictBody, {"num_samples": 64.0}, "expected a whole number, got 64.0: write 64"),
    (
        LoadBody,
        {"parameters": {"config": "{}"}},
        "nothing in it, got an object: leave `config` out",
    ),
    (PredictBody, {"seed": 1e29}, "got 1e+29: send fewer digits"),
    (PredictBody, {"tolerance": "few"}, "`tolerance`: expected a number, got 'few': correct it"),
    (PredictBody, {"masks": "none"}, "`masks`: expected 'shared' or 'independent', got 'none': "),
    (PredictBody, {"members": [None]}, "`members.0`: expected a whole number or text, got null: "),
]


@pytest.mark.parametrize(("schema", "body", "told"), TOLD)
def test_a_wrong_field_is_told_with_what_was_expected_got_and_the_remedy(
    schema: type[object], body: dict[str, object], told: str
) -> None:
    with pytest.raises(FieldsError) as refused:
        read_fields(schema, body)
    assert told in refused.value.detail


def test_a_query_is_told_in_the_same_words() -> None:
    with pytest.raises(FieldsError, match=r"`query\.seed`: expected a whole number, got '1e3': c"):
        read_query(PredictOptions, [("seed", "1e3")])


@pytest.mark.parametrize("schema", [FeedbackBody, PredictBody, SelectBody])
def test_no_message_is_in_pydantics_own_words(schema: type[object]) -> None:
    wrong: list[object] = [None, True, 0, -1, 1.5, "", "x" * 600, [], [[1.5]], {}, {"a": 1}]
    for name in names_of(schema):
        for value in wrong:
            told = ""
            try:
                read_fields(schema, {name: value})
            except FieldsError as error:
                told = error.detail
            assert "nput should" not in told
            assert "valid" not in told


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["inputs"], None),
        (["left", "right"], {"left", "right"}),
        (["inputs.left", "inputs.right"], {"left", "right"}),
        (["inputs", "mask"], {"inputs", "mask"}),
    ],
)
def test_inputs_of_an_archive_are_named_alone_or_behind_inputs(
    names: list[str], rows: set[str] | None
) -> None:
    arrays = {name: np.zeros(2) for name in names}
    found = unnamed(arrays)
    assert isinstance(found, np.ndarray) if rows is None else set(found) == rows
    if names != ["inputs", "mask"]:
        beside = named({**arrays, "labels": np.zeros(2)}, ("inputs", "labels"))
        assert set(beside) == {"inputs", "labels"}
        assert rows is None or set(beside["inputs"]) == rows


@pytest.mark.parametrize("read", [unnamed, lambda arrays: named(arrays, ("inputs", "labels"))])
def test_an_input_named_twice_is_refused(read: Callable[[Arrays], object]) -> None:
    with pytest.raises(FieldsError, match="twice: leave one out"):
        read({"left": np.zeros(2), "inputs.left": np.zeros(2)})


@pytest.mark.parametrize("text", [" 64", "+64", "6_4", "64 ", "64\n"])
def test_a_query_writes_numbers_plainly(text: str) -> None:
    assert read_query(PredictOptions, [("num_samples", "64")]).num_samples == 64
    with pytest.raises(FieldsError, match="write it plainly"):
        read_query(PredictOptions, [("num_samples", text)])
