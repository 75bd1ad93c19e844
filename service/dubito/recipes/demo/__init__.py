"""The demonstration: three small networks, trained on data that scikit-learn carries.

RECIPES: recipe -> splits -> fit -> bundle; the rows held out are for calibration and tests
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
