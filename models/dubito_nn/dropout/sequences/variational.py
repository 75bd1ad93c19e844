"""Variational dropout for recurrent networks: one mask for all time steps.

    x̃_t = x_t ∘ z_x,   h̃_{t-1} = h_{t-1} ∘ z_h,   y_t = h_t ∘ z_y

where z_x, z_h, z_y ~ Bernoulli(1-p) / (1-p) are drawn once per sequence and number of the vector,
and the recurrence sees h̃ in the place of h wherever h is multiplied by a weight. The cell state
of an LSTM, and the leak z ∘ h_{t-1} of a GRU, pass unmasked. All gates share a mask ("tied").

Sampling unrolls the time steps, so an exported graph holds one copy of the step per time step and
one length; evaluation runs torch's fused kernel.

Dimensions: B rows, L time steps, K inputs, H hidden units.
Source: Gal and Ghahramani 2016, A theoretically grounded application of dropout in recurrent
neural networks, arXiv:1512.05287; equation 7 with tied weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from torch import Tensor, nn

from dubito_nn.dropout.masks import check_axes, inverted_mask
from dubito_nn.dropout.probability import Probability
from dubito_nn.dropout.sequences.recurrence import State, gru_over_time, lstm_over_time


class TimeTiedDropout(nn.Module):
    """Dropout of the numbers of a vector, the same ones at all time steps; "locked dropout".

    y = x · m / (1-p), m of shape (B, 1, K).    (B, L, K) -> (B, L, K)

    Args:
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: p is out of range, or the input has other than 3 axes.

    Source: Gal and Ghahramani 2016, arXiv:1512.05287; Merity et al. 2017, arXiv:1708.02182.
    """

    drop_prob = Probability()

    def __init__(self, drop_prob: float = 0.3) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x_BLK: Tensor) -> Tensor:
        """Drop numbers in training mode; return x itself in eval mode."""
        check_axes(x_BLK, 3, "(rows, steps, features)")
        if not self.training or self.drop_prob == 0.0:
            return x_BLK
        shape = (x_BLK.shape[0], 1, x_BLK.shape[2])
        return x_BLK * inverted_mask(x_BLK, shape, self.drop_prob)

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"


class _Variational(nn.Module, Generic[State]):
    """A recurrence with dropout in three places: its inputs, states and outputs."""

    _kind: type[nn.LSTM | nn.GRU]
    _over_time: Callable[..., tuple[Tensor, State]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        drop_prob: float = 0.3,
        *,
        input_drop_prob: float | None = None,
        output_drop_prob: float | None = None,
    ) -> None:
        super().__init__()
        self.rnn = self._kind(input_size, hidden_size, batch_first=True)
        self.input_dropout = TimeTiedDropout(_or(input_drop_prob, drop_prob))
        self.state_dropout = TimeTiedDropout(drop_prob)
        self.output_dropout = TimeTiedDropout(_or(output_drop_prob, drop_prob))

    @property
    def drop_prob(self) -> float:
        """The p of the states; setting it sets that of inputs and outputs as well."""
        return self.state_dropout.drop_prob

    @drop_prob.setter
    def drop_prob(self, value: float) -> None:
        for place in (self.input_dropout, self.state_dropout, self.output_dropout):
            place.drop_prob = value

    def forward(self, x_BLK: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over the time steps, from a state as an earlier call returned it, or from zeros."""
        dropped_BLK = self.input_dropout(x_BLK)
        if self.training:
            ones_B1H = x_BLK.new_ones(x_BLK.shape[0], 1, self.rnn.hidden_size)
            mask_B1H = self.state_dropout(ones_B1H)
            out_BLH, last = self._over_time(self.rnn, dropped_BLK, state, state_mask=mask_B1H)
        else:
            out_BLH, last = self.rnn(dropped_BLK, state)
        return self.output_dropout(out_BLH), last


class VariationalLSTM(_Variational[tuple[Tensor, Tensor]]):
    """One LSTM layer with one mask for all time steps, on inputs, states and outputs.

    (B, L, K) -> (B, L, H), and the last state as `torch.nn.LSTM(batch_first=True)` returns it.

    Args:
        input_size: K.
        hidden_size: H.
        drop_prob: p, in [0, 1], of the states, and where not given of inputs and outputs.
        input_drop_prob: p of the inputs.
        output_drop_prob: p of the outputs; 0 where the next layer drops its inputs.

    Raises:
        ValueError: A p is out of range, or the input has other than 3 axes.

    Source: Gal and Ghahramani 2016, arXiv:1512.05287.
    """

    rnn: nn.LSTM
    _kind = nn.LSTM
    _over_time = staticmethod(lstm_over_time)


class VariationalGRU(_Variational[Tensor]):
    """One GRU layer with one mask for all time steps, on inputs, states and outputs.

    (B, L, K) -> (B, L, H), and the last state as `torch.nn.GRU(batch_first=True)` returns it.

    Args:
        input_size: K.
        hidden_size: H.
        drop_prob: p, in [0, 1], of the states, and where not given of inputs and outputs.
        input_drop_prob: p of the inputs.
        output_drop_prob: p of the outputs; 0 where the next layer drops its inputs.

    Raises:
        ValueError: A p is out of range, or the input has other than 3 axes.

    Source: Gal and Ghahramani 2016, arXiv:1512.05287.
    """

    rnn: nn.GRU
    _kind = nn.GRU
    _over_time = staticmethod(gru_over_time)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
