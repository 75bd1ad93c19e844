"""Labelled data as the fits want it: checked once, in float64 or int64, or refused.

Flow: samples and truths of the caller → `classification` or `regression` → arrays that the fits
and the report take without asking again.

Dimensions: T samples, B rows, P positions (one axis or more), C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.engine.calling.sampling import Sampling
from dubito.errors import InputError

_LARGEST_LOG = 700.0  # exp of it, and of less, is an ordinary number in float64


def logits(values_TBC: ArrayLike, name: str, sampling: Sampling | None) -> NDArray[np.floating]:
    """Logits of every pass, shape (T, B, C); -inf stands for a probability of 0.

    Raises:
        InputError: another shape or T, NaN, +inf, or a row that is -inf throughout.
    """
    logits_TBC = _samples(values_TBC, name, sampling)
    _check_finite(name, logits_TBC.max(axis=-1))
    return logits_TBC


def numbers(values_TBD: ArrayLike, name: str, sampling: Sampling | None) -> NDArray[np.floating]:
    """Outputs of every pass, shape (T, B, D), all finite.

    Raises:
        InputError: another shape or T, or a number that is not finite.
    """
    samples_TBD = _samples(values_TBD, name, sampling)
    _check_finite(name, samples_TBD)
    return samples_TBD


def log_variances(values_TBD: ArrayLike, sampling: Sampling | None) -> NDArray[np.float64]:
    """Log-variances of every pass, shape (T, B, D), such that float64 holds the variances.

    Raises:
        InputError: another shape or T, or a variance that would be 0 or infinite, naming its row.
    """
    samples_TBD = numbers(values_TBD, "log variances", sampling).astype(np.float64)
    is_wrong_TBD = np.abs(samples_TBD) > _LARGEST_LOG
    if is_wrong_TBD.any():
        row = int(is_wrong_TBD.any(axis=(0, 2)).argmax())
        wrong = samples_TBD[:, row][is_wrong_TBD[:, row]][0]
        raise InputError(
            f"`log variances` expects numbers from -{_LARGEST_LOG:g} to {_LARGEST_LOG:g}, whose "
            f"exp is neither 0 nor infinite, got {wrong:.6g} in row {row}: leave that row out, or "
            "bound what the network returns there"
        )
    return samples_TBD


def position_logits(
    values_TBPC: ArrayLike, name: str, sampling: Sampling | None
) -> NDArray[np.floating]:
    """Logits of every pass, label or position, shape (T, B, P, C); -inf is a probability of 0.

    Axes of positions are put into one.

    Raises:
        InputError: another shape or T, NaN, +inf, or a position that is -inf throughout.
    """
    array = _floats(values_TBPC, name)
    if array.ndim < 4:
        raise InputError(
            f"`{name}` expects samples of shape (T, B, P, C), got {array.shape}: put the classes "
            "last, and labels or positions before them"
        )
    flat = array.reshape(*array.shape[:2], -1, array.shape[-1])
    _samples(flat.reshape(len(flat), -1, flat.shape[-1]), name, sampling)
    _check_finite(name, flat.max(axis=-1))
    return flat


def position_labels(
    values_BP: ArrayLike, shape: tuple[int, ...], num_classes: int
) -> NDArray[np.int64]:
    """Class index of each label or position, shape (B, P); -1 where nobody has labelled it.

    Args:
        values_BP: maybe of several axes of positions.
        shape: rows and axes of positions that are expected.
        num_classes: C.

    Raises:
        InputError: another shape, one that is no class, or a row without any label.
    """
    array = np.asarray(values_BP)
    if array.shape != shape:
        raise InputError(
            f"`labels` expects one for every position of every row, shape {shape}, got "
            f"{array.shape}: send maps of the size that the network returns"
        )
    label_BP = array.reshape(len(array), -1)
    flat = label_BP[label_BP != -1] if array.dtype.kind in "iu" else label_BP.ravel()
    labels(flat, len(flat), num_classes)
    is_bare_B = (label_BP == -1).all(axis=1)
    if is_bare_B.any():
        raise InputError(
            f"`labels` expects at least one labelled position in every row, got none in row "
            f"{int(is_bare_B.argmax())}: leave that row out"
        )
    return label_BP.astype(np.int64)


def labels(values_B: ArrayLike, num_rows: int, num_classes: int) -> NDArray[np.int64]:
    """Class index of each row.

    Raises:
        InputError: not one integer per row, or one that is no class.
    """
    label_B = np.asarray(values_B)
    if label_B.shape != (num_rows,):
        raise InputError(
            f"`labels` expects one per row, {num_rows} in all, got shape {label_B.shape}: "
            "send as many labels as rows"
        )
    if label_B.dtype.kind not in "iu":
        raise InputError(
            f"`labels` expects integer class indices here, got {label_B.dtype}: "
            "look class names up first"
        )
    if label_B.size and not (label_B.min() >= 0 and label_B.max() < num_classes):
        wrong = label_B[(label_B < 0) | (label_B >= num_classes)][0]
        raise InputError(
            f"`labels` expects class indices in [0, {num_classes}), got {wrong}: "
            "use the classes of the model"
        )
    return label_B.astype(np.int64)


def targets(values_BD: ArrayLike, num_rows: int, num_outputs: int) -> NDArray[np.float64]:
    """Target of each row and output, shape (B, D); (B,) is taken for one output.

    Raises:
        InputError: another shape, or a number that is not finite.
    """
    target_BD = _floats(values_BD, "targets").astype(np.float64)
    if target_BD.ndim == 1 and num_outputs == 1:
        target_BD = target_BD[:, None]
    if target_BD.shape != (num_rows, num_outputs):
        raise InputError(
            f"`targets` expects shape ({num_rows}, {num_outputs}), one row per input row, "
            f"got {target_BD.shape}: send as many targets as rows"
        )
    is_bad_B = ~np.isfinite(target_BD).all(axis=1)
    if is_bad_B.any():
        raise InputError(
            f"`targets` expects finite numbers, got NaN or infinity in {is_bad_B.sum()} rows, the "
            f"first of them row {is_bad_B.argmax()}: drop those rows"
        )
    return target_BD


def position_targets(values_BPD: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Target of each position and output, shape (B, P, D) with one axis for all positions.

    A position with NaN for one of its outputs has NaN for all: it counts nowhere.

    Args:
        values_BPD: maybe of several axes of positions; without D where that is 1.
        shape: rows, axes of positions and outputs that are expected.

    Raises:
        InputError: another shape, an infinite number, or a row in which nothing was measured.
    """
    target = _floats(values_BPD, "targets")
    if shape[-1] == 1 and target.shape == shape[:-1]:
        target = target[..., None]
    if target.shape != shape:
        raise InputError(
            f"`targets` expects a number for every position and output, shape {shape}, got "
            f"{target.shape}: send maps of the size that the network returns, outputs last"
        )
    target_BPD = target.astype(np.float64).reshape(len(target), -1, shape[-1])
    is_infinite_B = np.asarray(np.isinf(target_BPD).any(axis=(1, 2)))
    if is_infinite_B.any():
        raise InputError(
            f"`targets` expects finite numbers, got infinity in {is_infinite_B.sum()} rows, the "
            f"first of them row {is_infinite_B.argmax()}: send null or NaN where nothing was "
            "measured"
        )
    is_known_BP = np.asarray(np.isfinite(target_BPD).all(axis=-1))
    is_bare_B = ~is_known_BP.any(axis=1)
    if is_bare_B.any():
        raise InputError(
            "`targets` expects at least one position in every row where all outputs were measured, "
            f"got none in row {int(is_bare_B.argmax())}: leave that row out"
        )
    return np.where(is_known_BP[..., None], target_BPD, np.nan)


