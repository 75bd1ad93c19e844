"""A prediction as a DataFrame of pandas: a line for each row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dubito_client.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

    from dubito_client.predictions import Prediction
else:
    DataFrame = "pandas.DataFrame"

__all__ = ["DataFrame", "frame_of"]

_NAMED = ("label", "prediction_set", "certain_set", "decision")  # lists of names, not arrays


def frame_of(prediction: Prediction) -> DataFrame:
    """The columns of a prediction side by side, with the ids of its rows where it has any.

    A column of a number for each class is one column for each, `mean_no`, `mean_yes`; of several
    outputs `mean_0`, `mean_1`. What has more axes stays an array in its cell.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise InputError(
            "to_pandas expects pandas, which is not installed here: pip install pandas"
        ) from error
    columns: dict[str, object] = {} if prediction.ids is None else {"id": prediction.ids}
    for name in _NAMED:
        cells = getattr(prediction, name)
        if cells is not None:
            columns[name] = pd.Series(list(cells), dtype=object)
    for name, array in prediction.arrays.items():
        if name not in _NAMED:
            columns |= _spread(name.replace(".", "_"), array, prediction.classes)
    return pd.DataFrame(columns)


def _spread(name: str, array: NDArray[np.generic], classes: list[str] | None) -> dict[str, object]:
    return dict(_columns(name, array, classes))


def _columns(
    name: str, array: NDArray[np.generic], classes: list[str] | None
) -> Iterator[tuple[str, object]]:
    if array.ndim == 1:
        yield name, array
    elif array.ndim == 2:
        width = array.shape[1]
        places = classes if classes is not None and len(classes) == width else range(width)
        for index, place in enumerate(places):
            yield name if width == 1 else f"{name}_{place}", array[:, index]
    else:
        yield name, list(array)
