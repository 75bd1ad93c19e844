"""What a bundle declares of inputs as people have them; the service runs it, as data and no code.

columns           one column of a table: numbers, categories, booleans, dates
parts             what the inputs of a network are made of: a table, arrays
reader            the same, read from a stranger and held against the inputs
given             the same, given to `export`
sklearn_pipeline  the same, of a fitted pipeline of scikit-learn
"""

from dubito_nn.preprocess.columns import Boolean, Category, Column, Date, Number
from dubito_nn.preprocess.parts import ArrayInput, Part, TableInput
from dubito_nn.preprocess.sklearn_pipeline import from_sklearn

__all__ = [
    "ArrayInput",
    "Boolean",
    "Category",
    "Column",
    "Date",
    "Number",
    "Part",
    "TableInput",
    "from_sklearn",
]
