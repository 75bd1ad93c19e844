"""The network that a configuration describes, for the rows it will see.

Dimensions: N rows, F features, L places, C classes, D outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from dubito.errors import InputError
from dubito.recipes.config import (
    CNNTable,
    ConcreteTable,
    ImageTable,
    MLPTable,
    ResNetTable,
    RNNTable,
    SELUTable,
    StandardTable,
    TokenTable,
    TrainConfig,
    TransformerTable,
)
from dubito.recipes.rows import TrainingRows
from dubito_nn.dropout import ConcreteFamily, DropoutFamily, StandardFamily
from dubito_nn.manifest import Output
from dubito_nn.networks import (
    CNN,
    MLP,
    RNN,
    ResNet,
    SELUNetwork,
    Standardise,
    Transformer,
    TransformerRates,
)


def build_network(config: TrainConfig, rows: TrainingRows, drop_prob: float | None) -> nn.Module:
    """Return a network with fresh weights, drawn from torch's own generator.

    Args:
        config: Which, and with which dropout.
        rows: For the numbers of features and outputs, and what is standardised.
        drop_prob: In place of the configured rate; None takes that.

    Raises:
        InputError: the network does not fit the rows.
        ValueError: likewise, in the words of the network.
    """
    return _Builder(config, rows, drop_prob).network()


def output_of(config: TrainConfig, rows: TrainingRows) -> Output:
    """Return what the network's numbers are."""
    if rows.task == "classification":
        return "logits"
    table = config.network
    has_two = isinstance(table, MLPTable) and table.heteroscedastic
    return "mean_and_log_variance" if has_two else "mean"


@dataclass(frozen=True, eq=False)
class _Builder:
    """The networks, and what they share."""

    config: TrainConfig
    rows: TrainingRows
    drop_prob: float | None

    def network(self) -> nn.Module:
        match self.config.network:
            case MLPTable() as table:
                return self._mlp(table)
            case SELUTable() as table:
                num_features, rate = self._num_features(), self.rate()
                network = SELUNetwork(num_features, table.hidden, self.num_outputs, drop_prob=rate)
                return self._standardised(network) if table.standardise else network
            case CNNTable() as table:
                shape, classes, family = self._image_shape(table), self.num_outputs, self.family()
                return CNN(shape, num_classes=classes, dropout=family, **table.options())
            case ResNetTable() as table:
                shape, classes, rate = self._image_shape(table), self.num_outputs, self.rate()
                return ResNet(shape, num_classes=classes, drop_prob=rate, **table.options())
            case RNNTable() as table:
                num_words, rate = self._num_words(table), self.rate()
                return RNN(num_words, self.num_outputs, drop_prob=rate, **table.options())
            case TransformerTable() as table:
                num_words, rate = self._num_words(table), self.rate()
                return Transformer(
                    num_words,
                    self.num_outputs,
                    max_length=self.rows.inputs.shape[1],
                    rates=TransformerRates(rate, table.attention_drop_prob, rate, rate, rate),
                    **table.options(),
                )

    @property
    def num_outputs(self) -> int:
        rows = self.rows
        return len(rows.classes) if rows.classes else rows.targets.shape[1]

    def family(self) -> DropoutFamily:
        table = self.config.dropout
        if isinstance(table, ConcreteTable):
            return ConcreteFamily(
                num_rows=len(self.rows.inputs),
                length_scale=table.length_scale,
                drop_prob_init=table.drop_prob_init,
            )
        return StandardFamily(self.rate(), table.spatial_drop_prob)

    def rate(self) -> float:
        """Return the fixed rate of dropout.

        Raises:
            InputError: the rates are to be learned, which this network cannot.
        """
        table = self.config.dropout
        if not isinstance(table, StandardTable):
            raise InputError(
                f"dropout.kind: the network {self.config.network.kind} expects standard, got "
                f"{table.kind}: learned rates are for mlp and cnn"
            )
        return table.drop_prob if self.drop_prob is None else self.drop_prob

    def _mlp(self, table: MLPTable) -> nn.Module:
        if table.heteroscedastic and self.rows.task == "classification":
            raise InputError(
                "network.heteroscedastic is for targets, the file has labels: leave it out"
            )
        network = MLP(
            self._num_features(),
            table.hidden,
            self.num_outputs,
            dropout=self.family(),
            drop_inputs=table.drop_inputs,
            heteroscedastic=table.heteroscedastic,
        )
        return self._standardised(network) if table.standardise else network

    def _standardised(self, network: nn.Module) -> nn.Module:
        try:
            return nn.Sequential(Standardise(self.rows.inputs), network)
        except ValueError as error:
            raise InputError(f"inputs: {error}, or set network.standardise = false") from error

    def _num_features(self) -> int:
        if self.rows.inputs.ndim != 2:
            raise InputError(
                f"inputs: the network {self.config.network.kind} expects flat rows, shape (N, F), "
                f"got {tuple(self.rows.inputs.shape)}: reshape them to (N, -1)"
            )
        return self.rows.inputs.shape[1]

    def _image_shape(self, table: ImageTable) -> tuple[int, int, int]:
        self._refuse_targets()
        num_features, shape = self._num_features(), table.image_shape
        if shape is None or math.prod(shape) != num_features:
            raise InputError(
                f"network.image_shape: expected [depth, height, width] with a product of "
                f"{num_features}, the numbers of a row, got {shape}"
            )
        return shape

    def _num_words(self, table: TokenTable) -> int:
        """Size of the vocabulary: as configured, or one more than the largest token."""
        self._refuse_targets()
        self._num_features()
        held_out = [] if self.rows.validation is None else [self.rows.validation[0]]
        parts = [self.rows.inputs, *held_out]
        low = min(int(part.min()) for part in parts)
        high = max(int(part.max()) for part in parts)
        num_words = high + 1 if table.num_words is None else table.num_words
        if low < 0 or high >= num_words:
            raise InputError(
                f"inputs: expected tokens from 0 to {num_words - 1}, got {low} to {high}: raise "
                "network.num_words, or number the words from 0"
            )
        return num_words

    def _refuse_targets(self) -> None:
        if self.rows.task == "regression":
            raise InputError(
                f"the network {self.config.network.kind} is for labels, the file has targets: "
                "take mlp or selu"
            )
