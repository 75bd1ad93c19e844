"""Texts become the numbers that transformers makes of them, or are refused with their row."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from dubito.engine import Engine
from dubito.errors import InputError
from dubito.preprocess import prepare
from dubito.preprocess.text import MAX_CHARACTERS, TextKind
from dubito_nn import Bundle, BundleError, ExportError, load_bundle, preprocess
from dubito_nn.manifest import InputSpec
from dubito_nn.preprocess import TextInput
from dubito_nn.preprocess.charsmap import read_charsmap
from dubito_nn.preprocess.given import read_given
from dubito_nn.preprocess.text import canonical
from dubito_nn.preprocess.tokenizer import MAX_BYTES, read_tokenizer

from .sentences import KINDS, exported, fast, sentencepiece_model, sentences, trained

TEXTS = sentences(1000)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("text") / "text.dubito"
    return exported(path, preprocess.from_transformers(fast()))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine.load(bundle, num_samples=4)


def _made(part: TextInput, *columns: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    kind = TextKind()
    named = dict(zip(kind.needs(part), columns, strict=True))
    made = kind.make(part, named, {}, [])
    return {name: np.asarray(rows) for name, rows in made.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_become_what_transformers_makes_of_them(kind: str, side: str) -> None:
    tokenizer = fast(kind, padding_side=side, truncation_side=side)
    part = preprocess.from_transformers(tokenizer, ids="input_ids")
    wanted = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="np")
    for name, rows in _made(part, TEXTS).items():
        np.testing.assert_array_equal(rows, wanted[name], err_msg=name)
    plain = replace(part, special_tokens=False, max_length=9, length=12)
    options = {"padding": "max_length", "max_length": 12, "return_tensors": "np"}
    cut = [
        tokenizer(text, truncation=True, max_length=9, add_special_tokens=False)["input_ids"]
        for text in TEXTS[:200]
    ]
    padded = tokenizer.pad({"input_ids": cut}, **options)["input_ids"]
    np.testing.assert_array_equal(_made(plain, TEXTS[:200])["input_ids"], padded)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
def test_pairs_of_texts_become_what_transformers_makes_of_them(kind: str, truncation: str) -> None:
    tokenizer = fast(kind)
    one, two = TEXTS[:500], TEXTS[:0:-1][:500]
    if truncation != "longest_first":  # which cannot cut enough where the other text is long
        kept, whole = (two, one) if truncation == "only_first" else (one, two)
        short = [text[:10] for text in kept]
        one, two = (whole, short) if truncation == "only_first" else (short, whole)
    part = preprocess.from_transformers(
        tokenizer, ids="input_ids", pair="other", truncation=truncation
    )
    wanted = tokenizer(one, two, padding=True, truncation=truncation, return_tensors="np")
    for name, rows in _made(part, one, two).items():
        np.testing.assert_array_equal(rows, wanted[name], err_msg=name)


def test_texts_are_taken_in_all_forms_and_mean_the_same(engine: Engine, bundle: Bundle) -> None:
    texts = ["the house is small", "", "grün"]
    wanted = engine.read_inputs(texts)
    assert wanted["input_ids"].shape[1] < 12
    forms: list[Any] = [
        *(tuple(texts), np.array(texts), pd.Series(texts), {"text": texts}),
        *([{"text": text} for text in texts], pd.DataFrame({"text": texts})),
        pl.DataFrame({"text": texts}),
        {"text": ["the house is small", None, "grün"]},
    ]
    for rows in forms:
        for name, found in engine.read_inputs(rows).items():
            np.testing.assert_array_equal(found, wanted[name])
    alone = engine.predict(texts[:1]).mean
    np.testing.assert_allclose(engine.predict(texts).mean[:1], alone, atol=1e-6)
    (warning,) = prepare(["the " * 100], bundle.manifest).warnings
    assert "1 of 1 rows have more than the 64 tokens" in warning


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([["a", "b"]], "text for each row, got list for row 0.*`preprocess` false"),
        ([1, 2], "got int for row 0"),
        (["a", None], "got NoneType for row 1"),
        (np.zeros((2, 5)), "`preprocess` false"),
        ("a sentence", "expects records"),
        ([], "at least one row"),
        ({"input_ids": [[1]], "attention_mask": [[1]]}, "`preprocess` false"),
        ([{"words": "a"}], "add `text`"),
        ({"text": [3]}, "`text`, row 0: expected text, got int"),
        (["a", "x" * (MAX_CHARACTERS + 1)], "row 1: expected at most 100000 characters"),
        (["\ud800"], "rows 0 to 0"),
    ],
)
def test_what_is_no_text_is_refused_with_its_row(
    bundle: Bundle, engine: Engine, rows: Any, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        engine.read_inputs(rows)
    assert prepare(["a"], bundle.manifest).warnings == ()


def test_pairs_are_sent_as_pairs_or_by_column(tmp_path: Path) -> None:
    declared = preprocess.from_transformers(fast(), name="question", pair="answer", max_length=20)
    bundle = exported(tmp_path / "pair.dubito", declared, length=16)
    (part,) = bundle.manifest.preprocess or ()
    assert isinstance(part, TextInput)
    assert (part.length, part.max_length, part.type_ids) == (16, 16, None)
    pairs = [["the house", "is small"], ["a", ""]]
    columns = {"question": ["the house", "a"], "answer": ["is small", ""]}
    made = [prepare(rows, bundle.manifest).arrays["input_ids"] for rows in (pairs, columns)]
    np.testing.assert_array_equal(made[0], made[1])
    assert np.shape(made[0]) == (2, 16)
    for rows, reason in ((["a"], "a pair of texts"), ([["a", "b", "c"]], "a pair of texts")):
        with pytest.raises(InputError, match=reason):
            prepare(rows, bundle.manifest)


def test_the_tokenizer_is_an_entry_of_the_bundle_and_covered_by_its_digest(
    tmp_path: Path, bundle: Bundle
) -> None:
    written = bundle.manifest.to_json()
    assert len(json.dumps(written)) < 4000
    path = tmp_path / "again.dubito"
    again = exported(path, preprocess.from_transformers(fast()))
    assert load_bundle(path).digest == again.digest == bundle.digest
    assert load_bundle(path).manifest == bundle.manifest
    names = ("input_ids", "attention_mask")
    specs = [InputSpec(name, "int64", ("length",), 0, 9) for name in names]
    given = TextInput(Tokenizer.from_str(trained("WordPiece")), 64)  # type: ignore[arg-type]
    assert read_given(given, specs, {}) == bundle.manifest.preprocess


class _Slow:
    is_fast = False
    model_input_names = ("input_ids",)

    def convert_ids_to_tokens(self) -> None: ...


def _with_expression(expression: str) -> Any:
    tokenizer = fast("BPE")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(expression), "isolated")
    return tokenizer


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (_Slow, {}, "a fast tokenizer, whose file is data, got _Slow"),
        (dict, {}, "expects a fast tokenizer.*got builtins.dict"),
        (lambda: fast(model_max_length=10**30), {}, "`max_length`.*such as max_length=512"),
        (lambda: fast(pad_token=None), {}, "set tokenizer.pad_token"),
        (lambda: _with_expression("(a+)+$"), {}, "Regex that well-known tokenizers have"),
        (fast, {"max_len": 5}, "expects fields of tokenizer, max_length"),
    ],
)
def test_what_has_no_declaration_is_refused_by_name(
    make: Any, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ExportError, match=reason):
        preprocess.from_transformers(make(), **options)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokenizer": "{"}, "content of a tokenizer.json"),
        ({"tokenizer": 7}, "content of a tokenizer.json"),
        ({"max_length": 0}, "max_length"),
        ({"ids": "words"}, "made once"),
        ({"mask": None}, "made once"),
        ({"pair": "text"}, "two columns of a pair"),
    ],
)
def test_a_text_that_does_not_make_the_inputs_is_refused(
    change: dict[str, Any], reason: str
) -> None:
    part = replace(preprocess.from_transformers(fast()), **change)
    names = ("input_ids", "attention_mask")
    specs = [InputSpec(name, "int64", ("length",), 0, 9) for name in names]
    with pytest.raises(ExportError, match=reason):
        read_given(part, specs, {})


def test_special_pieces_that_leave_no_room_are_refused() -> None:
    part = replace(preprocess.from_transformers(fast()), max_length=2)
    with pytest.raises(InputError, match="2 are special ones"):
        TextKind().ready(part)


def test_expressions_of_well_known_tokenizers_are_taken() -> None:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    llama3 = PRETOKENIZE_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
    for expression in (gpt2, llama3, PRETOKENIZE_REGEX):
        part = preprocess.from_transformers(_with_expression(expression), ids="input_ids")
        assert len(_made(part, TEXTS[:50])["input_ids"]) == 50


def test_pieces_of_sentencepiece_are_its_own() -> None:
    import sentencepiece

    own = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    part = preprocess.from_transformers(fast("SentencePiece"), ids="input_ids")
    plain = [text for text in TEXTS if text.strip() and not {*"[</▁\x00"} & {*text}]
    assert len(plain) > 300
    for text in plain[:200]:
        made = _made(replace(part, special_tokens=False, max_length=4000), [text])["input_ids"]
        assert made[0].tolist() == own.encode(text), text


def test_a_damaged_map_of_characters_is_refused_or_walked_without_a_fault() -> None:
    whole = json.loads(trained("SentencePiece"))["normalizer"]["normalizers"][0]
    content = bytearray(base64.b64decode(whole["precompiled_charsmap"]))
    random, fates = np.random.default_rng(0), []
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = random.integers(256)
        raw = base64.b64encode(damaged).decode()
        try:
            read_charsmap(raw, "map")
        except BundleError:
            fates.append("refused")
            continue
        normalizer = normalizers.Precompiled(bytes(damaged))
        for text in TEXTS[:100]:
            normalizer.normalize_str(text)
        fates.append("walked")
    assert set(fates) == {"refused", "walked"}


def test_pieces_that_native_code_gives_up_on_are_refused() -> None:
    tokenizer = Tokenizer(models.Unigram([("a", -1.0), ("▁", -2.0)], None, False))
    part = TextInput(canonical(tokenizer), 8, ids="input_ids", mask=None, type_ids=None)
    assert len(_made(part, ["aa"])["input_ids"]) == 1
    with pytest.raises(InputError, match="rows 0 to 0: expected what the tokenizer takes"):
        _made(part, ["b"])


def test_millions_of_added_tokens_are_refused_before_they_are_read() -> None:
    """Within 2 s and 200 MB, in a process of its own, where memory can be measured."""
    script = f"""
        import resource, time
        from dubito_nn import BundleError
        from dubito_nn.preprocess.tokenizer import read_tokenizer
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for part in (b"{{}},", b'"ab",', b"0,"):
            content = b'{{"added_tokens":[' + (part * 10**7)[:{MAX_BYTES - 100}]
            start = time.process_time()
            try:
                read_tokenizer(content)
            except BundleError as error:
                print(error)
            assert time.process_time() - start < 2
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024)
    """
    words = [sys.executable, "-c", textwrap.dedent(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    *reasons, is_small = done.stdout.splitlines()
    assert [reason.partition(" values")[0] for reason in reasons] == [
        "tokenizer.json holds more than 1600000"
    ] * 3
    assert is_small == "True"
    with pytest.raises(BundleError, match="larger than it may be"):
        read_tokenizer(b" " * (MAX_BYTES + 1))
