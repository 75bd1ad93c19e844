"""The table of hostile cases: builders by name, with the reason that the refusal must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .parts import Parts, good_parts

Build = Callable[[Parts], bytes]


@dataclass(frozen=True)
class Case:
    """A bundle that must be refused.

    Args:
        name: of the case.
        reason: pattern that the refusal's text matches.
        make: builds it from a good bundle in parts.
    """

    name: str
    reason: str
    make: Build

    def build(self, canary: Path) -> bytes:
        """The hostile file; what it would run writes the canary."""
        return self.make(good_parts(canary))


CASES: dict[str, Case] = {}


def hostile(reason: str, name: str | None = None) -> Callable[[Build], Build]:
    """Put a builder into the table under its own name, or under `name`."""

    def register(build: Build) -> Build:
        own = f"{build.__module__.rpartition(chr(46))[2]}: {name or build.__name__}".replace(
            "_", " "
        )
        assert own not in CASES, own
        CASES[own] = Case(own, reason, build)
        return build

    return register
