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
    """One method per network, and what they share."""

    config: TrainConfig
    rows: TrainingRows
    drop_prob: float | None

    def network(self) -> nn.Module:
        match self.config.network:
            case MLPTable() as table:
                return self._mlp(table)
            case SELUTable() as table:
                return self._selu(table)
            case CNNTable() as table:
                return self._cnn(table)
            case ResNetTable() as table:
                return self._resnet(table)
            case RNNTable() as table:
                return self._rnn(table)
            case TransformerTable() as table:
                return self._transformer(table)

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
        """The fixed rate.

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

    def _selu(self, table: SELUTable) -> nn.Module:
        network = SELUNetwork(
            self._num_features(), table.hidden, self.num_outputs, drop_prob=self.rate()
        )
        return self._standardised(network) if table.standardise else network

    def _cnn(self, table: CNNTable) -> nn.Module:
        self._refuse_targets()
        return CNN(
            self._image_shape(table.image_shape),
            channels=table.channels,
            hidden=table.hidden,
            num_classes=self.num_outputs,
            dropout=self.family(),
            cosine_scale=table.cosine_scale,
        )

    def _resnet(self, table: ResNetTable) -> nn.Module:
        self._refuse_targets()
        return ResNet(
            self._image_shape(table.image_shape),
            channels=table.channels,
            num_classes=self.num_outputs,
            drop_prob=self.rate(),
            stochastic_depth=table.stochastic_depth,
            dropblock=table.dropblock,
            block_size=table.block_size,
        )

    def _rnn(self, table: RNNTable) -> nn.Module:
        self._refuse_targets()
        return RNN(
            self._num_words(table),
            self.num_outputs,
            embedding_size=table.embedding_size,
            hidden=table.hidden,
            num_layers=table.num_layers,
            cell=table.cell,
            drop_prob=self.rate(),
            word_drop_prob=table.word_drop_prob,
        )

    def _transformer(self, table: TransformerTable) -> nn.Module:
        self._refuse_targets()
        rate = self.rate()
        return Transformer(
            self._num_words(table),
            self.num_outputs,
            max_length=self.rows.inputs.shape[1],
            num_features=table.num_features,
            num_heads=table.num_heads,
            num_layers=table.num_layers,
            rates=TransformerRates(rate, table.attention_drop_prob, rate, rate, rate),
        )

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

    def _image_shape(self, shape: tuple[int, int, int] | None) -> tuple[int, int, int]:
        num_features = self._num_features()
        if shape is None or math.prod(shape) != num_features:
            raise InputError(
                f"network.image_shape: expected [depth, height, width] with a product of "
                f"{num_features}, the numbers of a row, got {shape}"
            )
        return shape

    def _num_words(self, table: TokenTable) -> int:
        """Size of the vocabulary: as configured, or one more than the largest token."""
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
