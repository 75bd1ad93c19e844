"""Choosing what to label next, or what to try next.

order         what is asked: the strategy, k, the options
draws         random words of rows, by which ties are broken
top           the best k rows of a stream
optimisation  how much better than the best value so far a row may be
batches       rows that are compared with each other
strategy      what a strategy says of itself
strategies    one file each, with the scores of single rows
fitting       whether what is asked fits network, sampling and memory
pool          rows to choose from, and the choice
search        one search through a pool
"""

from dubito.acquisition.order import Acquisition
from dubito.acquisition.pool import ArrayPool, Choice, Pool
from dubito.acquisition.search import Search, select
from dubito.acquisition.strategies import names

__all__ = ["Acquisition", "ArrayPool", "Choice", "Pool", "Search", "names", "select"]
