"""An engine that computes the same bits again in another process.

Its job: which forms an engine uses, and how large its chunks are, was timed when it was loaded; on
another day another form may have been the faster one, and sums come out in another order. Work
that goes on after a restart must not change in its middle: a choice is written down when it
begins, and an engine pinned to it takes no other. What no choice can fix is the machine: its
`arithmetic` (`kernels/machine.py`) is written down beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dubito.engine.calling.sampling import Sampling
from dubito.engine.engine import Engine
from dubito.engine.running.fold import Packs


@dataclass(frozen=True)
class FormChoice:
    """What timings decided about calls of one size.

    Args:
        forms: places of the forms in use among those that the plan allows.
        chunk_share: of the usual chunk on a CPU.
    """

    forms: tuple[int, ...]
    chunk_share: float

    def to_json(self) -> dict[str, object]:
        """Return the choice as plain JSON values."""
        return {"forms": list(self.forms), "chunk_share": self.chunk_share}

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> FormChoice:
        """Return the choice that `to_json` wrote."""
        forms, share = stored["forms"], stored["chunk_share"]
        assert isinstance(forms, Sequence)
        assert isinstance(share, float | int)
        return cls(tuple(map(int, forms)), float(share))


def choose(engine: Engine, rows: Mapping[str, Tensor], sampling: Sampling) -> FormChoice:
    """What the engine would choose for a call.

    Args:
        engine: loaded here.
        rows: by input name, as many as a call will have.
        sampling: of the calls.
    """
    if _has_no_choice(sampling):
        return FormChoice((), 1.0)
    passes = engine.of_sites(sampling.sites).pieces(sampling.masks, rows)
    total = len(next(iter(rows.values())))
    used = replace(passes, key=sampling.key).chosen(total, sampling)  # as `pinned` keeps weights
    indices = [index for index, option in enumerate(passes.options) if option.form in used]
    return FormChoice(tuple(indices), passes.chunk_share)


def pinned(
    engine: Engine,
    rows: Mapping[str, Tensor],
    sampling: Sampling,
    choice: FormChoice,
    *,
    first: int = 0,
) -> Engine:
    """The engine with a choice made; for rows of that shape and that way of sharing masks.

    It keeps the weights that forms gather for this sampling, whatever the engine's own seed.

    Args:
        engine: loaded here; it is left as it is.
        rows: of the shape that will be asked for.
        sampling: of the calls.
        choice: as `choose` gave it, here or elsewhere.
        first: place of the first row, by which `independent` masks are keyed.
    """
    if _has_no_choice(sampling):
        return engine
    engine = engine.of_sites(sampling.sites)
    passes = engine.pieces(sampling.masks, rows)
    forms = tuple(passes.options[index].form for index in choice.forms)
    fixed = replace(
        passes,
        key=sampling.key,
        packs=Packs(is_kept=True),
        forced=forms,
        chunk_share=choice.chunk_share,
        first=first,
    )
    made = replace(engine, plans=engine.plans.only(sampling.masks, rows, fixed))
    made.__dict__["left"] = engine.left  # measured once
    if sampling.method == "distilled":
        made.__dict__["students"] = engine.students  # with the heads that it holds
    return made


def _has_no_choice(sampling: Sampling) -> bool:
    """Whether no pass is sampled."""
    is_learned = sampling.method == "distilled" and sampling.fallback is None
    return is_learned or sampling.method in ("moments", "laplace")
