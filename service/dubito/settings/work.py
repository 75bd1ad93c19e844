"""What the device computes: sampling, bounds of requests and jobs, models, monitoring."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from dubito.names import NAME, NUMBER
from dubito.settings.kinds import CONFIG, Counts, GiB, Listed, MiB, Positive

_DEVICE = re.compile("cpu|cuda(:[0-9]{1,3})?")
_PINNED = re.compile(f"{NAME}(@({NAME}|{NUMBER}))?")
_WEIGHT = re.compile(rf"{NAME}=[0-9]{{1,6}}(\.[0-9]{{1,6}})?")


class WorkSettings(BaseSettings):
    """Settings of what is computed."""

    model_config = CONFIG

    device: str = Field(
        default="cpu", description="Device that the networks run on: cpu, cuda or cuda:1."
    )
    devices: Listed = Field(
        default=(),
        max_length=64,
        description="Devices that the networks run on, all of one kind, separated by commas, such "
        "as cuda:0,cuda:1. Each has a worker of its own and a copy of every loaded network; what "
        "waits goes to the first that is free. Empty: DUBITO_DEVICE alone.",
    )
    threads: Positive | None = Field(
        default=None,
        le=1024,
        description="Threads that compute on a CPU, for each device. Without it: a server takes "
        "OMP_NUM_THREADS, else the cores that its container or its affinity allows less one, at "
        "least one; a command takes what torch chooses.",
    )
    num_samples: int = Field(
        default=64, ge=2, description="Default number T of masked passes for new versions."
    )
    seed: int = Field(
        default=0, ge=0, le=2**63 - 1, description="Default seed of the masks for new versions."
    )
    draw: Literal["stratified", "iid"] = Field(
        default="stratified",
        description="How new versions draw their masks by default: stratified or iid.",
    )
    precision: Literal["float32", "bfloat16", "tf32"] = Field(
        default="float32",
        description="Precision of the passes of new versions: float32, bfloat16, or on a GPU tf32.",
    )
    max_deviation: float = Field(
        default=0.05,
        gt=0,
        allow_inf_nan=False,
        description="How far a mean, an entropy or a mutual information of made-up rows may be "
        "from that in float32, where a version has another precision. It is measured at load, and "
        "beyond it the load is refused.",
    )
    max_num_samples: int = Field(
        default=10_000, ge=2, description="Maximum T that a request may ask for, in passes."
    )
    max_rows: Positive = Field(default=10_000, description="Maximum number of rows in one request.")
    max_jobs: Positive = Field(
        default=1000,
        description="Maximum number of jobs that may be queued or running at once. Beyond it, "
        "new jobs are answered with 429.",
    )
    job_chunk_ms: Positive = Field(
        default=50,
        description="Time for which a job keeps the device without a pause, in milliseconds. "
        "The number of rows that fits is worked out when the job begins.",
    )
    job_checkpoint_ms: Positive = Field(
        default=2000,
        description="Time between two checkpoints of a job, in milliseconds. A restart loses "
        "no more work than that.",
    )
    job_lease_ms: Positive = Field(
        default=10_000,
        ge=100,
        description="Silence of a server after which another one takes over its job, in "
        "milliseconds.",
    )
    job_retention_ms: Positive = Field(
        default=7 * 24 * 3600 * 1000,
        description="How long a finished job and its result are kept, in milliseconds.",
    )
    max_sample_values: Positive = Field(
        default=4_000_000,
        description="Maximum number of values (T x rows x outputs) in the output `samples`, "
        "and in the passes that are kept to compute `quantiles`.",
    )
    max_calibration_values: Positive = Field(
        default=64_000_000,
        description="Maximum number of values (T x rows x outputs) that the passes of one "
        "calibration may hold.",
    )
    max_queue_ms: Positive = Field(
        default=2000,
        le=600_000,
        description="Longest time that a request may wait for the device, in milliseconds, as "
        "measured on what ran; under a lasting overload a twentieth of it. Beyond it, requests are "
        "answered with 429.",
    )
    max_queued_work: Positive = Field(
        default=16_000_000,
        description="Maximum amount of work that may be queued or running, in rows x samples, "
        "however fast it is: a bound of memory. Beyond it, requests are answered with 429.",
    )
    max_batch_rows: Positive = Field(
        default=256,
        description="Maximum number of rows of several requests that are computed at once. Larger "
        "requests are computed alone.",
    )
    max_batch_delay_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Time that a request may wait for others to be computed with, in "
        "milliseconds. 0: only what waits anyway is joined.",
    )
    max_loaded_versions: Positive = Field(
        default=16,
        description="Maximum number of versions on the device. The least recently used are "
        "evicted first.",
    )
    max_loaded_bytes: Positive = Field(
        default=4 * GiB,
        description="Maximum memory in bytes for the weights of the loaded versions. The "
        "least recently used are evicted first.",
    )
    pinned_models: Listed = Field(
        default=(),
        description="Models that are loaded at start and never evicted, separated by commas, "
        "such as digits or digits@best. The server is ready once they are loaded.",
    )
    model_weights: Listed = Field(
        default=(),
        description="Shares of the device that models get while requests for several wait, "
        "separated by commas, such as digits=4,drafts=0.5. Models that are not named have 1.",
    )
    warm_up_rows: Counts = Field(
        default=(1, 16),
        description="Batch sizes, in rows, that a version runs once when it is loaded, "
        "separated by commas. Empty: none.",
    )
    monitoring: bool = Field(
        default=True,
        description="Follow the scores of predictions under a calibration, and keep these "
        "predictions for feedback.",
    )
    monitoring_window: int = Field(
        default=200,
        ge=10,
        le=100_000,
        description="Number of outcomes, in rows, that the figures of monitoring cover and "
        "after which coverage and flag rate are tested.",
    )
    monitoring_queue_bytes: Positive = Field(
        default=64 * MiB,
        description="Maximum size in bytes of the predictions that wait to be written. "
        "Anything beyond it is dropped and counted.",
    )
    kept_predictions: int = Field(
        default=100_000,
        ge=0,
        description="Maximum number of predictions, in rows, that the database keeps for "
        "feedback. The oldest are deleted first. 0: none.",
    )
    memory_budget_bytes: Positive | None = Field(
        default=None,
        description="Memory that one chunk of passes may take, in bytes. Without it: 512 MiB "
        "on a CPU, a sixteenth of the memory of a GPU.",
    )
    timing_limit_ms: int = Field(
        default=1000,
        ge=0,
        description="Time that finding out which forms of a network pay may take when it is "
        "loaded, in milliseconds. The findings are kept in the data folder, and what was left is "
        "timed at the next load. 0: nothing is timed.",
    )
    proof_timeout_ms: Positive = Field(
        default=1500,
        description="Processor time that proving an uploaded bundle may take, in "
        "milliseconds. Every 16 MiB of the bundle add a second.",
    )

    @field_validator("devices")
    @classmethod
    def _devices_are_alike(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _DEVICE.fullmatch(name):
                raise ValueError(f"expected cpu, cuda or cuda:1, got {name[:80]!r}: correct it")
        if len(kinds := sorted({name.partition(":")[0] for name in names})) > 1:
            raise ValueError(
                f"expected devices of one kind, got {' and '.join(kinds)}: name those of one alone"
            )
        return names

    @field_validator("pinned_models")
    @classmethod
    def _pins_are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _PINNED.fullmatch(name):
                raise ValueError(f"expected MODEL or MODEL@ALIAS, got {name[:80]!r}: correct it")
        return names

    @field_validator("model_weights")
    @classmethod
    def _weights_are_above_0(cls, weights: tuple[str, ...]) -> tuple[str, ...]:
        for weight in weights:
            if not _WEIGHT.fullmatch(weight) or float(weight.partition("=")[2]) == 0:
                raise ValueError(f"expected MODEL=NUMBER above 0, got {weight[:80]!r}: correct it")
        return weights

    @model_validator(mode="after")
    def _tf32_is_of_gpus(self) -> Self:
        if self.precision == "tf32" and not self.used_devices[0].startswith("cuda"):
            raise ValueError(
                f"precision: expected float32 or bfloat16 on {self.used_devices[0]}, got tf32,"
                " which is how a GPU of CUDA multiplies: set DUBITO_DEVICE as well, or take another"
            )
        return self

    @property
    def used_devices(self) -> tuple[str, ...]:
        """The devices that the networks run on, at least one."""
        return self.devices or (self.device,)

    @property
    def shares(self) -> dict[str, float]:
        """The weights of models by name."""
        pairs = (weight.partition("=") for weight in self.model_weights)
        return {model: float(number) for model, _, number in pairs}
