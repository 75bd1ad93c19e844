"""How one network of the demonstration is made: data, network, training, bundle.

    splits() -> build(train rows) -> fit(progress) -> export_to(path)

A recipe is data: the same recipe gives the same network on the same machine.
Dimensions: N rows, F features, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import dubito_nn
from dubito_nn.bundle import Bundle
from dubito_nn.manifest import Output, Task
from dubito_nn.training import Augmentation, Loss, Progress, TrainingResult, seeded, train

# The rows that the exporter traces the network with.
_NUM_EXAMPLES = 8


@dataclass(frozen=True, eq=False)
class DatasetRows:
    """Inputs with what they should give.

    Attributes:
        inputs: Shape (N, F), float32.
        targets: Class indices (N,), int64, or values (N, D) in the unit of the target, float64.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.int64] | NDArray[np.float64]

    def __len__(self) -> int:
        """Return N."""
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class Splits:
    """The rows of a data set, each in exactly one part.

    Attributes:
        train: What the network learns from.
        calibration: What a calibration is fitted on.
        test: What neither has seen.
    """

    train: DatasetRows
    calibration: DatasetRows
    test: DatasetRows


@dataclass(frozen=True)
class Recipe:
    """A network of the demonstration: where its rows come from, how it is built and trained.

    Attributes:
        name: Of the model.
        notes: What it is, for the manifest.
        task: `classification` or `regression`.
        output: What the network returns, as `dubito_nn.export` names it.
        splits: Gives the rows; the same ones at each call.
        build: Makes the untrained network for the training rows.
        loss: What is minimised, with the regularisers of the layers.
        epochs: Passes over the training rows.
        batch_size: DatasetRows of a minibatch.
        learning_rate: Peak of the one-cycle schedule.
        classes: Names of the classes.
        augment: Gives other inputs and targets for those of a minibatch.
        seed: Of the first weights and of the training.
    """

    name: str
    notes: str
    task: Task
    output: Output
    splits: Callable[[], Splits]
    build: Callable[[DatasetRows], nn.Module]
    loss: Loss
    epochs: int
    batch_size: int
    learning_rate: float
    classes: tuple[str, ...] | None = None
    augment: Augmentation | None = None
    seed: int = 0

    def fit(self, progress: Callable[[Progress], None] | None = None) -> TrainedRecipe:
        """Train the network on the CPU.

        Args:
            progress: Called after each epoch; what it raises ends the training.
        """
        rows = self.splits().train
        scale = _scale_of(rows) if self.task == "regression" else None
        with seeded(self.seed):
            network = self.build(rows)
        result = train(
            network,
            torch.from_numpy(rows.inputs),
            _targets_of(rows, scale),
            loss=self.loss,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            augment=self.augment,
            seed=self.seed,
            progress=progress,
        )
        return TrainedRecipe(self, network, result, scale)

    def export_to(self, path: Path, progress: Callable[[Progress], None] | None = None) -> Bundle:
        """Train the network and write its bundle.

        Args:
            path: The bundle's file.
            progress: Called after each epoch.

        Raises:
            dubito_nn.ExportError: The network cannot be exported.
        """
        return self.fit(progress).export_to(path)


@dataclass(frozen=True, eq=False)
class TrainedRecipe:
    """A recipe's trained network.

    Attributes:
        recipe: What it was made by.
        network: In eval mode, on the CPU.
        result: How the training went.
        target_scale: Mean and standard deviation of the training targets, for regression.
    """

    recipe: Recipe
    network: nn.Module
    result: TrainingResult
    target_scale: tuple[tuple[float, ...], tuple[float, ...]] | None

    def export_to(self, path: Path) -> Bundle:
        """Write the network as a bundle.

        Raises:
            dubito_nn.ExportError: The network cannot be exported.
        """
        recipe = self.recipe
        examples = torch.from_numpy(recipe.splits().train.inputs[:_NUM_EXAMPLES])
        return dubito_nn.export(
            self.network,
            examples,
            path,
            task=recipe.task,
            output=recipe.output,
            classes=recipe.classes,
            target_scale=self.target_scale,
            notes=recipe.notes,
        )


def _scale_of(rows: DatasetRows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (ddof = 0) of each target."""
    return tuple(rows.targets.mean(axis=0).tolist()), tuple(rows.targets.std(axis=0).tolist())


def _targets_of(
    rows: DatasetRows, scale: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> Tensor:
    """Return class indices as they are, values standardised and in float32."""
    if scale is None:
        return torch.from_numpy(rows.targets)
    mean_D, deviation_D = np.array(scale[0]), np.array(scale[1])
    return torch.from_numpy(((rows.targets - mean_D) / deviation_D).astype(np.float32))
