"""Examine a network: passes under every switch, every operation alone, rows, and a trial export.

Flow: private copy → a pass under each switch → operations → each drawn anew alone → rows changed →
trial of the export → findings.

Dimensions: R passes, B rows, V numbers of all outputs of a row.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from dubito_nn.advice import TEXTS
from dubito_nn.advice.texts import VERY_HIGH_RATE
from dubito_nn.capturing.example import Example, read_example
from dubito_nn.capturing.explain import reason
from dubito_nn.capturing.unwrapped import private_copy, unwrapped
from dubito_nn.errors import ExportError
from dubito_nn.examining.examined import Examination, Finding, Operation, Switch
from dubito_nn.examining.findings import findings
from dubito_nn.examining.running import NetworkCopy, Pass, RandomCall
from dubito_nn.examining.switches import SWITCHES, SwitchName
from dubito_nn.examining.trial import tried
from dubito_nn.lifting.draws import tolerance

NUM_PASSES = 8
"""R, passes behind each spread; of an operation alone fewer where there are many."""

_MOST_PASSES = 400  # of all operations together


def examine(
    network: nn.Module, example_inputs: Example, *, output_name: str | None = None
) -> Examination:
    """Find what of a network is random, whether or not it can be exported.

    The network is copied, never changed. Every random operation of torch is found by running it,
    not by the names of classes: with its module, whether it draws after `model.eval()`, after
    `model.train()` and under the other usual ways to switch dropout on, and how far the outputs
    vary by it alone.

    Args:
        network: any network.
        example_inputs: one batch, as of `dubito_nn.export`; two rows or more that differ.
        output_name: key, attribute or position of the output to look at; default: all floating-
            point outputs.

    Returns:
        Operations, switches and findings.

    Raises:
        ExportError: it is no network, cannot be copied, or does not run on the example under any
            switch, naming the reason.
    """
    with _apart():
        return _examined(unwrapped(network), example_inputs, output_name)


@contextmanager
def _apart() -> Iterator[None]:
    """Leave the generators and warnings of the caller as they are."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is put back
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # what matters is a finding
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _examined(network: nn.Module, example_inputs: Example, output_name: str | None) -> Examination:
    inputs = read_example(network, example_inputs, None)
    copied = NetworkCopy(private_copy(network), inputs, output_name)
    rows = _rows_that_run(copied)
    first: dict[SwitchName, Pass] = {}
    switches: dict[SwitchName, Switch] = {}
    for name in SWITCHES:
        try:
            first[name] = copied.run(name, rows)
            switches[name] = _switch(copied, name, rows)
        except Exception as error:
            switches[name] = Switch(name, fails=f"{type(error).__name__}: {reason(error)}")
    if not first:
        raise ExportError(f"the network does not run on the example: {switches['eval'].fails}")
    operations = _operations(copied, rows, first, switches)
    norms, norms_spread = _norms(copied.network), None
    if norms and {"train", "sampling"} <= first.keys():
        norms_spread = _rms(first["train"].output - first["sampling"].output)
    refusal, advice = tried(network, example_inputs, output_name)
    found = findings(
        operations,
        switches,
        norms,
        is_replayed=all(
            _agree(copied.run(name, rows).output, one.output) for name, one in first.items()
        ),
        scale=_rms(next(iter(first.values())).output),
    )
    if refusal:  # else the export says so
        advice = _rates(operations)
    return Examination(
        operations=operations,
        switches=tuple(switches.values()),
        norms=norms,
        norms_spread=norms_spread,
        refusal=refusal,
        findings=(
            *found,
            *((Finding("not-exportable", refusal),) if refusal else ()),
            *(Finding(code, line) for code, line in advice),
        ),
    )


def _rows_that_run(copied: NetworkCopy) -> dict[str, Tensor]:
    """A few rows, or the caller's own example where the network is tied to their number."""
    for name in SWITCHES:
        try:
            copied.run(name, copied.inputs.tensors)
        except Exception:
            continue
        return copied.inputs.tensors
    return copied.inputs.given


