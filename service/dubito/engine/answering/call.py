"""One call of an engine: its rows, how they are sampled, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.scaling import Scaling


@dataclass(frozen=True, eq=False)
class EngineCall:
    """One call of an engine.

    Args:
        rows: checked, by input name.
        sampling: as it was asked for, or the default.
        check: called between chunks; whatever it raises ends the call.
        scaling: of each pass's logits.
        keep_samples: whether every pass is returned as well.
    """

    rows: Mapping[str, Tensor]
    sampling: Sampling
    check: Check | None = None
    scaling: Scaling = 1.0
    keep_samples: bool = False

    @property
    def num_rows(self) -> int:
        """Number of rows, B."""
        return len(next(iter(self.rows.values())))
