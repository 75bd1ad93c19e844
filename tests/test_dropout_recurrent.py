"""Dropout of LSTM and GRU: where the masks act, and what stays untouched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from dubito_nn import dropout as d
from dubito_nn.dropout.sequences.recurrence import gru_over_time, lstm_over_time
from dubito_nn.training import seeded

LSTM = d.VariationalLSTM | d.RecurrentDropoutLSTM
GRU = d.VariationalGRU | d.RecurrentDropoutGRU


def _rows(rows: int = 3, steps: int = 6) -> Tensor:
    return torch.randn(rows, steps, 4, generator=torch.Generator().manual_seed(1))


def _made(kind: Callable[[], nn.Module]) -> nn.Module:
    with seeded(0):
        return kind()


LAYERS: dict[str, Callable[[float], LSTM | GRU]] = {
    "variational lstm": lambda p: d.VariationalLSTM(4, 5, p),
    "variational gru": lambda p: d.VariationalGRU(4, 5, p),
    "update lstm": lambda p: d.RecurrentDropoutLSTM(4, 5, p),
    "update gru": lambda p: d.RecurrentDropoutGRU(4, 5, p),
    "state lstm": lambda p: d.RecurrentDropoutLSTM(4, 5, p, on="state"),
    "state gru": lambda p: d.RecurrentDropoutGRU(4, 5, p, on="state"),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_without_dropout_the_loop_is_the_fused_layer_in_both_modes(name: str) -> None:
    layer, x = _made(lambda: LAYERS[name](0.0)), _rows()
    assert isinstance(layer, LSTM | GRU)
    h = torch.randn(1, 3, 5)
    state: object = (h, torch.randn(1, 3, 5)) if isinstance(layer, LSTM) else h
    for start in (None, state):
        expected, last = layer.rnn(x, start)
        for training in (True, False):
            got, got_last = layer.train(training)(x, start)  # type: ignore[arg-type]
            torch.testing.assert_close(got, expected)
            torch.testing.assert_close(got_last, last)


@pytest.mark.parametrize("name", list(LAYERS))
def test_p_may_be_read_and_set_after_the_layer_was_made(name: str) -> None:
    layer = LAYERS[name](0.3)
    assert layer.drop_prob == 0.3
    layer.drop_prob = 0.0
    x = _rows()
    assert torch.equal(layer.train()(x)[0], layer.train()(x)[0])


@pytest.mark.parametrize("kind", [d.VariationalLSTM, d.VariationalGRU])
def test_variational_masks_are_equal_over_time_and_differ_over_sequences(
    kind: type[d.VariationalLSTM] | type[d.VariationalGRU],
) -> None:
    layer = kind(4, 64, 0.0)
    layer.state_dropout.drop_prob = 0.5
    seen = []
    layer.state_dropout.register_forward_hook(lambda module, args, mask: seen.append(mask))
    layer.train()(_rows(8))
    (mask_B1H,) = seen  # drawn once for all steps
    assert mask_B1H.shape == (8, 1, 64)
    assert mask_B1H.unique().tolist() == [0.0, 2.0]
    assert mask_B1H.unique(dim=0).shape[0] == 8
    assert stats.binomtest(int((mask_B1H == 0).sum()), 512, 0.5).pvalue > 1e-6


def test_a_dropped_state_number_reaches_no_later_gate() -> None:
    with seeded(0):
        rnn, x = nn.LSTM(4, 5, batch_first=True), _rows(1, 5)
    mask_B1H = torch.ones(1, 1, 5)
    mask_B1H[0, 0, 2] = 0.0
    out_BLH, _ = lstm_over_time(rnn, x, None, state_mask=mask_B1H)
    with torch.no_grad():
        rnn.weight_hh_l0[:, 2] = 0.0
    torch.testing.assert_close(out_BLH, rnn(x)[0])


def _slow_lstm(rnn: nn.LSTM, x_LK: Tensor, state_LH: Tensor, update_LH: Tensor) -> Tensor:
    """One row, one gate at a time, as the papers write it."""
    w, u = rnn.weight_ih_l0.split(5), rnn.weight_hh_l0.split(5)
    b = (rnn.bias_ih_l0 + rnn.bias_hh_l0).split(5)
    h, c, out = torch.zeros(5), torch.zeros(5), []
    for t, x in enumerate(x_LK):
        seen = h * state_LH[t]
        i, f, g, o = (w[k] @ x + u[k] @ seen + b[k] for k in range(4))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * (torch.tanh(g) * update_LH[t])
        h = torch.sigmoid(o) * torch.tanh(c)
        out.append(h)
    return torch.stack(out)


def _slow_gru(rnn: nn.GRU, x_LK: Tensor, state_LH: Tensor, update_LH: Tensor) -> Tensor:
    w, u = rnn.weight_ih_l0.split(5), rnn.weight_hh_l0.split(5)
    b, a = rnn.bias_ih_l0.split(5), rnn.bias_hh_l0.split(5)
    h, out = torch.zeros(5), []
    for t, x in enumerate(x_LK):
        r, z, n = (w[k] @ x + b[k] for k in range(3))
        hr, hz, hn = (u[k] @ (h * state_LH[t]) + a[k] for k in range(3))
        z = torch.sigmoid(z + hz)
        h = (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) * update_LH[t] + z * h
        out.append(h)
    return torch.stack(out)


@pytest.mark.parametrize("steps_of_mask", [1, 6])
def test_masked_recurrences_are_those_of_a_slow_reference(steps_of_mask: int) -> None:
    x, generator = _rows(), torch.Generator().manual_seed(3)
    shape = (3, steps_of_mask, 5)
    state, update = (
        torch.bernoulli(torch.full(shape, 0.6), generator=generator) / 0.6 for _ in range(2)
    )
    state_BLH, update_BLH = state.expand(3, 6, 5), update.expand(3, 6, 5)
    with seeded(0):
        lstm, gru = nn.LSTM(4, 5, batch_first=True), nn.GRU(4, 5, batch_first=True)
    masks = {"state_mask": state, "update_mask": update}
    for row in range(3):
        args = x[row], state_BLH[row], update_BLH[row]
        got = lstm_over_time(lstm, x, None, **masks)[0][row]
        torch.testing.assert_close(got, _slow_lstm(lstm, *args))
        got = gru_over_time(gru, x, None, **masks)[0][row]
        torch.testing.assert_close(got, _slow_gru(gru, *args))


def test_update_dropout_leaves_the_path_of_the_cell_state_intact() -> None:
    # With no weights on h, dc_L/dc_0 is the product of the forget gates, whatever was dropped.
    layer = d.RecurrentDropoutLSTM(4, 5, 0.5).train()
    with torch.no_grad():
        layer.rnn.weight_hh_l0.zero_()
    x, c = _rows(2), torch.randn(1, 2, 5, requires_grad=True)
    _, (_, last) = layer(x, (torch.zeros(1, 2, 5), c))
    last.sum().backward()  # type: ignore[no-untyped-call]
    rnn = layer.rnn
    gates = x @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + rnn.bias_hh_l0
    assert c.grad is not None
    torch.testing.assert_close(c.grad[0], gates[:, :, 5:10].sigmoid().prod(1))


def test_update_dropout_of_everything_keeps_what_the_cell_remembers() -> None:
    layer = d.RecurrentDropoutLSTM(4, 5, 1.0).train()
    with torch.no_grad():
        layer.rnn.bias_hh_l0[5:10] = 100.0  # forget nothing
    c = torch.randn(1, 2, 5)
    _, (_, last) = layer(_rows(2), (torch.zeros(1, 2, 5), c))
    torch.testing.assert_close(last, c)


def test_the_leak_of_a_gru_is_never_masked() -> None:
    layer = d.RecurrentDropoutGRU(4, 5, 1.0, on="state").train()
    with torch.no_grad():
        layer.rnn.bias_hh_l0[5:10] = 100.0  # z = 1: keep the state
    h = torch.randn(1, 2, 5)
    _, last = layer(_rows(2), h)
    torch.testing.assert_close(last, h)


@pytest.mark.parametrize("on", ["update", "state"])
def test_fresh_masks_differ_over_steps_and_are_binomial(on: str) -> None:
    layer = d.RecurrentDropoutLSTM(4, 32, 0.25, on=on).train()  # type: ignore[arg-type]
    seen: list[Tensor] = []
    layer.dropout.register_forward_hook(lambda module, args, mask: seen.append(mask))
    layer(_rows(4))
    (mask_BLH,) = seen  # all steps at once
    assert mask_BLH.shape == (4, 6, 32)
    assert mask_BLH.flatten(0, 1).unique(dim=0).shape[0] == 24
    assert stats.binomtest(int((mask_BLH == 0).sum()), mask_BLH.numel(), 0.25).pvalue > 1e-6


def test_the_cell_takes_the_same_weights_as_torchs_layer() -> None:
    trained = nn.LSTM(4, 5, batch_first=True)
    layer = d.VariationalLSTM(4, 5, 0.3).eval()
    layer.rnn.load_state_dict(trained.state_dict())
    torch.testing.assert_close(layer(_rows())[0], trained(_rows())[0])


@pytest.mark.parametrize("name", ["VariationalLSTM", "VariationalGRU", "RecurrentDropoutLSTM"])
def test_a_state_without_its_layers_axis_is_refused_in_both_modes(name: str) -> None:
    layer = getattr(d, name)(4, 5, 0.3)
    state = torch.randn(2, 5)
    given = (state, state) if name.endswith("LSTM") else state
    with pytest.raises(ValueError, match=r"here \(1, 2, 5\), got \(2, 5\).*unsqueeze\(0\)"):
        layer.train()(torch.randn(2, 3, 4), given)
    with pytest.raises((ValueError, RuntimeError)):
        layer.eval()(torch.randn(2, 3, 4), given)
