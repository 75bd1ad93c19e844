"""What processes of the tests have in common before they are forked: imports, and torch warmed up.

Dubito imports a command when it is called; what is not imported here, each process imports anew.
"""

import gc
import sys
from importlib import import_module

import torch

import dubito.cli.serve
from dubito.engine.kernels.rates import rates
from dubito.engine.proving.sizes import warm_up
from dubito.engine.summing import compiled

from . import processes, victim

__all__ = ["dubito", "processes", "victim"]

torch.set_num_threads(1)
warm_up()
compiled.warm_up()
for module in dubito.cli.serve.IMPORTED_LATE:
    import_module(module)
rates(torch.device("cpu"))
IMPORTED = frozenset(sys.modules)
gc.collect()
gc.freeze()  # what is here is not looked at again by each process
