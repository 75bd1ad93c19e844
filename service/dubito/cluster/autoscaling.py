"""How many replicas the work asks for: what is being done, and what waits to be done.

    wanted = ceil( sum_i (busy_i + ahead_i / drain_s) / utilisation )

`busy_i` is the share of its time for which replica i computed of late, `ahead_i` the seconds of
work that wait there: a line is to be gone within `drain_s`. A number of requests would say less:
one may have ten thousand times the rows of another. What is refused is not counted, so a burst of
more than the replicas can take grows their number step by step, each by a factor of up to
(1 + ahead / drain_s) / utilisation.

It imports no Ray: `benchmarks/simulate_cluster.py` asks it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

UTILISATION = 0.7
"""Share of its time for which a replica shall compute, by default."""

DRAIN_S = 1.0
"""Time in which what waits shall be done."""

_ROUNDING = 1e-9


def wanted(
    busy: Sequence[float],
    ahead_s: Sequence[float],
    *,
    utilisation: float = UTILISATION,
    drain_s: float = DRAIN_S,
) -> int:
    """The number of replicas that the work asks for, at least 1.

    Args:
        busy: of each replica, the share of its time for which it computed, in [0, 1].
        ahead_s: of each, the seconds of work that wait.
        utilisation: that each shall have, in (0, 1].
        drain_s: time in which what waits shall be done, above 0.
    """
    devices = sum(busy) + sum(ahead_s) / drain_s
    return max(1, ceil(devices / utilisation - _ROUNDING))


def policy(context: Any) -> tuple[int, dict[str, Any]]:
    """The same, as Ray Serve asks it.

    Args:
        context: an `AutoscalingContext`, with what replicas told of late.

    Returns:
        Replicas, and what the policy wants to remember: nothing.
    """
    told = context.aggregated_metrics or {}
    busy, ahead_s = (list((told.get(name) or {}).values()) for name in ("busy", "ahead_s"))
    if not busy:  # nobody has told anything yet
        return context.target_num_replicas, {}
    return wanted(busy, ahead_s), {}
