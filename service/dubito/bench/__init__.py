"""What T costs and what it buys, measured on a bundle of one's own.

order      what is asked
timing     sides timed in turn, each call with fresh rows
machine    what the figures were taken on
rows       where the rows come from
latency    milliseconds over T and B, beside one plain forward pass
accuracy   standard error over T, and the actual error against many passes
agreement  what is lost where only some sites are sampled
study      all of it, and its JSON
picture    the study drawn

Flow: rows → accuracy → latency → study → table, JSON, picture. Knows no HTTP and no database.
Dimensions: T samples, B rows, C classes, D outputs.
"""

from dubito.bench.machine import Machine, describe_machine
from dubito.bench.order import BenchOrder
from dubito.bench.rows import StudyRows
from dubito.bench.study import Step, Study, study
from dubito.bench.timing import Limits, Timing, interleaved, one_after_the_other

__all__ = [
    "BenchOrder",
    "Limits",
    "Machine",
    "Step",
    "Study",
    "StudyRows",
    "Timing",
    "describe_machine",
    "interleaved",
    "one_after_the_other",
    "study",
]
