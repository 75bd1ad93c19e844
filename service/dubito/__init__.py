"""Dubito: serve PyTorch networks trained with dropout, with the uncertainty of every prediction."""

__version__ = "0.1.0"
