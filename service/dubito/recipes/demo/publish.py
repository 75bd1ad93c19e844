"""Train a recipe, register its bundle, calibrate it on the rows it held out, and test it.

fit -> export -> register -> alias -> calibrate -> predict the test rows -> Published
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dubito.application import Application
from dubito.asked import CalibrateOrder, PredictOrder
from dubito.names import DEFAULT_ALIAS
from dubito.recipes.demo.recipe import DatasetRows, Recipe
from dubito_nn.training import Progress


@dataclass(frozen=True)
class Published:
    """A recipe that is ready to be asked.

    Args:
        model: its name.
        version: the number it got.
        calibration: the number of its calibration, which is active.
        num_train, num_calibration, num_test: rows of each part.
        score_name: `accuracy` or `rmse`, on the test rows.
        score: that figure.
        elapsed_s: from the first epoch to here.
    """

    model: str
    version: int
    calibration: int
    num_train: int
    num_calibration: int
    num_test: int
    score_name: str
    score: float
    elapsed_s: float


def is_published(application: Application, recipe: Recipe) -> bool:
    """Whether the model exists and its default version has a calibration."""
    names = [model.name for model in application.registry.models()]
    return recipe.name in names and application.library.page(recipe.name).calibration is not None


def publish(
    application: Application,
    recipe: Recipe,
    progress: Callable[[Progress], None] | None = None,
) -> Published:
    """Make the recipe's network the default version of its model.

    Args:
        application: started.
        recipe: what to make.
        progress: called after each epoch.
    """
    start_s = time.monotonic()
    splits = recipe.splits()
    with application.library.incoming() as path:
        recipe.export_to(path, progress)
        version = application.library.register(recipe.name, path)
    application.library.set_alias(recipe.name, DEFAULT_ALIAS, version.number)
    held_out = splits.calibration
    truth = {"labels" if recipe.task == "classification" else "targets": held_out.targets}
    order = CalibrateOrder(model=recipe.name, inputs=held_out.inputs, **truth)  # type: ignore[arg-type]
    calibrated = application.ask(order).future.result()
    name, score = _score(application, recipe, splits.test)
    return Published(
        model=recipe.name,
        version=version.number,
        calibration=calibrated.calibration,
        num_train=len(splits.train),
        num_calibration=len(held_out),
        num_test=len(splits.test),
        score_name=name,
        score=score,
        elapsed_s=time.monotonic() - start_s,
    )


def _score(application: Application, recipe: Recipe, rows: DatasetRows) -> tuple[str, float]:
    order = PredictOrder(model=recipe.name, inputs=rows.inputs, outputs=["mean"])
    mean = np.asarray(application.ask(order).future.result().outputs["mean"])
    if recipe.task == "classification":
        return "accuracy", float((mean.argmax(axis=1) == rows.targets).mean())
    return "rmse", float(np.sqrt(np.square(mean - rows.targets).mean()))
