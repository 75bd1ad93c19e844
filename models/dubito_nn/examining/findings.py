"""What is wrong with a network's randomness, and the remedy.

Its job: read the operations and switches, and say one line for each kind of finding.

Source: Gal and Ghahramani 2016, arXiv:1506.02142 (what sampling asks of a network); Ioffe and
Szegedy 2015, arXiv:1502.03167 (statistics of the batch in training mode alone).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dubito_nn.examining.examined import Finding, Operation, Switch
from dubito_nn.examining.switches import SwitchName
from dubito_nn.manifest import named_modules

_IDLE = 1e-9  # relative to the output


def findings(
    operations: Sequence[Operation],
    switches: Mapping[SwitchName, Switch],
    norms: Sequence[str],
    *,
    is_replayed: bool,
    scale: float,
) -> Iterator[Finding]:
    """Everything that is wrong, the gravest first.

    Args:
        operations: every random one.
        switches: a pass after each way of switching.
        norms: modules that keep running statistics.
        is_replayed: whether equal draws give equal outputs.
        scale: root mean square of the outputs.
    """
    if not is_replayed:
        yield Finding(
            "not-of-torch",
            "outputs differ though every draw of torch is the same: something draws from Python's"
            " `random` or NumPy, or keeps state between passes: draw with torch.rand in forward()",
        )
    failing = [one for one in switches.values() if one.fails]
    for one in failing:
        yield Finding("does-not-run", f"under `{one.name}` it does not run: {one.fails}")
    sampling = switches["sampling"]
    if not sampling.fails and sampling.spread <= _IDLE * scale and is_replayed:
        yield Finding(
            "never-varies",
            "no random operation changes the output, so all samples are equal: train it with"
            " dropout (p > 0), or put dropout into it when exporting (drop_prob)",
        )
    yield from _of_operations(operations, scale)
    yield from _of_rows(switches, norms, is_replayed)


def _of_operations(operations: Sequence[Operation], scale: float) -> Iterator[Finding]:
    in_eval = [one for one in operations if one.draws.get("eval")]
    if in_eval:
        yield Finding(
            "draws-in-eval",
            f"draws in evaluation mode: {_named(in_eval)}: predictions after model.eval() differ"
            " from call to call: pass training=self.training (F.dropout has training=True by"
            " default), or keep it so on purpose, as concrete dropout does",
        )
    known = [one for one in operations if one.draws.get("sampling")]
    missed = [one for one in known if not one.draws.get("dropout")]
    if missed:
        share = f"{len(missed)} of {len(known)}"
        yield Finding(
            "missed-by-modules",
            f"stays off where only modules of nn.Dropout are put to train() ({share}): "
            f"{_named(missed)}: functions, attention and recurrent layers ask the mode of the"
            " module around them: use model.train() with norms in evaluation mode, or"
            " dubito_nn.export",
        )
    dead = [one for one in known if one.spread <= _IDLE * scale]
    if dead and len(dead) < len(known):
        yield Finding(
            "changes-nothing",
            f"draws, and changes no output: {_named(dead)}: take it out, or look at the output that"
            " it feeds",
        )


def _of_rows(
    switches: Mapping[SwitchName, Switch], norms: Sequence[str], is_replayed: bool
) -> Iterator[Finding]:
    train, sampling, evaluated = (switches[name] for name in ("train", "sampling", "eval"))
    mixed = sampling if sampling.mixes_rows else evaluated
    if mixed.mixes_rows and is_replayed:
        yield Finding(
            "rows-interact",
            f"rows interact from module `{mixed.mixed_from}` on: a row's answer depends on its"
            " batch-mates: take statistics, sorting and masks per row",
        )
    if norms and (train.changes or train.mixes_rows):
        what = [
            *(["rows interact"] if train.mixes_rows and not sampling.mixes_rows else []),
            *([f"a pass changes {len(train.changes)} buffers"] if train.changes else []),
        ]
        yield Finding(
            "statistics-in-train",
            f"after model.train() {' and '.join(what) or 'rows interact'}, for these take the"
            f" statistics of the batch: {_quoted(norms)}: leave them in evaluation mode"
            " when sampling, as dubito_nn.export does",
        )
    changed = [*sampling.changes, *evaluated.changes]
    if changed:
        yield Finding(
            "changes-state",
            f"a pass in evaluation mode changes buffers: {_quoted(sorted(set(changed)))}: the"
            " next pass is of another network: keep no state in forward()",
        )


def _named(operations: Sequence[Operation]) -> str:
    return _quoted(one.module for one in operations)


def _quoted(names: Iterable[str]) -> str:
    return named_modules([f"`{name}`" for name in dict.fromkeys(names)])
