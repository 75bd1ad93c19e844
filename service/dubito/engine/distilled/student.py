"""The distilled head: a small graph behind the trunk, as data.

    x = (φ, z)                 features and scores, each with mean 0 and deviation 1 over usual rows
    s = sqrt(1 + mean x²)      how large the row is
    h = silu(W₂ silu(W₁ (x / s, log s)))
    m = z + s g₀ (W₃ h)₀       mean of the scores over the passes
    L = s g₁ (W₃ h)₁           their factor: covariance L Lᵀ, in R directions
    d = Σ_k (v_kᵀ x)² / λ_k + (Σ x² - Σ_k (v_kᵀ x)²) / λ₀      how strange the row is

The spread grows with the row as that of a network of rectified units does, so that rows larger than
any that were seen are not guessed at. d is the Mahalanobis distance with the K largest directions
of the usual rows and one variance λ₀ for all others (Tipping and Bishop 1999). All that is said of
a row follows from m and L at 64 fixed points; how strange it is counts among held-out usual rows.

It is kept as a graph of allowed operators and tensors, and nothing of it is code.

Dimensions: B rows, F features, K scores, R directions, H units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.kernels.products import run
from dubito.engine.moments import OutputMoments
from dubito.errors import InputError
from dubito_nn import Program
from dubito_nn.errors import BundleError
from dubito_nn.program import Node, Ref, from_json, to_json
from dubito_nn.strict_json import parse

FEATURES, SCORES = "features", "scores"
HELD_OUT = "held_out"
MAX_DIRECTIONS = 4
_GRAPH = "graph"
_MAX_NODES, _MAX_VALUES = 64, 2**26
_TIE = 1e-5  # relative, of distances: the same row beside others moves by less
_OPS = frozenset(
    f"aten.{name}"
    for name in (
        *("cat.default", "sub.Tensor", "mul.Tensor", "div.Tensor", "add.Tensor", "add.Scalar"),
        *("mean.dim", "sum.dim_IntList", "sqrt.default", "log.default", "silu.default"),
        *("linear.default", "slice.Tensor", "square.default"),
    )
) | {"input", "weight"}


@dataclass(frozen=True, eq=False)
class Student:
    """A head that has learned.

    Args:
        program: from features and scores to (B, K (1 + R) + 1): mean, factors, strangeness.
        weights: its tensors by key.
        held_out: strangeness of usual rows that it has not learned from, in ascending order.
        num_scores: K.
    """

    program: Program
    weights: Mapping[str, Tensor]
    held_out: Tensor
    num_scores: int

    def run(self, features_BF: Tensor, scores_BK: Tensor) -> tuple[OutputMoments, Tensor]:
        """Moments of the scores, and how many usual rows are as strange, (B,).

        The second is a conformal p-value: of usual rows a share of at most p has p or less.
        """
        inputs = {FEATURES: features_BF, SCORES: scores_BK}
        made = run(self.program, inputs, self.weights, features_BF.device)
        moments = split(made, self.num_scores)
        least = (made[:, -1] * (1 - _TIE)).contiguous()
        stranger = len(self.held_out) - torch.searchsorted(self.held_out, least)
        p_value_B = (1 + stranger).double() / (1 + len(self.held_out))
        return moments, p_value_B.where(made[:, -1].isfinite(), 0.0)

    def on(self, device: torch.device) -> Student:
        """The same on a device."""
        weights = {key: tensor.to(device) for key, tensor in self.weights.items()}
        return Student(self.program, weights, self.held_out.to(device), self.num_scores)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What is stored of it, by name: the graph as the bytes of its JSON."""
        text = json.dumps(to_json(self.program), separators=(",", ":")).encode()
        return {
            _GRAPH: np.frombuffer(text, np.uint8),
            HELD_OUT: self.held_out.numpy(),
            **{f"weight.{key}": tensor.numpy() for key, tensor in self.weights.items()},
        }

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[np.generic]], widths: Widths) -> Student:
        """Return what `arrays` gave, trusting nothing.

        Args:
            stored: by name.
            widths: of the trunk that it shall stand on.

        Raises:
            InputError: it is damaged, or for another network.
        """
        try:
            return cls._read(stored, widths)
        except (
            BundleError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            AssertionError,
        ) as error:
            raise InputError(
                "the fit of `distilled` cannot be read"
                f" ({str(error).splitlines()[0][:160] if str(error) else type(error).__name__}):"
                " fit it again"
            ) from error

    @classmethod
    def _read(cls, stored: Mapping[str, NDArray[np.generic]], widths: Widths) -> Student:
        if sum(array.size for array in stored.values()) > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES} numbers")
        program = from_json(parse(stored[_GRAPH].tobytes(), _GRAPH), where=_GRAPH)
        weights = {
            name.removeprefix("weight."): torch.from_numpy(array.astype(np.float32))
            for name, array in stored.items()
            if name.startswith("weight.")
        }
        held_out = torch.from_numpy(stored[HELD_OUT].astype(np.float32))
        made = cls(program, weights, held_out, widths.num_scores)
        _check(made, widths)
        return made


