"""UCI regression sets with their standard splits, as their authors keep them.

    uci_regression/<set>/data/data.txt                   rows of numbers
                              index_features.txt         columns that are inputs
                              index_target.txt           the column that is the target
                              index_train_<s>.txt        rows of split s, and index_test_<s>.txt

Dimensions: N training rows, M test rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDERS = {
    "yacht": "yacht",
    "energy": "energy",
    "boston": "bostonHousing",
    "concrete": "concrete",
}
NAMES = tuple(FOLDERS)


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a set, in the units of the file.

    Args:
        number: Which, from 0.
        inputs: (N, F).
        targets: (N,).
        test_inputs: (M, F).
        test_targets: (M,).
    """

    number: int
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor


def read_split(folder: Path, name: str, number: int) -> Split:
    """Read one split of a set from `folder/<set>/data`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A row is in both parts, or in none.
    """
    home = folder / FOLDERS[name] / "data"
    values = np.loadtxt(home / "data.txt")
    features, (target,) = _index(home, "features"), _index(home, "target")
    train, test = _index(home, f"train_{number}"), _index(home, f"test_{number}")
    if not np.array_equal(np.sort(np.r_[train, test]), np.arange(len(values))):
        raise ValueError(
            f"expected split {number} of {name} to hold each of {len(values)} rows once, got "
            f"{len(train)} and {len(test)}: take the files as their authors published them"
        )
    inputs = torch.from_numpy(values[:, features]).float()
    targets = torch.from_numpy(values[:, target]).float()
    return Split(number, inputs[train], targets[train], inputs[test], targets[test])


def _index(home: Path, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.atleast_1d(np.loadtxt(home / f"index_{name}.txt").astype(np.int64))
