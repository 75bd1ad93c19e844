"""What keeps weights small: penalties in the objective, and a projection after each step.

The weights meant here are those of two and more axes that layers multiply their inputs by: not
biases, norms, learned drop probabilities, nor the vectors of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def weights_of(network: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield path, module and parameter of every weight of two and more axes, each once."""
    seen: set[int] = set()
    for path, module in network.named_modules():
        if isinstance(module, _EMBEDDINGS):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1 and "weight" in name and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{path}.{name}".lstrip("."), module, parameter


def unit_norms(module: nn.Module, weight: Tensor) -> Tensor:
    """Return the Euclidean norm of the weights that each unit or channel takes in, one per unit.

    Args:
        module: The layer, which says where the units lie: first axis, second axis of a transposed
            convolution.
        weight: Two axes or more.
    """
    norms: Tensor = torch.linalg.vector_norm(_by_unit(module, weight), dim=1)
    return norms


def l1_penalty(network: nn.Module) -> Tensor:
    """Return ‖W‖₁ = Σ |w| over all weights; 0 where there are none."""
    terms = [weight.abs().sum() for _, _, weight in weights_of(network)]
    return torch.stack(terms).sum() if terms else torch.zeros(())


@torch.no_grad()
def constrain_max_norm(network: nn.Module, max_norm: float) -> None:
    """Shrink, in place, the weights into each unit to a norm of at most `max_norm`.

    w_unit ← w_unit · min(1, max_norm / ‖w_unit‖₂)

    Args:
        network: Its weights change.
        max_norm: Positive; 3 to 4 is usual with dropout.

    Raises:
        ValueError: `max_norm` is not positive.

    Source: Srivastava et al. 2014, Dropout, section 5.1; Srebro and Shraibman 2005.
    """
    if not max_norm > 0.0:
        raise ValueError(f"expected a positive max_norm, got {max_norm}: use 3, or None for none")
    for _, module, weight in weights_of(network):
        scale = (max_norm / unit_norms(module, weight)).clamp(max=1.0)  # 1 where the norm is 0
        weight.mul_(scale.view(_view_of(module, weight)))


def _by_unit(module: nn.Module, weight: Tensor) -> Tensor:
    turned = weight.transpose(0, 1) if _is_turned(module) else weight
    return turned.flatten(1)


def _view_of(module: nn.Module, weight: Tensor) -> tuple[int, ...]:
    axis = 1 if _is_turned(module) else 0
    return tuple(weight.shape[axis] if at == axis else 1 for at in range(weight.ndim))


def _is_turned(module: nn.Module) -> bool:
    # With groups the second axis holds one unit per group: their weights are bounded together.
    return isinstance(module, _TRANSPOSED)
