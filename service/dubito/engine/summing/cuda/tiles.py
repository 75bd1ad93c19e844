"""How many numbers a program takes, which decides how many programs there are.

A program of four warps holds some hundred numbers in its registers; a call for one row has little
more, and is spread over as many programs as that allows.
"""

from __future__ import annotations

from dataclasses import dataclass

from dubito.engine.draws.strata import BLOCK


@dataclass(frozen=True)
class Tiles:
    """Bounds of what a program takes.

    Args:
        numbers: at once.
        places: of a program that goes through samples.
        blocks: of samples, at once.
    """

    numbers: int = 512
    places: int = 32
    blocks: int = 4

    def of_passes(self, passes: int, classes: int) -> tuple[int, int]:
        """Passes of a program, and classes that it takes at once."""
        at_once = min(power_of_2(classes), self.numbers)
        return min(power_of_2(passes), max(1, self.numbers // at_once)), at_once

    def of_samples(self, samples: int, places: int) -> tuple[int, int]:
        """Places of a program, and blocks that it takes at once."""
        blocks = min(power_of_2(-(-samples // BLOCK)), self.blocks)
        return min(power_of_2(places), self.places), blocks

    def of_groups(self, groups: int, classes: int) -> tuple[int, int]:
        """Classes of a program, and groups that it takes at once."""
        at_once = min(power_of_2(groups), 64)
        return min(power_of_2(classes), max(1, 2 * self.numbers // at_once)), at_once


def warps(numbers: int) -> int:
    """Warps of a program, one number a thread, and at most four."""
    return min(max(1, numbers // 32), 4)


def power_of_2(count: int) -> int:
    """The least power of 2 that is not below."""
    return 1 << max(0, count - 1).bit_length()
