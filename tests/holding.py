"""Jobs that stand still at a known block, so that a test can do what it likes meanwhile.

A process that wrote the first part of a job down, rows 0 to N, never writes the second: its object
lies in the store, its row is missing. That is where `kill -9` finds it. Whoever takes the job over
goes on from the first part and is not held.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dubito.registry import PartFact
from dubito.registry.jobs import JobStore


@contextmanager
def holding_jobs() -> Iterator[threading.Event]:
    """Jobs of this process are held within the block, or until the event is set."""
    add_part = JobStore.add_part
    is_open, began = threading.Event(), set[str]()

    def held(store: JobStore, job: str, owner: str, part: PartFact, **facts: Any) -> bool:
        if part.start == 0:
            began.add(job)
        elif job in began:
            is_open.wait()
        return add_part(store, job, owner, part, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobStore, "add_part", held)
        try:
            yield is_open
        finally:
            is_open.set()