@dataclass(frozen=True)
class Widths:
    """Of what a head reads and says.

    Args:
        num_features: F.
        num_scores: K.
    """

    num_features: int
    num_scores: int

    @property
    def num_directions(self) -> int:
        """R."""
        return min(MAX_DIRECTIONS, self.num_scores)

    @property
    def num_kept(self) -> int:
        """Numbers that are kept of a row while it is learned from, at most."""
        return self.num_features + 6 * self.num_scores

    @property
    def num_made(self) -> int:
        """Numbers of a row that the graph makes."""
        return self.num_scores * (1 + self.num_directions) + 1


def split(made: Tensor, num_scores: int) -> OutputMoments:
    """Moments of the scores, of what the graph makes, (B, K (1 + R) + 1)."""
    mean_BK = made[:, :num_scores]
    factors_BKR = made[:, num_scores:-1].reshape(len(made), num_scores, -1)
    return OutputMoments(mean_BK, factors_BKR.square().sum(-1), None, factors_BKR)


def graph(num_scores: int) -> Program:
    """The graph of a head with K scores; its weights are named in it."""
    nodes: list[Node] = []

    def put(name: str, op: str, *args: object) -> Ref:
        nodes.append(Node(name, op if op in ("input", "weight") else f"aten.{op}", args))  # type: ignore[arg-type]
        return Ref(name)

    def weight(key: str) -> Ref:
        return put(key, "weight", key)

    def layer(name: str, rows: Ref) -> Ref:
        maps = weight(f"{name}_weight"), weight(f"{name}_bias")
        return put(name, "linear.default", rows, *maps)

    scores = put(SCORES, "input", SCORES)
    raw = put("read", "cat.default", (put(FEATURES, "input", FEATURES), scores), 1)
    x = put("x", "mul.Tensor", put("centred", "sub.Tensor", raw, weight("shift")), weight("factor"))
    squares = put("squares", "square.default", x)
    mean = put("mean_square", "mean.dim", squares, (1,), True)
    size = put("size", "sqrt.default", put("above_one", "add.Scalar", mean, 1))
    unit = put("unit", "div.Tensor", x, size)
    rows = put("rows", "cat.default", (unit, put("log_size", "log.default", size)), 1)
    hidden = put("first_bent", "silu.default", layer("first", rows))
    hidden = put("second_bent", "silu.default", layer("second", hidden))
    said = put("gained", "mul.Tensor", layer("third", hidden), weight("gain"))
    said = put("sized", "mul.Tensor", said, size)
    moved = put("moved", "slice.Tensor", said, 1, 0, num_scores)
    mean_scores = put("mean_scores", "add.Tensor", scores, moved)
    factors = put("factors", "slice.Tensor", said, 1, num_scores, 2**31 - 1)
    along = put("along", "linear.default", x, weight("directions"))
    within = put("along_squares", "square.default", along)
    weighed = put("weighed", "mul.Tensor", within, weight("excess"))
    inside = put("inside", "sum.dim_IntList", weighed, (1,), True)
    whole = put("whole", "sum.dim_IntList", squares, (1,), True)
    outside = put("outside", "mul.Tensor", whole, weight("rest"))
    strange = put("strangeness", "add.Tensor", inside, outside)
    put("output", "cat.default", (mean_scores, factors, strange), 1)
    return Program(tuple(nodes), {"output": "output"})


def _check(student: Student, widths: Widths) -> None:
    """Refuse a head that names more than it may, or does not fit the trunk.

    Raises:
        ValueError: it does.
    """
    nodes, held_out = student.program.nodes, student.held_out
    if len(nodes) > _MAX_NODES or not {node.op for node in nodes} <= _OPS:
        raise ValueError("its graph is none of a distilled head")
    ascends = held_out.ndim == 1 and len(held_out) and bool((held_out.diff() >= 0).all())
    if not ascends or not all(bool(x.isfinite().all()) for x in student.weights.values()):
        raise ValueError("its numbers are none of a distilled head")
    read = {str(node.args[0]) for node in nodes if node.op == "input"}
    sizes = {FEATURES: widths.num_features, SCORES: widths.num_scores}
    if not read <= sizes.keys():
        raise ValueError("it reads what the network does not give")
    rows = {name: torch.ones(2, size) for name, size in sizes.items()}
    with torch.no_grad():
        made = run(student.program, rows, student.weights, torch.device("cpu"))
    if made.shape != (2, widths.num_made) or not bool(made.isfinite().all()):
        raise ValueError(f"expected {widths.num_made} numbers a row, got {tuple(made.shape)}")
