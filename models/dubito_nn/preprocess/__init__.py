"""What a bundle declares of inputs as people have them; the service runs it, as data and no code.

columns           one column of a table: numbers, categories, booleans, dates
images            images: modes, sizes, what is standardised
parts             what the inputs of a network are made of: a table, images, arrays
reader            the same, read from a stranger and held against the inputs
image_reader      the same of images
given             the same, given to `export`
sklearn_pipeline  the same, of a fitted pipeline of scikit-learn
of_transformers   the same, of a processor of transformers
image_processor   the same of one for images
"""

from dubito_nn.preprocess.columns import Boolean, Category, Column, Date, Number
from dubito_nn.preprocess.images import ImageInput
from dubito_nn.preprocess.of_transformers import from_transformers
from dubito_nn.preprocess.parts import ArrayInput, Part, TableInput
from dubito_nn.preprocess.sklearn_pipeline import from_sklearn

__all__ = [
    "ArrayInput",
    "Boolean",
    "Category",
    "Column",
    "Date",
    "ImageInput",
    "Number",
    "Part",
    "TableInput",
    "from_sklearn",
    "from_transformers",
]
