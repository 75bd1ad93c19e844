"""The demonstration: three small networks, trained on data that scikit-learn carries.

recipe    how one network is made: data, network, training, bundle
digits    images to classes
diabetes  measurements to a number
publish   train, register, calibrate on the rows held out, test
"""

from dubito.recipes.demo.diabetes import DIABETES
from dubito.recipes.demo.digits import DIGITS, DIGITS_CONCRETE
from dubito.recipes.demo.publish import Published, is_published, publish
from dubito.recipes.demo.recipe import DatasetRows, Recipe, Splits, TrainedRecipe

RECIPES: tuple[Recipe, ...] = (DIGITS, DIGITS_CONCRETE, DIABETES)

__all__ = [
    "DIABETES",
    "DIGITS",
    "DIGITS_CONCRETE",
    "RECIPES",
    "DatasetRows",
    "Published",
    "Recipe",
    "Splits",
    "TrainedRecipe",
    "is_published",
    "publish",
]
