"""How many replicas a Ray cluster runs, and by which nodes requests come in."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from dubito.settings.kinds import CONFIG, Positive


class ClusterSettings(BaseSettings):
    """Settings of `dubito serve --ray`."""

    model_config = CONFIG

    ray_min_replicas: Positive = Field(
        default=1, description="Least number of replicas, each with a device of its own, on Ray."
    )
    ray_max_replicas: Positive | None = Field(
        default=None,
        description="Maximum number of replicas on Ray. Without it: as many as the cluster has "
        "devices when the command runs.",
    )
    ray_entrances: Literal["every", "head"] = Field(
        default="every",
        description="Nodes of Ray that requests enter by: every node with a replica, or the head "
        "alone.",
    )

    @model_validator(mode="after")
    def _most_is_not_below_least(self) -> Self:
        most, least = self.ray_max_replicas, self.ray_min_replicas
        if most is not None and most < least:
            raise ValueError(
                f"ray_max_replicas: expected at least ray_min_replicas, which is {least}, got"
                f" {most}: raise it, or lower the other"
            )
        return self
