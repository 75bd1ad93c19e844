"""Loops on all cores that torch may use.

Its job: cut what is to be done into parts, one a thread. The loops hold no lock, and write to
places of their own, so that the result does not hang on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch

_ENOUGH = 2**17  # numbers of passes, for each thread


def in_parts(loop: Callable[[tuple[int, int]], None], parts: int, numbers: int) -> None:
    """Call a loop for all parts, on several threads where that pays.

    Args:
        loop: takes the first part and the one after the last.
        parts: how many there are.
        numbers: of passes, over all of them.
    """
    threads = max(1, min(torch.get_num_threads(), parts, numbers // _ENOUGH))
    if threads == 1:
        loop((0, parts))
        return
    bounds = [parts * i // threads for i in range(threads + 1)]
    others = [_pool().submit(loop, pair) for pair in pairwise(bounds[1:])]
    loop((bounds[0], bounds[1]))
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="dubito-sums")
