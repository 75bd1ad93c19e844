"""Dubito: serve PyTorch networks trained with dropout, with the uncertainty of every prediction.

`ARCHITECTURE.md` has the map of this package.
"""

__version__ = "0.1.0"
