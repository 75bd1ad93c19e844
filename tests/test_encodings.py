"""Compressed bodies: the same answers, and no more memory than the limit."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.api.border import encodings
from dubito.api.border.encodings import ENCODINGS, Decoder
from dubito.errors import InputError
from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import ANIMALS, normals, npy, upload

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
PREDICT = f"{ANIMALS}/predict"


@pytest.mark.parametrize("name", COMPRESS)
def test_a_compressed_body_is_read_as_it_was(ready: httpx.Client, name: str) -> None:
    rows = normals(2000)
    for kind, body in (
        ("application/json", json.dumps({"inputs": rows.tolist()}).encode()),
        ("application/x-npy", npy(rows)),
    ):
        plain = ready.post(PREDICT, content=body, headers={"Content-Type": kind})
        headers = {"Content-Type": kind, "Content-Encoding": name}
        packed = ready.post(PREDICT, content=COMPRESS[name](body), headers=headers)
        assert packed.status_code == plain.status_code == 200
        assert packed.json()["outputs"] == plain.json()["outputs"]


@pytest.mark.parametrize("name", COMPRESS)
@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=30) | st.integers(0, 4000).map(bytes), max_size=4),
    st.integers(1, 50),
)
def test_pieces_of_any_size_say_what_the_whole_says(
    name: str, parts: list[bytes], step: int
) -> None:
    body = b"".join(map(COMPRESS[name], parts))  # several members, several frames
    decoder = Decoder(name, ENCODINGS[name])
    found = b""
    for start in range(0, len(body), step):
        found += b"".join(decoder.pieces(body[start : start + step]))
    decoder.finish()
    assert found == b"".join(parts)


@pytest.mark.parametrize("name", COMPRESS)
def test_no_piece_is_longer_than_a_piece(name: str) -> None:
    bomb = COMPRESS[name](bytes(20_000_000))
    assert len(bomb) < 100_000
    sizes = [len(piece) for piece in Decoder(name, ENCODINGS[name]).pieces(bomb)]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= encodings._PIECE_BYTES


@pytest.mark.parametrize("name", COMPRESS)
def test_what_is_damaged_or_cut_off_is_refused(name: str) -> None:
    whole = COMPRESS[name](bytes(range(256)) * 10)
    for body in (b"hello, world", whole[:-2], whole + b"more"):
        decoder = Decoder(name, ENCODINGS[name])
        with pytest.raises(InputError, match=f"body: expected .*{name}"):
            [*decoder.pieces(body), decoder.finish()]


def test_a_window_that_would_take_the_memory_is_refused() -> None:
    large = {zstd.CompressionParameter.window_log: 27}
    body = zstd.compress(bytes(2**24 + 1), options=large)
    with pytest.raises(InputError, match="zstd"):
        list(Decoder("zstd", ENCODINGS["zstd"]).pieces(body))


@pytest.mark.parametrize("name", COMPRESS)
def test_a_bomb_is_refused_once_it_is_over_the_limit(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles, name: str
) -> None:
    server = serve(settings.model_copy(update={"max_body_bytes": 100_000}))
    headers = {"Content-Type": "application/json", "Content-Encoding": name}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        bomb = client.post(PREDICT, content=COMPRESS[name](b" " * 10_000_000), headers=headers)
        assert bomb.status_code == 413
        assert "once decompressed" in bomb.json()["detail"]
        nothing = zlib.compress(b"", wbits=31) if name == "gzip" else zstd.compress(b"")
        many = client.post(PREDICT, content=nothing * 20_000, headers=headers)
        assert many.status_code == 413  # empty ones count as what they are
        body = COMPRESS[name](json.dumps({"inputs": normals(1).tolist()}).encode())
        assert client.post(PREDICT, content=body, headers=headers).status_code == 200
    assert server.app.state.access.application.admission.held_bytes == 0


def test_a_bundle_may_come_compressed(client: httpx.Client, bundles: Bundles) -> None:
    headers = {"Content-Type": "application/octet-stream", "Content-Encoding": "zstd"}
    body = zstd.compress(bundles("first").read_bytes())
    reply = client.post("/v1/models/animals/versions", content=body, headers=headers)
    assert reply.status_code == 201, reply.text
