"""What is measured of a bundle; the command line alone asks it."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from dubito.asked import STRICT, SamplingOptions
from dubito.engine import Engine
from dubito.engine.calling.sampling import Sites, as_sites, read_sites
from dubito.engine.sites.chosen import chosen
from dubito.errors import InputError

_SAMPLES = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BenchOrder(SamplingOptions):
    """A study of every T and every B, with the seed, masks and draw of a request.

    Raises:
        InputError: a number is out of its bounds.
    """

    samples: list[int] | None = Field(
        default=None,
        description="Values of T. Default: that of the request, else 8,16,32,64,128,256.",
    )
    batch: list[int] = Field(default=[1, 16, 128], description="Numbers of rows per call.")
    rows: int = Field(default=64, description="Number of rows on which errors are measured.")
    reference: int = Field(
        default=10_000,
        description="Number of passes of the reference run that errors are measured against. "
        "0: none.",
    )
    choices: list[str] | None = Field(
        default=None,
        description="Choices of sites that are compared with all: `last`, or site numbers and "
        "patterns joined by +. Default: last, where that is not all.",
    )
    repeats: int = Field(default=7, description="Maximum number of timed calls of each kind.")
    seconds: float = Field(
        default=30.0, description="Time limit of the reference run, and of each B."
    )

    def __post_init__(self) -> None:
        """Refuse numbers that nothing can be measured with."""
        for name, numbers, least in (
            ("samples", self.every_t, 2),
            ("batch", self.batch, 1),
            ("rows", [self.rows], 1),
        ):
            if not numbers or min(numbers) < least:
                got = min(numbers) if numbers else "none"
                raise InputError(f"`{name}` expects numbers of at least {least}, got {got}")
        if self.reference and self.reference < 2:
            raise InputError(
                f"`reference` expects at least 2 passes, or 0 for none, got {self.reference}"
            )

    @property
    def compared_t(self) -> int:
        """T that choices of sites are compared at."""
        return 64 if 64 in self.every_t else self.every_t[-1]

    def compared(self, engine: Engine) -> list[Sites]:
        """Choices of sites to compare with all.

        Args:
            engine: whose sites they are.

        Raises:
            InputError: a choice that names no site.
        """
        if self.choices is not None:
            return [as_sites(read_sites(choice.replace("+", ","))) for choice in self.choices]
        table, program = engine.bundle.sites, engine.bundle.sampling
        return ["last"] if table and chosen("last", table, program) != engine.sampled else []

    @property
    def every_t(self) -> list[int]:
        """T to measure, ascending."""
        request = _SAMPLES if self.num_samples is None else [self.num_samples]
        return sorted(set(request if self.samples is None else self.samples))
