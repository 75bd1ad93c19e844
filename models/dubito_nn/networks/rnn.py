"""A sequence classifier: words dropped by type, one mask for all time steps.

    tokens -> embedding, words dropped -> [LSTM or GRU, variational] -> mean over steps
           -> dropout head

Dimensions: B rows, L time steps, H hidden units, C classes.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dubito_nn.dropout.sequences.embedding import WordTypeDropout
from dubito_nn.dropout.sequences.variational import VariationalGRU, VariationalLSTM

Cell = Literal["lstm", "gru"]


class RNN(nn.Module):
    """Layers of an LSTM or a GRU with variational dropout of inputs and states.

    (B, L) integers -> (B, C)

    Args:
        num_words: Size of the vocabulary; tokens run from 0 to below it.
        num_classes: C.
        embedding_size: Numbers of a word's vector.
        hidden: H of each layer.
        num_layers: Layers.
        cell: `lstm` or `gru`.
        drop_prob: p of inputs and states of every layer, and of units before the head.
        word_drop_prob: p of whole words.

    Raises:
        ValueError: A p is out of range, the cell is unknown, or there is no layer.

    Source: Gal and Ghahramani 2016, arXiv:1512.05287.
    """

    def __init__(
        self,
        num_words: int,
        num_classes: int,
        *,
        embedding_size: int = 32,
        hidden: int = 64,
        num_layers: int = 1,
        cell: Cell = "lstm",
        drop_prob: float = 0.2,
        word_drop_prob: float = 0.1,
    ) -> None:
        super().__init__()
        if cell not in ("lstm", "gru") or num_layers < 1:
            raise ValueError(
                f"expected the cell lstm or gru and at least 1 layer, got {cell!r} and {num_layers}"
            )
        kind = VariationalLSTM if cell == "lstm" else VariationalGRU
        self.words = WordTypeDropout(nn.Embedding(num_words, embedding_size), word_drop_prob)
        # No mask on the outputs: the next layer drops its inputs, the head its features.
        self.layers = nn.ModuleList(
            kind(fan_in, hidden, drop_prob, output_drop_prob=0.0)
            for fan_in in [embedding_size, *[hidden] * (num_layers - 1)]
        )
        self.head_dropout = nn.Dropout(drop_prob)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, token_BL: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        state_BLH = self.words(token_BL)
        for layer in self.layers:
            state_BLH, _ = layer(state_BLH)
        logits: Tensor = self.head(self.head_dropout(state_BLH.mean(dim=1)))
        return logits
