"""What all pages share, and the types that their fields have in common.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType


class Page(BaseModel):
    """One JSON object of a reply; what is not set is left out of it."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def of(cls, fact: object, **values: Any) -> Self:
        """The page of a fact, whose attributes it takes by their names.

        Args:
            fact: a dataclass.
            values: what has another name there, or stands nowhere in it.
        """
        return cls.model_validate({**vars(fact), **values})


class DrawnPage(Page):
    """What an answer was drawn with."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version that answered.")
    members: list[int] = Field(
        default=[], description="Versions of the ensemble; left out with other methods."
    )
    num_samples: int = Field(description="T, the number of masked passes per row.")
    seed: int = Field(description="Seed of the masks.")
    masks: Literal["shared", "independent"] = Field(
        description="Whether all rows share the masks of a pass, or each row has its own."
    )
    draw: Literal["iid", "stratified"] = Field(description="How the masks were drawn.")
    method: Literal["mc", "point", "moments", "ensemble"] = Field(
        description="How the uncertainty was computed."
    )


Nested = TypeAliasType("Nested", "float | list[Nested] | None")
"""Numbers of one row with any number of axes; null where the network overflowed."""

Names = TypeAliasType("Names", "str | list[Names] | None")
"""Names of classes of one row with any number of axes; null where the network overflowed."""

Document: TypeAlias = Mapping[str, Any]
