"""Rows through the network once, and through T drawn last maps.

Its job: hold the posteriors that were fitted to a network on a device, by number, and make passes.

Dimensions: T samples, B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.sampling import Sampling
from dubito.engine.held import HeldFits
from dubito.engine.kernels.precision import running
from dubito.engine.laplace.drawn_low_rank import DrawnLowRank
from dubito.engine.laplace.drawn_maps import DrawnMaps
from dubito.engine.laplace.last_map import LastMap
from dubito.engine.laplace.low_rank import LowRankPosterior
from dubito.engine.laplace.posterior import Posterior
from dubito.engine.laplace.rows_at_map import RowsAtMap
from dubito.engine.planning.placement import Placed
from dubito_nn import Manifest

_BUDGET_PARTS = 4


@dataclass(eq=False)
class Fits:
    """What was fitted to a network.

    Args:
        placed: its graphs and weights on the device.
        manifest: what it declares.
        device: where it runs.
        memory_budget_bytes: of one call.
    """

    placed: Placed
    manifest: Manifest
    device: torch.device
    memory_budget_bytes: int
    held: HeldFits[DrawnMaps | DrawnLowRank] = field(default_factory=lambda: HeldFits("laplace"))

    def put(self, number: int, posterior: Posterior | LowRankPosterior) -> None:
        """Take in a fit under its number."""
        budget = self.memory_budget_bytes // _BUDGET_PARTS
        if isinstance(posterior, Posterior):
            self.held.put(number, DrawnMaps(posterior, self.device, budget))
        else:
            self.held.put(number, DrawnLowRank(posterior, self.device, budget))

    def take_in(self, number: int, stored: Mapping[str, NDArray[np.generic]]) -> None:
        """Take in what was stored of a fit."""
        is_low_rank = LowRankPosterior.is_stored(stored)
        kind = LowRankPosterior if is_low_rank else Posterior
        self.put(number, kind.from_arrays(stored))

    @cached_property
    def last_map(self) -> LastMap:
        """The network's last linear map.

        Raises:
            InputError: there is none.
        """
        return LastMap.of(self.placed, self.manifest, self.device)

    def look(
        self,
        blocks: Iterable[Mapping[str, Tensor]],
        *,
        keeps_rows: bool,
        check: Check,
        keeps_pairs: bool = True,
    ) -> RowsAtMap:
        """What rows say that a fit needs.

        Args:
            blocks: rows on the device, some after the others; at least one block.
            keeps_rows: whether the rows are needed one by one.
            check: called between blocks; whatever it raises ends the pass.
            keeps_pairs: of classes; else features of the rows.
        """
        total: RowsAtMap | None = None
        options = {"is_classes": self.last_map.is_of_classes, "keeps_rows": keeps_rows}
        with running(self.device):
            for rows in blocks:
                check()
                features, scores = self.last_map.run(rows)
                seen = RowsAtMap.of(features, scores, **options, keeps_pairs=keeps_pairs)
                total = seen if total is None else total.with_more(seen)
        assert total is not None
        return total

    def passes(
        self, rows: Mapping[str, Tensor], sampling: Sampling, check: Check | None = None
    ) -> Iterator[Tensor]:
        """The declared outputs of T samples of some rows: some (t, B, C) after the others.

        Args:
            rows: on the device.
            sampling: how many samples, of which fit.
            check: called between chunks; whatever it raises ends the passes.
        """
        last, maps = self.last_map, self.held.get(sampling.fit)
        features_BF, scores_BC = last.run(rows)
        for noise_TBC in maps.noise(features_BF, sampling.num_samples, sampling.key):
            if check is not None:
                check()
            yield last.declared(noise_TBC + scores_BC)
