"""Bundles by digest: in a folder, in an S3 bucket behind a cache, and what is damaged."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dubito.errors import DubitoError, InputError, UnavailableError
from dubito.registry.objects import Objects
from dubito.registry.objects.cache import BundleCache

from .s3 import S3

CONTENT = b"a bundle" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = b"another bundle" * 1000
OTHER_DIGEST = hashlib.sha256(OTHER).hexdigest()
Damage = Callable[[str, bytes | None], None]


def _key(digest: str) -> str:
    return f"bundles/{digest[:2]}/{digest}.dubito"


class Place:
    """An object store, and a way to its objects behind its back."""

    def __init__(self, objects: Objects, damage: Damage) -> None:
        self.objects = objects
        self.damage = damage


def _bucket(s3: S3, folder: Path, limit_bytes: int = 10**6) -> tuple[Objects, str]:
    bucket = s3.bucket()
    cache = BundleCache(folder / "cache", limit_bytes)
    return Objects.open(f"s3://{bucket}/some/where", cache, allow_http=True), f"{bucket}/some/where"


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":

        def damage(digest: str, content: bytes | None) -> None:
            path = tmp_path / "objects" / _key(digest)
            path.unlink() if content is None else path.write_bytes(content)

        return Place(Objects.open(f"file://{tmp_path}/objects", BundleCache(tmp_path, 1)), damage)
    s3: S3 = request.getfixturevalue("s3")
    objects, root = _bucket(s3, tmp_path)

    def damage_bucket(digest: str, content: bytes | None) -> None:
        key = f"{root}/{_key(digest)}"
        s3.delete(key) if content is None else s3.put(key, content)

    return Place(objects, damage_bucket)


def test_what_is_put_is_there_until_it_is_deleted(place: Place, tmp_path: Path) -> None:
    objects = place.objects
    assert not objects.has(DIGEST)
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    objects.put(DIGEST, source)
    objects.put(DIGEST, CONTENT)
    objects.put(OTHER_DIGEST, OTHER)
    assert objects.get(DIGEST) == objects.get(DIGEST) == CONTENT
    assert {stored.digest: stored.size_bytes for stored in objects.stored()} == {
        DIGEST: len(CONTENT),
        OTHER_DIGEST: len(OTHER),
    }
    objects.delete(DIGEST)
    objects.delete(DIGEST)
    assert [objects.has(digest) for digest in (DIGEST, OTHER_DIGEST)] == [False, True]
    with pytest.raises(DubitoError, match="missing"):
        objects.get(DIGEST)


def test_a_damaged_object_is_never_given_out_and_one_of_another_size_is_put_again(
    place: Place,
) -> None:
    place.objects.put(DIGEST, CONTENT)
    place.damage(DIGEST, CONTENT[:-1] + b"!")
    assert place.objects.actual_digest(DIGEST) != DIGEST
    with pytest.raises(DubitoError, match="damaged"):
        place.objects.get(DIGEST)
    place.damage(DIGEST, CONTENT[:-1])
    place.objects.put(DIGEST, CONTENT)
    assert place.objects.get(DIGEST) == CONTENT


def test_an_object_of_a_bucket_is_downloaded_once(s3: S3, tmp_path: Path) -> None:
    objects, root = _bucket(s3, tmp_path)
    objects.put(DIGEST, CONTENT)
    assert objects.get(DIGEST) == CONTENT
    s3.delete(f"{root}/{_key(DIGEST)}")
    assert objects.get(DIGEST) == CONTENT
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [f"{DIGEST}.dubito"]


def test_a_damaged_file_of_the_cache_is_downloaded_again(s3: S3, tmp_path: Path) -> None:
    objects, _ = _bucket(s3, tmp_path)
    objects.put(DIGEST, CONTENT)
    objects.get(DIGEST)
    (tmp_path / "cache" / f"{DIGEST}.dubito").write_bytes(b"rubbish")
    assert objects.get(DIGEST) == CONTENT


def test_the_cache_is_bounded_and_the_least_lately_used_leaves(tmp_path: Path) -> None:
    contents = [bytes([place]) * 400 for place in range(4)]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    cache = BundleCache(tmp_path, 1000)
    for moment, place in enumerate((0, 1)):
        cache.fill(digests[place], [contents[place]])
        os.utime(tmp_path / f"{digests[place]}.dubito", (moment, moment))
    assert cache.get(digests[0]) == contents[0]
    cache.fill(digests[2], [contents[2][:100], contents[2][100:]])
    assert [cache.get(digest) is not None for digest in digests[:3]] == [True, False, True]
    large = bytes(2000)
    assert cache.fill(hashlib.sha256(large).hexdigest(), [large]) == large
    assert len(list(tmp_path.iterdir())) == 1


def test_a_download_with_another_digest_is_not_kept(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path, 1000)
    with pytest.raises(DubitoError, match="damaged"):
        cache.fill(DIGEST, [b"rubbish"])
    assert list(tmp_path.iterdir()) == []


def test_left_overs_of_killed_downloads_are_cleared_when_they_are_old(tmp_path: Path) -> None:
    for name, moment in (("old.part", 0), ("new.part", None)):
        (tmp_path / name).write_bytes(b"half")
        if moment is not None:
            os.utime(tmp_path / name, (moment, moment))
    BundleCache(tmp_path, 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["new.part"]


def test_many_threads_put_and_get_one_object(place: Place) -> None:
    def both(_: int) -> bytes:
        place.objects.put(DIGEST, CONTENT)
        return place.objects.get(DIGEST)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(both, range(16))) == {CONTENT}


@pytest.mark.parametrize(
    "url",
    [
        *("gs://bucket", "bucket", "s3://", "s3://a?x=1", "s3://a?", "s3://a#b"),
        *("file://host/path", "file:relative", "file:///a?b", "file:///a#b"),
    ],
)
def test_another_kind_of_url_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="DUBITO_OBJECT_STORE_URL"):
        Objects.open(url, BundleCache(tmp_path, 1))


@pytest.mark.parametrize(
    ("endpoint", "allow_http"),
    [
        ("http://127.0.0.1:9000", False),
        ("http://192.0.2.1:9000", True),
        ("http://storage.example", True),
        ("ftp://127.0.0.1", True),
    ],
)
def test_an_endpoint_without_encryption_is_for_loopback_and_only_if_allowed(
    endpoint: str, allow_http: bool, tmp_path: Path
) -> None:
    environment = {"AWS_ENDPOINT_URL": endpoint}
    with pytest.raises(InputError, match="https"):
        Objects.open(
            "s3://bucket",
            BundleCache(tmp_path, 1),
            allow_http=allow_http,
            environment=environment,
        )


def test_a_bucket_that_does_not_answer_is_unavailable(s3: S3, tmp_path: Path) -> None:
    objects = Objects.open("s3://nobody", BundleCache(tmp_path / "a", 1), allow_http=True)
    with pytest.raises(UnavailableError, match="s3://nobody"):
        objects.put(DIGEST, CONTENT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gone = {**s3.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    objects = Objects.open(
        "s3://b", BundleCache(tmp_path / "b", 1), allow_http=True, environment=gone
    )
    with pytest.raises(UnavailableError, match="does not answer"):
        objects.has(DIGEST)
