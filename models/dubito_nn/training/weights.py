"""The weights of a network: which they are, how long per unit, and their L1 penalty.

Those of two and more axes that layers multiply their inputs by: not biases, norms, learned drop
probabilities, nor the vectors of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def weights_of(network: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield path, module and parameter of every weight of two and more axes, each once."""
    yielded: set[int] = set()
    for path, module in network.named_modules():
        if isinstance(module, _EMBEDDINGS):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1 and "weight" in name and id(parameter) not in yielded:
                yielded.add(id(parameter))
                yield f"{path}.{name}".lstrip("."), module, parameter


def unit_norms(module: nn.Module, weight: Tensor) -> Tensor:
    """Return the Euclidean norm of the weights that each unit or channel takes in, one per unit.

    Args:
        module: The layer, which says where the units lie: first axis, second axis of a transposed
            convolution.
        weight: Two axes or more.
    """
    turned = weight.transpose(0, 1) if isinstance(module, _TRANSPOSED) else weight
    norms: Tensor = torch.linalg.vector_norm(turned.flatten(1), dim=1)
    return norms


def l1_penalty(network: nn.Module) -> Tensor:
    """Return ‖W‖₁ = Σ |w| over all weights; 0 where there are none."""
    terms = [weight.abs().sum() for _, _, weight in weights_of(network)]
    return torch.stack(terms).sum() if terms else torch.zeros(())
