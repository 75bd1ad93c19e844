"""Dropout along sequences: time steps, states, words, positions."""
