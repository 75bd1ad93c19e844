"""Several jobs at once: their rows joined, computed once, and cut apart.

Nothing that one job does or suffers reaches another. Who is late or was cancelled is told at the
next check and the others go on; where a computation fails the batch is halved, down to the job that
fails alone; where memory runs out the rows are halved, down to one.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dubito.engine.running.passes import is_out_of_memory
from dubito.serving.turns.job import Check, Died, Job, Joint, Rows

AnyJob: TypeAlias = Job[Any]
AnyJoint: TypeAlias = Joint[Any, Any]


class _UnwantedError(Exception):
    """Nobody waits for any answer of the batch any more."""


def run(jobs: Sequence[AnyJob], pause: Callable[[], None]) -> Sequence[AnyJob]:
    """Do jobs, each to its own answer.

    Args:
        jobs: one, or several whose tasks are likes.
        pause: called between chunks.

    Returns:
        Those that were begun.

    Raises:
        Died: the thread ends.
    """
    wanted = [job for job in jobs if job.begin()]
    if wanted and isinstance(wanted[0].task, Joint):
        _together(wanted, pause)
    elif wanted:
        (job,) = wanted
        _alone(job, pause)
    return wanted


def _alone(job: AnyJob, pause: Callable[[], None]) -> None:
    def check() -> None:
        pause()
        job.check()

    task = job.task
    assert not isinstance(task, Joint)
    _resolve(job, lambda: task(check))


def _together(jobs: Sequence[AnyJob], pause: Callable[[], None]) -> None:
    def check() -> None:
        pause()
        if not any([job.is_wanted() for job in jobs]):
            raise _UnwantedError

    tasks = [_joint(job) for job in jobs]
    try:
        computed = _computed(tasks[0], _joined(tasks), check)
    except Died:
        raise
    except BaseException as error:  # whatever a task does must never end the loop
        open_jobs = [job for job in jobs if job.is_wanted()]
        if len(open_jobs) == 1 == len(jobs):
            open_jobs[0].fail(error)
        else:
            for part in _halves(open_jobs):
                _together(part, pause)
        return
    start = 0
    for job, task in zip(jobs, tasks, strict=True):
        rows = range(start, start + task.num_rows)
        start = rows.stop
        if job.is_wanted():
            own = computed if len(jobs) == 1 else computed.cut(rows)
            _resolve(job, lambda finish=task.finish, own=own: finish(own))  # type: ignore[misc]


def _resolve(job: AnyJob, ask: Callable[[], object]) -> None:
    try:
        result = ask()
    except Died:
        raise
    except BaseException as error:  # as above
        job.fail(error)
    else:
        job.answer(result)


def _computed(task: AnyJoint, rows: Mapping[str, Tensor], check: Check) -> Rows:
    """What is computed of rows, in halves where memory does not hold them."""
    count = len(next(iter(rows.values())))
    try:
        computed: Rows = task.compute(rows, check)
        return computed
    except (RuntimeError, MemoryError) as error:
        if count == 1 or not is_out_of_memory(error):
            raise
    middle = count // 2  # outside of `except`, which holds what did not fit
    first = _computed(task, {name: tensor[:middle] for name, tensor in rows.items()}, check)
    return first.joined(
        [_computed(task, {name: tensor[middle:] for name, tensor in rows.items()}, check)]
    )


def _joined(tasks: Sequence[AnyJoint]) -> Mapping[str, Tensor]:
    if len(tasks) == 1:
        return tasks[0].rows
    return {name: torch.cat([task.rows[name] for task in tasks]) for name in tasks[0].rows}


def _joint(job: AnyJob) -> AnyJoint:
    assert isinstance(job.task, Joint)
    return job.task


def _halves(jobs: Sequence[AnyJob]) -> list[Sequence[AnyJob]]:
    middle = (len(jobs) + 1) // 2
    return [part for part in (jobs[:middle], jobs[middle:]) if part]
