"""The inference engine: T masked passes over a lifted graph, and what they say together.

Its rooms, each of which imports only those above it:

calling     what a call takes and what it gives back
draws       the draws ω, from a counter-based generator
kernels     operators in a faster way than torch's own, in which precision, how fast a device is
planning    what runs once, once per row, once per sample, once per both
proving     how large a stranger's graph is, and how long it takes
running     passes in pieces that fit memory and cache
forms       cheaper ways to compute parts of a pass
summing     sums over the passes
moments     mean and variance in one pass, without sampling
held        what was fitted to a network, by number
laplace     a Gaussian over the last linear map
distilled   a head that has learned what the passes say
sites       which sites are sampled, and the others at their means
heads       what the outputs mean: raw passes → parts → sums → figures
answering   from passes to answers
additivity  what a stratified draw leaves, measured once
findings    what a load found out, kept for the next process
choice      which forms pay, measured once
proof       that a stranger's bundle runs, before anything of it is served
plans       the plans of the shapes of rows that were asked about
some_sites  the engines that sample some of the sites
deviation   how far figures in another precision are from float32
loading     a bundle proved and prepared at load
engine      all of it together
served      whether an exported bundle can be served
replicas    one network on several devices, each call on that of its thread
ensemble    several engines as one mixture
network     one engine, or several: what can be asked
pinning     an engine that computes the same bits in another process
cost        what a pass costs, for those who ask
summary     a plan in few words
"""

from dubito.engine.calling.inputs import Inputs
from dubito.engine.calling.prediction import (
    Classification,
    Prediction,
    Regression,
    SequenceScores,
)
from dubito.engine.calling.sampling import Sampling
from dubito.engine.engine import Engine
from dubito.engine.ensemble import Ensemble

__all__ = [
    "Classification",
    "Engine",
    "Ensemble",
    "Inputs",
    "Prediction",
    "Regression",
    "Sampling",
    "SequenceScores",
]
