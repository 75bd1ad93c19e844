"""One call of an engine, its arguments checked.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.head import OutputHead
from dubito.engine.heads.scaling import Scaling
from dubito.engine.running.passes import Tile
from dubito.errors import InputError


@dataclass(frozen=True, eq=False)
class EngineCall:
    """One call of an engine.

    Args:
        rows: checked, by input name.
        sampling: as it was asked for, or the default.
        check: called between chunks; whatever it raises ends the call.
        scaling: of each pass's logits.
        keep_samples: whether every pass is returned as well.
        seen: called with every tile before its passes.
        outputs: columns that are wanted, by their names in a reply; None: all.

    Raises:
        InputError: all passes are asked for with a tolerance.
    """

    rows: Mapping[str, Tensor]
    sampling: Sampling
    check: Check | None = None
    scaling: Scaling = 1.0
    keep_samples: bool = False
    seen: Callable[[Tile], None] | None = None
    outputs: Collection[str] | None = None

    def __post_init__(self) -> None:
        """Refuse to return passes of which rows take different numbers."""
        if self.keep_samples and self.sampling.tolerance is not None:
            raise InputError(
                "all passes were asked for with a `tolerance`, where rows take different numbers"
                " of them: leave one of the two out"
            )

    def is_lean(self, head: OutputHead) -> bool:
        """Whether nothing is wanted that needs the spread over the passes."""
        is_plain = self.sampling.is_plain and not self.keep_samples
        return is_plain and self.outputs is not None and set(self.outputs) <= head.lean_columns

    @property
    def num_rows(self) -> int:
        """Number of rows, B."""
        return next(iter(self.rows.values())).shape[0]
