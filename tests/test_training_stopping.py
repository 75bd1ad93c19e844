import math

import pytest
import torch
from torch import Tensor, nn

from dubito_nn.networks import MLP
from dubito_nn.training import (
    EarlyStopping,
    Progress,
    has_dropout,
    in_mode,
    mean_loss,
    outputs_of,
    seeded,
    squared_error,
    train,
)


def _overfitting() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Few rows, many features, much noise: the validation loss falls and then rises."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 10, generator=generator)
    y = x[:, :1] + torch.randn(160, 1, generator=generator)
    return x[:40], y[:40], x[40:], y[40:]


def _network() -> MLP:
    with seeded(0):
        return MLP(10, (64,), 1)


def test_the_best_weights_come_back_whatever_came_after() -> None:
    network, stopping = nn.Linear(1, 1), EarlyStopping(patience=2)
    told = []
    for value, loss in enumerate([3.0, 1.0, 2.0, 1.5]):
        network.weight.data.fill_(value)
        told.append(stopping.update(loss, network))
    assert told == [False, False, False, True]
    assert (stopping.best_epoch, stopping.best_loss) == (2, 1.0)
    stopping.restore(network)
    assert network.weight.item() == 1.0


def test_an_improvement_must_be_as_large_as_asked() -> None:
    network, stopping = nn.Linear(1, 1), EarlyStopping(patience=1, min_improvement=0.5)
    assert not stopping.update(3.0, network)
    assert stopping.update(2.8, network)
    assert stopping.best_epoch == 1


def test_a_loss_that_is_not_a_number_is_no_improvement() -> None:
    network, stopping = nn.Linear(1, 1), EarlyStopping(patience=2)
    network.weight.data.fill_(5.0)
    assert not stopping.update(math.nan, network)
    assert stopping.update(math.nan, network)
    stopping.restore(network)
    assert network.weight.item() == 5.0


def test_training_ends_early_with_the_network_of_the_lowest_validation_loss() -> None:
    x, y, held_x, held_y = _overfitting()
    network = _network()
    result = train(
        network,
        x,
        y,
        loss=squared_error,
        epochs=300,
        learning_rate=0.01,
        schedule="constant",
        validation=(held_x, held_y),
        patience=5,
    )
    assert len(result.losses) == len(result.validation_losses) == result.best_epoch + 5 < 300
    lowest = min(result.validation_losses)
    assert result.validation_losses[result.best_epoch - 1] == lowest
    assert mean_loss(network, held_x, held_y, squared_error) == pytest.approx(lowest)


def test_watching_validation_rows_changes_nothing_in_the_network() -> None:
    x, y, held_x, held_y = _overfitting()
    vectors, told = [], list[Progress]()
    for validation in (None, (held_x, held_y)):
        network = _network()
        result = train(
            network,
            x,
            y,
            loss=squared_error,
            epochs=3,
            validation=validation,
            progress=told.append,
        )
        vectors.append(nn.utils.parameters_to_vector(network.parameters()))
        assert result.best_epoch == 3
    assert torch.equal(vectors[0], vectors[1])
    assert [p.validation_loss is None for p in told] == [True] * 3 + [False] * 3
    assert tuple(p.validation_loss for p in told[3:]) == result.validation_losses


def test_patience_without_validation_rows_is_refused() -> None:
    x, y, _, _ = _overfitting()
    with pytest.raises(ValueError, match="expects validation rows"):
        train(_network(), x, y, loss=squared_error, epochs=1, patience=3)
    with pytest.raises(ValueError, match="patience of at least 1"):
        EarlyStopping(0)
    with pytest.raises(ValueError, match="one_cycle or constant"):
        train(_network(), x, y, loss=squared_error, epochs=1, schedule="cosine")  # type: ignore[arg-type]


def test_a_mode_lasts_for_its_block_and_spares_running_statistics() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    network[0].eval()
    with in_mode(network, "sampling"):
        assert [part.training for part in network] == [True, False, True]
    with in_mode(network, "point"):
        assert not any(part.training for part in network)
    assert [part.training for part in network] == [False, True, True]


def test_outputs_are_those_of_the_mode_and_the_generator_stands_still() -> None:
    network, x = _network(), torch.randn(20, 10)
    before = torch.get_rng_state()
    point = outputs_of(network, x)
    first, second, third = (outputs_of(network, x, mode="sampling", seed=k) for k in (0, 0, 1))
    assert isinstance(point, Tensor)
    assert isinstance(first, Tensor)
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(point, network.eval()(x).detach())
    assert torch.equal(first, second)  # type: ignore[arg-type]
    assert not torch.equal(first, third)  # type: ignore[arg-type]


def test_dropout_is_known_by_what_it_does() -> None:
    x = torch.randn(8, 4)

    class Homemade(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rand_like(x) if self.training else x

    assert has_dropout(Homemade(), x)
    assert has_dropout(nn.Dropout(0.1), x)
    assert not has_dropout(nn.Dropout(0.0), x)
    assert not has_dropout(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), x)
    pair = MLP(4, (8,), 1, heteroscedastic=True)
    assert has_dropout(pair, x)
