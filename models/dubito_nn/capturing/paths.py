"""Paths of modules, as the user knows them."""

from __future__ import annotations

from torch import fx

from dubito_nn.capturing.selected import PREFIX

WHOLE = "(the network itself)"


def clean_path(path: str) -> str:
    """A module path as the user knows it, from one inside the wrapper."""
    return path.removeprefix(PREFIX) if path.startswith(PREFIX) else WHOLE


def module_path(node: fx.Node) -> str:
    """The module whose call recorded the node."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return clean_path(stack[-1][0]) if stack else WHOLE
