import math

import pytest
import torch
from torch import Tensor, nn

from dubito_nn.training import cross_entropy, reestimate_batch_norm, seeded, train, variance_shift


def _network(drop_prob: float = 0.5) -> nn.Sequential:
    with seeded(0):
        return nn.Sequential(
            nn.Linear(6, 32),
            nn.ReLU(),
            nn.Dropout(drop_prob),
            nn.Linear(32, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, 3),
        )


def _rows() -> tuple[Tensor, Tensor]:
    x = torch.randn(512, 6, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(dim=1)


def _trained() -> nn.Sequential:
    network = _network()
    train(network, *_rows(), loss=cross_entropy, epochs=20, learning_rate=5e-3)
    return network


def test_statistics_without_dropout_lower_the_variance_shift() -> None:
    network, (x, _) = _trained(), _rows()
    before = variance_shift(network, x)
    assert set(before) == {"4"}
    assert before["4"] < 0.9
    weights = nn.utils.parameters_to_vector(network.parameters())
    assert reestimate_batch_norm(network, x) == 1
    after = variance_shift(network, x)
    assert abs(math.log(after["4"])) < 0.1 * abs(math.log(before["4"]))
    assert torch.equal(weights, nn.utils.parameters_to_vector(network.parameters()))
    assert not any(module.training for module in network.modules())


def test_samples_fit_the_statistics_of_training_better_than_the_new_ones() -> None:
    network, (x, _) = _trained(), _rows()
    before = variance_shift(network, x, mode="sampling")["4"]
    reestimate_batch_norm(network, x)
    after = variance_shift(network, x, mode="sampling")["4"]
    assert abs(math.log(before)) < abs(math.log(after))


def test_the_new_mean_is_that_of_the_activations_whatever_the_batch_size() -> None:
    network, (x, _) = _network(), _rows()
    norm = network[4]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    taken = network[:4].eval()(x).detach()
    for batch_size in (512, 100, 51):
        reestimate_batch_norm(network, x, batch_size=batch_size)
        torch.testing.assert_close(norm.running_mean, taken.mean(dim=0))
    reestimate_batch_norm(network, x, batch_size=512)
    torch.testing.assert_close(norm.running_var, taken.var(dim=0))


def test_settings_of_the_norm_and_the_generator_stay() -> None:
    network, (x, _) = _network(), _rows()
    norm = network[4]
    assert isinstance(norm, nn.BatchNorm1d)
    network.train()
    before = torch.get_rng_state()
    reestimate_batch_norm(network, x)
    variance_shift(network, x, mode="sampling")
    assert torch.equal(torch.get_rng_state(), before)
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 0
    assert network[2].training


def test_a_convolutional_norm_is_watched_by_channel() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    reestimate_batch_norm(network, x, batch_size=64)
    assert variance_shift(network, x)["1"] == pytest.approx(1.0, rel=1e-3)


def test_a_network_without_batch_norm_is_left_alone_and_one_row_is_refused() -> None:
    assert reestimate_batch_norm(nn.Linear(2, 2), torch.ones(1, 2)) == 0
    assert variance_shift(nn.Linear(2, 2), torch.ones(1, 2)) == {}
    with pytest.raises(ValueError, match="at least 2 rows"):
        reestimate_batch_norm(_network(), torch.ones(1, 6))
