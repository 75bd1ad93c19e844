"""The time that the proof of a stranger's bundle may take.

Its job: end a proof between two nodes once it has used up its processor time. Processor time, not
time on the wall: a server that is busy with other requests refuses nothing that it takes when idle.
"""

from __future__ import annotations

import time

from dubito.errors import BundleRefusedError

BYTES_PER_S = 16 * 2**20


class Clock:
    """Counts the processor time of the thread that made it.

    Args:
        limit_s: for the proof of a small bundle; None: no limit.
        size_bytes: of the bundle; every 16 MiB add a second.
    """

    def __init__(self, limit_s: float | None, size_bytes: int = 0) -> None:
        self.limit_s = None if limit_s is None else limit_s + size_bytes / BYTES_PER_S
        self._start_s = time.thread_time()

    def check(self, what: str) -> None:
        """End the proof where its time is over.

        Raises:
            BundleRefusedError: naming what was reached.
        """
        if self.limit_s is not None and time.thread_time() - self._start_s > self.limit_s:
            raise BundleRefusedError(
                f"the proof that the bundle runs takes longer than {self.limit_s:.1f} s of"
                f" processor time, it came to {what}: raise DUBITO_PROOF_TIMEOUT_MS if a network of"
                " this kind is meant to be served"
            )
