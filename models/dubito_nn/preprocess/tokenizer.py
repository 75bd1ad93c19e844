"""A `tokenizer.json` of a stranger, of which every field is looked at before native code reads it.

Its job: `read_tokenizer`. Only listed components are taken, and of regular expressions only those
that well-known tokenizers have, since they run in native code where nothing ends them. What could
make much of little (replacements, templates, long tokens) is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from dubito_nn.errors import BundleError
from dubito_nn.preprocess.charsmap import read_charsmap
from dubito_nn.preprocess.patterns import REPLACED, SPLITS
from dubito_nn.strict_fields import read_integer, read_one_of, read_text, read_tuple
from dubito_nn.strict_json import parse

MAX_BYTES = 24 * 2**20
_MAX_JSON_VALUES = 1_600_000
_MAX_TOKENS = 600_000
_MAX_ADDED = 20_000
_MAX_TOKEN = 512  # characters
_MAX_ID = 2**31 - 1
_MAX_WORD = 1000  # characters, in which the longest match is looked for
_MAX_STEPS, _MAX_DEPTH = 32, 4
_MAX_GROWTH = 8  # characters that all replacements make of one
_MAX_PIECES = 64  # of a template
_MAX_SCORE = 1e6  # of a logarithmic probability
_WHERE = "tokenizer.json"

_Read: TypeAlias = Callable[[object, str], object]
_Fields: TypeAlias = Mapping[str, _Read]


def read_tokenizer(content: bytes) -> str:
    """The text of an entry that is a sound tokenizer.

    Args:
        content: of the entry.

    Raises:
        BundleError: naming the first field that breaks a rule.
    """
    if len(content) > MAX_BYTES:
        raise BundleError(f"{_WHERE} is larger than it may be, {MAX_BYTES} bytes")
    if not content.isascii():
        raise BundleError(f"{_WHERE}: expects other letters than ASCII to be escaped")
    parsed = parse(content, _WHERE, max_values=_MAX_JSON_VALUES)
    steps = _Steps()
    table = _record(
        parsed,
        {
            "version": _one_of("1.0"),
            "truncation": _null,
            "padding": _null,
            "added_tokens": _added_tokens,
            "normalizer": _maybe(steps.normalizer),
            "pre_tokenizer": _maybe(steps.pre_tokenizer),
            "post_processor": _maybe(steps.post_processor),
            "decoder": _null,
            "model": _model,
        },
        _WHERE,
    )
    assert isinstance(table, dict)
    return content.decode("ascii")


class _Steps:
    """Components, nested in sequences, as many as there may be of all of them."""

    def __init__(self) -> None:
        self._count = 0
        self._growth = 1.0

    def normalizer(self, raw: object, where: str, depth: int = 0) -> object:
        """What changes a text before it is cut."""
        replace: _Fields = {"pattern": _pattern(REPLACED), "content": _token}
        kinds: dict[str, _Fields] = {
            "BertNormalizer": {
                **dict.fromkeys(("clean_text", "handle_chinese_chars", "lowercase"), _truth),
                "strip_accents": _maybe(_truth),
            },
            **_plain("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents"),
            "ByteLevel": {},
            "Precompiled": {"precompiled_charsmap": read_charsmap},
            "Strip": {"strip_left": _truth, "strip_right": _truth},
            "Prepend": {"prepend": _token},
            "Replace": replace,
            "Sequence": self._sequence("normalizers", self.normalizer, depth),
        }
        table = self._step(raw, kinds, where)
        if table["type"] == "Replace":
            self._grow(table, where)
        return table

    def pre_tokenizer(self, raw: object, where: str, depth: int = 0) -> object:
        """What cuts a text into words."""
        kinds: dict[str, _Fields] = {
            **_plain("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts"),
            "ByteLevel": _BYTE_LEVEL,
            "Metaspace": {
                "replacement": _letter,
                "prepend_scheme": _one_of("always", "never", "first"),
                "split": _truth,
            },
            "Punctuation": {"behavior": _one_of(*_BEHAVIORS)},
            "Digits": {"individual_digits": _truth},
            "CharDelimiterSplit": {"delimiter": _letter},
            "FixedLength": {"length": _integer(1, _MAX_WORD)},
            "Split": {
                "pattern": _pattern(SPLITS),
                "behavior": _one_of(*_BEHAVIORS),
                "invert": _truth,
            },
            "Sequence": self._sequence("pretokenizers", self.pre_tokenizer, depth),
        }
        return self._step(raw, kinds, where)

    def post_processor(self, raw: object, where: str, depth: int = 0) -> object:
        """What puts special tokens around it."""
        ends: _Fields = {"sep": _special, "cls": _special}
        kinds: dict[str, _Fields] = {
            "ByteLevel": _BYTE_LEVEL,
            "BertProcessing": ends,
            "RobertaProcessing": {**ends, "trim_offsets": _truth, "add_prefix_space": _truth},
            "TemplateProcessing": {
                "single": _template("A"),
                "pair": _template("A", "B"),
                "special_tokens": _specials,
            },
            "Sequence": self._sequence("processors", self.post_processor, depth),
        }
        return self._step(raw, kinds, where)

    def _sequence(self, name: str, read: Callable[..., object], depth: int) -> _Fields:
        def of_one(raw: object, where: str) -> object:
            if depth == _MAX_DEPTH:
                raise BundleError(f"{where}: expects sequences at most {_MAX_DEPTH} deep")
            return read(raw, where, depth + 1)

        return {name: _list(of_one, _MAX_STEPS)}

    def _step(self, raw: object, kinds: Mapping[str, _Fields], where: str) -> dict[str, Any]:
        self._count += 1
        if self._count > _MAX_STEPS:
            raise BundleError(f"{where}: expects at most {_MAX_STEPS} components")
        return _typed(raw, kinds, where)

    def _grow(self, table: dict[str, Any], where: str) -> None:
        self._growth *= max(1, len(table["content"])) / len(table["pattern"].get("String", "x"))
        if self._growth > _MAX_GROWTH:
            raise BundleError(
                f"{where}: expects replacements that make at most {_MAX_GROWTH} characters of one"
            )


def _plain(*names: str) -> dict[str, _Fields]:
    """Components without fields of their own."""
    return {name: {} for name in names}


def _typed(raw: object, kinds: Mapping[str, _Fields], where: str) -> dict[str, Any]:
    """A component of one of several types."""
    kind = raw.get("type") if isinstance(raw, dict) else None
    named = read_one_of(kind, tuple(kinds), f"{where}: type")
    return _record(raw, {"type": _text, **kinds[named]}, where)


def _record(raw: object, wanted: _Fields, where: str) -> dict[str, Any]:
    """An object that has exactly these fields, each of which is read."""
    if not isinstance(raw, dict) or set(raw) != set(wanted):
        got = sorted(str(key)[:40] for key in raw)[:20] if isinstance(raw, dict) else type(raw)
        raise BundleError(f"{where}: expects the fields {sorted(wanted)}, got {got}")
    for name, read in wanted.items():
        read(raw[name], f"{where}: {name}")
    return raw


def _model(raw: object, where: str) -> object:
    word, prefix = _integer(1, _MAX_WORD), _maybe(_any_text)
    table = _typed(
        raw,
        {
            "WordPiece": {
                "unk_token": _token,
                "continuing_subword_prefix": _any_text,
                "max_input_chars_per_word": word,
                "vocab": _vocabulary,
            },
            "WordLevel": {"unk_token": _token, "vocab": _vocabulary},
            "BPE": {
                "dropout": _null,
                "unk_token": prefix,
                "continuing_subword_prefix": prefix,
                "end_of_word_suffix": prefix,
                **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), _truth),
                "vocab": _vocabulary,
                "merges": _merges,
            },
            "Unigram": {
                "unk_id": _maybe(_integer(0, _MAX_TOKENS)),
                "vocab": _scored,
                "byte_fallback": _truth,
            },
        },
        where,
    )
    vocab, kind = table["vocab"], table["type"]
    if kind in ("WordPiece", "WordLevel") and table["unk_token"] not in vocab:
        raise BundleError(f"{where}: unk_token expects a token of the vocabulary")
    if kind == "BPE" and any(part not in vocab for pair in table["merges"] for part in pair):
        raise BundleError(f"{where}: merges expects pairs of tokens of the vocabulary")
    if kind == "Unigram" and (table["unk_id"] or 0) >= len(vocab):
        raise BundleError(f"{where}: unk_id expects a place in the vocabulary")
    return table


def _vocabulary(raw: object, where: str) -> object:
    if not isinstance(raw, dict) or not 0 < len(raw) <= _MAX_TOKENS:
        raise BundleError(f"{where}: expects an object of 1 to {_MAX_TOKENS} tokens")
    if set(map(type, raw.values())) != {int} or len(set(raw.values())) != len(raw):
        raise BundleError(f"{where}: expects a whole number for each token, and no number twice")
    if min(raw.values()) < 0 or max(raw.values()) > _MAX_ID:
        raise BundleError(f"{where}: expects numbers of 0 to {_MAX_ID}")
    _check_tokens(raw, where)
    return raw


def _scored(raw: object, where: str) -> object:
    """Tokens with their logarithmic probabilities, a token's number being its place."""
    if not isinstance(raw, list) or not 0 < len(raw) <= _MAX_TOKENS:
        raise BundleError(f"{where}: expects a list of 1 to {_MAX_TOKENS} tokens")
    for index, pair in enumerate(raw):
        is_pair = isinstance(pair, list) and list(map(type, pair)) in ([str, float], [str, int])
        if not is_pair or not abs(pair[1]) <= _MAX_SCORE:
            raise BundleError(f"{where}[{index}]: expects a token and a finite number")
    _check_tokens([token for token, _ in raw], where, may_be_empty=True)
    return raw


