"""An S3 server of the tests: moto's, in a process of its own on a free loopback port."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import obstore
from obstore.store import S3Store


class S3:
    """A running server; its buckets are for anyone."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def environment(self) -> dict[str, str]:
        """What an S3 client reads."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"test-{uuid.uuid4().hex}"
        httpx.put(f"{self.url}/{name}").raise_for_status()
        return name

    def put(self, key: str, content: bytes) -> None:
        """Write an object behind everyone's back; `key` begins with the bucket."""
        bucket, _, rest = key.partition("/")
        obstore.put(self._store(bucket), rest, content)

    def delete(self, key: str) -> None:
        """Delete an object behind everyone's back; `key` begins with the bucket."""
        bucket, _, rest = key.partition("/")
        obstore.delete(self._store(bucket), rest)

    def _store(self, bucket: str) -> S3Store:
        return S3Store(
            bucket,
            endpoint=self.url,
            access_key_id="test",
            secret_access_key="test",
            client_options={"allow_http": True},
        )


@contextmanager
def running() -> Iterator[S3]:
    """A server for the time of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = iter(process.stderr)
    found = next((m for m in (re.search(r"http://127\.0\.0\.1:\d+", x) for x in lines) if m), None)
    drain = threading.Thread(target=process.stderr.read)
    drain.start()
    try:
        assert found is not None
        yield S3(found[0])
    finally:
        process.kill()
        process.wait()
        drain.join()
        process.stderr.close()
