"""Where the server listens, who may ask, and the bounds of connections and bodies."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from dubito.settings.kinds import CONFIG, GiB, KiB, Listed, MiB, Positive

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


class BorderSettings(BaseSettings):
    """Settings of what meets the network."""

    model_config = CONFIG

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
    cors_origins: Listed = Field(
        default=(),
        description="Origins whose pages may ask this server from a browser, separated by commas, "
        "such as https://app.example.org. Without it, those of the server itself alone.",
    )
    max_body_bytes: Positive = Field(
        default=64 * MiB,
        description="Maximum size of a request body in bytes, also after decompression.",
    )
    max_image_pixels: Positive = Field(
        default=25_000_000,
        le=178_956_970,  # beyond which Pillow opens nothing
        description="Maximum size of an image in pixels. All images of a request together may have "
        "16 times as many.",
    )
    max_bundle_bytes: Positive = Field(
        default=1 * GiB, description="Maximum size of an uploaded bundle in bytes."
    )
    max_pool_bytes: Positive = Field(
        default=16 * GiB,
        description="Maximum size of a stored pool in bytes, both as it is sent and once it "
        "is unpacked.",
    )
    max_pending_bytes: Positive = Field(
        default=1 * GiB,
        description="Maximum total size in bytes of all request bodies that are being read, "
        "decoded or queued. Beyond it, requests are answered with 429.",
    )
    log_requests: bool = Field(
        default=False, description="Log one line for every request that is answered."
    )
    tracing: bool = Field(
        default=False,
        description="Trace requests by OpenTelemetry, whose own variables (OTEL_...) say where "
        "spans go. It needs the extra `otel`.",
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

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_named(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"expected https://HOST or http://HOST:PORT, got {origin[:80]!r}")
        return origins
