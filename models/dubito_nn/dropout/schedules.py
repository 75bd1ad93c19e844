"""How p grows: over the blocks of a network, or over the steps of training.

    depth      p_l = p · l / L            l = 1..L, the deeper the likelier to be dropped
    training   p(k) = p · min(1, k / n)   k steps done of n

Sources: Huang et al. 2016, arXiv:1603.09382, equation 4; Ghiasi et al. 2018, arXiv:1810.12890,
section 3, scheduled DropBlock.
"""

from __future__ import annotations

from typing import Protocol, cast

from torch import nn

from dubito_nn.dropout.probability import checked


def linear_over_depth(final: float, num_blocks: int) -> tuple[float, ...]:
    """Return p of every block: p_l = final · l / L for l = 1..L.

    Args:
        final: p of the last block, in [0, 1].
        num_blocks: L.

    Raises:
        ValueError: An argument is out of range.

    Source: Huang et al. 2016, arXiv:1603.09382, equation 4.
    """
    checked(final, name="final")
    if num_blocks < 1:
        raise ValueError(f"expected num_blocks of at least 1, got {num_blocks}: count the blocks")
    return tuple(final * block / num_blocks for block in range(1, num_blocks + 1))


class _WithProbability(Protocol):
    drop_prob: float


class LinearSchedule:
    """Raises p of the layers of a network from 0 to their own value while it is trained.

    p(k) = p · min(1, k / n), where k counts the calls of `step()`.

    Args:
        network: All its modules of the given kinds take part; their p falls to 0 at once.
        num_steps: n, steps until p is reached.
        kinds: Classes of layers with a number `drop_prob`.

    Raises:
        ValueError: There is no such layer, or n is below 1.

    Source: Ghiasi, Lin, Le 2018, arXiv:1810.12890, section 3.
    """

    def __init__(
        self, network: nn.Module, num_steps: int, kinds: tuple[type[nn.Module], ...]
    ) -> None:
        layers = [
            cast("_WithProbability", module)
            for module in network.modules()
            if isinstance(module, kinds)
        ]
        if not layers or num_steps < 1:
            names = [kind.__name__ for kind in kinds]
            raise ValueError(
                f"expected num_steps of at least 1 and a network with layers of {names}, got "
                f"{num_steps} and {len(layers)} layers: name the classes to raise p of"
            )
        self._layers = [(layer, layer.drop_prob) for layer in layers]
        self._num_steps = num_steps
        self._done = 0
        self._set()

    def step(self) -> None:
        """Count one step of training and set p."""
        self._done += 1
        self._set()

    def _set(self) -> None:
        share = min(1.0, self._done / self._num_steps)
        for layer, final in self._layers:
            layer.drop_prob = final * share
