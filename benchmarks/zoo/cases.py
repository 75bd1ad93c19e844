"""What a network of the zoo is tried with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One network with small random weights.

    Args:
        network: as its library makes it.
        inputs: an example: by name, which the network takes by keyword, or one behind the other.
        terms: further arguments of `dubito_nn.export`.
    """

    network: nn.Module
    inputs: dict[str, Tensor] | tuple[Tensor, ...]
    terms: dict[str, object] = field(default_factory=dict)

    def rows(self, count: int) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """The first rows of the example."""
        if isinstance(self.inputs, tuple):
            return tuple(tensor[:count] for tensor in self.inputs)
        return {name: tensor[:count] for name, tensor in self.inputs.items()}

    def answered(self, inputs: dict[str, Tensor] | tuple[Tensor, ...]) -> Tensor:
        """What the network returns, of several values the one that is served."""
        named = isinstance(inputs, dict)
        made = self.network(**inputs) if named else self.network(*inputs)  # type: ignore[arg-type]
        name = self.terms.get("output_name")
        if name is not None and not isinstance(made, Tensor):
            by_name = isinstance(name, str) and not isinstance(made, dict)
            made = getattr(made, str(name)) if by_name else made[name]
        assert isinstance(made, Tensor)
        return made


Build = Callable[[], Case]
