"""What processes of the tests have in common before they are forked: imports, and an engine tried.

Dubito imports a command when it is called, and some libraries when they are first used; what is not
imported here, each process imports anew.
"""

import sys
from pathlib import Path

import torch

from dubito.cli.commands.serve import _set_modules_aside
from dubito.engine import Engine
from dubito.engine.kernels.rates import rates
from dubito.engine.summing import compiled

from . import processes, victim

__all__ = ["processes", "victim"]

torch.set_num_threads(1)
compiled.warm_up()
rates(torch.device("cpu"))
Engine.load((Path(__file__).parent / "data" / "golden" / "classes.dubito").read_bytes())
_set_modules_aside()
IMPORTED = frozenset(sys.modules)
