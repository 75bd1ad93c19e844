"""Texts: cut into pieces by the tokenizer of the bundle (the extra `dubito[text]`).

Rows are cut and filled up here, over the numbers of their pieces: the library's own cutting keeps
all that was cut off. What the special pieces are is read off the tokenizer once.

Dimensions: B rows, L pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.errors import InputError
from dubito.media import TEXT
from dubito.preprocess.files import TableFile
from dubito.preprocess.part import Rows
from dubito.preprocess.wanted import Cells
from dubito_nn import InputSpec
from dubito_nn.preprocess import TextInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_CHARACTERS = 100_000
"""Most characters of one text."""
_AT_ONCE = 250_000  # characters, whose pieces take some hundred bytes each until they are counted
_EXPECTED = ("text for each row", "a pair of texts for each row")
_SAMPLES = ("a", "the", "1", ".", "e")


@dataclass(frozen=True)
class _Place:
    """Something in a row: a special piece with its number, or one of the texts."""

    type_id: int
    piece: int | None = None
    text: int | None = None


@dataclass(frozen=True)
class _Cutter:
    """A tokenizer, and what it puts around one text, or a pair."""

    tokenizer: Tokenizer
    template: tuple[_Place, ...]

    @property
    def num_special(self) -> int:
        """Special pieces of a row."""
        return sum(place.text is None for place in self.template)


class TextKind:
    """Runs texts."""

    def __init__(self) -> None:
        self._cutters: WeakKeyDictionary[TextInput, _Cutter] = WeakKeyDictionary()

    def needs(self, part: TextInput) -> tuple[str, ...]:
        """Names of the columns of the text, and of the second one of a pair."""
        return (part.name,) if part.pair is None else (part.name, part.pair)

    def ready(self, part: TextInput) -> None:
        """Make the tokenizer, where it can be made here.

        Raises:
            InputError: the library does not take it.
        """
        try:
            import tokenizers  # noqa: F401
        except ModuleNotFoundError:  # whoever sends texts is told
            return
        self._cutter(part)

    def rows_alone(self, part: TextInput, inputs: object) -> dict[str, Cells] | None:
        """The columns of texts, or pairs of them, that are sent without names; None of a table.

        Raises:
            InputError: a row of what shall be pairs is none, or a body is no text.
        """
        if isinstance(inputs, TableFile):
            return {part.name: [_decoded(part, inputs)]} if inputs.kind == TEXT else None
        is_frame = hasattr(inputs, "__arrow_c_stream__") and hasattr(inputs, "columns")
        if isinstance(inputs, str | bytes) or is_frame or isinstance(inputs, Tensor):
            return None
        listed = inputs.tolist() if hasattr(inputs, "tolist") else inputs
        if not isinstance(listed, Sequence) or any(isinstance(row, Mapping) for row in listed):
            return None
        for row, text in enumerate(listed):
            is_pair = isinstance(text, list | tuple) and list(map(type, text)) == [str, str]
            if not (isinstance(text, str) if part.pair is None else is_pair):
                raise InputError(
                    f"`inputs` expects {_EXPECTED[part.pair is not None]}, got "
                    f"{type(text).__name__} for row {row}: the network's own tensors need "
                    "`preprocess` false"
                )
        if part.pair is None:
            return {part.name: listed}
        return {part.name: [one for one, _ in listed], part.pair: [two for _, two in listed]}

    def make(
        self,
        part: TextInput,
        columns: Mapping[str, Cells],
        specs: Mapping[str, InputSpec],
        warnings: list[str],
    ) -> dict[str, Rows]:
        """The numbers of the pieces, the mask and the parts of the pair, (B, L) each."""
        cutter = self._cutter(part)
        texts = [list(_texts(name, columns[name])) for name in self.needs(part)]
        pieces = [list(_cut(cutter.tokenizer, column)) for column in texts]
        rows, num_cut = [], 0
        room = part.max_length - cutter.num_special
        for row in zip(*pieces, strict=True):
            kept = _shortened(part, row, room)
            num_cut += sum(map(len, kept)) < sum(map(len, row))
            rows.append(kept)
        if num_cut:
            warnings.append(
                f"texts of {num_cut} of {len(rows)} rows have more than the {part.max_length} "
                "tokens that the model reads, and were cut"
            )
        return _filled(part, cutter.template, rows)

    def _cutter(self, part: TextInput) -> _Cutter:
        known = self._cutters.get(part)
        if known is None:
            known = _Cutter(*_loaded(part))
            if known.num_special >= part.max_length:
                raise InputError(
                    f"the text `{part.name}` expects more than the {part.max_length} tokens that "
                    f"it may have: {known.num_special} are special ones: export it with more"
                )
            self._cutters[part] = known
        return known


def _decoded(part: TextInput, file: TableFile) -> str:
    if part.pair is not None:
        raise InputError(
            "body: expected a pair of texts, got one: send JSON, whose `inputs` are pairs"
        )
    try:
        return file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"body: expected text in UTF-8, got something else ({error}): save it so"
        ) from error


def _loaded(part: TextInput) -> tuple[Tokenizer, tuple[_Place, ...]]:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise InputError(
            "texts expect tokenizers, which is not installed here: pip install 'dubito[text]', or "
            "send the numbers of their pieces with `preprocess` false"
        ) from error
    try:
        tokenizer = Tokenizer.from_str(part.tokenizer)
        return tokenizer, tuple(_template(tokenizer, part))
    except BaseException as error:
        raise _refused(error, "tokenizer.json: expected one that tokenizers reads") from error


def _template(tokenizer: Tokenizer, part: TextInput) -> Iterator[_Place]:
    """What stands in a row, seen on texts of a piece or a few."""
    count = 1 if part.pair is None else 2
    if not part.special_tokens:
        yield from (_Place(0, text=text) for text in range(count))
        return
    sample, before = _sample(tokenizer), None
    row = tokenizer.encode(sample) if count == 1 else tokenizer.encode(sample, sample)
    for piece, type_id, text in zip(row.ids, row.type_ids, row.sequence_ids, strict=True):
        if text is None:
            yield _Place(type_id, piece)
        elif text != before:
            yield _Place(type_id, text=text)
        before = text


def _sample(tokenizer: Tokenizer) -> str:
    """A text that has pieces."""
    for sample in _SAMPLES:
        if tokenizer.encode(sample, add_special_tokens=False).ids:
            return sample
    raise InputError("tokenizer.json: expected one that cuts texts, got no pieces of any")


def _texts(name: str, cells: Cells) -> Iterator[str]:
    """The texts of a column; an empty cell is a text without characters."""
    for row, cell in enumerate(cells):
        if cell is None or (isinstance(cell, float) and cell != cell):
            yield ""
        elif not isinstance(cell, str):
            raise InputError(
                f"the text `{name}`, row {row}: expected text, got {type(cell).__name__}: send a "
                "string for each row, or the network's own numbers with `preprocess` false"
            )
        elif len(cell) > MAX_CHARACTERS:
            raise InputError(
                f"the text `{name}`, row {row}: expected at most {MAX_CHARACTERS} characters, got "
                f"{len(cell)}: send the part that matters"
            )
        else:
            yield cell


def _cut(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """The numbers of the pieces of each text."""
    start = 0
    while start < len(texts):
        stop, total = start, 0
        while stop < len(texts) and (stop == start or total + len(texts[stop]) <= _AT_ONCE):
            total += len(texts[stop])
            stop += 1
        try:
            encodings = tokenizer.encode_batch_fast(texts[start:stop], add_special_tokens=False)
        except BaseException as error:
            expected = f"texts of rows {start} to {stop - 1}: expected what the tokenizer takes"
            raise _refused(error, expected) from error
        for encoding in encodings:
            yield np.array(encoding.ids, np.int64)
        start = stop


def _refused(error: BaseException, expected: str) -> BaseException:
    """What native code raises; a panic there is no exception of Python's."""
    if isinstance(error, InputError):
        return error
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        return error
    return InputError(f"{expected}, got an error ({str(error)[:160]}): correct it")


