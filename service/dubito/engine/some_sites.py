"""The engines of one network that sample some of its sites and hold the others at their means.

Its job: make such an engine at the first call that asks for its sites, with the weights of the
whole one, and keep the last few.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from cachetools import LRUCache

from dubito.engine.calling.sampling import Sites
from dubito.engine.findings import NOTHING_KEPT
from dubito.engine.planning.placement import placed_like
from dubito.engine.plans import Plans
from dubito.engine.proving.clock import Clock
from dubito.engine.sites.chosen import chosen
from dubito.engine.sites.standing import Standing

if TYPE_CHECKING:
    from dubito.engine.engine import Engine

_TIMING_LIMIT_S = 1.0  # on the wall, for each choice
_MOST_KEPT = 4  # choices of sites whose plans are kept

_MOST_NAMED = 64  # ways to name them whose sites are remembered


@dataclass(eq=False)
class SomeSites:
    """Engines by the sites that they sample.

    Args:
        whole: the engine with all sites.
    """

    whole: Engine
    _named: LRUCache[Sites, tuple[int, ...]] = field(default_factory=lambda: LRUCache(_MOST_NAMED))
    _made: LRUCache[tuple[int, ...], Engine] = field(default_factory=lambda: LRUCache(_MOST_KEPT))

    def engine(self, sites: Sites, asked: Engine) -> Engine:
        """The engine that samples some sites.

        Args:
            sites: as in a `Sampling`.
            asked: the one that was asked, which is returned where it samples these.

        Raises:
            InputError: a choice that names no site, or a mask whose mean is not known.
        """
        if sites not in self._named:
            bundle = self.whole.bundle
            self._named[sites] = chosen(sites, bundle.sites, bundle.sampling)
        numbers = self._named[sites]
        for engine in (asked, self.whole):
            if engine.sampled == numbers:
                return engine
        if numbers not in self._made:
            self._made[numbers] = self._make(numbers)
        return self._made[numbers]

    def _make(self, numbers: tuple[int, ...]) -> Engine:
        whole, rows = self.whole, self.whole.made_up_rows()
        bundle = self._standing.with_sampled(numbers)
        programs = placed_like(whole.placed, bundle, whole.device)
        budget = whole.memory_budget_bytes
        plans = Plans(bundle, programs, whole.device, whole.defaults, budget, Clock(None))
        plans.trust(rows)
        plans.time_forms(rows, NOTHING_KEPT, _TIMING_LIMIT_S)
        return replace(whole, bundle=bundle, placed=programs, plans=plans, whole=whole)

    @cached_property
    def _standing(self) -> Standing:
        return Standing(self.whole.bundle, self.whole.made_up_rows())
