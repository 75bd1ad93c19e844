r"""Regular expressions of well-known tokenizers; no others are taken from a stranger.

Each reads a text once: where a part can match much, what follows it never makes it try again from
every place. `(?!\S)` looks one character ahead.
"""

from __future__ import annotations

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = f"(?i:{_CONTRACTIONS})"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"

SPLITS = frozenset(
    {
        # GPT-2, RoBERTa
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",
        # CLIP
        rf"{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
        # Llama 3, ModernBERT's kin: numbers of three digits; Qwen 2: of one
        rf"{_ANY_CASE}|{_WORDS}|\p{{N}}{{1,3}}|{_SIGNS}|{_BLANKS}",
        rf"{_ANY_CASE}|{_WORDS}|\p{{N}}|{_SIGNS}|{_BLANKS}",
        # Qwen 3.5
        rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}",
        # o200k of GPT-4o
        rf"{_START}{_UPPER}*{_LOWER}+{_ANY_CASE}?|{_START}{_UPPER}+{_LOWER}*{_ANY_CASE}?"
        rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}",
        r"\p{N}{1,3}",
        r"\s+",
        r"\n",
    }
)
"""What may cut a text."""

REPLACED = frozenset({" {2,}", r"\s+", r"\s{2,}|[\n\r\t]", r"[\n\r\t]", r"\n"})
"""What may be replaced in it."""
