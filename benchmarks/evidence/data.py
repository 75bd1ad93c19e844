"""MNIST and Fashion-MNIST as tensors, from the files of their authors.

The folder has `mnist/train-images-idx3-ubyte.gz` and the other three, and the same in
`fashion_mnist/`, where images may be cut into several files and packed with xz. IDX: a header of
big-endian integers (magic number, then the length of every axis), then unsigned bytes, rows first.

Dimensions: N rows.
"""

from __future__ import annotations

import gzip
import lzma
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BYTES_MAGIC = 0x0800  # unsigned bytes; the number of axes is added


@dataclass(frozen=True, eq=False)
class Digits:
    """MNIST, or Fashion-MNIST in its shape.

    Args:
        images: (60000, 784), from 0 to 1.
        labels: (60000,).
        test_images: (10000, 784).
        test_labels: (10000,).
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def first(self, num_rows: int) -> Digits:
        """Return so many rows of either part."""
        return Digits(
            self.images[:num_rows],
            self.labels[:num_rows],
            self.test_images[:num_rows],
            self.test_labels[:num_rows],
        )


def mnist(folder: Path, name: str = "mnist") -> Digits:
    """Read the files of `folder/mnist`, or of `folder/fashion_mnist`.

    Raises:
        FileNotFoundError: One of them is missing.
        ValueError: One of them is not what its name says.
    """
    home = folder / name
    return Digits(
        *_rows(home, "train"),
        *_rows(home, "t10k"),
    )


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write an array as a compressed IDX file."""
    header = struct.pack(f">{1 + values.ndim}I", _BYTES_MAGIC + values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a compressed IDX file of unsigned bytes.

    Raises:
        ValueError: It is not one, or its length is not what its header says.
    """
    unpack = lzma.decompress if path.suffix == ".xz" else gzip.decompress
    content = unpack(path.read_bytes())
    (magic,) = struct.unpack_from(">I", content)
    axes = magic - _BYTES_MAGIC
    if not 1 <= axes <= 4:
        raise ValueError(
            f"expected {path.name} to be an IDX file of bytes, got magic {magic:#x}: "
            "take the files as their authors published them"
        )
    shape = struct.unpack_from(f">{axes}I", content, 4)
    start = 4 + 4 * axes
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"expected {math.prod(shape)} bytes after the header of {path.name}, got "
            f"{len(content) - start}: the file is not whole, fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _rows(home: Path, part: str) -> tuple[Tensor, Tensor]:
    parts = sorted(home.glob(f"{part}-images*"))
    if not parts:
        raise FileNotFoundError(f"{home}/{part}-images-idx3-ubyte.gz")
    images = np.concatenate([read_idx(path) for path in parts])
    labels = read_idx(home / f"{part}-labels-idx1-ubyte.gz")
    flat = images.reshape(len(images), -1).astype(np.float32) / 255.0
    return torch.from_numpy(flat), torch.from_numpy(labels.astype(np.int64))
