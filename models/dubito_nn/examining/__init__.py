"""What of a network is random, under every usual way to switch dropout on; it need not export.

examined  what was found, as data
running   passes whose every random call is seeded by itself
switches  ways to switch dropout on
trial     what an export would refuse
findings  what is wrong, and the remedy
examine   all of it
"""

from dubito_nn.examining.examine import examine
from dubito_nn.examining.examined import Examination, Finding, Operation, Switch

__all__ = ["Examination", "Finding", "Operation", "Switch", "examine"]
