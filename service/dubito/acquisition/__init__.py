"""Choosing what to label next, or what to try next.

order           what is asked: the strategy, k, the options
draws           random words of rows, by which ties are broken
top             the best k rows of a stream
picks           the rules of a batch that is chosen one row after the other
classification  scores of single rows: least confidence, margin, mean deviation, PowerBALD
regression      scores of single rows: variance, BALD
optimisation    expected and probable improvement, confidence bound, Thompson
epig            expected predictive information gain
batchbald       the batch that says most, for classes
gaussian        the same for numbers
geometry        core-set, BADGE, weighted k-means
penalisation    batches for optimisation
strategies      all of them by name
fitting         whether what is asked fits network, sampling and memory
candidates      what joint strategies hold
pool            rows to choose from, and the choice
search          one search through a pool
"""

from dubito.acquisition.order import Acquisition
from dubito.acquisition.pool import ArrayPool, Choice, Pool
from dubito.acquisition.search import Search, select
from dubito.acquisition.strategies import names

__all__ = ["Acquisition", "ArrayPool", "Choice", "Pool", "Search", "names", "select"]
