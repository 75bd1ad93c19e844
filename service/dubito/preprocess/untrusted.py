"""Tables of strangers: what is looked at before pyarrow decodes it, and what is not asked of it.

A compressed buffer states the size that it becomes, and pyarrow takes room for it: a few bytes ask
for terabytes. So compressed streams are refused, by the one field of a message's description that
says so. A description is a FlatBuffer: a table begins with the distance to its list of offsets, in
which a field has two bytes, 0 where it is left out.

Of a Parquet file the description of a column is never asked for: pyarrow ends the whole process
where one contradicts itself (`RowGroupMetaData.column`, seen with 26.0.1).

Source: Arrow columnar format 1.5, Message.fbs; FlatBuffers, internals.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow import parquet as pq

_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2
_KIND, _HEADER = 1, 2  # fields of a Message
_DATA, _COMPRESSION = 1, 3  # of a DictionaryBatch, of a RecordBatch


def stated_bytes(file: pq.ParquetFile) -> int:
    """Bytes of all columns before compression, by what the file says of its row groups."""
    groups = range(file.metadata.num_row_groups)
    return sum(max(0, file.metadata.row_group(group).total_byte_size) for group in groups)


def is_compressed(description: bytes) -> bool:
    """Whether the buffers of a message are compressed.

    Args:
        description: of the message, as Arrow has verified it.

    Raises:
        ValueError: it is damaged.
    """
    try:
        message = struct.unpack_from("<I", description, 0)[0]
        kind_at, header = _field(description, message, _KIND), _table(description, message, _HEADER)
        kind = description[kind_at] if kind_at else 0
        if kind == _DICTIONARY_BATCH and header:
            header = _table(description, header, _DATA)
        elif kind != _RECORD_BATCH:
            return False
        return bool(header) and _field(description, header, _COMPRESSION) > 0
    except (struct.error, IndexError) as error:
        raise ValueError("a message whose description is cut short") from error


def _field(content: bytes, table: int, number: int) -> int:
    """Where a field of a table lies; 0 where it is left out."""
    offsets = table - struct.unpack_from("<i", content, table)[0]
    if offsets < 0:
        raise ValueError("a message whose description is damaged")
    at = 4 + 2 * number
    if at >= struct.unpack_from("<H", content, offsets)[0]:
        return 0
    distance: int = struct.unpack_from("<H", content, offsets + at)[0]
    return table + distance if distance else 0


def _table(content: bytes, table: int, number: int) -> int:
    """Where the table of a field lies; 0 where it is left out."""
    at = _field(content, table, number)
    return at + int(struct.unpack_from("<I", content, at)[0]) if at else 0