def _merges(raw: object, where: str) -> object:
    if not isinstance(raw, list) or len(raw) > _MAX_TOKENS:
        raise BundleError(f"{where}: expects a list of at most {_MAX_TOKENS} pairs")
    for index, pair in enumerate(raw):
        if not isinstance(pair, list) or list(map(type, pair)) != [str, str]:
            raise BundleError(f"{where}[{index}]: expects a pair of tokens")
    return raw


def _check_tokens(tokens: Any, where: str, *, may_be_empty: bool = False) -> None:
    lengths = set(map(len, tokens))
    if max(lengths) > _MAX_TOKEN or (0 in lengths and not may_be_empty):
        raise BundleError(f"{where}: expects tokens of 1 to {_MAX_TOKEN} characters")
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"{where}: expects tokens of whole characters") from error


def _added_tokens(raw: object, where: str) -> object:
    marks = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), _truth)
    fields: _Fields = {"id": _integer(0, _MAX_ID), "content": _token, **marks}
    return read_tuple(raw, lambda one, at: _record(one, fields, at), _MAX_ADDED, where)


def _special(raw: object, where: str) -> object:
    """A token and its number."""
    if not isinstance(raw, list) or len(raw) != 2:
        raise BundleError(f"{where}: expects a token and its number")
    return _token(raw[0], where), _integer(0, _MAX_ID)(raw[1], where)


