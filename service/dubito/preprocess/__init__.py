"""Inputs as people have them: what a bundle declares of them, run on this server.

preparing  what is sent → a frame → the parts that the bundle declares → arrays by input
part       the protocol of a kind of part
table      columns by name, to matrices and indices
array      numbers of the input's own shape
images     images, to their pixels as the network reads them
text       texts, to the numbers of their pieces
cells      the cells of one column, to numbers
texts      the cells of a CSV, to what the column declares
frames     columns by name, of records, columns or DataFrames
files      the same, of files: CSV, Parquet, Arrow
arrow      the same, of Arrow's tables
wanted     the columns and rows that a table shall have
untrusted  what is looked at before Arrow reads a stream, or a Parquet file
quotes     whether each quote of a CSV is closed

Nothing here knows the engine, HTTP or a database. What is declared is data: no step runs code of
a bundle.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dubito.preprocess.files import TableFile
from dubito.preprocess.images.bounds import ImageBounds
from dubito.preprocess.images.files import FILE, LABEL, is_archive

if TYPE_CHECKING:
    from dubito.preprocess.preparing import (
        Prepared,
        check_columns,
        image_input,
        is_made,
        prepare,
        read_columns,
        ready,
    )

__all__ = [
    "FILE",
    "LABEL",
    "ImageBounds",
    "Prepared",
    "TableFile",
    "check_columns",
    "image_input",
    "is_archive",
    "is_made",
    "prepare",
    "read_columns",
    "ready",
]


def __getattr__(name: str) -> object:
    """What runs a declaration, which needs torch: files and archives are read without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("dubito.preprocess.preparing"), name)
