"""Rows as people have them become what the network reads, or are refused with column and row."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import nn

from dubito.engine import Engine, Ensemble
from dubito.errors import DubitoError, InputError, TooLargeError
from dubito.preprocess import TableFile, prepare
from dubito.preprocess.cells import numbers_of
from dubito_nn import Bundle, ExportError, export, load_bundle, preprocess
from dubito_nn.preprocess import Boolean, Category, Column, Date, Number

from .corpus.good import GOOD
from .tables import ARROW, CSV, PARQUET, TABLE, expected, exported, frame, records, written

FILES = (CSV, PARQUET, ARROW)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("table") / "table.dubito")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine.load(bundle, num_samples=4)


def _agree(found: Any, table: pd.DataFrame) -> None:
    for name, wanted in expected(table).items():
        np.testing.assert_allclose(np.asarray(found[name], np.float64), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", FILES)
def test_files_of_all_kinds_become_the_same_numbers(bundle: Bundle, kind: str) -> None:
    table = frame(200)
    made = prepare(TableFile(kind, written(table, kind)), bundle.manifest, beside=["id"])
    _agree(made.arrays, table)
    assert made.beside["id"] == table["id"].tolist()
    others, smoker, job = made.warnings
    assert others == "columns that the model does not read: `sick`"
    count = int((table["smoker"] == "sometimes").sum())
    assert smoker.startswith(f"column `smoker`: {count} of 200 rows have a category that")
    assert job.endswith("such as 'pilot'")


def test_frames_records_and_columns_become_the_same_numbers(engine: Engine) -> None:
    table = frame(200)
    columns = {name: [row[name] for row in records(table)] for name in table}
    times = table.assign(born=pd.to_datetime(table["born"]))
    polars = (
        pl.from_pandas(table),
        pl.from_pandas(times.assign(job=table["job"].astype("category"))),
    )
    frames = (table, times, *polars, pa.table(table))
    for rows in (*frames, records(table), columns, dict(table.items())):
        _agree(engine.read_inputs(rows), table)  # type: ignore[arg-type]


def test_records_that_name_no_column_are_refused_and_gaps_are_told(bundle: Bundle) -> None:
    whole = {**records(frame(1))[0], "smoker": "no", "job": "nurse"}
    del whole["sick"]
    (without,) = [{name: cell for name, cell in whole.items() if name not in ("age", "insured")}]
    made = prepare([whole, without, whole], bundle.manifest, beside=["id"])
    told = "columns that some rows do not name, taken as empty there: `age` in 1, `insured` in 1"
    assert made.warnings == (told,)
    for nothing in ({}, {"Age": 31}):
        with pytest.raises(InputError, match="got none of them in row 1: name what is known"):
            prepare([whole, nothing], bundle.manifest)


def test_an_engine_predicts_a_frame_as_its_tensors(engine: Engine) -> None:
    table = frame(6)
    tensors = engine.read_inputs(table)  # type: ignore[arg-type]
    ours = engine.predict(table)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours.mean, engine.predict(tensors).mean)


COLUMNS: list[tuple[Column, list[object], list[list[float]]]] = [
    (Number("a", 2.0, 4.0), [2, 6.0, True], [[0.0], [1.0], [-0.25]]),
    (Number("a", missing=7.0), [None, float("nan")], [[7.0], [7.0]]),
    (Category("a", ("x", "y", None)), ["y", None, "x"], [[1.0], [2.0], [0.0]]),
    (Category("a", ("x", "y"), missing="y"), ["x", None], [[0.0], [1.0]]),
    (Category("a", ("1", "2")), [2, "1"], [[1.0], [0.0]]),
    (Category("a", (1, 2), unknown="other"), [2.0, 5, "2"], [[1.0], [2.0], [2.0]]),
    (Category("a", ("x",), unknown="other", unknown_code=-1.0), ["z"], [[-1.0]]),
    (Category("a", ("x", None), missing_code=-2.0), [None, "x"], [[-2.0], [0.0]]),
    (Category("a", ("x", "y"), "one_hot", "zeros"), ["z", "y"], [[0.0, 0.0], [0.0, 1.0]]),
    (Category("a", ("x",), "one_hot", "other"), ["z", "x"], [[0.0, 1.0], [1.0, 0.0]]),
    (
        Category("a", ("x", "y"), "one_hot", mean=(0.5, 0.0), scale=(0.5, 2.0)),
        ["x", "y"],
        [[1.0, 0.0], [-1.0, 0.5]],
    ),
    (Boolean("a", missing=True), [True, False, None, 0], [[1.0], [0.0], [1.0], [0.0]]),
    (Date("a"), ["1970-01-03", "1970-01-02T12:00:00Z"], [[2.0], [1.5]]),
    (Date("a", "2000-01-01", "hours"), ["2000-01-01T02:00+01:00"], [[1.0]]),
    (Date("a", missing="1970-01-11", mean=5.0, scale=2.0), [None], [[2.5]]),
]


@pytest.mark.parametrize(("column", "cells", "numbers"), COLUMNS)
def test_a_column_gives_what_it_declares(
    column: Column, cells: list[object], numbers: list[list[float]]
) -> None:
    np.testing.assert_allclose(numbers_of(column, cells, []), numbers, atol=1e-12)


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        (Number("a"), "3", "expected a number, got '3'"),
        (Number("a"), None, "got an empty cell: fill it"),
        (Number("a"), [1], "expected a number"),
        (Number("a"), float("inf"), "a finite number"),
        (Number("a"), 10**400, "of 64 bits"),
        (Category("a", ("x", "y")), "z", "expected one of 'x', 'y', got 'z'"),
        (Category("a", ("x", "y")), None, "got an empty cell"),
        (Category("a", ("x", "y")), ["x"], "text or a number"),
        (Boolean("a"), "yes", "true or false"),
        (Boolean("a"), 2, "true or false"),
        (Boolean("a"), None, "got an empty cell: fill it"),
        (Date("a"), "31.12.2020", "ISO 8601"),
        (Date("a"), 20201231, "ISO 8601"),
        (Date("a"), None, "got an empty cell: fill it"),
    ],
)
def test_a_cell_that_cannot_be_used_is_refused_with_its_row(
    column: Column, cell: object, reason: str
) -> None:
    good: dict[str, object] = {"number": 1, "category": "x", "boolean": True, "date": "2020-01-01"}
    with pytest.raises(InputError, match=reason) as refused:
        numbers_of(column, [good[column.type], cell], [])
    assert "column `a`, row 1" in refused.value.detail


def test_times_of_numpy_that_microseconds_cannot_hold_are_refused_and_nanoseconds_cut_off() -> None:
    fine = np.array(["1970-01-02T00:00:00.000000001", "NaT"], "datetime64[ns]")
    assert numbers_of(Date("a", missing="1970-01-01"), fine, []).tolist() == [[1.0], [0.0]]
    with pytest.raises(InputError, match="years 1 to 9999"):
        numbers_of(Date("a"), np.array([2**62], "datetime64[s]"), [])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([[1.0, 2.0]], "expects records.*`preprocess` false"),
        (np.zeros((2, 5)), "an array of shape .2, 5.*`preprocess` false"),
        ({"numbers": [[1.0]], "job": [1]}, "`preprocess` false"),
        ([], "at least one row"),
        ([{"age": 3}], "add `smoker`, `insured`, `born`, `job`"),
        ("age,job", "expects records"),
        (None, "expects records"),
        ([{}, 3], "for row 1"),
    ],
)
def test_what_is_no_such_table_is_refused_with_the_remedy(
    bundle: Bundle, rows: object, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        prepare(rows, bundle.manifest)


def test_columns_of_several_lengths_are_refused(bundle: Bundle) -> None:
    columns: dict[str, Any] = {name: list(cells) for name, cells in frame(3).items()}
    columns["job"] = columns["job"][:2]
    with pytest.raises(InputError, match="as many cells"):
        prepare(columns, bundle.manifest)


def _stream(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table)
    return file.getvalue()


def _damaged(content: bytes, at: float) -> bytes:
    place = int(len(content) * at)
    return (
        content[:place]
        + bytes(byte ^ 0x5A for byte in content[place : place + 64])
        + content[place + 64 :]
    )


def _lying(kind: str) -> bytes:
    """A file whose column of ages is of lists."""
    table = pa.Table.from_pandas(frame(3)).set_column(1, "age", pa.array([[1], [2], [3]]))
    if kind == ARROW:
        return _stream(table)
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


LINES = written(frame(3), CSV).decode().splitlines()
HOSTILE = {
    "rows of several lengths": (CSV, "\n".join([*LINES, "a,b"]).encode(), "something else"),
    "a quote that nothing closes": (CSV, "\n".join([*LINES, 'p9,"3,no']).encode(), "expected"),
    "Latin-1": (
        CSV,
        "\n".join([*LINES, "é,1,no,True,2000-01-01,clerk,no"]).encode("latin-1"),
        "expected",
    ),
    "Latin-1 names": (CSV, "âge,job\n1,2".encode("latin-1"), "UTF-8"),
    "UTF-16": (CSV, "\n".join(LINES).encode("utf-16"), "expected"),
    "a hundred thousand columns": (CSV, b",".join([b"a"] * 100_000) + b"\n1", "at most 10000"),
    "semicolons": (CSV, "\n".join(LINES).replace(",", ";").encode(), "expects the columns"),
    "a formula": (CSV, "\n".join([*LINES, "p,=1+1,no,True,2000-01-01,clerk,no"]).encode(), "=1"),
    "a decimal comma": (CSV, ("\n".join(LINES) + '\np,"1,5",no,True,,clerk,no').encode(), "point"),
    "a column twice": (CSV, b"age,age\n1,2", "expects the columns"),
    "nothing": (CSV, b"", "names of its columns"),
    "names alone": (CSV, LINES[0].encode(), "expected CSV"),
    "bytes": (CSV, bytes(range(256)) * 40, "expected"),
    "no Parquet": (PARQUET, b"PAR1" + b"\x00" * 40 + b"PAR1", "a Parquet file"),
    "Parquet cut short": (PARQUET, written(frame(3), PARQUET)[:-20], "a Parquet file"),
    "a schema that lies": (PARQUET, _lying(PARQUET), "numbers, text"),
    "no stream": (ARROW, b"\xff\xff\xff\xff" + b"\xff" * 40, "an Arrow stream"),
    "a stream of lists": (ARROW, _lying(ARROW), "numbers, text"),
    "a compressed stream": (
        ARROW,
        _stream(pa.Table.from_pandas(frame(3)), compression="zstd"),
        "plain buffers",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(bundle: Bundle, name: str) -> None:
    kind, content, reason = HOSTILE[name]
    with pytest.raises(InputError, match=reason):
        prepare(TableFile(kind, content), bundle.manifest, most_rows=1000)


@pytest.mark.parametrize("kind", [PARQUET, ARROW])
@pytest.mark.parametrize("at", np.linspace(0, 0.99, 23))
def test_damage_anywhere_is_refused_or_gives_numbers(bundle: Bundle, kind: str, at: float) -> None:
    content = _damaged(written(frame(50), kind), at)
    try:
        made = prepare(TableFile(kind, content), bundle.manifest, most_rows=1000)
    except DubitoError:
        return
    assert len(made.arrays["job"]) == 50


def test_files_that_become_too_large_are_refused(bundle: Bundle) -> None:
    table = frame(2000)
    for kind in FILES:
        content = written(table, kind)
        with pytest.raises(InputError, match="at most 1000 rows"):
            prepare(TableFile(kind, content), bundle.manifest, most_rows=1000)
        with pytest.raises(TooLargeError, match="once decoded"):
            prepare(TableFile(kind, content, limit_bytes=1000), bundle.manifest)


def test_a_long_text_that_stands_in_all_rows_is_kept_once(bundle: Bundle) -> None:
    """A few kilobytes of a file would else become a gigabyte."""
    table = frame(1000).assign(job="j" * 10**6)
    file = io.BytesIO()
    names = [name for name in table if name != "job"]
    whole = pa.Table.from_pandas(table[names]).append_column(
        "job", pa.DictionaryArray.from_arrays(np.zeros(1000, np.int8), ["j" * 10**6])
    )
    parquet.write_table(
        whole.cast(whole.schema.set(len(names), pa.field("job", pa.string()))), file
    )
    tracemalloc.start()
    made = prepare(TableFile(PARQUET, file.getvalue()), bundle.manifest, most_rows=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert set(made.arrays["job"].tolist()) == {3}  # type: ignore[union-attr]
    assert peak < 50 * 2**20


def test_a_csv_may_have_a_mark_quotes_and_lines_within_cells(bundle: Bundle) -> None:
    table = frame(3).assign(note='said "no",\nthen\r\nyes')
    content = b"\xef\xbb\xbf" + table.to_csv(index=False, quoting=1).encode()
    made = prepare(TableFile(CSV, content), bundle.manifest, beside=["note"])
    _agree(made.arrays, table)
    assert made.beside["note"] == table["note"].tolist()


def _plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))


def _export(path: Path, declared: object, example: torch.Tensor | None = None) -> Bundle:
    rows = torch.rand(6, 4) if example is None else example
    options: Any = {"task": "classification", "output": "logits", "preprocess": declared}
    return export(_plain(), rows, path, **options)


def test_an_array_is_scaled_and_looked_at_for_how_far_off_it_is(tmp_path: Path) -> None:
    part = preprocess.ArrayInput(scale=1 / 255, shift=[0.0, 0.0, 0.0, 1.0])
    engine = Engine.load(_export(tmp_path / "array.dubito", part), num_samples=2)
    rows = np.array([[0, 51, 255, 0], [255, 0, 0, 0]], np.uint8)
    (found,) = engine.read_inputs(rows).values()
    np.testing.assert_allclose(found, rows / 255 + np.array([0, 0, 0, 1]), atol=1e-7)
    near, far = (prepare(x, engine.manifest).warnings for x in (rows, rows.astype(float) * 255))
    assert near == ()
    (warning,) = far
    assert "2 of 2 rows lie far outside" in warning
    with pytest.raises(InputError, match="rows of shape"):
        engine.read_inputs([[1.0, 2.0]])
    with pytest.raises(InputError, match="finite"):
        engine.read_inputs([[1.0, 2.0, 3.0, float("nan")]])


def test_a_table_and_an_array_are_sent_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "both.dubito"
    GOOD["a table for two inputs"](path)
    images = np.arange(24).reshape(3, 2, 4)
    rows = {"image": images.tolist(), "years": [40, 50, 30.0]}
    by_row = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    for sent in (rows, by_row):
        made = prepare(sent, load_bundle(path).manifest).arrays
        np.testing.assert_allclose(made["image"], images / 255)
        np.testing.assert_allclose(made["age"], [[0.0], [1.0], [-1.0]])


def test_a_declaration_is_kept_and_covered_by_the_digest(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "table.dubito"
    read = load_bundle(exported(path).digest and path)
    assert read.manifest.preprocess == (TABLE,)
    assert read.digest == bundle.digest, "the same network gives the same bytes"
    other = replace(TABLE.columns[0], mean=41.0)  # type: ignore[type-var]
    changed = exported(path, preprocess.TableInput((other, *TABLE.columns[1:])))
    assert changed.digest != bundle.digest
    assert "preprocess" not in _export(tmp_path / "plain.dubito", None).manifest.to_json()


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (preprocess.TableInput((Number("a"),)), "the network takes .4,."),
        (preprocess.TableInput(()), "at least one"),
        (preprocess.ArrayInput(input="y"), "to be made once"),
        ([preprocess.ArrayInput(), preprocess.ArrayInput()], "to be made once"),
        (preprocess.ArrayInput(scale=float("nan")), "finite"),
        (preprocess.ArrayInput(scale=[1.0, 2.0]), "last axis"),
        (lambda rows: rows, "parts of dubito_nn.preprocess"),
        ({"x": "standardise"}, "parts of dubito_nn.preprocess"),
    ],
)
def test_export_refuses_what_does_not_make_the_inputs(
    tmp_path: Path, declared: object, reason: str
) -> None:
    with pytest.raises(ExportError, match=reason):
        _export(tmp_path / "never.dubito", declared)
    assert not list(tmp_path.iterdir())


def test_members_of_an_ensemble_agree_in_what_they_declare(tmp_path: Path, engine: Engine) -> None:
    other = preprocess.TableInput((replace(TABLE.columns[0], mean=1.0), *TABLE.columns[1:]))  # type: ignore[type-var]
    bundle = exported(tmp_path / "other.dubito", other)
    with pytest.raises(InputError, match="the same preprocess"):
        Ensemble((engine, Engine.load(bundle, num_samples=4)))


def test_fields_of_a_declaration_are_plain_data() -> None:
    for column in TABLE.columns:
        assert {type(value) for value in asdict(column).values()} <= {
            *(str, float, int, bool, tuple, type(None))
        }
