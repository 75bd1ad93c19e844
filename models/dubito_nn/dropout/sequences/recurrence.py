"""LSTM and GRU written out over time, with places for masks.

    LSTM   i, f, o = s(W [x_t, h̃]),  g = tanh(W [x_t, h̃])
           c_t = f ∘ c_{t-1} + i ∘ (g ∘ d_t),      h_t = o ∘ tanh(c_t)
    GRU    r, z = s(W [x_t, h̃]),     n = tanh(W x_t + b + r ∘ (U h̃ + b'))
           h_t = (1-z) ∘ (n ∘ d_t) + z ∘ h_{t-1}

h̃ = h_{t-1} ∘ (state mask), d the update mask. Masks have the shape (B, 1, H), the same at all
steps, or (B, L, H), and are made before the loop. The inputs' part of all steps is one product.

Dimensions: B rows, L time steps, K inputs, H hidden units. Weights are those of torch's modules.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.masks import check_fixed

State = TypeVar("State", Tensor, tuple[Tensor, Tensor])
"""What a layer carries on: h of a GRU, h and c of an LSTM, (1, B, H) each."""


def lstm_over_time(
    rnn: nn.LSTM,
    x_BLK: Tensor,
    state: tuple[Tensor, Tensor] | None,
    *,
    state_mask: Tensor | None = None,
    update_mask: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run one LSTM layer with masks; without masks it is the module itself.

    Args:
        rnn: Holds the weights: one layer, one direction, batch first, with biases.
        x_BLK: The inputs.
        state: h and c, (1, B, H) each; zeros for None.
        state_mask: Multiplies h_{t-1} before the weights.
        update_mask: Multiplies g before it enters the cell.

    Returns:
        h of all steps (B, L, H), and the last h and c, (1, B, H) each.
    """
    weight_x, weight_h, bias_x, bias_h = rnn.all_weights[0]
    from_x = functional.linear(x_BLK, weight_x, bias_x + bias_h)
    h_BH, c_BH = _start(x_BLK, rnn, state[0] if state else None, state[1] if state else None)
    steps = []
    for t in range(x_BLK.shape[1]):
        from_h = functional.linear(_masked(h_BH, state_mask, t), weight_h)
        i, f, g, o = (from_x[:, t] + from_h).chunk(4, dim=1)
        update = _masked(g.tanh(), update_mask, t)
        c_BH = f.sigmoid() * c_BH + i.sigmoid() * update
        h_BH = o.sigmoid() * c_BH.tanh()
        steps.append(h_BH)
    return torch.stack(steps, dim=1), (h_BH.unsqueeze(0), c_BH.unsqueeze(0))


def gru_over_time(
    rnn: nn.GRU,
    x_BLK: Tensor,
    state: Tensor | None,
    *,
    state_mask: Tensor | None = None,
    update_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run one GRU layer with masks; without masks it is the module itself.

    Args:
        rnn: Holds the weights: one layer, one direction, batch first, with biases.
        x_BLK: The inputs.
        state: h, (1, B, H); zeros for None.
        state_mask: Multiplies h_{t-1} before the weights; the leak keeps the unmasked one.
        update_mask: Multiplies n, what would be written.

    Returns:
        h of all steps (B, L, H), and the last h, (1, B, H).
    """
    weight_x, weight_h, bias_x, bias_h = rnn.all_weights[0]
    from_x = functional.linear(x_BLK, weight_x, bias_x)
    h_BH, _ = _start(x_BLK, rnn, state, None)
    steps = []
    for t in range(x_BLK.shape[1]):
        from_h = functional.linear(_masked(h_BH, state_mask, t), weight_h, bias_h)
        xr, xz, xn = from_x[:, t].chunk(3, dim=1)
        hr, hz, hn = from_h.chunk(3, dim=1)
        z = (xz + hz).sigmoid()
        update = _masked((xn + (xr + hr).sigmoid() * hn).tanh(), update_mask, t)
        h_BH = (1.0 - z) * update + z * h_BH
        steps.append(h_BH)
    return torch.stack(steps, dim=1), h_BH.unsqueeze(0)


def _start(
    x_BLK: Tensor, rnn: nn.RNNBase, h: Tensor | None, c: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the h and c of the first step, (B, H) each: zeros where no state was passed."""
    check_fixed(
        x_BLK.shape[1],
        "number of time steps of a recurrent layer with dropout inside, whose loop is written out",
        "leave that axis out of free_dims and export one bundle per length, or pad to one length;"
        " nn.LSTM and nn.GRU with TimeTiedDropout around them take any length",
    )
    expected = (1, x_BLK.shape[0], rnn.hidden_size)
    for initial in (h, c):
        if initial is not None and tuple(initial.shape) != expected:
            raise ValueError(
                f"expected a state of shape (1, rows, hidden units), here {expected}, got "
                f"{tuple(initial.shape)}: one layer comes first, state.unsqueeze(0) adds its axis"
            )
    zeros_BH = x_BLK.new_zeros(expected[1:])
    return (zeros_BH if h is None else h[0]), (zeros_BH if c is None else c[0])


def _masked(value_BH: Tensor, mask: Tensor | None, t: int) -> Tensor:
    return value_BH if mask is None else value_BH * mask[:, t if mask.shape[1] > 1 else 0]
