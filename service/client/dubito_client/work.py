"""Stored pools, and the jobs that work on them.

A job is submitted by `predict_pool` or `select_pool`, followed by `progress` or `wait`, and its
result is read by `job_prediction` or `job_selection`, or as it is stored by `job_result`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from dubito_client.bodies import Rows, array_of, to_npz, told
from dubito_client.calls import NPY, NPZ, Call, File, nothing, of_json, page, pages, path_of
from dubito_client.errors import InputError
from dubito_client.predictions import Prediction, Selection, prediction_of

T = TypeVar("T")
_KINDS = {
    **{"npy": NPY, "npz": NPZ, "parquet": "application/vnd.apache.parquet", "csv": "text/csv"},
    **dict.fromkeys(("ndjson", "jsonl"), "application/x-ndjson"),
    "arrows": "application/vnd.apache.arrow.stream",
    **{"zip": "application/zip", "tar": "application/x-tar"},
}
_FINISHED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One array of a pool; `shape` is that of one row."""

    name: str
    dtype: str
    shape: list[int]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A stored pool of unlabelled rows."""

    pool: str
    num_rows: int
    format: str
    columns: list[Column]
    sha256: str
    size_bytes: int
    address: str | None
    uploader: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class PooledRows:
    """Some rows of a pool: nested lists, or by the name of an array or of a table's column.

    `features` names the columns that a row's numbers were stored as; none for arrays.
    """

    pool: str
    indices: list[int]
    features: list[str]
    rows: list[Any] | dict[str, list[Any]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job: what was asked, and how far it is.

    `state` is `queued`, `running`, `succeeded`, `failed` (`reason`) or `cancelled`; `done` of
    `total` rows are done.
    """

    job: str
    kind: str
    state: str
    reason: str | None
    model: str
    version: int
    pool: str
    done: int
    total: int
    rate_per_s: float | None
    remaining_s: float | None
    warnings: list[str]
    actor: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: str | None

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state in _FINISHED


def add_pool(rows: Rows | Path, name: str | None = None) -> Call[Pool]:
    """Store rows as a pool.

    Args:
        rows: an array, an object of input name → array, or the path of a `.npy`, `.npz`,
            `.parquet`, `.csv`, `.ndjson` or `.arrows` file, or of a `.zip` or `.tar` of images; a
            file is sent piece by piece.
        name: of the pool; None: named by its digest.

    Raises:
        InputError: rows that are no arrays, or a file of another kind.
    """
    body: bytes | File
    if isinstance(rows, Path):
        ending = rows.suffix.lower().removeprefix(".")
        if ending not in _KINDS:
            raise InputError(
                f"pool: expected a file .{', .'.join(_KINDS)}, got {rows.name!r}: convert it, with "
                "numpy.save for instance"
            )
        body, kind = File(rows, os.stat(rows).st_size), _KINDS[ending]
    else:
        body, kind = to_npz(_arrays(rows)), NPZ
    return Call(
        method="POST",
        path=path_of("pools"),
        read=page(Pool),
        query={} if name is None else {"name": name},
        headers={"Content-Type": kind},
        body=body,
        is_repeatable=False,
    )


def add_pool_from(
    address: str, name: str | None = None, *, format: str | None = None
) -> Call[Pool]:
    """Have the server copy a pool from an address that its operator allows.

    Args:
        address: `s3://BUCKET/KEY` or `file:///PATH`.
        name: of the pool; None: named by its digest.
        format: the ending of such a file; None: by the ending of the address.
    """
    asked = {"address": address, "name": name, "format": format}
    said = {key: value for key, value in asked.items() if value is not None}
    return told("POST", path_of("pools"), said, page(Pool), is_repeatable=False)


def pools() -> Call[list[Pool]]:
    """All stored pools by name."""
    return Call(method="GET", path=path_of("pools"), read=pages(Pool, "pools"))


def pool(name: str) -> Call[Pool]:
    """One stored pool."""
    return Call(method="GET", path=path_of("pools", name), read=page(Pool))


def pool_rows(name: str, indices: Sequence[int]) -> Call[PooledRows]:
    """Some rows of a stored pool, such as those that a selection chose.

    Args:
        name: of the pool.
        indices: rows of the pool, from 0; at most 1000.
    """
    return Call(
        method="GET",
        path=path_of("pools", name, "rows"),
        read=page(PooledRows),
        query={"indices": ",".join(str(int(index)) for index in indices)},
    )


def delete_pool(name: str) -> Call[None]:
    """Delete a pool that no job uses."""
    return Call(method="DELETE", path=path_of("pools", name), read=nothing, is_repeatable=False)


def jobs() -> Call[list[Job]]:
    """The last 1000 jobs, the newest first."""
    return Call(method="GET", path=path_of("jobs"), read=pages(Job, "jobs"))


def job(job: str) -> Call[Job]:
    """One job: state, progress, rate, remaining time."""
    return Call(method="GET", path=path_of("jobs", job), read=page(Job))


def cancel(job: str) -> Call[Job]:
    """Cancel a job that is queued or running."""
    path = path_of("jobs", job)
    return Call(method="DELETE", path=path, read=page(Job), is_repeatable=False)


def job_prediction(job: str) -> Call[Prediction]:
    """The result of `predict_pool`, where its format is `npz`."""
    return _result(job, lambda response: prediction_of(response.content))


def job_selection(job: str) -> Call[Selection]:
    """The result of `select_pool`."""
    return _result(job, page(Selection))


def job_result(job: str) -> Call[bytes]:
    """The result as it is stored: `.npz`, `.parquet` or JSON."""
    return _result(job, lambda response: response.content)


def events(job: str) -> Call[None]:
    """The stream of a job's progress, of which `job_of_line` reads the lines."""
    return Call(method="GET", path=path_of("jobs", job, "events"), read=nothing)


def job_of_line(line: str) -> Job | None:
    """What a line of the stream says of its job; None where it says nothing."""
    name, _, value = line.partition(":")
    return of_json(Job, json.loads(value)) if name == "data" else None


def _result(job: str, read: Callable[[httpx.Response], T]) -> Call[T]:
    return Call(method="GET", path=path_of("jobs", job, "result"), read=read)


def _arrays(rows: Rows) -> dict[str, NDArray[np.generic]]:
    if isinstance(rows, Mapping):
        return {name: array_of(name, array) for name, array in rows.items()}
    return {"inputs": array_of("inputs", rows)}
