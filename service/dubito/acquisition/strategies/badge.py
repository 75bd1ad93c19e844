"""Batches whose gradients are large and point into different directions."""

from __future__ import annotations

from dubito.acquisition.batches import geometry
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.strategies.bald import BALD
from dubito.acquisition.strategy import ONE_CLASS, Candidates, Context, JointStrategy
from dubito.engine.calling.arguments import Check


def _choose(candidates: Candidates, picks: Picks, context: Context, check: Check | None) -> None:
    mean_NC, seed = candidates.prediction.mean, context.acquisition.seed
    geometry.badge(mean_NC, candidates.features, picks, seed=seed, check=check)


BADGE = JointStrategy(
    "badge", ONE_CLASS, _choose, frozenset({"features"}), BALD, needs_spread=False
)
