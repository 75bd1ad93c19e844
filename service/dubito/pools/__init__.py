"""Stored pools: unlabelled rows that outgrow a request.

    stream.py       what every format is read as: named columns, block by block
    numpy_files.py  `.npy` and `.npz`, read as a stream
    parquet.py      `.parquet`, read by row groups (the extra `dubito[parquet]`)
    converted.py    CSV, NDJSON and Arrow's streams, made a `.parquet`
    table.py        its columns of text, times and numbers, for models that declare a table
    images.py       archives of images, `.zip` and `.tar`
    unpack.py       a file of any of these, verified and laid out as plain arrays
    data.py         those arrays, memory-mapped
    ranged.py       pools read where they lie, in parts
    cache.py        a bounded folder of them, by digest
    addresses.py    files in an object store that the operator allowed
    shelf.py        pools in and out

It knows neither HTTP nor the engine. Dimensions: N rows of a pool.
"""

from dubito.pools.data import PoolData
from dubito.pools.shelf import Shelf

__all__ = ["PoolData", "Shelf"]
