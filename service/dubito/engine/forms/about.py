"""What a form knows of a plan when it says what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dubito.engine.planning.layout import Layouts
from dubito_nn.program import Value


@dataclass(frozen=True)
class About:
    """Facts of an execution.

    Args:
        static: values that depend on nothing, by name.
        layouts: how values hold their rows.
        density: share of a mask's numbers that are not 0, by name.
    """

    static: Mapping[str, Value]
    layouts: Layouts
    density: Callable[[str], float]
