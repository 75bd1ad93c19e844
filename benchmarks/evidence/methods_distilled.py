"""A head distilled from masked passes, on a network of garments (or digits) with dropout.

The head learns from rows that the network was not trained on, by the code of the job; test rows,
the other data set's images and further corruptions, none of which the head or its certificate has
seen, judge it against T = 256.

Dimensions: T samples, B rows, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from data import Digits, mnist
from fashion import turned
from garments import Learns, Training, bundle_of
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from dubito.engine import Classification, Engine, Sampling
from dubito.jobs.distilling import Distilling, Picked
from dubito.serving.worker import Check

T = TypeVar("T")
_SIDE = 28
_BLOCK = 500
_KNOWN, _TURNS = 256, 30
_FALLBACK = 0.05
_SEED = 7
_WAYS = ("distilled", "with 5 % fallback")

Figures = dict[str, float]


class Inline:
    """Runs what a job would bring to the device."""

    def run(self, task: Callable[[Check], T]) -> T:
        """Run it now."""
        return task(lambda: None)


def distilled(
    folder: Path,
    learns: Learns,
    epochs: int,
    num_rows: int,
    num_judged: int,
    *,
    kept: Path | None,
    is_quick: bool,
) -> Mapping[str, Figures]:
    """Distil a head, and hold it against the passes.

    Args:
        folder: of the data.
        learns: what the network is trained on; the other data set is strange to it.
        epochs: of its training.
        num_rows: that the head learns from.
        num_judged: test rows, and as many strange ones; a third of each further corruption.
        kept: folder of the trained network; None keeps none.
        is_quick: a smoke run.
    """
    names = ("fashion_mnist", "mnist") if learns == "garments" else ("mnist", "fashion_mnist")
    own, other = (mnist(folder, name) for name in names)
    training = Training(epochs=epochs)
    if is_quick:
        own, other, num_rows = own.first(900), other.first(100), 300
        training = Training(channels=(4, 4, 4), num_features=16, epochs=1, held_out=300)
    bundle, _ = bundle_of(own, training, kept, learns=learns)
    engine = Engine.load(bundle)
    held_out = own.images[-training.held_out :][:num_rows]
    truths = own.labels[-training.held_out :][:num_rows]
    began = time.process_time()
    certificate = taught(engine, held_out, truths)
    fit_s = time.process_time() - began
    judged = own.first(num_judged), other.first(num_judged)
    found = _judged(engine, *judged, 16 if is_quick else _KNOWN)
    kinds = ("held_out", "noise", "shuffled", "scaled", "bounds")
    figures = {f"certificate, {name}": _numbers(certificate[name]) for name in kinds}
    figures |= found
    figures["time"] = _times(engine, own.test_images, 1 if is_quick else _TURNS) | {
        "fit, s of a processor": fit_s
    }
    return figures


def taught(
    engine: Engine, rows: Tensor, truths: Tensor | None, number: int = 1
) -> Mapping[str, object]:
    """Teach a head on rows and put it into the engine as the fit of a number; its certificate."""
    (spec,) = engine.manifest.inputs
    picked = Picked.of(len(rows), engine.students.widths.num_kept, 2**40)

    def taken(places: NDArray[np.int64]) -> dict[str, Tensor]:
        return {spec.name: rows[torch.from_numpy(places)]}

    bank = taken(picked.bank)
    kind = Distilling(engine, Sampling(64, masks="independent"), picked, bank, lambda *_: engine)
    for start in range(0, len(picked), _BLOCK):
        block = taken(picked.places[start : start + _BLOCK])
        kind.keep(start, start + _BLOCK, kind.predict(block, start, lambda: None))
    kind.part()
    made = kind.finish(Inline(), truths)  # type: ignore[arg-type]
    engine.students.take_in(number, made.arrays)
    certificate = made.report["certificate"]
    assert isinstance(certificate, Mapping)
    return certificate


def _judged(engine: Engine, own: Digits, other: Digits, known: int) -> dict[str, Figures]:
    """Each kind of rows, answered in both ways and by the passes."""
    test, label_B = own.test_images, own.test_labels.numpy()
    usual = _answers(engine, test, known)
    figures = {"test": _against(usual, usual, label_B)}
    figures["the other data set"] = _against(
        _answers(engine, other.test_images, known), usual, None
    )
    some = label_B[: len(label_B) // 3]
    for name, rows in _corrupted(test[: len(some)]).items():
        figures[name] = _against(_answers(engine, rows, known), usual, some)
    return figures


def _answers(engine: Engine, rows: Tensor, known: int) -> dict[str, Classification]:
    ways = {
        "mc": Sampling(known, _SEED),
        "distilled": Sampling(1, method="distilled", fit=1),
        "with 5 % fallback": Sampling(known, _SEED, method="distilled", fit=1, fallback=_FALLBACK),
    }
    made = {way: engine.predict(rows, sampling=sampling) for way, sampling in ways.items()}
    assert all(isinstance(one, Classification) for one in made.values())
    return made  # type: ignore[return-value]


def _against(
    said: Mapping[str, Classification],
    usual: Mapping[str, Classification],
    label_B: NDArray[np.int64] | None,
) -> Figures:
    known, figures = said["mc"], Figures()
    for way in _WAYS:
        one = said[way]
        information = one.mutual_information, known.mutual_information
        figures |= {
            f"{way}: Spearman of MI": float(spearmanr(*information).statistic),
            f"{way}: error of p": float(np.abs(one.mean - known.mean).max(1).mean()),
            f"{way}: error of MI": float(np.abs(information[0] - information[1]).mean()),
        }
        if label_B is not None:
            figures[f"{way}: NLL less that of mc"] = _nll(one, label_B) - _nll(known, label_B)
        if said is not usual:
            gap = _auroc(usual[way], one) - _auroc(usual["mc"], known)
            figures[f"{way}: AUROC less that of mc"] = gap
    figures["AUROC of mc"] = 0.5 if said is usual else _auroc(usual["mc"], known)
    used = said["with 5 % fallback"].num_samples_used
    figures["left to mc"] = float((used > 1).mean())
    return figures


def _nll(answer: Classification, label_B: NDArray[np.int64]) -> float:
    own = answer.mean[np.arange(len(label_B)), label_B]
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def _auroc(near: Classification, far: Classification) -> float:
    scores = np.concatenate([near.mutual_information, far.mutual_information])
    is_far = np.repeat([0, 1], [len(near.mean), len(far.mean)])
    return float(roc_auc_score(is_far, scores))


def _corrupted(rows: Tensor) -> dict[str, Tensor]:
    """Corruptions that neither the head nor its certificate has seen."""
    images = rows.view(-1, 1, _SIDE, _SIDE)
    generator = torch.Generator().manual_seed(_SEED)
    hidden = images.clone()
    hidden[:, :, 8:20, 8:20] = 0
    salted = torch.rand(images.shape, generator=generator)
    salt = torch.where(salted < 0.1, 1.0, torch.where(salted > 0.9, 0.0, images))
    changed = {
        "blurred": functional.avg_pool2d(images, 5, 1, 2, count_include_pad=False),
        "half the contrast": 0.25 + 0.5 * images,
        "inverted": 1 - images,
        "a square hidden": hidden,
        "salt and pepper": salt,
    }
    return {
        "turned by 30°": turned(rows, 30.0),
        "turned by 90°": turned(rows, 90.0),
        **{name: made.flatten(1) for name, made in changed.items()},
    }


def _times(engine: Engine, rows: Tensor, repeats: int) -> Figures:
    """Time of an answer over that of a plain pass of the point graph; the least of some turns."""
    figures = Figures()
    ask = Sampling(1, method="distilled", fit=1)
    for count in (1, 128, 1000):
        some = rows[:count]
        inputs = {engine.manifest.inputs[0].name: some}
        asked = partial(engine.predict, some)
        calls: dict[str, Callable[[], object]] = {
            "plain": partial(engine.bundle.point.run, inputs, engine.bundle.weights),
            "point": partial(asked, sampling=Sampling(1, method="point")),
            "distilled": partial(asked, sampling=ask),
        }
        with torch.no_grad():
            turns = [{name: _seconds(call) for name, call in calls.items()} for _ in range(repeats)]
        least = {name: min(turn[name] for turn in turns) for name in calls}
        figures[f"B = {count}: distilled over a plain pass"] = least["distilled"] / least["plain"]
        figures[f"B = {count}: distilled over method point"] = least["distilled"] / least["point"]
        figures[f"B = {count}: plain pass, ms"] = 1000 * least["plain"]
    return figures


def _seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def _numbers(found: object) -> Figures:
    assert isinstance(found, Mapping)
    return {str(name): float(value) for name, value in found.items()}
