"""What else samples a network with dropout: a plain loop, Baal, torch-uncertainty.

Every peer takes rows on the host and returns the T passes' probabilities on the host. A peer is
timed even where it misses dropout, but compares only where it samples all of it: the random
operators of one forward pass are counted, and its passes have to differ.

    loop                          torch.stack([network(x).softmax(-1) for _ in range(T)])
    Baal, replicate / loop        ModelWrapper.predict_on_batch, replicate_in_memory=True / False
    torch-uncertainty, on batch / loop    mc_dropout(network, T, on_batch=True / False)

Dimensions: T samples, B rows, C classes.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

LOOP = "loop"
PEERS = (LOOP, "Baal, replicate", "Baal, loop", "t-u, on batch", "t-u, loop")
_VARIES = 1e-6  # least standard deviation over passes that counts as varying


@dataclass(frozen=True)
class Peer:
    """A way to sample a network.

    Args:
        name: one of `PEERS`.
        network: as the peer runs it; the same weights as the others'.
        sample: rows (B, ...) -> probabilities of the passes (T, B, C).
    """

    name: str
    network: nn.Module
    sample: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Standing:
    """Whether a peer does what it is compared for.

    Args:
        sites: random operators of one of its forward passes.
        varies: whether its passes differ.
        failed: why it does not run, else None.
    """

    sites: int
    varies: bool
    failed: str | None = None

    def is_full(self, sites: int) -> bool:
        """Whether it samples as much as the loop, whose forward pass has so many."""
        return self.failed is None and self.varies and self.sites >= sites


def sampling_mode(network: nn.Module) -> nn.Module:
    """Dropout as in training, norms with running statistics as in evaluation.

    Args:
        network: changed in place, and returned.
    """
    network.train()
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.eval()
    return network


def make_peer(name: str, network: nn.Module, samples: int, device: torch.device) -> Peer:
    """A peer around a copy of the network.

    Args:
        name: one of `PEERS`.
        network: to be copied.
        samples: T.
        device: where the copy runs.

    Raises:
        ImportError: the peer is not installed.
        ValueError: the peer finds no dropout.
    """
    own = copy.deepcopy(network).to(device).eval()
    if name == LOOP:
        return _loop(own, samples, device)
    if name.startswith("Baal"):
        return _baal(name, own, samples, device)
    return _torch_uncertainty(name, own, samples, device)


def _loop(network: nn.Module, samples: int, device: torch.device) -> Peer:
    sampling_mode(network)

    def sample(rows: Tensor) -> Tensor:
        rows = rows.to(device)
        return torch.stack([network(rows).softmax(-1) for _ in range(samples)]).cpu()

    return Peer(LOOP, network, sample)


def _baal(name: str, network: nn.Module, samples: int, device: torch.device) -> Peer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its use of structlog is deprecated; it may find nothing
        from baal.bayesian.dropout import patch_module
        from baal.modelwrapper import ModelWrapper, TrainingArgs

        patched = patch_module(network, inplace=False)
    settings = TrainingArgs(
        use_cuda=device.type == "cuda", replicate_in_memory=name.endswith("replicate")
    )
    wrapper = ModelWrapper(patched, settings)
    wrapper.eval()

    def sample(rows: Tensor) -> Tensor:
        logits_BCT: Tensor = wrapper.predict_on_batch(rows, iterations=samples)
        return logits_BCT.softmax(1).movedim(-1, 0).cpu()

    return Peer(name, patched, sample)


def _torch_uncertainty(name: str, network: nn.Module, samples: int, device: torch.device) -> Peer:
    module = _load("torch_uncertainty", "methods/mc_dropout.py")
    wrapped = module.mc_dropout(network, samples, on_batch=name.endswith("on batch")).eval()

    def sample(rows: Tensor) -> Tensor:
        logits = wrapped(rows.to(device))
        return logits.view(samples, len(rows), -1).softmax(-1).cpu()

    return Peer(name, network, sample)


def _load(package: str, path: str) -> ModuleType:
    """One file of a package whose own import wants more than is installed."""
    name = f"_{package}_{Path(path).stem}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"{package} is not installed: see benchmarks/peers.txt")
    spec = importlib.util.spec_from_file_location(name, Path(found.origin).parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def standing(peer: Peer, rows: Tensor) -> Standing:
    """Run a peer once, count its random operators, and look whether its passes differ.

    Args:
        peer: to be judged.
        rows: on the host.
    """
    try:
        spread = peer.sample(rows).std(0).max().item()
    except RuntimeError as error:  # out of memory among others
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        return Standing(0, False, reason)
    device = next(peer.network.parameters()).device
    with _RandomOperators() as random:
        peer.network(rows[:1].to(device))
    return Standing(random.count, spread > _VARIES)


class _RandomOperators(TorchDispatchMode):
    """Counts the random operators that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def peer_versions() -> dict[str, str]:
    """Versions of the peers that are installed."""
    found = {}
    for package in ("baal", "torch-uncertainty"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
