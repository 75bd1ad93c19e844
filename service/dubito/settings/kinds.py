"""What kinds of values settings have: units, counts, and lists that are written with commas."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

KiB = 2**10
MiB = 2**20
GiB = 2**30

CONFIG = SettingsConfigDict(env_prefix="DUBITO_", extra="forbid", frozen=True)


def _split_at_commas(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


Positive = Annotated[int, Field(ge=1)]
Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_at_commas)]
Counts = Annotated[tuple[Positive, ...], NoDecode, BeforeValidator(_split_at_commas)]
