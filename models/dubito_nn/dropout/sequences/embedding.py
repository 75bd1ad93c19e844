"""Dropout of words, tokens and positions: whole vectors of a sequence.

    word type   y_l = E[w_l] · m[w_l] / (1-p)      m has one number per entry of the vocabulary
    token       y_l = x_l · m_l / (1-p)            m has one number per place of the sequence
    unknown     w̃_l = w_l where m_l = 1, else the index of the unknown word
    position    y_l = x_l + P_l · m_l / (1-p)      P the learned vectors of the positions

Dropping a word type drops every occurrence of it: one thinned embedding matrix per sequence, m of
shape (B, V). That is right where rows must not interact and yet share ω when asked to: number v of
the mask means word v for every row, whichever words a row holds. `per="batch"` draws one mask (V,)
for all rows of a call; it costs V numbers in the place of B · V in training, but couples the rows'
noise and is served one sample at a time.

Dimensions: B rows, L places, V words, K numbers of a vector.
Source: Gal and Ghahramani 2016, arXiv:1512.05287, section 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubito_nn.dropout.masks import Per, check_axes, check_per, inverted_mask, keep_mask
from dubito_nn.dropout.probability import Probability


class WordTypeDropout(nn.Module):
    """An embedding of which whole words are dropped, wherever they occur.

    y_l = E[w_l] · m[w_l] / (1-p).    (B, L) integers -> (B, L, K)

    Args:
        embedding: E, held as the child `embedding`.
        drop_prob: p, in [0, 1].
        per: `row`: every sequence loses words of its own; `batch`: all rows of a call the same.

    Raises:
        ValueError: An argument is out of range, or the input has other than 2 axes.

    Source: Gal and Ghahramani 2016, arXiv:1512.05287, section 4.2; per batch as in Merity et al.
    2017, arXiv:1708.02182.
    """

    drop_prob = Probability()

    def __init__(self, embedding: nn.Embedding, drop_prob: float = 0.1, per: Per = "row") -> None:
        super().__init__()
        if not isinstance(embedding, nn.Embedding):
            raise ValueError(
                f"expected an nn.Embedding, got {type(embedding).__name__}: words lie there"
            )
        self.embedding = embedding
        self.drop_prob = drop_prob
        self.per = check_per(per)

    def forward(self, token_BL: Tensor) -> Tensor:
        """Look words up, and drop some of the vocabulary in training mode."""
        check_axes(token_BL, 2, "(rows, steps)")
        vector_BLK: Tensor = self.embedding(token_BL)
        if not self.training or self.drop_prob == 0.0:
            return vector_BLK
        num_words = self.embedding.num_embeddings
        if self.per == "batch":
            mask_BL = inverted_mask(vector_BLK, (num_words,), self.drop_prob)[token_BL]
        else:
            shape = (token_BL.shape[0], num_words)
            mask_BL = inverted_mask(vector_BLK, shape, self.drop_prob).gather(1, token_BL)
        return vector_BLK * mask_BL.unsqueeze(2)

    def extra_repr(self) -> str:
        """Show p and what shares a mask."""
        return f"drop_prob={self.drop_prob}, per={self.per!r}"


class TokenDropout(nn.Module):
    """Dropout of whole vectors of a sequence, each occurrence for itself.

    y_l = x_l · m_l / (1-p), m of shape (B, L, 1).    (B, L, K) -> (B, L, K)

    Args:
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: p is out of range, or the input has other than 3 axes.

    Source: Iyyer et al. 2015, Deep unordered composition rivals syntactic methods for text
    classification, ACL; in the inverted form.
    """

    drop_prob = Probability()

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x_BLK: Tensor) -> Tensor:
        """Drop vectors in training mode; return x itself in eval mode."""
        check_axes(x_BLK, 3, "(rows, steps, features)")
        if not self.training or self.drop_prob == 0.0:
            return x_BLK
        return x_BLK * inverted_mask(x_BLK, (*x_BLK.shape[:2], 1), self.drop_prob)

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"


class UnknownWordDropout(nn.Module):
    """Replaces words by the unknown word, each occurrence for itself, before the embedding.

    w̃_l = w_l if m_l = 1, else `unknown_index`.    (B, L) integers -> (B, L) integers

    Nothing is scaled: the unknown word has a vector of its own to learn.

    Args:
        unknown_index: Of the unknown word in the vocabulary.
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: An argument is out of range, or the input has other than 2 axes.

    Source: Bowman et al. 2016, Generating sentences from a continuous space, arXiv:1511.06349.
    """

    drop_prob = Probability()

    def __init__(self, unknown_index: int, drop_prob: float = 0.1) -> None:
        super().__init__()
        if unknown_index < 0:
            raise ValueError(
                f"expected unknown_index of at least 0, got {unknown_index}: "
                "pass the row of the embedding that stands for unknown words"
            )
        self.unknown_index = unknown_index
        self.drop_prob = drop_prob

    def forward(self, token_BL: Tensor) -> Tensor:
        """Replace words in training mode; return the input itself in eval mode."""
        check_axes(token_BL, 2, "(rows, steps)")
        if not self.training or self.drop_prob == 0.0:
            return token_BL
        like = torch.zeros((), device=token_BL.device)
        is_kept_BL = keep_mask(like, token_BL.shape, self.drop_prob) > 0.5
        return torch.where(is_kept_BL, token_BL, self.unknown_index)

    def extra_repr(self) -> str:
        """Show p and the index."""
        return f"unknown_index={self.unknown_index}, drop_prob={self.drop_prob}"


class PositionalDropout(nn.Module):
    """Adds learned vectors of positions, of which whole positions are dropped.

    y_l = x_l + P_l · m_l / (1-p), m of shape (B, L, 1).    (B, L, K) -> (B, L, K)

    A place whose vector is dropped keeps its content and forgets where it stands.

    Args:
        num_positions: The longest sequence.
        num_features: K.
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: p is out of range, the input has other than 3 axes, or is too long.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 5.4, drops single numbers of the sum
    x + P (for that: `Dropout`); here it is whole positions, as Gal 2016 drops whole words.
    """

    drop_prob = Probability()

    def __init__(self, num_positions: int, num_features: int, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.positions = nn.Embedding(num_positions, num_features)
        self.drop_prob = drop_prob

    def forward(self, x_BLK: Tensor) -> Tensor:
        """Add the positions, without the dropped ones in training mode."""
        check_axes(x_BLK, 3, "(rows, steps, features)")
        rows, steps, _ = x_BLK.shape
        if steps > self.positions.num_embeddings:
            raise ValueError(
                f"expected at most {self.positions.num_embeddings} steps, got {steps}: "
                "cut the sequence, or raise num_positions"
            )
        position_LK = self.positions.weight[:steps]
        if not self.training or self.drop_prob == 0.0:
            return x_BLK + position_LK
        return x_BLK + position_LK * inverted_mask(x_BLK, (rows, steps, 1), self.drop_prob)

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"
