"""Sentences of many scripts, tokenizers trained on them, and a network that reads their pieces."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import (
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn

from dubito_nn import Bundle, export

_TEXT = (
    "the house is small and green; people like it, don't they? I've seen 3 of them in 2024 "
    "das Haus ist klein und grün, naïve café coöperate Ångström straße "
    "дом маленький и зелёный люди его любят σπίτι είναι μικρό και πράσινο "
    "家は小さくて緑です 人々はそれが好き 房子很小很绿 집은 작고 푸르다 घर छोटा और हरा है "
    "البيت صغير وأخضر הבית קטן וירוק บ้านเล็กและเขียว 👍 👩‍👩‍👧‍👦 🏳️‍🌈 é ﬁ ½ Ⅷ １２３ x² "
    "http://example.org/a?b=c&d=e __init__ C++ [CLS] [SEP] </s> <s> \u200b \u00a0 \t \n \r\n "
    "▁ Ġ ##s"
)
WORDS = _TEXT.split(" ")
KINDS = ("WordPiece", "BPE", "Unigram", "SentencePiece")


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of these words, some without any, some long, some of characters at random."""
    random = np.random.default_rng(seed)
    made = ["", " ", "\n", "a", "x" * 3000, "▁" * 50, " " * 500 + ".", "\x00\ufffd\ufeff"]
    while len(made) < count:
        chosen = random.choice(WORDS, random.integers(0, 40))
        points = random.integers(32, 0x2FFFF, random.integers(0, 6))
        odd = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
        made.append(random.choice([" ", "  ", ""], p=[0.8, 0.1, 0.1]).join([*chosen, odd]))
    return made[:count]


@cache
def trained(kind: str) -> str:
    """The `tokenizer.json` of one kind, trained on the words."""
    if kind == "SentencePiece":
        return _of_sentencepiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    # iterating as sentences do: the same words in other orders
    corpus = [" ".join(np.random.default_rng(seed).permutation(WORDS)) for seed in range(40)]
    if kind == "WordPiece":
        tokenizer: Any = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special)
    elif kind == "BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, initial_alphabet=alphabet
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        spaces = normalizers.Replace(Regex(" {2,}"), " ")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=special, unk_token="[UNK]", show_progress=False
        )
    tokenizer.train_from_iterator(corpus, trainer)
    if kind == "BPE":
        ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.RobertaProcessing(ends[1], ends[0])
    else:
        tokenizer.post_processor = _between(tokenizer)
    return str(tokenizer.to_str())


def _between(tokenizer: Any) -> Any:
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )


@cache
def sentencepiece_model() -> bytes:
    """What SentencePiece trains on the words, with its map of characters nmt_nfkc."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 20),
        model_writer=written,
        vocab_size=200,
        hard_vocab_limit=False,
        character_coverage=1.0,
        control_symbols=["[PAD]", "[CLS]", "[SEP]"],
        unk_piece="[UNK]",
        minloglevel=2,
    )
    return written.getvalue()


def _of_sentencepiece() -> str:
    """The tokenizer of XLM-R and its like: pieces, scores and the map as SentencePiece has them."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(sentencepiece_model())
    scored = [(piece.piece, piece.score) for piece in model.pieces]
    unknown = model.trainer_spec.unk_id
    tokenizer: Any = Tokenizer(models.Unigram(scored, unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap),
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = _between(tokenizer)
    return str(tokenizer.to_str())


def fast(kind: str = "WordPiece", **options: Any) -> Any:
    """A fast tokenizer of transformers."""
    from transformers import PreTrainedTokenizerFast

    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained(kind)),
        **{**names, "unk_token": "[UNK]", "model_max_length": 64, **options},
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


class Classifier(nn.Module):
    """The mean of the pieces that the mask keeps, and what a perceptron makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(600, 16)
        self.net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1).float()
        whole = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1)
        out: Tensor = self.net(whole)
        return out


def exported(path: Path, declared: object, length: int | None = None) -> Bundle:
    """A classifier as a bundle that declares texts; of any length where none is given."""
    torch.manual_seed(0)
    size = length or 12
    example = {
        "input_ids": torch.randint(0, 300, (6, size)),
        "attention_mask": torch.ones(6, size, dtype=torch.long),
    }
    free = None if length else {name: {1: "length"} for name in example}
    options: Any = {"task": "classification", "output": "logits", "classes": ("bad", "good")}
    return export(Classifier(), example, path, free_dims=free, preprocess=declared, **options)  # type: ignore[arg-type]
