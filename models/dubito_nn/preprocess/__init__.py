"""What a bundle declares of inputs as people have them; the service runs it, as data and no code.

columns            one column of a table: numbers, categories, booleans, dates
images             images: modes, sizes, what is standardised
text               texts: how they are cut into pieces, and which inputs those become
parts              what the inputs of a network are made of: a table, images, texts, arrays
reader             the same, read from a stranger and held against the inputs
image_reader       the same of images
tokenizer          a tokenizer.json, read from a stranger
charsmap           SentencePiece's map of characters in it, the same
patterns           the regular expressions that it may have
given              the same, given to `export`
sklearn_pipeline   the same, of a fitted pipeline of scikit-learn
from_transformers  the same, of what transformers has: a fast tokenizer, an image processor
from_torchvision   the same, of transforms of torchvision
image_processor    the same of one for images
"""

from dubito_nn.preprocess.columns import Boolean, Category, Column, Date, Number
from dubito_nn.preprocess.from_torchvision import from_torchvision
from dubito_nn.preprocess.from_transformers import from_transformers
from dubito_nn.preprocess.images import ImageInput
from dubito_nn.preprocess.parts import ArrayInput, Part, TableInput
from dubito_nn.preprocess.sklearn_pipeline import from_sklearn
from dubito_nn.preprocess.text import TextInput

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
    "TextInput",
    "from_sklearn",
    "from_torchvision",
    "from_transformers",
]
