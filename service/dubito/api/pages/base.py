"""What all pages share, and the types that their fields have in common.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from dubito.engine.calling.sampling import Draw, Masks, Method, Precision, SitesName


class JsonPage(BaseModel):
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


class DrawnEntry(JsonPage):
    """How the passes were drawn."""

    num_samples: int = Field(description="T, the number of masked passes per row.")
    seed: int = Field(description="Seed of the masks.")
    masks: Masks = Field(description="Whether rows share the masks of a pass, or have their own.")
    draw: Draw = Field(description="How the masks were drawn.")
    method: Method = Field(description="How the uncertainty was computed.")
    sites: SitesName | list[int | str] = Field(
        default="all",
        description="The sites that were sampled: `last`, or by number, while the others stood at "
        "their means; left out with all.",
    )
    precision: Precision = Field(
        default="float32",
        description="Precision of the passes; left out with float32.",
    )
    fit: int | None = Field(
        default=None,
        description="Number of the fit that methods `laplace` and `distilled` answered from; left "
        "out with others.",
    )
    fallback: float | None = Field(
        default=None,
        description="`distilled`: share of usual rows that `mc` answers in its place; left out "
        "where none was asked for.",
    )


class SamplingEntry(DrawnEntry):
    """How the passes were drawn, and when a row stopped."""

    tolerance: float | None = Field(
        description="Standard error at which a row stopped, or null if all passes were made."
    )


class DrawnPage(DrawnEntry):
    """What an answer was drawn with."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version that answered.")
    members: list[int] = Field(
        default=[], description="Versions of the ensemble; left out with other methods."
    )


Nested = TypeAliasType("Nested", "float | list[Nested] | None")
"""Numbers of one row with any number of axes; null where the network overflowed."""

Names = TypeAliasType("Names", "str | list[Names] | None")
"""Names of classes of one row with any number of axes; null where the network overflowed."""

Document: TypeAlias = Mapping[str, Any]
