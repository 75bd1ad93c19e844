"""What a distilled head reads of a row: what goes into the last linear map, and what comes out.

Its job: walk back from the declared output of the point graph to the last linear map, or to the
two of a network that gives a mean and a log-variance, and run the graph up to there.

Dimensions: B rows, F features, K scores: C classes, D numbers or 2 D of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.kernels.products import outputs_of
from dubito.engine.laplace.last_map import check_head, in_front, last_linear
from dubito.engine.planning.placement import Placed
from dubito.errors import InputError
from dubito_nn import Manifest, Program
from dubito_nn.program import Node, Ref, pruned, references

_PAIR = "mean_and_log_variance"
_JOINED = frozenset({"aten.stack.default", "aten.cat.default"})


@dataclass(frozen=True, eq=False)
class Trunk:
    """The point graph up to its last linear map, on a device.

    Args:
        node: name of what gives the scores.
        output: what the bundle declares of the numbers behind it.
        program: gives features and scores.
        weights: tensors that it reads, by key.
        device: where they are.
    """

    node: str
    output: str
    program: Program
    weights: Mapping[str, Tensor]
    device: torch.device

    @classmethod
    def of(cls, placed: Placed, manifest: Manifest, device: torch.device) -> Trunk:
        """The trunk of a network.

        Args:
            placed: its graphs and weights on the device.
            manifest: what it declares.
            device: where it runs.

        Raises:
            InputError: the head has no such map, or something else comes last, which is named.
        """
        check_head(manifest, "distilled")
        point, output = placed.point, manifest.output
        if output == _PAIR:
            features, scores = _of_pair(point)
        else:
            node = last_linear(point, point.outputs["output"], output, "distilled")
            features, scores = _read_by(node), node.name
        program = pruned(Program(point.nodes, {"features": features, "output": scores}))
        return cls(scores, output, program, placed.weights, device)

    def run(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What goes into the last map, (B, F), and what comes out, (B, K), of some rows.

        Raises:
            InputError: it maps more than one vector a row.
        """
        made = outputs_of(self.program, rows, self.weights, self.device)
        features, scores = made["features"], made["output"]
        if features.ndim != 2 or scores.ndim != (3 if self.output == _PAIR else 2):
            raise InputError(
                "method `distilled` expects one vector a row in front of the last linear map, got"
                f" {tuple(features.shape)} at node `{self.node}`: use `mc`"
            )
        return features.float(), scores.float().flatten(1)


def _of_pair(point: Program) -> tuple[str, str]:
    """Names of the features and of the scores of a network that gives two numbers each.

    Raises:
        InputError: they are not made by linear maps of the same features.
    """
    output = point.outputs["output"]
    joint = in_front(point, output)
    if joint.op not in _JOINED:
        return _read_by(last_linear(point, output, _PAIR, "distilled")), output
    maps = [
        last_linear(point, name, _PAIR, "distilled")
        for name in dict.fromkeys(references(joint.args[0]))
    ]
    read = dict.fromkeys(map(_read_by, maps))
    if len(read) > 1:
        raise InputError(
            "method `distilled` expects mean and log-variance to be linear maps of the same"
            f" features, got those of {', '.join(f'`{name}`' for name in read)}: use `mc`"
        )
    return next(iter(read)), output


def _read_by(node: Node) -> str:
    """Name of what a linear map reads."""
    (features, *_) = (part.name for part in node.args if isinstance(part, Ref))
    return features