def position_numbers(
    passes: Sequence[ArrayLike], name: str, sampling: Sampling | None
) -> tuple[NDArray[np.float64], ...]:
    """Means of passes at positions, and their log-variances where they have them, (T, B, P, D).

    Axes of positions are put into one.

    Raises:
        InputError: they cannot be used, or do not belong together.
    """
    arrays = [np.asarray(values) for values in passes]
    if arrays[0].ndim < 4:
        raise InputError(
            f"`{name}` expects samples of shape (T, B, P, D), got {arrays[0].shape}: put the "
            "outputs last, and positions before them"
        )
    mean_TBE, *log_TBE = (array.reshape(*array.shape[:2], -1) for array in arrays)
    numbers(mean_TBE, name, sampling)
    checked = heads(mean_TBE, log_TBE[0] if log_TBE else None, sampling)
    return tuple(part.reshape(*part.shape[:2], -1, arrays[0].shape[-1]) for part in checked)


def check_classes_vary(label_B: NDArray[np.int64], *, are_switches: bool = False) -> None:
    """Refuse labels of one class only: nothing can be fitted on them.

    Args:
        label_B: indices of classes.
        are_switches: whether they are labels that are each on (1) or off (0).
    """
    if np.unique(label_B).size < 2:
        if are_switches:
            raise InputError(
                "calibration expects labels that are on in some rows and off in others, got "
                f"{'on' if label_B[0] else 'off'} everywhere: send rows drawn as they will be "
                "asked for"
            )
        raise InputError(
            f"calibration expects labels of at least 2 classes, got only class {label_B[0]}: "
            "send rows drawn as they will be asked for"
        )


