"""How many threads the libraries of arithmetic take, settled before any of them is loaded.

OpenMP reads its variables once, when it is loaded, and its threads look for work in a busy loop
unless they are told not to. On cores that others use as well, a thread that waits so keeps the one
that it waits for from running.

Flow: environment → cores that this process may use → variables of OpenMP → torch is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, MutableMapping
from math import ceil
from pathlib import Path

SETTING = "DUBITO_THREADS"
_COUNT, _WAIT = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"


def prepare(environment: MutableMapping[str, str], *, is_server: bool) -> None:
    """Tell OpenMP how many threads there shall be, and those of a server to wait without work.

    A number in `DUBITO_THREADS` comes first, `OMP_NUM_THREADS` second; without either, a server
    takes the cores that it may use less one, which receives and answers.

    Args:
        environment: of this process, before a library of arithmetic is loaded.
        is_server: whether it serves; other commands keep what torch chooses.
    """
    asked = next((text for name, text in environment.items() if name.upper() == SETTING), "")
    if re.fullmatch("[0-9]{1,9}", asked) and int(asked) > 0:  # others the settings refuse
        environment[_COUNT] = asked
    if is_server:
        environment.setdefault(_COUNT, str(max(1, cores() - 1)))
        environment.setdefault(_WAIT, "PASSIVE")


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: its affinity, and the quota of its group, rounded up.

    Args:
        root: of the file system.

    Source: Linux, admin-guide/cgroup-v2 (`cpu.max`) and scheduler/sched-bwc (`cpu.cfs_quota_us`).
    """
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    return max(1, min([there, *map(ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The quotas in cores of the groups that this process is in, each and those around it."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if kinds else "")
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            yield from _quota(folder)
            if folder == top:
                break


def _quota(folder: Path) -> Iterator[float]:
    """The quota of one group in cores, where it has one."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        if float(quota) > 0 < float(period):
            yield float(quota) / float(period)
    except (OSError, ValueError):  # no such file, or `max`
        return
