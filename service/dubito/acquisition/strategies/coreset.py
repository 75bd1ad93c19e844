"""Batches that leave no row of the pool far from a labelled one, in feature space."""

from __future__ import annotations

from dubito.acquisition.batches import geometry
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.strategies.bald import BALD, BALD_OF_NUMBERS
from dubito.acquisition.strategy import Candidates, Context, Held, JointStrategy
from dubito.engine.calling.arguments import Check

_HOLDS: frozenset[Held] = frozenset({"features", "centres"})


def _choose(candidates: Candidates, picks: Picks, context: Context, check: Check | None) -> None:
    geometry.core_set(candidates.features, candidates.centres, picks, check)


CORESET, CORESET_OF_NUMBERS = (
    JointStrategy("coreset", bald.heads, _choose, _HOLDS, bald, needs_spread=False)
    for bald in (BALD, BALD_OF_NUMBERS)
)
