"""Which replicas a request may go to: those of its model, more of them the more it is asked.

    replicas of a model = min(N, 1 + ceil(2 · share · N))

`share` is the model's part of the requests that this router saw of late. Its replicas are those
with the largest hashes of model and replica, so every router finds the same ones and a new or lost
replica moves few models; each replica's own bounds (`DUBITO_MAX_LOADED_BYTES`) keep the models that
come there, and let go of others. Among them the less busy of two drawn at random is taken, and
where there are too few, any.

Dimensions: N replicas.
Source: Thaler and Ravishankar 1998, "Using name-based mappings to increase hit rates" (the hashes);
Mitzenmacher 2001, "The power of two choices in randomized load balancing".
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from hashlib import blake2b
from math import ceil

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

_FORGETS_S = 30.0  # in which a count falls to half
_ROOM = 2.0  # times its share that a model gets


class ModelShares:
    """How much each model is asked, of late."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, float] = defaultdict(float)
        self._total = 0.0
        self._since_s = time.monotonic()

    def note(self, model: str) -> None:
        """A request for a model came."""
        now_s = time.monotonic()
        if now_s - self._since_s > _FORGETS_S:
            self._since_s = now_s
            self._counts = defaultdict(float, {m: c / 2 for m, c in self._counts.items() if c > 1})
            self._total = sum(self._counts.values())
        self._counts[model] += 1
        self._total += 1

    def of(self, model: str) -> float:
        """The share of a model, in [0, 1]; 1 while nothing is known."""
        return self._counts[model] / self._total if self._total else 1.0


def replicas_of(model: str, replicas: list[str], share: float) -> list[str]:
    """The replicas of a model.

    Args:
        model: its name.
        replicas: names of all.
        share: of the requests that are for the model, in [0, 1].
    """
    count = min(len(replicas), 1 + ceil(_ROOM * share * len(replicas)))
    return sorted(replicas, key=lambda replica: _hash(model, replica), reverse=True)[:count]


def _hash(model: str, replica: str) -> bytes:
    return blake2b(f"{model}\0{replica}".encode(), digest_size=8).digest()


class ModelRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Serve's router, with an eye for models."""

    def initialize_state(self, **_: object) -> None:
        """Begin with no counts."""
        self._shares = ModelShares()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Two replicas of the model, then two of all; Serve takes the less busy that has room."""
        ranks = [_two(candidate_replicas)]
        model = "" if pending_request is None else pending_request.metadata.multiplexed_model_id
        if model:
            by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
            self._shares.note(model)
            names = replicas_of(model, list(by_name), self._shares.of(model))
            ranks.insert(0, _two([by_name[name] for name in names]))
        return ranks


def _two(replicas: list[RunningReplica]) -> list[RunningReplica]:
    return random.sample(list(replicas), min(2, len(replicas)))
