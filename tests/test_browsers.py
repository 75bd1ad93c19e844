"""Replies to browsers, pages of other origins, and TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr, ValidationError

from dubito.api import check_tls
from dubito.errors import InputError
from dubito.settings import Settings

from .conftest import Server
from .processes import serving

PAGE = "https://app.example.org"
KEY = "a-long-key"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dubito")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    encoding = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    (folder / "key.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_replies_forbid_browsers_to_guess_frame_or_leak(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    url = serve(settings).url
    for path in ("/docs", "/v1/models", "/nobody"):
        headers = httpx.get(url + path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers
        assert "Strict-Transport-Security" not in headers


def test_pages_of_other_origins_are_refused_unless_they_are_named(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    for origins, status in ((), 403), ((PAGE,), 200):
        server = serve(settings.model_copy(update={"cors_origins": origins}))
        with httpx.Client(base_url=server.url) as client:
            reply = client.post("/v2/repository/index", headers={"Origin": PAGE})
            assert reply.status_code == status
            assert client.post("/v2/repository/index", headers={"Origin": "null"}).is_error
            own = {"Origin": server.url}
            assert client.post("/v2/repository/index", headers=own).status_code == 200
            asked = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
            preflight = client.options("/v1/models/a/versions/1", headers=asked)
            allowed = preflight.headers.get("Access-Control-Allow-Origin")
            assert (allowed == PAGE) == bool(origins)
        server.stop()


def test_with_a_key_a_page_may_send_it_from_anywhere_but_reads_nothing(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    server = serve(settings.model_copy(update={"api_key": SecretStr(KEY)}))
    headers = {"Origin": PAGE, "Authorization": f"Bearer {KEY}"}
    reply = httpx.get(f"{server.url}/v1/models", headers=headers)
    assert reply.status_code == 200
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize("origin", ["*", "example.org", "https://example.org/", "ftp://a.b"])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(ValidationError, match="https://HOST"):
        Settings(cors_origins=(origin,))


def test_a_server_speaks_https_and_grpc_over_tls(pair: tuple[Path, Path], tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    from dubito.cli.commands.serve import bind

    certificate, key = pair
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    settings = {
        "DUBITO_TLS_CERT": str(certificate),
        "DUBITO_TLS_KEY": str(key),
        "DUBITO_API_KEY": KEY,
        "DUBITO_GRPC_PORT": str(port),
    }
    trusted = ssl.create_default_context(cafile=str(certificate))
    with serving(tmp_path / "data", settings) as server:
        assert server.url.startswith("https://")
        with httpx.Client(base_url=server.url, verify=trusted, timeout=60) as client:
            reply = client.get("/health/live")
            assert reply.status_code == 200
            assert "max-age" in reply.headers["Strict-Transport-Security"]
            wrong = {"Authorization": "Bearer a-wrong-key"}
            assert client.get("/v1/models", headers=wrong).status_code == 401
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http"))
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            sent = (("authorization", f"Bearer {KEY}"),)
            assert call(b"", metadata=sent, timeout=60) == b"\x08\x01"
            with pytest.raises(grpc.RpcError):
                call(b"", timeout=60)
    logged = "".join(server.lines)
    assert KEY not in logged
    assert "a-wrong-key" not in logged


def test_a_certificate_without_its_key_is_refused_before_anything_is_loaded(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = pair
    check_tls(Settings())
    check_tls(Settings(tls_cert=certificate, tls_key=key))
    for wrong in (
        {"tls_cert": certificate},
        {"tls_key": key},
        {"tls_cert": tmp_path / "missing.pem", "tls_key": key},
        {"tls_cert": key, "tls_key": key},
    ):
        with pytest.raises(InputError, match="TLS: expected a certificate and its key"):
            check_tls(Settings.model_validate(wrong))
