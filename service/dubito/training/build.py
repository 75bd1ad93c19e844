"""The network that a configuration describes, for the rows it will see.

Dimensions: N rows, F features, C classes, D outputs.
"""

from __future__ import annotations

import math

from torch import nn

from dubito.errors import InputError
from dubito.training.config import CNNTable, ConcreteTable, MLPTable, TrainConfig
from dubito.training.rows import TrainingRows
from dubito_nn.dropout import ConcreteFamily, DropoutFamily, StandardFamily
from dubito_nn.manifest import Output
from dubito_nn.networks import CNN, MLP, Standardise


def build_network(config: TrainConfig, rows: TrainingRows, drop_prob: float | None) -> nn.Module:
    """Return a network with fresh weights, drawn from torch's own generator.

    Args:
        config: Which, and with which dropout.
        rows: For the numbers of features and outputs, and what is standardised.
        drop_prob: In place of the configured rate; None takes that.

    Raises:
        InputError: the network does not fit the rows.
    """
    num_outputs = len(rows.classes) if rows.classes else rows.targets.shape[1]
    family = _family(config, len(rows.inputs), drop_prob)
    match config.network:
        case MLPTable() as table:
            return _mlp(table, rows, num_outputs, family)
        case CNNTable() as table:
            return _cnn(table, rows, num_outputs, family)


def output_of(config: TrainConfig, rows: TrainingRows) -> Output:
    """Return what the network's numbers are."""
    if rows.task == "classification":
        return "logits"
    return "mean_and_log_variance" if _has_two_heads(config) else "mean"


def _has_two_heads(config: TrainConfig) -> bool:
    return isinstance(config.network, MLPTable) and config.network.heteroscedastic


def _family(config: TrainConfig, num_rows: int, drop_prob: float | None) -> DropoutFamily:
    table = config.dropout
    if isinstance(table, ConcreteTable):
        return ConcreteFamily(
            num_rows=num_rows,
            length_scale=table.length_scale,
            drop_prob_init=table.drop_prob_init,
        )
    rate = table.drop_prob if drop_prob is None else drop_prob
    return StandardFamily(drop_prob=rate, spatial_drop_prob=table.spatial_drop_prob)


def _mlp(table: MLPTable, rows: TrainingRows, num_outputs: int, family: DropoutFamily) -> nn.Module:
    _check_flat(rows, "mlp")
    if table.heteroscedastic and rows.task == "classification":
        raise InputError(
            "network.heteroscedastic is for targets, the file has labels: leave it out"
        )
    network = MLP(
        rows.inputs.shape[1],
        table.hidden,
        num_outputs,
        dropout=family,
        drop_inputs=table.drop_inputs,
        heteroscedastic=table.heteroscedastic,
    )
    if not table.standardise:
        return network
    try:
        return nn.Sequential(Standardise(rows.inputs), network)
    except ValueError as error:
        raise InputError(f"inputs: {error}, or set network.standardise = false") from error


def _cnn(table: CNNTable, rows: TrainingRows, num_outputs: int, family: DropoutFamily) -> nn.Module:
    _check_flat(rows, "cnn")
    shape, num_features = table.image_shape, rows.inputs.shape[1]
    if shape is None or math.prod(shape) != num_features:
        raise InputError(
            f"network.image_shape: expected [depth, height, width] with a product of "
            f"{num_features}, the numbers of a row, got {shape}"
        )
    if rows.task == "regression":
        raise InputError("network cnn is for labels, the file has targets: take the network mlp")
    return CNN(
        shape,
        channels=table.channels,
        hidden=table.hidden,
        num_classes=num_outputs,
        dropout=family,
        cosine_scale=table.cosine_scale,
    )


def _check_flat(rows: TrainingRows, name: str) -> None:
    if rows.inputs.ndim != 2:
        raise InputError(
            f"inputs: the network {name} expects flat rows, shape (N, F), got "
            f"{tuple(rows.inputs.shape)}: reshape them to (N, -1)"
        )
