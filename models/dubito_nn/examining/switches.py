"""The usual ways to switch dropout on, in place.

    eval         model.eval(): off
    train        model.train(): all on
    dropout      model.eval(), then the modules of torch.nn that drop put to train()
    sampling     model.train(), but what keeps running statistics in evaluation mode; so Dubito does

Source: Gal and Ghahramani 2016, arXiv:1506.02142, ask for dropout at test time; `dropout` is how it
is mostly written.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from dubito_nn.capturing.capture import set_mode

SwitchName: TypeAlias = Literal["eval", "train", "dropout", "sampling"]
SWITCHES: tuple[SwitchName, ...] = ("eval", "train", "dropout", "sampling")


def switch(network: nn.Module, name: SwitchName) -> None:
    """Put a network into a mode, in place."""
    if name == "sampling":
        set_mode(network, "sampling")
        return
    network.train(name == "train")
    if name == "dropout":
        for module in network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.train()