def _specials(raw: object, where: str) -> object:
    if not isinstance(raw, dict) or len(raw) > _MAX_PIECES:
        raise BundleError(f"{where}: expects an object of at most {_MAX_PIECES} tokens")
    few = {"ids": _list(_integer(0, _MAX_ID), 4), "tokens": _list(_token, 4)}
    for name, one in raw.items():
        table = _record(one, {"id": _token, **few}, f"{where}: {name[:40]}")
        if table["id"] != name or len(table["ids"]) != len(table["tokens"]):
            raise BundleError(f"{where}: {name[:40]}: expects its own name, and as many ids")
    return raw


def _template(*sequences: str) -> _Read:
    """A list of special tokens with each of the texts in it once."""
    kinds: dict[str, _Fields] = {
        "SpecialToken": {"id": _token, "type_id": _integer(0, 255)},
        "Sequence": {"id": _one_of("A", "B"), "type_id": _integer(0, 255)},
    }

    def of_one(raw: object, where: str) -> str | None:
        if not isinstance(raw, dict) or len(raw) != 1 or not set(raw) <= set(kinds):
            raise BundleError(f"{where}: expects one of {sorted(kinds)}")
        ((kind, piece),) = raw.items()
        table = _record(piece, kinds[kind], where)
        return str(table["id"]) if kind == "Sequence" else None

    def read(raw: object, where: str) -> object:
        texts = [name for name in read_tuple(raw, of_one, _MAX_PIECES, where) if name]
        if sorted(texts) != list(sequences):
            raise BundleError(f"{where}: expects each of the texts {sequences} once, got {texts}")
        return texts

    return read


def _pattern(listed: frozenset[str]) -> _Read:
    def read(raw: object, where: str) -> object:
        if isinstance(raw, dict) and list(raw) == ["String"]:
            return _token(raw["String"], where)
        if not isinstance(raw, dict) or list(raw) != ["Regex"] or raw["Regex"] not in listed:
            raise BundleError(
                f"{where}: expects a plain String, or a Regex that well-known tokenizers have, got"
                f" {str(raw)[:80]!r}"
            )
        return raw["Regex"]

    return read


def _maybe(read: _Read) -> _Read:
    return lambda raw, where: None if raw is None else read(raw, where)


def _list(read: _Read, most: int) -> _Read:
    return lambda raw, where: read_tuple(raw, read, most, where)


def _integer(low: int, high: int) -> _Read:
    return lambda raw, where: read_integer(raw, low, high, where)


def _one_of(*words: str) -> _Read:
    return lambda raw, where: read_one_of(raw, words, where)


def _null(raw: object, where: str) -> object:
    if raw is not None:
        raise BundleError(f"{where}: expects null: it is declared in the manifest, or not needed")
    return raw


def _truth(raw: object, where: str) -> object:
    if not isinstance(raw, bool):
        raise BundleError(f"{where}: expects true or false")
    return raw


def _text(raw: object, where: str) -> object:
    return read_text(raw, where)


def _any_text(raw: object, where: str) -> object:
    if not isinstance(raw, str):
        raise BundleError(f"{where}: expects a text")
    if raw:
        _check_tokens([raw], where)
    return raw


def _token(raw: object, where: str) -> object:
    if not isinstance(raw, str):
        raise BundleError(f"{where}: expects a text")
    _check_tokens([raw], where)
    return raw


def _letter(raw: object, where: str) -> object:
    if not isinstance(raw, str) or len(raw) != 1:
        raise BundleError(f"{where}: expects one character")
    return _token(raw, where)


_BYTE_LEVEL: _Fields = dict.fromkeys(("add_prefix_space", "trim_offsets", "use_regex"), _truth)
_BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