def check_targets_vary(target_BD: NDArray[np.float64]) -> None:
    """Refuse an output whose target is the same in all rows."""
    rounding_D = 4 * np.finfo(np.float64).eps * np.abs(target_BD).max(axis=0)
    constant = np.flatnonzero(np.ptp(target_BD, axis=0) <= rounding_D)
    if constant.size:
        raise InputError(
            f"calibration expects targets that vary, got {target_BD[0, constant[0]]} in every row "
            f"of output {constant[0]}: send rows drawn as they will be asked for"
        )


def heads(
    mean_TBD: ArrayLike, log_variance_TBD: ArrayLike | None, sampling: Sampling | None
) -> tuple[NDArray[np.float64], ...]:
    """Means of a regression's passes, and their log-variances where it has them, (T, B, D) each.

    Raises:
        InputError: they cannot be used, or do not belong together.
    """
    means = numbers(mean_TBD, "means", sampling).astype(np.float64)
    if log_variance_TBD is None:
        return (means,)
    log_TBD = log_variances(log_variance_TBD, sampling)
    if log_TBD.shape != means.shape:
        raise InputError(
            f"`log variances` expects the shape of the means, {means.shape}, "
            f"got {log_TBD.shape}: send both heads of the same samples"
        )
    return means, log_TBD


def absent_classes(label_B: NDArray[np.int64], num_classes: int) -> list[str]:
    """A warning where no row is of some classes."""
    absent = np.setdiff1d(np.arange(num_classes), label_B)
    if not absent.size:
        return []
    names = ", ".join(map(str, absent.tolist()))
    return [f"no labelled row is of class index {names}: nothing is promised for it"]


def _samples(values: ArrayLike, name: str, sampling: Sampling | None) -> NDArray[np.floating]:
    samples_TBD = _floats(values, name)
    if samples_TBD.ndim != 3 or 0 in samples_TBD.shape:
        raise InputError(
            f"`{name}` expects samples of shape (T, B, C or D), none of them 0, "
            f"got {samples_TBD.shape}: put the samples first and the rows second"
        )
    if sampling is not None:
        expected = sampling.num_returned
        if len(samples_TBD) != expected:
            raise InputError(
                f"`{name}` expects {expected} samples, as the calibration will be bound to, "
                f"got {len(samples_TBD)}: draw them with the same settings"
            )
    return samples_TBD


def _floats(values: ArrayLike, name: str) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        got = {"b": "booleans", "O": "null, or values of several types"}.get(
            array.dtype.kind, "text"
        )
        raise InputError(f"`{name}` expects numbers, got {got}: send a numeric array")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _check_finite(name: str, values_TB: NDArray[np.floating]) -> None:
    """Refuse what is not finite, naming the first row; further axes may follow."""
    is_bad = ~np.isfinite(values_TB)
    if is_bad.any():
        is_bad_B = is_bad.any(axis=(0, *range(2, is_bad.ndim)))
        raise InputError(
            f"`{name}` expects finite numbers, got NaN or infinity in {is_bad_B.sum()} rows, the "
            f"first of them row {is_bad_B.argmax()}: leave out rows that the network was not "
            "trained for"
        )
