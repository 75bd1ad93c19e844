"""Dropout of weights, and noise that is learned for each weight."""
