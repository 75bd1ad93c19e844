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

from collections.abc import Callable
from typing import Generic, Literal

from torch import Tensor, nn

from dubito_nn.dropout.masks import check_axes
from dubito_nn.dropout.sequences.recurrence import State, gru_over_time, lstm_over_time
from dubito_nn.dropout.units.standard import Dropout

On = Literal["update", "state"]


class _Fresh(nn.Module, Generic[State]):
    """A recurrence with masks of its own for every time step, drawn before the loop."""

    _kind: type[nn.LSTM | nn.GRU]
    _over_time: Callable[..., tuple[Tensor, State]]

    def __init__(
        self, input_size: int, hidden_size: int, drop_prob: float = 0.25, *, on: On = "update"
    ) -> None:
        super().__init__()
        if on not in ("update", "state"):
            raise ValueError(
                f"expected on to be `update` or `state`, got {on!r}: `update` loses no memory"
            )
        self.dropout = Dropout(drop_prob)
        self.on = on
        self.rnn = self._kind(input_size, hidden_size, batch_first=True)

    @property
    def drop_prob(self) -> float:
        """The p of the masks."""
        return self.dropout.drop_prob

    @drop_prob.setter
    def drop_prob(self, value: float) -> None:
        self.dropout.drop_prob = value

    def forward(self, x_BLK: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over the time steps, from a state as an earlier call returned it, or from zeros."""
        check_axes(x_BLK, 3, "(rows, steps, features)")
        if self.training:
            ones_BLH = x_BLK.new_ones(*x_BLK.shape[:2], self.rnn.hidden_size)
            mask_BLH = self.dropout(ones_BLH)
            return self._over_time(self.rnn, x_BLK, state, **{f"{self.on}_mask": mask_BLH})
        out_BLH, last = self.rnn(x_BLK, state)
        return out_BLH, last

    def extra_repr(self) -> str:
        """Show what is dropped."""
        return f"on={self.on!r}"


class RecurrentDropoutLSTM(_Fresh[tuple[Tensor, Tensor]]):
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

    rnn: nn.LSTM
    _kind = nn.LSTM
    _over_time = staticmethod(lstm_over_time)


class RecurrentDropoutGRU(_Fresh[Tensor]):
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

    rnn: nn.GRU
    _kind = nn.GRU
    _over_time = staticmethod(gru_over_time)
