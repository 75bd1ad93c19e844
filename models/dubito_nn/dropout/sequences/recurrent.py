"""Recurrent dropout with a fresh mask at every time step: of the update, or of the state.

    update   c_t = f ∘ c_{t-1} + i ∘ d(g)          LSTM: what is written to the cell is dropped
             h_t = (1-z) ∘ d(n) + z ∘ h_{t-1}      GRU:  likewise
    state    h_{t-1} is replaced by d(h_{t-1}) wherever a weight multiplies it

with d(v) = v · m / (1-p), m ~ Bernoulli(1-p) per row, time step and unit. The first loses no
memory: the path from c_{t-1} to c_t is never masked. The second may forget at every step what it
carries; it is here because networks were trained with it.

Sampling unrolls the time steps, so an exported graph holds one copy of the step per time step and
one length; evaluation runs torch's fused kernel.

Dimensions: B rows, L time steps, K inputs, H hidden units.
Source: Semeniuta, Severyn, Barth 2016, Recurrent dropout without memory loss, arXiv:1603.05118,
which also says what is wrong with the second.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dubito_nn.dropout.masks import check_axes
from dubito_nn.dropout.sequences.recurrence import gru_over_time, lstm_over_time
from dubito_nn.dropout.units.standard import Dropout

On = Literal["update", "state"]


class _Fresh(nn.Module):
    """The masks of all time steps, drawn before the loop."""

    def __init__(self, drop_prob: float, on: On) -> None:
        super().__init__()
        if on not in ("update", "state"):
            raise ValueError(
                f"expected on to be `update` or `state`, got {on!r}: `update` loses no memory"
            )
        self.dropout = Dropout(drop_prob)
        self.on = on

    @property
    def drop_prob(self) -> float:
        """The p of the masks."""
        return self.dropout.drop_prob

    @drop_prob.setter
    def drop_prob(self, value: float) -> None:
        self.dropout.drop_prob = value

    def extra_repr(self) -> str:
        """Show what is dropped."""
        return f"on={self.on!r}"

    def _masks(self, x_BLK: Tensor, hidden_size: int) -> dict[str, Tensor]:
        rows, steps, _ = x_BLK.shape
        return {f"{self.on}_mask": self.dropout(x_BLK.new_ones(rows, steps, hidden_size))}


class RecurrentDropoutLSTM(_Fresh):
    """One LSTM layer whose update, or state, is dropped afresh at every step.

    (B, L, K) -> (B, L, H), and the last state as `torch.nn.LSTM(batch_first=True)` returns it.

    Args:
        input_size: K.
        hidden_size: H.
        drop_prob: p, in [0, 1].
        on: `update`: what is written to the cell; `state`: h_{t-1}.

    Raises:
        ValueError: An argument is out of range, or the input has other than 3 axes.

    Source: Semeniuta, Severyn, Barth 2016, arXiv:1603.05118.
    """

    def __init__(
        self, input_size: int, hidden_size: int, drop_prob: float = 0.25, *, on: On = "update"
    ) -> None:
        super().__init__(drop_prob, on)
        self.rnn = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(
        self, x_BLK: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run over the time steps, from the state (1, B, H) twice or from zeros."""
        check_axes(x_BLK, 3, "(rows, steps, features)")
        if self.training:
            masks = self._masks(x_BLK, self.rnn.hidden_size)
            return lstm_over_time(self.rnn, x_BLK, state, **masks)
        out_BLH, last = self.rnn(x_BLK, state)
        return out_BLH, last


class RecurrentDropoutGRU(_Fresh):
    """One GRU layer whose update, or state, is dropped afresh at every step.

    (B, L, K) -> (B, L, H), and the last state as `torch.nn.GRU(batch_first=True)` returns it.

    Args:
        input_size: K.
        hidden_size: H.
        drop_prob: p, in [0, 1].
        on: `update`: what would be written to the state; `state`: h_{t-1}.

    Raises:
        ValueError: An argument is out of range, or the input has other than 3 axes.

    Source: Semeniuta, Severyn, Barth 2016, arXiv:1603.05118.
    """

    def __init__(
        self, input_size: int, hidden_size: int, drop_prob: float = 0.25, *, on: On = "update"
    ) -> None:
        super().__init__(drop_prob, on)
        self.rnn = nn.GRU(input_size, hidden_size, batch_first=True)

    def forward(self, x_BLK: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over the time steps, from the state (1, B, H) or from zeros."""
        check_axes(x_BLK, 3, "(rows, steps, features)")
        if self.training:
            masks = self._masks(x_BLK, self.rnn.hidden_size)
            return gru_over_time(self.rnn, x_BLK, state, **masks)
        out_BLH, last = self.rnn(x_BLK, state)
        return out_BLH, last
