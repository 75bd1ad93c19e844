"""The inference engine: T masked passes over a lifted graph, and what they say together."""

from dubito.engine.sampling import Sampling

__all__ = ["Sampling"]
