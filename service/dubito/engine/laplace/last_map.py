"""The last linear map of a network: its weights, and what goes into it.

Its job: walk back from the declared output of the point graph, over what changes no number or is
the declared link, to a linear map of one vector a row; or say which node stands in the way.

Dimensions: B rows, F features, C outputs of the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.kernels.precision import running
from dubito.engine.kernels.products import outputs_of
from dubito.engine.planning.placement import Placed
from dubito.errors import InputError
from dubito_nn import Manifest, Program
from dubito_nn.program import Node, Ref, pruned

MAX_OUTPUTS = 2000
MAX_CLASSES = 2**17  # of `laplace`, by a low rank
_LINEAR = "aten.linear.default"
_SAME_NUMBERS = frozenset(
    f"aten.{name}"
    for name in (
        *("view.default", "reshape.default", "flatten.using_ints", "_unsafe_view.default"),
        *("squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default"),
        *("clone.default", "alias.default", "contiguous.default", "detach.default"),
    )
)
_LINKS: Mapping[str, frozenset[str]] = {
    "log_probs": frozenset({"aten.log_softmax.int", "aten._log_softmax.default"}),
    "probs": frozenset({"aten.softmax.int", "aten._softmax.default"}),
}
_OF_CLASSES = ("logits", "log_probs", "probs", "sigmoid_logits")
_TAKEN = {
    "laplace": {"classification": _OF_CLASSES, "regression": ("mean",)},
    "distilled": {
        "classification": _OF_CLASSES,
        "regression": ("mean", "mean_and_log_variance"),
    },
}
_EXPECTED = {
    "laplace": "one class a row, or numbers without a variance of their own",
    "distilled": "one class a row, or numbers of a row",
}


@dataclass(frozen=True, eq=False)
class LastMap:
    """The last linear map, on a device.

    Args:
        node: name of the map in the point graph.
        output: what the bundle declares of the numbers behind it.
        program: the point graph up to the map: features, scores, weight and bias.
        weights: tensors that it reads, by key.
        device: where they are.
        has_bias: whether the map adds one.
    """

    node: str
    output: str
    program: Program
    weights: Mapping[str, Tensor]
    device: torch.device
    has_bias: bool

    @classmethod
    def of(cls, placed: Placed, manifest: Manifest, device: torch.device) -> LastMap:
        """The last map of a network.

        Args:
            placed: its graphs and weights on the device.
            manifest: what it declares.
            device: where it runs.

        Raises:
            InputError: the head has no such map, or something else comes last, which is named.
        """
        check_head(manifest, "laplace")
        node = last_linear(placed.point, placed.point.outputs["output"], manifest.output, "laplace")
        arguments = [part.name for part in node.args if isinstance(part, Ref)]
        names = dict(zip(("features", "weight", "bias"), arguments, strict=False))
        outputs = {**names, "output": node.name}
        program = pruned(Program(placed.point.nodes, outputs))
        has_bias = "bias" in names
        return cls(node.name, manifest.output, program, placed.weights, device, has_bias)

    def run(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What goes into the map, (B, F), and what comes out, (B, C), of some rows.

        Raises:
            InputError: it maps more than one vector a row.
        """
        made = outputs_of(self.program, rows, self.weights, self.device)
        features, scores = made["features"], made["output"]
        if features.ndim != 2 or scores.ndim != 2:
            raise InputError(
                f"method `laplace` expects one vector a row in front of the last linear map, got"
                f" {tuple(features.shape)} at node `{self.node}`: use `mc`, or an ensemble"
            )
        return features, scores

    @property
    def is_of_classes(self) -> bool:
        """Whether what comes out are logits."""
        return self.output != "mean"

    def squared_norm(self, rows: Mapping[str, Tensor]) -> float:
        """‖θ‖² of the map's weights and biases; rows of any kind, since graphs expect some."""
        return float(sum(part.double().square().sum() for part in self.parameters(rows)))

    def parameters(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The map's weights and, where it has them, biases; rows of any kind."""
        moved = {name: tensor.to(self.device) for name, tensor in rows.items()}
        with running(self.device):
            made = outputs_of(self.program, moved, self.weights, self.device)
        return tuple(made[name] for name in ("weight", "bias") if name in made)

    def declared(self, scores: Tensor) -> Tensor:
        """The network's declared output, of scores in its last axis."""
        if self.output == "log_probs":
            return scores.log_softmax(-1)
        return scores.softmax(-1) if self.output == "probs" else scores


def check_head(manifest: Manifest, method: str) -> None:
    """Refuse a network whose outputs a method that is fitted makes nothing of.

    Args:
        manifest: what the network declares.
        method: `laplace` or `distilled`.

    Raises:
        InputError: naming the remedy.
    """
    head, taken = manifest.head, _TAKEN[method].get(manifest.head, ())
    if manifest.output not in taken:
        raise InputError(
            f"method `{method}` expects {_EXPECTED[method]},"
            f" got `{manifest.output}` of a {head} head: use `mc`, or an ensemble"
        )
    by_rank = method == "laplace" and head == "classification"
    most = MAX_CLASSES if by_rank else MAX_OUTPUTS
    if manifest.num_outputs > most:
        raise InputError(
            f"method `{method}` expects at most {most} outputs, got {manifest.num_outputs}:"
            " use `mc` with injected dropout, or an ensemble"
        )


def in_front(program: Program, name: str, links: frozenset[str] = frozenset()) -> Node:
    """The node behind which nothing changes a number, or is the declared link.

    Args:
        program: a graph without draws.
        name: of the value from which to walk back.
        links: operators of the declared link, each of which is passed once.
    """
    nodes = {node.name: node for node in program.nodes}
    node = nodes[name]
    while node.op in _SAME_NUMBERS or node.op in links:
        links = links - {node.op}
        node = nodes[next(node.references())]
    return node


def last_linear(program: Program, name: str, output: str, method: str) -> Node:
    """The linear map from which a value comes.

    Args:
        program: the point graph.
        name: of the value.
        output: what the bundle declares of it.
        method: that needs it.

    Raises:
        InputError: something else comes last, which is named.
    """
    node = in_front(program, name, _LINKS.get(output, frozenset()))
    if node.op != _LINEAR:
        raise InputError(
            f"method `{method}` expects a linear map as the network's last step, got `{node.op}` at"
            f" node `{node.name}`: export the network so that it ends in its linear map and declare"
            " what that gives, or use `mc` or an ensemble"
        )
    return node
