"""Dropout of activations: units, channels, blocks."""