def _shortened(
    part: TextInput, row: Sequence[NDArray[np.int64]], room: int
) -> tuple[NDArray[np.int64], ...]:
    """The texts of a row with at most `room` pieces, by the rules of `tokenizers`."""
    sizes = [len(ids) for ids in row]
    over = sum(sizes) - room
    if over <= 0:
        return tuple(row)
    if len(row) == 1:
        kept = [room]
    elif part.truncation == "longest_first":
        kept = _balanced(sizes[0], sizes[1], room)
    else:
        place = 0 if part.truncation == "only_first" else 1
        kept = [*sizes]
        kept[place] = sizes[place] - over
        if kept[place] < 1:
            raise InputError(
                f"a pair of texts expects that cutting the {('first', 'second')[place]} one leaves "
                f"something of it, got {sizes[1 - place]} tokens of the other: shorten that one"
            )
    is_left = part.truncation_side == "left"
    return tuple(
        ids[len(ids) - size :] if is_left else ids[:size]
        for ids, size in zip(row, kept, strict=True)
    )


def _balanced(first: int, second: int, room: int) -> list[int]:
    """Sizes of a pair whose longer text is cut, and both where that is not enough."""
    short, long = sorted((first, second))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return [short, long] if first <= second else [long, short]


def _filled(
    part: TextInput,
    template: Sequence[_Place],
    rows: Sequence[tuple[NDArray[np.int64], ...]],
) -> dict[str, Rows]:
    """The inputs of all rows, filled up to one length."""
    num_special = sum(place.text is None for place in template)
    sizes = [num_special + sum(map(len, row)) for row in rows]
    length = max([1, *sizes]) if part.length is None else part.length
    ids_BL = np.full((len(rows), length), part.pad_id)
    types_BL = np.full((len(rows), length), part.pad_type_id)
    mask_BL = np.zeros((len(rows), length), np.int64)
    for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        at = length - size if part.padding_side == "left" else 0
        mask_BL[index, at : at + size] = 1
        for place in template:
            piece = row[place.text] if place.text is not None else cast("int", place.piece)
            stop = at + (1 if isinstance(piece, int) else len(piece))
            ids_BL[index, at:stop] = piece
            types_BL[index, at:stop] = place.type_id
            at = stop
    made: dict[str, Rows] = {str(part.ids): ids_BL}
    if part.mask is not None:
        made[part.mask] = mask_BL
    if part.type_ids is not None:
        made[part.type_ids] = types_BL
    return made
