"""Jobs that stand still at a known block, so that a test can do what it likes meanwhile.

A process that wrote the first part of a job down, rows 0 to N, never writes the second: its object
lies in the store, its row is missing. That is where `kill -9` finds it. Whoever takes the job over
goes on from the first part and is not held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dubito.registry import PartFact
from dubito.registry.jobs import JobStore
from dubito.serving.worker import Check, Job, Worker

_PAUSE_S = 0.001  # between two checks of work that stands on the device


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


@contextmanager
def holding_the_device() -> Iterator[threading.Event]:
    """Work behind all requests stays on the device and does nothing but give way, within the block.

    The event is set once some stands there.
    """
    submit_behind = Worker.submit_behind
    stands, is_open = threading.Event(), threading.Event()

    def held(worker: Worker, task: Callable[[Check], object]) -> Job[object]:
        def stand(check: Check) -> object:
            stands.set()
            while not is_open.wait(_PAUSE_S):
                check()
            return task(check)

        return submit_behind(worker, stand)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "submit_behind", held)
        try:
            yield stands
        finally:
            is_open.set()
