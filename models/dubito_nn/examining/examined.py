"""What an examination finds, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dubito_nn.examining.switches import SwitchName


@dataclass(frozen=True)
class Operation:
    """A random operation of torch in a module; calls of one module count as one.

    Args:
        module: its path.
        operator: of torch, that was called.
        drop_prob: p where the call tells it; None where it does not.
        draws: by way of switching, how often it is called in a pass.
        spread: how far outputs vary by it alone, all other draws held: root mean square over rows
            and outputs of the standard deviation, in units of the output.
        share: the same, of what all operations together vary.
    """

    module: str
    operator: str
    drop_prob: float | None
    draws: dict[SwitchName, int]
    spread: float
    share: float | None


@dataclass(frozen=True)
class Switch:
    """A pass after one way of switching dropout on.

    Args:
        name: the way.
        spread: how far outputs vary over passes, as of an operation.
        mixes_rows: whether a row's output depends on another row, though draws are the same.
        mixed_from: path of the first module that mixes rows; None where none does.
        changes: names of buffers, such as running statistics, that a pass changes.
        fails: why it does not run; None where it does.
    """

    name: SwitchName
    spread: float = 0.0
    mixes_rows: bool = False
    mixed_from: str | None = None
    changes: tuple[str, ...] = ()
    fails: str | None = None


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or goes wrong under a usual way of switching.

    Args:
        code: of `TEXTS`, or of a warning of the export.
        text: the modules, what follows, and the remedy.
    """

    code: str
    text: str


@dataclass(frozen=True)
class Examination:
    """All that was found in a network.

    Args:
        operations: every random operation, in the order of their calls.
        switches: a pass after each way of switching dropout on.
        norms: paths of the modules that keep running statistics.
        norms_spread: how far outputs of `model.train()` are from those of the same draws with these
            modules in evaluation mode: root mean square, in units of the output; None without any.
        refusal: why an export is refused, with the remedy; None where it is not.
        findings: what is wrong.
    """

    operations: tuple[Operation, ...]
    switches: tuple[Switch, ...]
    norms: tuple[str, ...]
    norms_spread: float | None
    refusal: str | None
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return asdict(self)