def _switch(copied: NetworkCopy, name: SwitchName, rows: Mapping[str, Tensor]) -> Switch:
    """A pass under a switch: how far it varies, and whether rows mix."""
    before = copied.run(name, rows, watch=True)
    after = copied.run(name, _other_first_row(rows), watch=True)
    mixes_rows = not _agree(before.output[1:], after.output[1:])
    passes = [copied.run(name, rows, seed=seed).output for seed in range(NUM_PASSES)]
    return Switch(
        name,
        spread=_spread(passes),
        mixes_rows=mixes_rows,
        mixed_from=_first_mixing(before, after) if mixes_rows else None,
        changes=before.changes,
    )


def _operations(
    copied: NetworkCopy,
    rows: Mapping[str, Tensor],
    first: Mapping[SwitchName, Pass],
    switches: Mapping[SwitchName, Switch],
) -> tuple[Operation, ...]:
    """Every random call under any switch, each drawn anew while the others stay."""
    order: tuple[SwitchName, ...] = ("sampling", "train", "eval", "dropout")
    wanted = [name for name in order if name in first]
    calls = dict.fromkeys(call for name in wanted for call in first[name].calls)
    operations, count = [], max(2, min(NUM_PASSES, _MOST_PASSES // max(1, len(calls))))
    for call in calls:
        name = next(name for name in wanted if call in first[name].calls)
        passes = [copied.run(name, rows, seed=seed, redrawn=call).output for seed in range(count)]
        spread, together = _spread(passes), switches[name].spread
        operations.append(
            Operation(
                module=call.module,
                operator=call.operator,
                drop_prob=_told_once(call, first[name]),
                draws={one: first[one].calls.count(call) for one in SWITCHES if one in first},
                spread=spread,
                share=spread / together if together > 0 else None,
            )
        )
    return tuple(operations)


def _rates(operations: tuple[Operation, ...]) -> tuple[tuple[str, str], ...]:
    """The warning of the export that needs no graph."""
    high = [
        f"`{one.module}` (p {one.drop_prob:g})"
        for one in operations
        if one.drop_prob is not None and one.drop_prob >= VERY_HIGH_RATE
    ]
    text = TEXTS["very-high-rate"]
    return (("very-high-rate", f"{text.title}: {', '.join(high)}: {text.remedy}"),) if high else ()


def _told_once(call: RandomCall, seen: Pass) -> float | None:
    """The p of the calls, where all tell the same."""
    rates = {one.drop_prob for one in seen.calls if one == call}
    (rate, *others) = rates
    return None if others or rate is None else round(rate, 9)  # a call may tell 1 - p


def _norms(network: nn.Module) -> tuple[str, ...]:
    """Paths of the modules that keep running statistics of the batch."""
    kept = nn.modules.batchnorm._NormBase
    return tuple(
        path
        for path, module in network.named_modules()
        if isinstance(module, kept) and module.running_mean is not None
    )


def _first_mixing(before: Pass, after: Pass) -> str | None:
    """Path of the first module whose other rows moved."""
    for (path, one), (_, other) in zip(before.by_module, after.by_module, strict=False):
        is_rows = one.shape == other.shape and one.ndim > 0 and len(one) == len(before.output)
        if is_rows and one.is_floating_point() and not _agree(one[1:], other[1:]):
            return path
    return None


def _other_first_row(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows with the last that differs in the place of the first."""
    count = len(next(iter(rows.values())))
    for row in reversed(range(count)):
        if any(not torch.equal(tensor[0], tensor[row]) for tensor in rows.values()):
            break
    return {key: torch.cat([one[row : row + 1], one[1:]]) for key, one in rows.items()}


def _spread(passes: list[Tensor]) -> float:
    """√ mean over rows and outputs of the variance over passes."""
    return _rms(torch.stack(passes).std(dim=0, correction=0))


def _rms(value: Tensor) -> float:
    return float(value.nan_to_num(0.0, 0.0, 0.0).square().mean().sqrt())


def _agree(first: Tensor, second: Tensor) -> bool:
    bound = tolerance(first) if first.numel() else 0.0
    return torch.allclose(first, second, bound, bound, equal_nan=True)
