"""Hostile tokenizers, which native code would read, and declarations of texts that lie."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Sequence
from typing import Any

from .cases import hostile
from .parts import MANIFEST, Json, Parts, dumped, zipped

MARKS: Json = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
ADDED: Json = {"id": 0, "content": "[UNK]", **MARKS}
MODEL: Json = {
    **{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"},
    **{"max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1}},
}
BPE: Json = {
    **{"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None},
    **{"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False},
    **{"ignore_merges": False, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}
UNIGRAM: Json = {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.0]], "byte_fallback": False}
TOKENIZER: Json = {
    **{"version": "1.0", "truncation": None, "padding": None, "added_tokens": [ADDED]},
    **{"normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None},
    **{"decoder": None, "model": MODEL},
}
SPLIT: Json = {"type": "Split", "behavior": "Isolated", "invert": False}
REPLACE: Json = {"type": "Replace", "pattern": {"String": "a"}}
A: Json = {"Sequence": {"id": "A", "type_id": 0}}
TEMPLATE: Json = {"type": "TemplateProcessing", "single": [A], "pair": [A], "special_tokens": {}}


def text(**fields: Any) -> Json:
    return {
        **{"max_length": 4, "name": "text", "pair": None, "special_tokens": True},
        **{"truncation": "longest_first", "truncation_side": "right", "length": 4},
        **{"padding_side": "right", "pad_id": 0, "pad_type_id": 0, "ids": "x", "mask": None},
        **{"type_ids": None, "kind": "text", **fields},
    }


def sealed(parts: Parts, content: bytes | None, **fields: Any) -> bytes:
    """A bundle with a tokenizer, whose digests are right."""
    parts.manifest["inputs"][0]["dtype"] = "int64"
    entries = parts.entries()
    manifest = json.loads(entries[MANIFEST])
    digest = hashlib.sha256(content or b"").hexdigest()
    manifest["preprocess"] = [text(**{"tokenizer": digest, **fields})]
    if content is not None:
        manifest["digests"]["tokenizer.json"] = digest
        entries["tokenizer.json"] = content
    return zipped(entries | {MANIFEST: dumped(manifest)})


def _declares(title: str, reason: str, **fields: Any) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        return sealed(parts, dumped(TOKENIZER), **fields)


def _holds(title: str, reason: str, **fields: Any) -> None:
    @hostile(rf"tokenizer\.json.*{reason}", title)
    def build(parts: Parts) -> bytes:
        return sealed(parts, dumped({**TOKENIZER, **fields}))


def _content(title: str, reason: str, content: bytes | None) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        return sealed(parts, content)


def _cut(title: str, reason: str, **step: Any) -> None:
    _holds(title, reason, pre_tokenizer=step)


def _model(title: str, reason: str, known: Json, **fields: Any) -> None:
    _holds(title, f"model.*{reason}", model={**known, **fields})


def charsmap(units: Sequence[int] = (), texts: str = "\0", size: int | None = None) -> str:
    """A map of characters with these first units, as many as make a block where there are few."""
    filled = [*units, *[0] * (-len(units) % 256 if len(units) < 128 else 0)]
    trie = struct.pack(f"<{len(filled)}I", *filled)
    head = struct.pack("<I", len(trie) if size is None else size)
    return base64.b64encode(head + trie + texts.encode()).decode()


def _maps(title: str, reason: str, content: str) -> None:
    step = {"type": "Precompiled", "precompiled_charsmap": content}
    _holds(title, f"normalizer.*{reason}", normalizer=step)


@hostile("belongs to a manifest that declares texts")
def a_tokenizer_that_nothing_declares(parts: Parts) -> bytes:
    entries = parts.entries()
    manifest = json.loads(entries[MANIFEST])
    content = dumped(TOKENIZER)
    manifest["digests"]["tokenizer.json"] = hashlib.sha256(content).hexdigest()
    return zipped(entries | {MANIFEST: dumped(manifest), "tokenizer.json": content})


_content("no tokenizer", "belongs to a manifest that declares texts", None)
_content("a tokenizer that is empty", "not readable JSON", b"")
_content("a tokenizer that is a pickle", "ASCII|not readable", b"\x80\x04c__main__\n")
_content("a tokenizer of another alphabet", "ASCII to be escaped", '{"ä": 1}'.encode())
_content("a tokenizer that is a list", "expects the fields", b"[]")
_content("a tokenizer with a key twice", "twice", b'{"version": "1.0", "version": "1.0"}')
_content("a tokenizer of millions of values", "more than 1600000 values", b"[" + b"{}," * 10**6)
_content("a tokenizer a million lists deep", "not readable|values", b"[" * 10**6)
_declares("the digest of another tokenizer", "SHA-256 that the texts", tokenizer="0" * 64)
_declares("a tokenizer within the manifest", "SHA-256 of the entry", tokenizer="{}")
_declares("a text without a name", "a name of 1 to", name="")
_declares("a pair of one column", "two columns of a pair", pair="text")
_declares("rows of a billion pieces", r"an integer in \[1, 1048576\]", length=10**9)
_declares("rows of another length", "the length that the inputs take", length=8)
_declares("no room for a piece", r"an integer in \[1", max_length=0)
_declares("a text for an input of another name", "made once", ids="y")
_declares("a piece of a negative number", r"an integer in \[0", pad_id=-1)
_declares("a side nobody knows", "expects one of", padding_side="middle")
_holds("a tokenizer with a field of its own", "expects the fields", code="x")
_holds("a tokenizer of another version", "version: expects one of", version="2.0")
_holds("a tokenizer that decodes", "decoder: expects null", decoder={"type": "Fuse"})
_holds("twenty thousand added tokens and one", "at most 20000", added_tokens=[ADDED] * 20_001)
_holds("an added token without letters", "1 to 512", added_tokens=[{**ADDED, "content": ""}])
_holds("an added token of a megabyte", "1 to 512", added_tokens=[{**ADDED, "content": "a" * 2**20}])
_holds("a normaliser nobody knows", "normalizer: type: expects one of", normalizer={"type": "Mine"})
_maps("a map of no bytes", "in base64", "AAAA")
_maps("a map that is no base64", "in base64", "ä")
_maps("a map of four megabytes", "at most 4194304 bytes", "A" * (4 * 2**20 + 4))
_maps("a map whose trie is longer than the map", "whole blocks", charsmap(size=2**31))
_maps("a map of half a block", "whole blocks", charsmap([0] * 128))
_maps("a map that leads out of itself", "lead out of itself", charsmap([1 << 30 | 1 << 9]))
_maps("a map with a leaf behind its texts", "whole characters", charsmap([1 << 8 | 1 << 10, 99]))
_maps("a map with a leaf within a character", "whole char", charsmap([1 << 8 | 1 << 10, 1], "ä\0"))
_maps("a map of texts without an end", "ended by a zero", charsmap([0], "a"))
_maps("a map that makes a kilobyte of a character", "at most 128", charsmap([0], "a" * 1024 + "\0"))
_holds(
    "replacements that make sixteen of one again and again",
    "at most 8 characters of one",
    normalizer={"type": "Sequence", "normalizers": [{**REPLACE, "content": "a" * 16}] * 16},
)
_holds(
    "an expression that is tried for ever, in a replacement",
    "Regex that well-known tokenizers have",
    normalizer={**REPLACE, "pattern": {"Regex": "(a|a)*$"}, "content": ""},
)
_holds(
    "a template with a text a thousand times",
    "at most 64 entries",
    post_processor={**TEMPLATE, "single": [A] * 1000},
)
_holds("a template of one text twice", "once", post_processor={**TEMPLATE, "single": [A, A]})
_holds("a pair without its second text", "once", post_processor=TEMPLATE)
_cut("an expression that is tried for ever", "Regex that", **SPLIT, pattern={"Regex": "(a+)+$"})
_cut("an expression that looks back", "Regex that", **SPLIT, pattern={"Regex": "(?<=a*)b"})
_cut("an expression that counts to a billion", "Regex", **SPLIT, pattern={"Regex": "a{1000000000}"})
_cut("a pattern of both kinds", "Regex", **SPLIT, pattern={"Regex": "a", "String": "a"})
_cut("words of no length", r"an integer in \[1", type="FixedLength", length=0)
_cut("a step nobody knows", "type: expects one of", type="Python", code="import os")
_cut("steps of a thing", "expects a list", type="Sequence", pretokenizers={"type": "Whitespace"})
_cut("a hundred steps", "at most 32", type="Sequence", pretokenizers=[{"type": "Whitespace"}] * 100)

NESTED: Json = {"type": "Whitespace"}
for _ in range(40):
    NESTED = {"type": "Sequence", "pretokenizers": [NESTED]}
_holds("sequences forty deep", "at most 4 deep", pre_tokenizer=NESTED)
_model("a model nobody knows", "type: expects one of", MODEL, type="Pickle")
_model("words of a million letters", "in .1, 1000", MODEL, max_input_chars_per_word=10**6)
_model("no words", "1 to 600000 tokens", MODEL, vocab={})
_model("words that are lists", "whole number", MODEL, vocab={"a": [], "[UNK]": 0})
_model("two words of one number", "no number twice", MODEL, vocab={"[UNK]": 0, "a": 0})
_model("a word of a negative number", "numbers of 0 to", MODEL, vocab={"[UNK]": -1})
_model("a word of a megabyte", "1 to 512", MODEL, vocab={"[UNK]": 0, "a" * 2**20: 1})
_model("half a character", "whole characters", MODEL, vocab={"[UNK]": 0, "\ud800": 1})
_model("an unknown word that is none", "a token of the vocabulary", MODEL, unk_token="?")
_model("dropout of merges", "dropout: expects null", BPE, dropout=0.5)
_model("merges of what is no word", "pairs of tokens of the", BPE, merges=[["a", "c"]])
_model("merges of three", "a pair of tokens", BPE, merges=[["a", "b", "ab"]])
_model("merges of a text", "at most 600000 pairs", BPE, merges="a b")
_model("a probability that is infinite", "finite number", UNIGRAM, vocab=[["a", 10**400]])
_model("a probability that is a text", "finite number", UNIGRAM, vocab=[["a", "-1"]])
_model("an unknown piece of no place", "a place in the vocabulary", UNIGRAM, unk_id=1)
_holds(
    "merges that make no word",
    "expected one that tokenizers reads",
    model={**BPE, "merges": [["b", "a"]]},
)
