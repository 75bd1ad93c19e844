"""What JSON may say of pools, aliases, outcomes; unknown fields are refused everywhere.

What asks the network is in `dubito.asked`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from dubito.asked import LabelsAreField


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class PoolQuery(_Schema):
    """The fields of a pool beside its rows."""

    name: str | None = Field(default=None, description="Name of the pool. Default: its digest.")


class PoolRowsQuery(_Schema):
    """Which rows of a pool are shown."""

    indices: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, max_length=1000, description="Rows of the pool, from 0."
    )


class PoolAddressBody(PoolQuery):
    """The address of a pool's rows."""

    address: str = Field(
        description="Address of the file, s3://BUCKET/KEY or file:///PATH, below a prefix that the "
        "operator allows. With a slash at its end: a folder of images."
    )
    format: Literal["npy", "npz", "parquet", "csv", "ndjson", "arrows", "zip", "tar"] | None = (
        Field(
            default=None, description="Format of the file. Default: by the ending of the address."
        )
    )


def _one_label(label: object) -> object:
    if isinstance(label, list):
        raise PydanticCustomError(
            "several_labels",
            "expected one class of the row, by index or name, got a list: outcomes of several"
            " labels or positions are not taken, send such rows to evaluate",
        )
    return label


class TruthBody(_Schema):
    """The truth of one row."""

    row: int = Field(ge=0, description="Index of the row in the request, from 0.")
    label: Annotated[int | str | None, BeforeValidator(_one_label)] = Field(
        default=None, description="True class, by index or name."
    )
    target: float | Annotated[list[float], Field(fail_fast=True)] | None = Field(
        default=None, description="Regression: true value, or one value per output."
    )


class FeedbackQuery(_Schema):
    """Whose outcomes a table holds, and where."""

    request_id: str = Field(
        min_length=1, max_length=128, description="The `request_id` of the reply."
    )
    label: list[str] = Field(
        fail_fast=True,
        min_length=1,
        description="Column of a table that holds the true class of each row, or columns of the "
        "true values; where a cell is empty, nothing is known of the row.",
    )
    labels_are: LabelsAreField = None


class FeedbackBody(_Schema):
    """True outcomes for an earlier prediction."""

    request_id: str = Field(
        min_length=1, max_length=128, description="The `request_id` of the reply."
    )
    rows: list[TruthBody] = Field(
        fail_fast=True,
        min_length=1,
        max_length=100_000,
        description="The truths, one entry per row.",
    )
    labels_are: LabelsAreField = None


class AliasBody(_Schema):
    """The version that an alias shall point to."""

    version: int = Field(ge=1, description="Number of the version.")


class RetireBody(_Schema):
    """Why a version is retired."""

    reason: str = Field(
        min_length=1, max_length=500, description="Reason, told to whoever asks for the version."
    )


class ActiveBody(_Schema):
    """The calibration to make active."""

    active: int | None = Field(ge=1, description="Number of a calibration, or null for none.")


class ActiveFitsBody(_Schema):
    """The fits to make active."""

    active: dict[str, Annotated[int, Field(ge=1)] | None] = Field(
        min_length=1,
        max_length=16,
        description="Number of a fit for each method named, or null for none.",
    )
