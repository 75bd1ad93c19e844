"""Ways in: networks that come from elsewhere, brought to `dubito_nn.export` on this machine.

    example.py      rows to record a network with, from a shape or a file
    factory.py      a factory in the user's code, and a state dictionary
    recorded.py     a program of `torch.export`, a `.pt2` file
    mlflow.py       a model of an MLflow registry or folder

All of them run code that the caller names; none is reachable over HTTP.
"""

from dubito.imports.example import Example, read_example
from dubito.imports.factory import build, load_weights, read_state
from dubito.imports.mlflow import read_mlflow
from dubito.imports.recorded import Recorded, read_program

__all__ = [
    "Example",
    "Recorded",
    "build",
    "load_weights",
    "read_example",
    "read_mlflow",
    "read_program",
    "read_state",
]
