"""Early stopping: keep the weights of the epoch that was best on held-out rows.

Source: Prechelt 1998, Early Stopping - But When?
"""

from __future__ import annotations

import math

from torch import Tensor, nn


class EarlyStopping:
    """Watches a loss, keeps the best weights, and says when to give up.

    Args:
        patience: Epochs without an improvement after which training ends; None never ends it.
        min_improvement: By how much a loss must fall below the best one to count, in its unit.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, patience: int | None, min_improvement: float = 0.0) -> None:
        if (patience is not None and patience < 1) or not 0.0 <= min_improvement < math.inf:
            raise ValueError(
                "expected a patience of at least 1 epoch and a min_improvement of at least 0, got "
                f"{patience} and {min_improvement}: use 10 and 0"
            )
        self.patience = patience
        self.min_improvement = min_improvement
        self.best_loss = math.inf
        self.best_epoch = 0
        self._epoch = 0
        self._weights: dict[str, Tensor] = {}

    def update(self, loss: float, network: nn.Module) -> bool:
        """Take the loss after one more epoch; return whether to stop.

        Args:
            loss: On held-out rows.
            network: Its parameters and buffers are copied where the loss is the best so far.
        """
        self._epoch += 1
        if loss < self.best_loss - (self.min_improvement if self._weights else 0.0):
            self.best_loss, self.best_epoch = loss, self._epoch
            self._weights = {k: v.detach().clone() for k, v in network.state_dict().items()}
        return self.patience is not None and self._epoch - self.best_epoch >= self.patience

    def restore(self, network: nn.Module) -> None:
        """Give the network the weights of its best epoch; those it has where none was finite."""
        if self._weights:
            network.load_state_dict(self._weights)
