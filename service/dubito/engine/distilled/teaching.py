"""From lessons to a head: its frame in closed form, its weights by stochastic gradient descent.

Adam with a rate that falls as a half cosine (Kingma and Ba 2015; Loshchilov and Hutter 2017), on
minibatches whose order hangs on the seed: the same lessons, on the same machine, give the same
head. The number of steps is bounded, so that it takes minutes at most.

Dimensions: B rows, F features, K scores, R directions, H units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.sampling import NUM_LEARNED
from dubito.engine.distilled.lessons import Lessons
from dubito.engine.distilled.losses import Loss, loss_of
from dubito.engine.distilled.student import FEATURES, SCORES, Student, Widths, graph, split
from dubito.errors import InputError
from dubito_nn import Program

LEAST_ROWS = 200
_UNITS, _DIRECTIONS = 128, 64
_BATCH, _RATE, _DECAY, _CLIP = 256, 3e-3, 1e-4, 1.0
_EPOCHS, _STEPS = 100, (150, 6000)
_WORK = 2**33  # numbers at fixed points of all steps together
_SEEDS = 2**32  # as many as the generator tells apart
_STILL = 1e-10  # variance of a number, relative to its mean square


@dataclass(frozen=True, eq=False)
class Taught:
    """A head, and how it came about.

    Args:
        student: the head.
        steps: of gradient descent.
        loss: mean of the last tenth of them.
    """

    student: Student
    steps: int
    loss: float


def teach(
    usual: Lessons, copies: Lessons, held_out: Lessons, output: str, seed: int, check: Check
) -> Taught:
    """A head that has learned what the passes said.

    Args:
        usual: rows as they came, by which features are scaled and strangeness is measured.
        copies: made of them, to learn from too.
        held_out: usual rows that it does not learn from, among which strangeness counts.
        output: what the bundle declares.
        seed: of its first weights and of the order of rows.
        check: called before each step; whatever it raises ends the work.

    Raises:
        InputError: rows that are all the same.
    """
    _check_usual(usual)
    lessons = Lessons.joined([usual, copies])
    widths = Widths(usual.features.shape[1], usual.scores.shape[1])
    generator = torch.Generator().manual_seed(seed % _SEEDS)
    descent = _Descent(
        graph(widths.num_scores),
        _frame(usual) | {"gain": _gain(usual, widths, output)},
        _first_weights(widths, generator),
        loss_of(output, lessons),
    )
    steps = _num_steps(len(lessons), widths)
    seen = descent.run(lessons, steps, generator, check)
    last = seen[-max(1, steps // 10) :]
    student = Student(descent.program, descent.weights, torch.zeros(1), widths.num_scores)
    return Taught(_placed_among(student, held_out), steps, sum(last) / len(last))


@dataclass(frozen=True, eq=False)
class _Descent:
    """Gradient descent on the weights of a head.

    Args:
        program: its graph.
        fixed: tensors that stay as they are.
        learned: those that are changed, in place.
        loss: of what it says.
    """

    program: Program
    fixed: Mapping[str, Tensor]
    learned: Mapping[str, Tensor]
    loss: Loss

    def run(
        self, lessons: Lessons, steps: int, generator: torch.Generator, check: Check
    ) -> list[float]:
        """Make so many steps; the loss of each."""
        learned, seen = self.learned.values(), list[float]()
        for tensor in learned:
            tensor.requires_grad_()
        optimiser = torch.optim.AdamW(learned, lr=_RATE, weight_decay=_DECAY)
        for step, rows in enumerate(_batches(len(lessons), steps, generator)):
            check()
            for group in optimiser.param_groups:
                group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            with torch.enable_grad():
                value = self._value(lessons[rows])
                optimiser.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learned, _CLIP)
            optimiser.step()
            seen.append(float(value.detach()))
        return seen

    @property
    def weights(self) -> dict[str, Tensor]:
        """All tensors as they are now."""
        now = {key: tensor.detach() for key, tensor in self.learned.items()}
        return {**self.fixed, **now}

    def _value(self, some: Lessons) -> Tensor:
        inputs = {FEATURES: some.features, SCORES: some.scores}
        made = self.program.run(inputs, {**self.fixed, **self.learned})["output"]
        return self.loss(split(made, some.scores.shape[1]), some)


def _check_usual(usual: Lessons) -> None:
    features = usual.features.double()
    if not bool((features.var(0, correction=0) > _STILL * features.square().mean(0)).any()):
        raise InputError(
            "a fit of `distilled` expects rows that differ in front of the last linear map, got"
            f" {len(usual)} with the same features: give rows of different inputs"
        )


def _placed_among(student: Student, held_out: Lessons) -> Student:
    """The head with how strange the held-out rows are to it."""
    inputs = {FEATURES: held_out.features, SCORES: held_out.scores}
    with torch.no_grad():
        made = student.program.run(inputs, student.weights)["output"]
    strangeness = made[:, -1].sort().values
    return Student(student.program, student.weights, strangeness, student.num_scores)


def _frame(usual: Lessons) -> dict[str, Tensor]:
    """How what is read is scaled, and how strange rows are in that scale."""
    read = torch.cat([usual.features, usual.scores], 1).double()
    mean, variance = read.mean(0), read.var(0, correction=0)
    is_still = variance <= _STILL * read.square().mean(0)
    factor = torch.where(is_still, 0.0, variance.clamp_min(1e-30).rsqrt())
    x = (read - mean) * factor
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    kept = min(_DIRECTIONS, max(1, len(values) // 2))
    rest = float(values[:-kept].clamp_min(0).mean()) if len(values) > kept else 0.0
    rest = max(rest, 1e-3 * float(values[-kept:].mean()), 1e-6)
    excess = 1 / values[-kept:].clamp_min(rest) - 1 / rest
    frame = {
        "shift": mean,
        "factor": factor,
        "directions": vectors[:, -kept:].T.contiguous(),
        "excess": excess,
        "rest": torch.tensor([1 / rest]),
    }
    return {key: tensor.float() for key, tensor in frame.items()}


def _gain(usual: Lessons, widths: Widths, output: str) -> Tensor:
    """Typical sizes of what the head says: of numbers those of their spread, else 1."""
    of_score = torch.ones(widths.num_scores)
    if output in ("mean", "mean_and_log_variance"):
        deviation = usual.spread.double().mean(0).sqrt().clamp_min(1e-6).float()
        of_score[: len(deviation)] = deviation
    return torch.cat([of_score, of_score.repeat_interleave(widths.num_directions)])


def _first_weights(widths: Widths, generator: torch.Generator) -> dict[str, Tensor]:
    num_read, num_said = widths.num_features + widths.num_scores + 1, widths.num_made - 1
    sizes = {"first": (_UNITS, num_read), "second": (_UNITS, _UNITS), "third": (num_said, _UNITS)}
    weights = {}
    for name, (out, into) in sizes.items():
        drawn = torch.randn(out, into, generator=generator) / math.sqrt(into)
        weights[f"{name}_weight"] = drawn * (0.3 if name == "third" else 1.4)
        weights[f"{name}_bias"] = torch.zeros(out)
    return weights


def _num_steps(num_rows: int, widths: Widths) -> int:
    least, most = _STEPS
    of_a_step = min(_BATCH, num_rows) * NUM_LEARNED * widths.num_scores
    return max(1, min(max(least, min(most, _EPOCHS * num_rows // _BATCH)), _WORK // of_a_step))


def _batches(num_rows: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Places of the rows of each step."""
    order, at = torch.randperm(num_rows, generator=generator), 0
    for _ in range(steps):
        if at + _BATCH > num_rows and at:
            order, at = torch.randperm(num_rows, generator=generator), 0
        yield order[at : at + _BATCH]
        at += _BATCH
