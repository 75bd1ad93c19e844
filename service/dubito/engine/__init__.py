"""The inference engine: T masked passes over a lifted graph, and what they say together.

arguments    what an engine is given, checked
sampling     T, seed, masks, draw, method
masks        the draws ω, from a counter-based generator
layout       where every value of the graph holds its rows
rewrite      rules that give a graph less to do
placement    programs and weights on a device
plan         what runs once, once per row, once per sample, once per both
forms        cheaper ways to compute parts of the last, and `choice` of them by `rates`
passes       rows and samples in pieces that fit memory and cache
products     linear maps by the faster library
execution    what is kept between the pieces
fold         one piece: samples and rows folded into one axis, memory by `reuse`
propagation  mean and variance in one pass, without sampling
scaling      what a calibration does to the logits of every pass
features     one vector per row, for distances between rows
heads        the network's numbers as probabilities or in target units
positions    several labels, or a class at every position, of one row
aggregate    what they say of the row
statistics   streaming sums over the passes
prediction   the columns that come out
engine       all of it together
ensemble     several engines as one mixture
"""

from dubito.engine.engine import Engine
from dubito.engine.ensemble import Ensemble
from dubito.engine.inputs import Inputs
from dubito.engine.prediction import Classification, Prediction, Regression
from dubito.engine.sampling import Sampling

__all__ = ["Classification", "Engine", "Ensemble", "Inputs", "Prediction", "Regression", "Sampling"]
