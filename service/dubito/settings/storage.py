"""Where the registry, its objects and pools lie, and how much of them is cached."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings
from sqlalchemy.engine import URL

from dubito.settings.kinds import CONFIG, GiB, Listed, Positive

_PREFIX = re.compile(r"(s3://[a-z0-9][a-z0-9.-]+|file://(?=/.))(/[^/?#@%]+)*/?")


class StorageSettings(BaseSettings):
    """Settings of what is kept, and where."""

    model_config = CONFIG

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
    pool_cache_bytes: Positive = Field(
        default=64 * GiB,
        description="Maximum size in bytes of the unpacked pools that are cached in the data "
        "folder. The least recently used are evicted first.",
    )
    pool_addresses: Listed = Field(
        default=(),
        description="Prefixes of the addresses that pools may be copied from, separated by "
        "commas, such as s3://bucket/pools,file:///srv/pools. Without it, no "
        "address is ever opened.",
    )
    poll_ms: Positive = Field(
        default=500,
        le=60_000,
        description="Polling interval for changes that other servers made in the database, in "
        "milliseconds.",
    )

    @field_validator("pool_addresses")
    @classmethod
    def _addresses_are_prefixes(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            if not _PREFIX.fullmatch(prefix):
                raise ValueError(
                    f"expected s3://BUCKET/PREFIX or file:///FOLDER, got {prefix[:80]!r}"
                )
        return prefixes

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
