"""Choosing what to label next, or what to try next.

order       what is asked: the strategy, k, the options
draws       random words of rows, by which ties are broken
top         the best k rows of a stream
scores      of single rows
batches     of rows that are compared with each other
strategy    what a strategy says of itself
strategies  one file each
fitting     whether what is asked fits network, sampling and memory
pool        rows to choose from, and the choice
search      one search through a pool
"""

from dubito.acquisition.order import Acquisition
from dubito.acquisition.pool import ArrayPool, Choice, Pool
from dubito.acquisition.search import Search, select
from dubito.acquisition.strategies import names

__all__ = ["Acquisition", "ArrayPool", "Choice", "Pool", "Search", "names", "select"]
