"""Scores of single rows.

classification  least confidence, margin, mean deviation, PowerBALD
regression      variance, BALD
optimisation    expected and probable improvement, confidence bound, Thompson
epig            expected predictive information gain
"""
