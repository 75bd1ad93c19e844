"""What a person may set: environment variables with the prefix `DUBITO_`, and their defaults.

Flow: the command line or a test makes one `Settings`; every part takes what it needs from it.
Sizes are in bytes or rows, times in milliseconds (`*_ms`), as in JSON.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL

from dubito.names import NAME, NUMBER

KiB = 2**10
MiB = 2**20
GiB = 2**30

_PINNED = re.compile(f"{NAME}(@({NAME}|{NUMBER}))?")
_WEIGHT = re.compile(rf"{NAME}=[0-9]{{1,6}}(\.[0-9]{{1,6}})?")
_PREFIX = re.compile(r"(s3://[a-z0-9][a-z0-9.-]+|file://(?=/.))(/[^/?#@%]+)*/?")
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """Every setting of the service; each is read from `DUBITO_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DUBITO_", extra="forbid", frozen=True)

    data_dir: Path = Field(
        default=Path("./data"),
        description="Folder that holds all state: the database and the bundles.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="URL of the database, such as postgresql://user:password@host/name. "
        "Without it: SQLite in the data folder.",
    )
    object_store_url: str | None = Field(
        default=None,
        description="URL of the store of bundles, s3://bucket/prefix or file:///folder. "
        "Without it: the data folder. Endpoint, region and credentials of S3 come "
        "from the variables AWS_*.",
    )
    object_store_allow_http: bool = Field(
        default=False, description="Allow an S3 endpoint on loopback without encryption."
    )
    object_cache_bytes: Positive = Field(
        default=10 * GiB,
        description="Maximum size in bytes of the bundles from S3 that are cached in the data "
        "folder. The least recently used are evicted first.",
    )
    host: str = Field(default="127.0.0.1", description="Address that the server binds to.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port. 0 takes any free port.")
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="TCP port of the Open Inference Protocol over gRPC, at the same address. 0 "
        "takes any free port. Without it, gRPC is not served. Needs `pip install 'dubito[grpc]'`.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="Key that opens every route. Without it, keys are those of `dubito keys`; "
        "where there are none either, no key is required.",
    )
    insecure: bool = Field(
        default=False, description="Allow binding to an address other than loopback without a key."
    )
    tls_cert: Path | None = Field(
        default=None,
        description="File of the certificate, with its chain, in PEM. With it and DUBITO_TLS_KEY "
        "the server speaks HTTPS, and gRPC over TLS.",
    )
    tls_key: Path | None = Field(
        default=None, description="File of the certificate's private key in PEM, without password."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may ask this server from a browser, separated by commas, "
        "such as https://app.example.org. Without it, those of the server itself alone.",
    )
    device: str = Field(
        default="cpu", description="Device that the networks run on: cpu, cuda or cuda:1."
    )
    threads: Positive | None = Field(
        default=None,
        le=1024,
        description="Threads that compute on a CPU. Without it: a server takes OMP_NUM_THREADS, "
        "else the cores that its container or its affinity allows less one, at least one; a "
        "command takes what torch chooses.",
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
    max_num_samples: int = Field(
        default=10_000, ge=2, description="Maximum T that a request may ask for, in passes."
    )
    max_rows: Positive = Field(default=10_000, description="Maximum number of rows in one request.")
    max_body_bytes: Positive = Field(
        default=64 * MiB,
        description="Maximum size of a request body in bytes, also after decompression.",
    )
    max_bundle_bytes: Positive = Field(
        default=1 * GiB, description="Maximum size of an uploaded bundle in bytes."
    )
    max_pool_bytes: Positive = Field(
        default=16 * GiB,
        description="Maximum size of a stored pool in bytes, both as it is sent and once it "
        "is unpacked.",
    )
    pool_cache_bytes: Positive = Field(
        default=64 * GiB,
        description="Maximum size in bytes of the unpacked pools that are cached in the data "
        "folder. The least recently used are evicted first.",
    )
    pool_addresses: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Prefixes of the addresses that pools may be copied from, separated by "
        "commas, such as s3://bucket/pools,file:///srv/pools. Without it, no "
        "address is ever opened.",
    )
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
    max_queued_work: Positive = Field(
        default=16_000_000,
        description="Maximum amount of work that may be queued or running, in rows x samples. "
        "Beyond it, requests are answered with 429.",
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
    max_pending_bytes: Positive = Field(
        default=1 * GiB,
        description="Maximum total size in bytes of all request bodies that are being read, "
        "decoded or queued. Beyond it, requests are answered with 429.",
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
    pinned_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Models that are loaded at start and never evicted, separated by commas, "
        "such as digits or digits@best. The server is ready once they are loaded.",
    )
    model_weights: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Shares of the device that models get while requests for several wait, "
        "separated by commas, such as digits=4,drafts=0.5. Models that are not named have 1.",
    )
    warm_up_rows: Annotated[tuple[Positive, ...], NoDecode] = Field(
        default=(1, 16),
        description="Batch sizes, in rows, that a version runs once when it is loaded, "
        "separated by commas. Empty: none.",
    )
    poll_ms: Positive = Field(
        default=500,
        le=60_000,
        description="Polling interval for changes that other servers made in the database, in "
        "milliseconds.",
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
    request_timeout_ms: Positive = Field(
        default=60_000,
        description="Deadline of a request without X-Request-Timeout-Ms, in milliseconds.",
    )
    max_request_timeout_ms: Positive = Field(
        default=600_000,
        description="Latest deadline that X-Request-Timeout-Ms may set, in milliseconds. A later "
        "one is taken for this.",
    )
    max_connections: Positive = Field(
        default=4096,
        description="Maximum number of connections. Beyond it, those that have been idle longest "
        "are closed; where none is idle, new ones are answered with 503.",
    )
    max_headers: Positive = Field(
        default=100, description="Maximum number of headers of a request, trailers included."
    )
    max_header_bytes: Positive = Field(
        default=32 * KiB,
        ge=1 * KiB,
        description="Maximum size of the request line and the headers of a request in bytes.",
    )
    header_timeout_ms: Positive = Field(
        default=10_000,
        description="Time within which a request line and its headers are complete, from their "
        "first byte, or from the connection for its first request; in milliseconds.",
    )
    transfer_timeout_ms: Positive = Field(
        default=20_000,
        description="Longest pause while a body is sent or a reply is read, in milliseconds.",
    )
    min_transfer_rate: Positive = Field(
        default=1024,
        description="Lowest rate at which a body is sent and a reply is read, in bytes per "
        "second. What falls behind it by more than DUBITO_TRANSFER_TIMEOUT_MS is ended.",
    )
    keep_alive_timeout_ms: Positive = Field(
        default=75_000,
        description="How long a connection is kept open after a reply, in milliseconds: longer "
        "than a proxy in front of the server keeps it.",
    )
    heartbeat_limit_ms: Positive = Field(
        default=30_000,
        description="Age of the device worker's last heartbeat at which the server no longer "
        "counts as live, in milliseconds.",
    )
    drain_timeout_ms: Positive = Field(
        default=30_000,
        description="Time that accepted requests are given to finish at shutdown, in milliseconds. "
        "What is left then is answered with 503.",
    )

    @field_validator("api_key")
    @classmethod
    def _key_is_not_empty(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None:
            return None
        bare = key.get_secret_value().strip()  # files of secrets end with a line break
        if not bare:
            raise ValueError("expected a key, got an empty string: unset DUBITO_API_KEY or fill it")
        return SecretStr(bare)

    @field_validator(
        *("pinned_models", "model_weights", "warm_up_rows", "pool_addresses", "cors_origins"),
        mode="before",
    )
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

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

    @field_validator("pool_addresses")
    @classmethod
    def _addresses_are_prefixes(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            if not _PREFIX.fullmatch(prefix):
                raise ValueError(
                    f"expected s3://BUCKET/PREFIX or file:///FOLDER, got {prefix[:80]!r}"
                )
        return prefixes

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_named(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"expected https://HOST or http://HOST:PORT, got {origin[:80]!r}")
        return origins

    @property
    def shares(self) -> dict[str, float]:
        """The weights of models by name."""
        pairs = (weight.partition("=") for weight in self.model_weights)
        return {model: float(number) for model, _, number in pairs}

    @property
    def registry_url(self) -> URL | str:
        """The URL of the database, with its password."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return URL.create("sqlite", database=str(self.data_dir / "dubito.sqlite3"))

    @property
    def objects_dir(self) -> Path:
        """The folder of the object store."""
        return self.data_dir / "objects"

    @property
    def findings_dir(self) -> Path:
        """The folder of what loading a bundle found out."""
        return self.data_dir / "findings"

    @property
    def cache_dir(self) -> Path:
        """The folder of bundles that were downloaded."""
        return self.data_dir / "cache"

    @property
    def pool_cache_dir(self) -> Path:
        """The folder of unpacked pools."""
        return self.data_dir / "pools"

    @property
    def incoming_dir(self) -> Path:
        """The folder where uploads lie until they are verified."""
        return self.data_dir / "incoming"
