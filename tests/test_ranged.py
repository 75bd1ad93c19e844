"""Pools read where they lie: the same rows as of a pool that was brought and unpacked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from dubito.cli.console import kept
from dubito.errors import InputError
from dubito.pools import Shelf
from dubito.registry import PoolFact

ROWS = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
TAKEN = np.array([0, 1, 2, 299, 300, 301, 640, 999])


def _npy(path: Path) -> None:
    np.save(path, ROWS.astype(">f4"))


def _columns(path: Path) -> None:
    table = pa.table({f"c{n}": ROWS[:, n].astype(np.float64) for n in range(5)})
    pq.write_table(table, path, row_group_size=300)


def _lists(path: Path) -> None:
    first = pa.array(ROWS.reshape(1000, 5).tolist(), pa.list_(pa.float32()))
    second = pa.array(ROWS[:, :2].tolist(), pa.list_(pa.float64(), 2))
    pq.write_table(pa.table({"a": first, "b": second}), path, row_group_size=300)


def _fortran(path: Path) -> None:
    np.save(path, np.asfortranarray(ROWS))


def _table(path: Path) -> None:
    table = pa.table({"kind": ["x", "y"] * 500, "size": ROWS[:, 0].tolist()})
    pq.write_table(table, path)


def _stored(shelf: Shelf, write: Callable[[Path], None], path: Path) -> PoolFact:
    write(path)
    return shelf.add(None, path, path.suffix[1:])


@pytest.mark.parametrize(
    ("write", "name", "is_ranged"),
    [
        (_npy, "a.npy", True),
        (_columns, "b.parquet", True),
        (_lists, "c.parquet", True),
        (_fortran, "d.npy", False),
        (_table, "e.parquet", False),
    ],
)
def test_rows_read_in_parts_are_those_of_the_whole(
    write: Callable[[Path], None],
    name: str,
    is_ranged: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    with kept() as known:
        fact = _stored(known.pools, write, tmp_path / name)
        whole = known.pools.open(fact.digest, fact.format)
        cache = tmp_path / "data" / "pools"
        assert any(cache.rglob("*.npy"))
        for folder in cache.iterdir():  # what was brought here is gone, the object is not
            shutil.rmtree(folder)
        parts = known.pools.open_parts(fact.digest, fact.format, fact.name)
        was_brought = any(cache.rglob("*.npy"))
        assert was_brought is not is_ranged
        assert len(parts) == len(whole) == 1000
        for one, other in (
            (whole.rows(250, 650), parts.rows(250, 650)),
            (whole.take(TAKEN), parts.take(TAKEN)),
            (whole.rows(990, 1000), parts.rows(990, 1000)),
        ):
            np.testing.assert_equal(other, one)


def test_a_column_of_ids_wants_a_pool_that_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    with kept() as known:
        fact = _stored(known.pools, _columns, tmp_path / "b.parquet")
        parts = known.pools.open_parts(fact.digest, fact.format, fact.name)
        with pytest.raises(InputError, match="select without --ray"):
            parts.name_by("c1")
