"""What servers of the tests have in common before they are forked: imports, and torch warmed up."""

import torch

import dubito.cli
from dubito.engine.kernels.rates import rates
from dubito.engine.proving.sizes import warm_up

__all__ = ["dubito"]

torch.set_num_threads(1)
warm_up()
rates(torch.device("cpu"))
