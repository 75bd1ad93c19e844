"""A head distilled from masked passes over a stored pool, or over rows that came with the order.

Flow: some rows evenly among all → blocks: what the passes say of them, of copies to learn from, and
of a held-out share and its corrupted copies at T = 256 → a head → its certificate. What passes said
is what a part holds, so that a job that was cut short samples no row twice; the head is learned
from all parts at the end, which gives the same head again.

Dimensions: N rows of the pool, B of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.arrays import Arrays, write_npz
from dubito.engine import Engine, Sampling
from dubito.engine.answering.learned import said_by
from dubito.engine.calling.sampling import SEED_LIMIT
from dubito.engine.distilled import Certificate, Lessons, Made, Student, certify, teach
from dubito.engine.distilled.certificate import HELD_OUT, NUM_SAMPLES, Compared
from dubito.engine.distilled.made import BANK_ROWS, BANK_VALUES
from dubito.engine.network import Network
from dubito.jobs.fitting import MadeFit
from dubito.jobs.lane import Lane
from dubito.serving.worker import Check

MOST_ROWS = 12_000
_MOST_HELD_OUT = 500
_HELD_OUT_SHARE = 5  # one of so many
_GOOD_SPEARMAN = 0.9
_USUAL, _COPIES = "usual", "copies"


@dataclass(frozen=True, eq=False)
class Picked:
    """The rows of which all is learned, by their places in the pool: some evenly among all.

    Args:
        places: in the pool, (n,).
    """

    places: NDArray[np.int64]

    @classmethod
    def of(cls, num_rows: int, widths: int, max_values: int) -> Picked:
        """As many as are read at most.

        Args:
            num_rows: N.
            widths: numbers that are kept of a row.
            max_values: numbers that are kept of all.
        """
        most = min(num_rows, MOST_ROWS, max(1, max_values // (2 * widths)))
        return cls(np.linspace(0, num_rows - 1, most).round().astype(np.int64))

    def __len__(self) -> int:
        """Return their number, n."""
        return len(self.places)

    @property
    def held_out_every(self) -> int:
        """One of so many is held out."""
        return max(_HELD_OUT_SHARE, -(-len(self) // _MOST_HELD_OUT))

    def is_held_out(self, place: int) -> bool:
        """Whether the row at a place among them is."""
        return place % self.held_out_every == self.held_out_every - 1

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Places in the pool of those that are held out."""
        return self.places[self.held_out_every - 1 :: self.held_out_every]

    @property
    def bank(self) -> NDArray[np.int64]:
        """Places in the pool of the rows of the bank."""
        return self.places[:: max(1, len(self) // BANK_ROWS)][:BANK_ROWS]


class Distilling:
    """A distillation as a kind of job: it keeps what the passes said.

    Args:
        engine: of the version.
        sampling: of the passes that are learned from.
        picked: the rows.
        bank: some of them, by input name, as the network takes them.
        predictor: pinned for a block that begins with a row.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: Sampling,
        picked: Picked,
        bank: Mapping[str, Tensor],
        predictor: Callable[[Mapping[str, Tensor], int], Network],
    ) -> None:
        values = sum(tensor[0].numel() for tensor in bank.values())
        few = {name: tensor[: max(2, BANK_VALUES // values)] for name, tensor in bank.items()}
        self._engine = engine
        self._sampling = sampling
        self._picked = picked
        self._made = Made(few, sampling.seed)
        self._predictor = predictor
        self._parts: list[dict[str, Lessons]] = []
        self._before: list[dict[str, Lessons]] = []

    def restore(self, states: Sequence[Arrays]) -> None:
        """Go on from all parts so far."""
        self._before = [self._read(state) for state in states]

    def predict(self, block: Mapping[str, Tensor], start: int, check: Check) -> dict[str, Lessons]:
        """On the device's thread: what the passes say of a block, and of copies of its rows."""
        network, count = self._predictor(block, start), len(next(iter(block.values())))
        places = range(start, start + count)
        held_out = [place for place in places if self._picked.is_held_out(place)]
        learned = [place for place in places if not self._picked.is_held_out(place)]
        asked: list[tuple[str, Sampling, Mapping[str, Tensor]]] = []
        if learned:
            usual = _some(block, learned, start)
            copies = self._made.to_learn_from(usual, learned)
            asked += [(_USUAL, self._sampling, usual), (_COPIES, self._sampling, copies)]
        if held_out:
            aside = _some(block, held_out, start)
            judged = {HELD_OUT: aside, **self._made.to_be_judged_on(aside, held_out)}
            asked += [(name, self._judging, rows) for name, rows in judged.items()]
        return {
            name: self._lessons(network, rows, sampling, check) for name, sampling, rows in asked
        }

    def keep(self, start: int, stop: int, computed: dict[str, Lessons]) -> None:
        """Take in what was computed of rows `start` to `stop`."""
        self._parts.append(computed)

    def part(self) -> bytes:
        """What the passes said since the last part."""
        self._before += self._parts
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, lessons in _joined(self._parts).items():
            arrays |= lessons.arrays(name)
        self._parts = []
        return write_npz(arrays)

    def finish(self, lane: Lane, truths: Tensor | None) -> MadeFit:
        """The head of all rows, and its certificate.

        Args:
            lane: to the device.
            truths: of all rows of the pool, as the network gives them; None: unlabelled.

        Raises:
            InputError: the rows are all the same.
        """
        known, seed = _joined(self._before), self._sampling.seed
        usual, copies = known.pop(_USUAL), known.pop(_COPIES)
        held_out, output = known[HELD_OUT], self._engine.manifest.output
        taught = lane.run(lambda check: teach(usual, copies, held_out, output, seed, check))
        compared = lane.run(lambda check: self._compared(taught.student, known, check))
        own = None if truths is None else truths[torch.from_numpy(self._picked.held_out)]
        certificate = certify(compared, own, self._factor)
        report = {
            "num_learned_from": len(usual),
            "num_samples": self._sampling.num_samples,
            "seed": seed,
            "steps": taught.steps,
            "loss": taught.loss,
            "certificate": certificate.to_json(),
        }
        return MadeFit(taught.student.arrays(), report, _warnings(certificate))

    @property
    def warnings(self) -> tuple[str, ...]:
        """None before the end."""
        return ()

    @property
    def _judging(self) -> Sampling:
        """How the passes are drawn that judge the head: as `mc` answers, with other masks."""
        seed = (self._sampling.seed + 1) % SEED_LIMIT
        return replace(self._sampling, num_samples=NUM_SAMPLES, seed=seed, masks="shared")

    def _lessons(
        self, network: Network, rows: Mapping[str, Tensor], sampling: Sampling, check: Check
    ) -> Lessons:
        engine = self._engine
        said = network.predict(dict(rows), sampling=sampling, check=check)
        read = [engine.students.read(some) for some in engine.pieces("shared", rows).rows(rows)]
        features, scores = (torch.cat(parts) for parts in zip(*read, strict=True))
        return Lessons.of(features, scores, said, engine.manifest)

    def _compared(
        self, student: Student, known: Mapping[str, Lessons], check: Check
    ) -> dict[str, Compared]:
        engine, found = self._engine, {}
        placed = student.on(engine.device)
        for name, lessons in known.items():
            check()
            read = lessons.features.to(engine.device), lessons.scores.to(engine.device)
            with torch.no_grad():
                said, p_value_B = said_by(engine, placed, *read)
            own = Lessons.of(*read, said, engine.manifest)
            found[name] = Compared(own, lessons, p_value_B)
        return found

    @property
    def _factor(self) -> Tensor | None:
        manifest = self._engine.manifest
        if self._engine.head.has_probabilities:
            return None
        if manifest.target_scale is None:
            return torch.ones(manifest.num_outputs, dtype=torch.float64)
        return torch.tensor(manifest.target_scale[1], dtype=torch.float64)

    def _read(self, state: Arrays) -> dict[str, Lessons]:
        names = dict.fromkeys(name.partition(".")[0] for name in state)
        return {name: Lessons.from_arrays(state, name) for name in names}


def _some(block: Mapping[str, Tensor], places: Sequence[int], start: int) -> dict[str, Tensor]:
    """Some rows of a block, by their places among all."""
    index_b = torch.tensor(places) - start
    return {name: rows[index_b.to(rows.device)] for name, rows in block.items()}


def _joined(parts: Sequence[Mapping[str, Lessons]]) -> dict[str, Lessons]:
    """What was said of all rows, kind by kind."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: Lessons.joined([part[name] for part in parts if name in part]) for name in names}


def _warnings(certificate: Certificate) -> tuple[str, ...]:
    spearman = certificate.kinds[HELD_OUT]["spearman"]
    if spearman >= _GOOD_SPEARMAN:
        return ()
    return (
        f"the head ranks held-out rows otherwise than the passes do (Spearman {spearman:.2f} of"
        " what is epistemic): give more rows, or more samples",
    )
