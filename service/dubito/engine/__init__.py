"""The inference engine: T masked passes over a lifted graph, and what they say together.

arguments    what an engine is given, checked
inputs       rows as they come, checked against the network
sampling     T, seed, masks, draw, method
draws        the draws ω, from a counter-based generator
planning     what runs once, once per row, once per sample, once per both
forms        cheaper ways to compute parts of the last
running      passes in pieces that fit memory and cache
summing      what they say together
propagation  mean and variance in one pass, without sampling
proving      that a stranger's graph is sound
features     one vector per row, for distances between rows
prediction   the columns that come out
engine       all of it together
pinning      an engine that computes the same bits in another process
ensemble     several engines as one mixture
"""

from dubito.engine.calling.inputs import Inputs
from dubito.engine.calling.prediction import Classification, Prediction, Regression
from dubito.engine.calling.sampling import Sampling
from dubito.engine.engine import Engine
from dubito.engine.ensemble import Ensemble

__all__ = ["Classification", "Engine", "Ensemble", "Inputs", "Prediction", "Regression", "Sampling"]
