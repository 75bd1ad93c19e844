"""A model of MLflow's PyTorch flavour, from a registry or a folder.

Its job: let MLflow find and load it, and make rows by its signature. It needs the extra `mlflow`.
MLflow runs code from the model; it reads pickled ones only where
MLFLOW_ALLOW_PICKLE_DESERIALIZATION allows it.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from dubito.errors import InputError
from dubito.imports.example import made_up
from dubito.imports.recorded import Recorded, plain
from dubito_nn.program import DTYPES

_ROWS = 8


def read_mlflow(uri: str, *, is_injected: bool = False) -> Recorded:
    """Load a model. This runs code from it.

    Args:
        uri: such as `models:/name/1`, `runs:/id/model`, or a folder with a file `MLmodel`.
        is_injected: dropout is put in afterwards.

    Raises:
        InputError: MLflow is not installed, finds no such model, or it is not one of PyTorch's.
    """
    models, flavour = _module("mlflow.models"), _module("mlflow.pytorch")
    try:
        info = models.get_model_info(uri)
    except Exception as error:
        raise InputError(
            f"{uri}: MLflow finds no such model ({_reason(error)}): check the name and"
            " MLFLOW_TRACKING_URI"
        ) from error
    if "pytorch" not in info.flavors:
        raise InputError(
            f"{uri}: expected a model of the flavour pytorch, got {', '.join(info.flavors)}: log it"
            " with mlflow.pytorch.log_model"
        )
    try:
        network = flavour.load_model(uri)
    except Exception as error:
        raise InputError(f"{uri}: MLflow cannot load it: {_reason(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{uri}: expected a torch.nn.Module, got {type(network).__name__}")
    return Recorded(plain(network, uri, is_injected), _example(info.signature))


def _module(name: str) -> Any:
    """A module of MLflow, imported when it is asked for."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"importing from MLflow needs {error.name}: install the extra, dubito[mlflow]"
        ) from error


def _example(signature: Any) -> tuple[torch.Tensor, ...] | None:
    """Rows by the signature; None where it says too little, as of the range of integers."""
    specs = [] if signature is None or signature.inputs is None else list(signature.inputs)
    rows = []
    for spec in specs:
        shape, kind = getattr(spec, "shape", None), getattr(spec, "type", None)
        dtype = DTYPES.get(str(kind))
        if not shape or shape[0] != -1 or min(shape[1:], default=1) < 1 or dtype is None:
            return None
        if not dtype.is_floating_point:
            return None
        rows.append(made_up([_ROWS, *shape[1:]], dtype, None, None, "signature"))
    return tuple(rows) or None


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
