"""A transformer encoder that classifies sequences, with dropout in its four places.

    tokens -> words + positions -> dropout (embedding)
           -> [ x + dropout(attention(norm x))      dropout (attention, residual)
                x + dropout(feed-forward(norm x)) ] dropout (feed-forward, residual)
           -> norm -> mean over places -> dropout head

Dimensions: B rows, L places, A heads, E numbers per head, K = A E features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.probability import checked


@dataclass(frozen=True)
class TransformerRates:
    """The drop probabilities of an encoder, each in [0, 1].

    Attributes:
        embedding: Of the sum of words and positions.
        attention: Of the attention weights, after the softmax.
        residual: Of what each branch adds.
        feed_forward: Of the hidden units of the feed-forward map.
        head: Of the features before the last map.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 5.4, for embedding and residual;
    attention and feed-forward as in the authors' code.
    """

    embedding: float = 0.1
    attention: float = 0.1
    residual: float = 0.1
    feed_forward: float = 0.1
    head: float = 0.1


class Transformer(nn.Module):
    """Blocks of self-attention and a feed-forward map, norms first.

    (B, L) integers -> (B, C)

    Args:
        num_words: Size of the vocabulary; tokens run from 0 to below it.
        num_classes: C.
        max_length: The longest sequence.
        num_features: K.
        num_heads: A, a divisor of K.
        num_layers: Blocks.
        rates: The drop probabilities.

    Raises:
        ValueError: A p is out of range, A does not divide K, or there is no block.

    Source: Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745, for norms
    first.
    """

    def __init__(
        self,
        num_words: int,
        num_classes: int,
        *,
        max_length: int = 128,
        num_features: int = 32,
        num_heads: int = 4,
        num_layers: int = 2,
        rates: TransformerRates | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or num_features % num_heads or num_layers < 1:
            raise ValueError(
                "expected num_heads that divide num_features and at least 1 layer, got "
                f"{num_heads}, {num_features} and {num_layers}: use 4, 32 and 2"
            )
        rates = TransformerRates() if rates is None else rates
        self.words = nn.Embedding(num_words, num_features)
        self.positions = nn.Parameter(0.02 * torch.randn(max_length, num_features))
        self.embedding_dropout = nn.Dropout(rates.embedding)
        self.blocks = nn.Sequential(
            *(_Block(num_features, num_heads, rates) for _ in range(num_layers))
        )
        self.norm = nn.LayerNorm(num_features)
        self.head_dropout = nn.Dropout(rates.head)
        self.head = nn.Linear(num_features, num_classes)

    def forward(self, token_BL: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        placed_BLK = self.words(token_BL) + self.positions[: token_BL.shape[1]]
        feature_BLK = self.norm(self.blocks(self.embedding_dropout(placed_BLK)))
        logits: Tensor = self.head(self.head_dropout(feature_BLK.mean(dim=1)))
        return logits


class _Block(nn.Module):
    """Self-attention and a feed-forward map, each added to what it reads."""

    def __init__(self, num_features: int, num_heads: int, rates: TransformerRates) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(num_features)
        self.attention = _Attention(num_features, num_heads, rates.attention)
        self.attention_residual = nn.Dropout(rates.residual)
        self.feed_forward_norm = nn.LayerNorm(num_features)
        self.feed_forward = nn.Sequential(
            nn.Linear(num_features, 4 * num_features),
            nn.GELU(),
            nn.Dropout(rates.feed_forward),
            nn.Linear(4 * num_features, num_features),
        )
        self.feed_forward_residual = nn.Dropout(rates.residual)

    def forward(self, x_BLK: Tensor) -> Tensor:
        x_BLK = x_BLK + self.attention_residual(self.attention(self.attention_norm(x_BLK)))
        added_BLK = self.feed_forward_residual(self.feed_forward(self.feed_forward_norm(x_BLK)))
        result_BLK: Tensor = x_BLK + added_BLK
        return result_BLK


class _Attention(nn.Module):
    """Self-attention of every place to every place."""

    def __init__(self, num_features: int, num_heads: int, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = checked(drop_prob)
        self.num_heads = num_heads
        self.taken = nn.Linear(num_features, 3 * num_features)
        self.given = nn.Linear(num_features, num_features)

    def forward(self, x_BLK: Tensor) -> Tensor:
        heads = (self.num_heads, x_BLK.shape[2] // self.num_heads)
        parts = self.taken(x_BLK).unflatten(2, (3, *heads)).permute(2, 0, 3, 1, 4)
        query_BALE, key_BALE, value_BALE = parts.unbind(0)
        drop_prob = self.drop_prob if self.training else 0.0
        mixed_BALE = functional.scaled_dot_product_attention(
            query_BALE, key_BALE, value_BALE, dropout_p=drop_prob
        )
        returned: Tensor = self.given(mixed_BALE.transpose(1, 2).flatten(2))
        return returned
