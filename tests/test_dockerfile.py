"""The image of the Dockerfile: its steps are carried out in order, and its command serves.

There need be no Docker (`tests/containers.py`). Heavy libraries are those of this environment,
which pip then finds installed at the versions of `constraints.txt`; with
`DUBITO_TEST_IMAGE=full` it gets all of them from its index, as a build does.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from numba.core.caching import UserProvidedCacheLocator

from dubito.engine.summing.compiled import compiling

from .conftest import Bundles
from .containers import Builder, Image, let_through, stages
from .http import ANIMALS, normals, predicted, upload

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text()
KEY = "the-key-of-a-test"
IS_FULL = os.environ.get("DUBITO_TEST_IMAGE") == "full"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    folder = tmp_path_factory.mktemp("image").resolve()
    let_through(ROOT, folder / "context")
    given = {"TORCH_INDEX_URL": os.environ.get("TORCH_INDEX_URL", "")}
    return Builder(folder, folder / "context", given, _with_libraries)


@pytest.fixture(scope="module")
def image(builder: Builder) -> Iterator[Image]:
    """What `docker build` makes of the last stage."""
    with pytest.MonkeyPatch.context() as patch:
        if not IS_FULL:
            patch.setenv("PIP_NO_INDEX", "1")
            patch.setenv("npm_config_offline", "true")
            patch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # which means: without it
        yield builder.build(TEXT, list(stages(TEXT))[-1])


def _with_libraries(root: Path) -> None:
    """Let the environment of an image see the libraries of this one."""
    for packages in [] if IS_FULL else root.glob("opt/dubito/lib/python*/site-packages"):
        (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def _writes_nothing_but(root: Path, command: tuple[str, ...]) -> list[str]:
    """A command for which all disks can be read alone, but for /data and /tmp of the image.

    As `docker run --read-only --tmpfs /tmp --volume ...:/data` does. Where this is not root, or may
    not mount, it is the command alone.
    """
    open_ones = " && ".join(
        f"mount --bind '{root}/{top}' '{root}/{top}'" for top in ("data", "tmp")
    )
    shut = f"{open_ones} && mount -o remount,bind,ro /"
    wrapped = ["unshare", "--mount", "sh", "-ec", f'{shut}; exec "$@"', "sh"]
    can = shutil.which("unshare") and subprocess.run([*wrapped, "true"], capture_output=True)
    return [*wrapped, *command] if can and can.returncode == 0 else list(command)


def test_hadolint_finds_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    assert program is not None
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_is_for_a_user_without_rights_and_has_what_it_was_built_with_no_more(
    builder: Builder, image: Image
) -> None:
    assert image.user == "10001:10001"
    assert image.owners["/data"] == image.user
    assert {path for path, owner in image.owners.items() if owner == image.user} == {"/data"}
    assert (image.volume, image.port) == ("/data", "8000")
    assert image.labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert sorted(path.name for path in builder.root.iterdir()) == ["data", "opt", "tmp"]
    assert [path.name for path in (builder.root / "opt").iterdir()] == ["dubito"]
    assert not list(builder.root.glob("opt/dubito/bin/pip*"))
    assert not list(builder.root.glob("data/*"))


def test_the_command_serves_and_writes_to_data_and_tmp_alone(
    builder: Builder, image: Image, bundles: Bundles
) -> None:
    _bring_compiled(builder.root)
    before = _files(builder.root)
    # A port of its own, since machines that test are shared.
    given = {"DUBITO_API_KEY": KEY, "DUBITO_PORT": "0"}
    environment = builder.environment(image) | given
    served = subprocess.Popen(
        _writes_nothing_but(builder.root, image.command),
        cwd=builder.root,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert served.stderr is not None
        address, said_first = None, []  # that loops are compiled, where none were brought
        for line in served.stderr:
            said_first.append(line)
            if address := re.search(r"http://\S+:(\d+)", line):
                break
        assert address is not None, said_first
        port = address[1]
        _becomes_healthy(builder, image, environment | {"DUBITO_PORT": port})
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
            assert client.get("/health/ready").json()["ready"]
            upload(client, "animals", bundles("first")).raise_for_status()
            reply = predicted(client, normals(1), num_samples=16)
            assert reply["outputs"]["label"][0] in {"ant", "bee", "cat"}
            assert httpx.get(f"{url}{ANIMALS}").status_code == 401
    finally:
        served.terminate()
        said = served.communicate(timeout=60)[1]
        print(said)
    assert served.returncode in (0, -signal.SIGTERM), said
    assert _files(builder.root) == before
    assert (builder.root / "data/dubito.sqlite3").exists()


def test_the_check_fails_where_nothing_answers(builder: Builder, image: Image) -> None:
    environment = builder.environment(image) | {"DUBITO_PORT": "1"}
    asked = _checked(builder, image, environment)
    assert asked.returncode == 1
    assert asked.stderr.startswith("not ready: ")


def _checked(
    builder: Builder, image: Image, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """The health check of an image, once."""
    words = [builder.inside(word) for word in image.check]
    return subprocess.run(words, env=environment, cwd=builder.root, capture_output=True, text=True)


def _becomes_healthy(builder: Builder, image: Image, environment: dict[str, str]) -> None:
    """Check again and again, as a daemon does: the server may still be loading."""
    until_s = time.monotonic() + 60
    while (asked := _checked(builder, image, environment)).returncode != 0:
        assert time.monotonic() < until_s, asked.stderr


def _bring_compiled(root: Path) -> None:
    """Give the server the loops that this environment has compiled, which takes it ten seconds.

    Numba finds them by the folder of their sources and by the times of these.
    """
    here = Path(compiling.__file__).parent
    (there,) = root.glob("opt/dubito/lib/python*/site-packages/dubito/engine/summing/compiled")
    for source in here.glob("*.py"):
        stat = source.stat()
        os.utime(there / source.name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    kept, *_ = compiling._folders()
    name = UserProvidedCacheLocator.get_suitable_cache_subpath
    if (kept / name(str(here / "loops.py"))).is_dir():
        inside = root / "data/compiled" / kept.name / name(str(there / "loops.py"))
        shutil.copytree(kept / name(str(here / "loops.py")), inside)


def _files(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of an image outside of what it may write to."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in (root / "opt").rglob("*")
    }
