"""How late the event loop is: what a request waits for at the border, beside bodies and the device.

Where HTTP itself is more than the loop can do, nothing waits for the device, and every turn of the
loop takes longer than the one before. Flow: `watch` wants to be woken at fixed intervals → how late
it is woken is how long a turn takes → who comes to the door is told what it would wait for.

One turn that is late was a pause of the machine and is over. Two in a row are a line that stands.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

_INTERVAL_S = 0.02
_TURNS = 2
"""That a request takes from the door to its answer, beside the device."""


@dataclass
class LoopLag:
    """The lateness of a loop, as of its last two turns."""

    _last_s: float = 0.0
    _least_s: float = 0.0

    @property
    def ahead_s(self) -> float:
        """Seconds that a request waits for its turns; 0 where they are in time."""
        return _TURNS * self._least_s if self._least_s > _INTERVAL_S else 0.0

    def note(self, late_s: float) -> None:
        """A turn was so late."""
        self._least_s, self._last_s = min(late_s, self._last_s), late_s

    async def watch(self) -> None:
        """Note how late the running loop is, until this is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            wanted_s = loop.time() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            self.note(loop.time() - wanted_s)
