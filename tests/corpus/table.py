"""Every hostile case by name: importing the modules of cases fills the table."""

from __future__ import annotations

from . import documents, files, graphs, preprocess, sizes, tokenizers, weights
from .cases import CASES

MODULES = (files, documents, preprocess, tokenizers, weights, graphs, sizes)

__all__ = ["CASES", "MODULES"]
