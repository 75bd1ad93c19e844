"""A prediction of the engine as a DataFrame of pandas: a line for each row."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from dubito.engine.calling.columns import is_left_out
from dubito.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from dubito.engine.calling.prediction import Prediction

_OF_PASSES = ("samples", "noise_samples")  # whose first axis is no row


def frame_of(prediction: Prediction) -> pd.DataFrame:
    """The columns of a prediction side by side.

    A column of a number for each class is one column for each, `mean_no`, `mean_yes`; of several
    outputs `mean_0`, `mean_1`. What has more axes stays an array in its cell; what was not made is
    left out, as are the single passes.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise InputError(
            "to_pandas expects pandas, which is not installed here: pip install pandas"
        ) from error
    classes = getattr(prediction, "classes", None)
    columns: dict[str, object] = {}
    for field in fields(prediction):
        array = getattr(prediction, field.name)
        is_column = isinstance(array, np.ndarray) and field.name not in _OF_PASSES
        if not is_column or is_left_out(array):
            continue
        width = array.shape[1] if array.ndim == 2 else 1
        if field.name == "label_index" and array.ndim == 1:
            columns["label"] = np.array(classes, object)[array]
        elif array.ndim == 1:
            columns[field.name] = array
        elif array.ndim == 2:
            places = classes if classes is not None and len(classes) == width else range(width)
            for index, place in enumerate(places):
                own = field.name if width == 1 else f"{field.name}_{place}"
                columns[own] = array[:, index]
        else:
            columns[field.name] = list(array)
    return pd.DataFrame(columns)
