"""What is settled when a job begins: rows of a block, and what the engine chose by timing.

A block takes about the time that a job may keep the device at once: its rows are doubled until it
does. Within a block the job gives way between two chunks of the engine, so where a chunk alone
takes longer, chunks are halved. A result hangs in its last bits on the rows of a block, on the
chunks and on the forms in use, so all are written down, and a server that goes on with the job
takes them from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from dubito.engine import Engine, Sampling
from dubito.engine.kernels.machine import arithmetic
from dubito.engine.network import Network
from dubito.engine.pinning import FormChoice, choose, pinned
from dubito.jobs.lane import Lane
from dubito.serving.worker import Check

MAX_BLOCK_ROWS = 65_536
_TURNS = 2  # of which the least counts; the first one draws the masks
_GAIN = 0.8  # of the time of a chunk that halving it must leave at most
_LEAST_SHARE = 1 / 64  # of the engine's usual chunk

Read = Callable[[int], Mapping[str, Tensor]]
Predict = Callable[[Network, Mapping[str, Tensor], Check], object]


@dataclass(frozen=True)
class JobPlan:
    """How a job runs.

    Args:
        block_rows: rows of one call of the engine.
        choices: of every network.
        arithmetic: of the machine that it began on.
    """

    block_rows: int
    choices: tuple[FormChoice, ...]
    arithmetic: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """Return the plan as plain JSON values."""
        return {
            "block_rows": self.block_rows,
            "choices": [choice.to_json() for choice in self.choices],
            "arithmetic": dict(self.arithmetic),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> JobPlan:
        """Return the plan that `to_json` wrote."""
        rows, choices, machine = (stored[k] for k in ("block_rows", "choices", "arithmetic"))
        assert isinstance(rows, int)
        assert isinstance(choices, Sequence)
        assert isinstance(machine, Mapping)
        return cls(rows, tuple(FormChoice.from_json(choice) for choice in choices), machine)


def make_plan(
    network: Network,
    sampling: Sampling,
    read: Read,
    predict: Predict,
    lane: Lane,
    *,
    least_rows: int,
    most_rows: int,
    target_s: float,
) -> JobPlan:
    """Find the rows of a block and the size of a chunk, and write down what the engine chooses.

    Args:
        network: of the job.
        sampling: of the job.
        read: the first rows of the pool, so many.
        predict: what is done with a block.
        lane: to the device.
        least_rows: of a block.
        most_rows: of a block.
        target_s: time that a block, and a chunk, shall take.
    """
    rows = least_rows
    while rows < most_rows:
        more = min(2 * rows, most_rows)
        if _trial(network, read(more), predict, lane).seconds > target_s:
            break
        rows = more
    block = read(rows)
    choices = tuple(
        lane.run(partial(_choose, engine, drawn, block))
        for engine, drawn in network.drawn(sampling)
    )
    plan = JobPlan(rows, choices, machine(network))
    chunk_s = _trial(fixed(network, sampling, plan, block, 0), block, predict, lane).chunk_s
    while chunk_s > target_s and min(choice.chunk_share for choice in choices) > _LEAST_SHARE:
        choices = tuple(replace(choice, chunk_share=choice.chunk_share / 2) for choice in choices)
        smaller = replace(plan, choices=choices)
        trial = _trial(fixed(network, sampling, smaller, block, 0), block, predict, lane)
        if trial.chunk_s > _GAIN * chunk_s:
            break  # what takes long is not the chunk: smaller ones would only cost
        plan, chunk_s = smaller, trial.chunk_s
    return plan


def fixed(
    network: Network,
    sampling: Sampling,
    plan: JobPlan,
    block: Mapping[str, Tensor],
    first: int,
) -> Network:
    """The network, pinned to a plan for a block that begins with row `first`."""
    made = tuple(
        pinned(engine, block, drawn, choice, first=first)
        for (engine, drawn), choice in zip(network.drawn(sampling), plan.choices, strict=True)
    )
    return network.with_members(made)


def machine(network: Network) -> dict[str, object]:
    """The arithmetic of this machine."""
    return arithmetic(network.device)


def _choose(
    engine: Engine, sampling: Sampling, block: Mapping[str, Tensor], _: Check
) -> FormChoice:
    return choose(engine, block, sampling)


@dataclass(frozen=True)
class _Trial:
    """Times of a block on the device, without what it gave way to."""

    seconds: float
    chunk_s: float


def _trial(network: Network, block: Mapping[str, Tensor], predict: Predict, lane: Lane) -> _Trial:
    """The least times of a few turns; a chunk is what lies between two checks.

    On a CPU the thread's own time counts: what else the machine does is no reason for small blocks.
    """
    on_cpu = network.device.type == "cpu"
    now_s = time.thread_time if on_cpu else time.perf_counter

    def timed(check: Check) -> _Trial:
        away_s, chunk_s = 0.0, 0.0
        back_s = began_s = now_s()

        def check_apart() -> None:
            nonlocal away_s, chunk_s, back_s
            left_s = now_s()
            chunk_s = max(chunk_s, left_s - back_s)
            check()
            back_s = now_s()
            away_s += back_s - left_s

        predict(network, block, check_apart)
        ended_s = now_s()
        return _Trial(ended_s - began_s - away_s, max(chunk_s, ended_s - back_s))

    turns = [lane.run(timed) for _ in range(_TURNS)]
    return _Trial(min(turn.seconds for turn in turns), min(turn.chunk_s for turn in turns))
