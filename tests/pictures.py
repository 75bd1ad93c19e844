"""The digits of scikit-learn as files of images, and a small network that declares them."""

from __future__ import annotations

import base64
import io
import tarfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dubito_nn import Bundle, export, preprocess

ZIP, TAR = "application/zip", "application/x-tar"
CLASSES = tuple("0123456789")
DIGITS = preprocess.ImageInput(mode="L", size=(8, 8), filter="box", scale=1 / 16, layout="CHW")
"""Digits of 0 to 16, which are written as pixels of these values."""


@cache
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images, (N, 8, 8) of 0 to 16, and their labels."""
    found = load_digits()
    return found.images.astype(np.uint8), found.target


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Pixels as a file."""
    return encoded(Image.fromarray(pixels), "PNG")


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """An image as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def base64_of(content: bytes) -> str:
    """A file as JSON has it."""
    return base64.b64encode(content).decode()


def folder(count: int, first: int = 0) -> dict[str, bytes]:
    """Files of digits by name, in a folder for each class."""
    images, labels = digits()
    rows = range(first, first + count)
    return {f"{labels[row]}/d{row:04}.png": png(images[row]) for row in rows}


def archive(files: Mapping[str, bytes], kind: str) -> bytes:
    """Files as an archive."""
    out = io.BytesIO()
    if kind == ZIP:
        with zipfile.ZipFile(out, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
    else:
        with tarfile.TarFile(fileobj=out, mode="w") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Digits(nn.Module):
    """A small convolutional network; a deterministic one, given its seed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(288, 10))
        )

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.net(image)
        return out


@cache
def trained() -> Digits:
    """The network after some steps on the first thousand digits."""
    torch.manual_seed(0)
    network = Digits()
    images, labels = digits()
    rows = torch.tensor(images[:1000, None] / 16, dtype=torch.float32)
    truths = torch.tensor(labels[:1000])
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(rows), truths).backward()
        optimiser.step()
    return network


def exported(path: Path, declared: preprocess.ImageInput = DIGITS) -> Bundle:
    """The trained network as a bundle that declares its images."""
    rows = torch.tensor(digits()[0][:20, None] / 16, dtype=torch.float32)
    return export(
        trained(),
        {"image": rows},
        path,
        task="classification",
        output="logits",
        classes=CLASSES,
        preprocess=declared,
    )
