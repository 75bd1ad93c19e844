"""What a person may set: environment variables with the prefix `DUBITO_`, and their defaults.

Flow: the command line or a test makes one `Settings`; every part takes what it needs from it.
Sizes are in bytes or rows, times in milliseconds (`*_ms`), as in JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MiB = 2**20
GiB = 2**30

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """Every setting of the service; each is read from `DUBITO_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DUBITO_", extra="forbid", frozen=True)

    data_dir: Path = Field(
        default=Path("./data"), description="Folder that holds all state: database and bundles."
    )
    host: str = Field(default="127.0.0.1", description="Address that the server binds to.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port; 0 takes any free port.")
    api_key: SecretStr | None = Field(
        default=None,
        description="Bearer key that every route but /health/* asks for; none: no key is asked.",
    )
    insecure: bool = Field(
        default=False, description="Allow an address other than loopback without a key."
    )
    device: str = Field(default="cpu", description="Device of the networks: cpu, cuda, cuda:1.")
    num_samples: int = Field(
        default=64, ge=2, description="Masked passes T that new versions take by default."
    )
    seed: int = Field(
        default=0, ge=0, le=2**63 - 1, description="Seed of the masks of new versions by default."
    )
    draw: Literal["stratified", "iid"] = Field(
        default="stratified", description="How new versions draw their masks by default."
    )
    max_num_samples: int = Field(
        default=10_000, ge=2, description="Largest T that a request may ask for, in passes."
    )
    max_rows: Positive = Field(default=10_000, description="Most rows of one request.")
    max_body_bytes: Positive = Field(
        default=64 * MiB,
        description="Largest body of a request in bytes, also after decompression.",
    )
    max_bundle_bytes: Positive = Field(
        default=1 * GiB, description="Largest bundle that may be uploaded, in bytes."
    )
    max_sample_values: Positive = Field(
        default=4_000_000,
        description="Most numbers of the output `samples`, and of the passes that are kept for "
        "`quantiles`, in values (T x rows x outputs).",
    )
    max_calibration_values: Positive = Field(
        default=64_000_000,
        description="Most numbers that the passes of one calibration may take, in values "
        "(T x rows x outputs).",
    )
    max_queued_work: Positive = Field(
        default=16_000_000,
        description="Most work that may wait or run, in rows x samples; beyond it: 429.",
    )
    max_pending_bytes: Positive = Field(
        default=1 * GiB,
        description="Most bytes of all bodies that are read, decoded or waiting at once; beyond "
        "it: 429.",
    )
    max_loaded_versions: Positive = Field(
        default=16,
        description="Versions kept on the device, in versions; the least lately used leaves first.",
    )
    memory_budget_bytes: Positive = Field(
        default=512 * MiB, description="Memory that one chunk of passes may take, in bytes."
    )
    request_timeout_ms: Positive = Field(
        default=60_000,
        description="Deadline of a request without X-Request-Timeout-Ms, in milliseconds.",
    )
    heartbeat_limit_ms: Positive = Field(
        default=30_000,
        description="Age of the device worker's last beat at which the server is not live any "
        "more, in milliseconds.",
    )
    drain_timeout_ms: Positive = Field(
        default=30_000,
        description="Time that queued work is given at shutdown, in milliseconds.",
    )

    @field_validator("api_key")
    @classmethod
    def _key_is_not_empty(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not key.get_secret_value().strip():
            raise ValueError("expected a key, got an empty string: unset DUBITO_API_KEY or fill it")
        return key

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the embedded database."""
        return f"sqlite:///{self.data_dir / 'dubito.sqlite3'}"

    @property
    def objects_dir(self) -> Path:
        """The folder of the object store."""
        return self.data_dir / "objects"

    @property
    def incoming_dir(self) -> Path:
        """The folder where uploads lie until they are verified."""
        return self.data_dir / "incoming"
