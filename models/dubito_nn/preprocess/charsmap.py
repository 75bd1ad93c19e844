"""SentencePiece's map of characters, of a stranger, before native code walks it.

A map is the size of a trie in bytes, the trie, and the texts that its leaves stand for, each ended
by a zero. The trie is a double array of 32-bit units: from the unit at i, with its offset o, the
byte c leads to the unit at i ^ o ^ c, which is the right one where its label is c; a leaf's value
lies at i ^ o and is the place of its text. Whatever could lead out of the array, or to a place
that is no text's, is refused, so that no input makes the walk fail.

Source: Kudo and Richardson 2018, SentencePiece; Yata et al. 2007, double arrays.
"""

from __future__ import annotations

import base64
import binascii
import struct

import numpy as np
from numpy.typing import NDArray

from dubito_nn.errors import BundleError

_MAX_BYTES = 4 * 2**20
_MAX_TEXT = 128  # bytes, which one character becomes
_BLOCK = 256  # units, that the bytes of a key lead to
_IS_VALUE = np.uint32(1 << 31)
_HAS_LEAF = np.uint32(1 << 8)
_IS_FAR = np.uint32(1 << 9)
_CONTINUES, _OF_CONTINUED = 0x80, 0xC0  # a byte within a character of UTF-8


def read_charsmap(raw: object, where: str) -> object:
    """A sound map, in base64.

    Raises:
        BundleError: it is none, or larger than it may be, or leads out of itself.
    """
    if not isinstance(raw, str) or len(raw) > _MAX_BYTES:
        raise BundleError(f"{where}: expects a map of characters of at most {_MAX_BYTES} bytes")
    try:
        content = base64.b64decode(raw, validate=True)
        (size,) = struct.unpack_from("<I", content)
    except (binascii.Error, ValueError, struct.error) as error:
        raise BundleError(f"{where}: expects a map of characters in base64") from error
    trie, texts = content[4 : 4 + size], content[4 + size :]
    if not size or len(trie) != size or size % (4 * _BLOCK):
        raise BundleError(f"{where}: expects a trie of whole blocks of {_BLOCK} units")
    _check_texts(texts, where)
    _check_units(np.frombuffer(trie, "<u4"), np.frombuffer(texts, np.uint8), where)
    return raw


def _check_texts(texts: bytes, where: str) -> None:
    try:
        texts.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: expects texts in UTF-8") from error
    if not texts.endswith(b"\0") or max(map(len, texts.split(b"\0"))) > _MAX_TEXT:
        raise BundleError(f"{where}: expects texts of at most {_MAX_TEXT} bytes, ended by a zero")


def _check_units(units: NDArray[np.uint32], texts: NDArray[np.uint8], where: str) -> None:
    is_step = (units & _IS_VALUE) == 0  # a value has no label, so that no byte leads to it
    offsets = (units >> 10).astype(np.int64) << np.where(units & _IS_FAR, 8, 0)
    leads_to = np.arange(len(units)) ^ offsets
    if (is_step & (leads_to >= len(units))).any():
        raise BundleError(f"{where}: expects a trie that does not lead out of itself")
    places = units[leads_to[is_step & ((units & _HAS_LEAF) != 0)]] & ~_IS_VALUE
    is_inside = places < len(texts)
    if not is_inside.all() or ((texts[places] & _OF_CONTINUED) == _CONTINUES).any():
        raise BundleError(f"{where}: expects leaves at whole characters of the texts")
