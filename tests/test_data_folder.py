"""All state lies in the data folder, whatever letters its name has."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dubito.application import Application
from dubito.errors import InputError
from dubito.models.opening import open_database
from dubito.registry.database import Database, schema
from dubito.registry.objects import Objects
from dubito.registry.objects.cache import BundleCache
from dubito.settings import Settings

from .conftest import NUM_FEATURES, Bundles

NAMES = ["my%20models", "what?", "a#b", "a:b@c", "%(here)s", "with spaces", "Übung", "[x]*", "a\\b"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_everything_lies_in_the_folder_and_goes_with_a_copy_of_it(
    name: str, bundles: Bundles, tmp_path: Path
) -> None:
    np.save("rows.npy", np.zeros((3, NUM_FEATURES), np.float32))
    with Application(Settings(data_dir=Path(name))).running() as running:
        fact = running.library.register("animals", bundles("first"))
        pool = running.pools.add("wild", Path("rows.npy"), "npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "rows.npy"])
    assert (tmp_path / name / "dubito.sqlite3").is_file()
    shutil.copytree(name, "backup")
    shutil.rmtree(name)
    with Application(Settings(data_dir=Path("backup"))).running() as running:
        assert running.library.version("animals") == fact
        assert len(running.pools.open(pool.digest, "npy")) == 3
        assert running.library.load("animals", "1").state == "loaded"


@pytest.mark.parametrize(
    ("name", "earlier"), [("my%20models", "my models/dubito.sqlite3"), ("what?", "what")]
)
def test_a_registry_that_an_earlier_build_put_elsewhere_is_told_and_not_made_anew(
    name: str, earlier: str
) -> None:
    Path(earlier).parent.mkdir(exist_ok=True)
    url = f"sqlite:///{Path(name) / 'dubito.sqlite3'}"  # as it was built
    before = Database(url)
    before.upgrade()
    before.close()
    assert Path(earlier).is_file()
    settings = Settings(data_dir=Path(name))
    open_database(settings).close()  # a fresh folder is nobody's
    settings.incoming_dir.mkdir()
    with pytest.raises(InputError, match=f"earlier build wrote one to .*{earlier}: copy it there"):
        open_database(settings)
    shutil.copy(earlier, settings.data_dir / "dubito.sqlite3")
    found = open_database(settings)
    assert found.schema_state().is_newest
    found.close()


def test_an_installation_may_lie_in_a_folder_with_a_percent_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "%(here)s"
    place.symlink_to(Path(schema.__file__).parent)
    monkeypatch.setattr(schema, "__file__", str(place / "schema.py"))
    database = Database(f"sqlite:///{tmp_path}/registry.sqlite3")
    database.upgrade()
    assert database.schema_state().is_newest
    database.close()


def test_a_file_url_means_the_folder_that_it_spells(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "cache", 1)
    Objects.open(f"file://{tmp_path}/one%3F%20%25two", cache).put("0" * 64, b"")
    assert (tmp_path / "one? %two" / "bundles").is_dir()
    (tmp_path / "my%20objects").mkdir()  # by an earlier build, which did not decode it
    with pytest.raises(InputError, match="my%20objects, where an earlier build put it"):
        Objects.open(f"file://{tmp_path}/my%20objects", cache)
    Objects.open(f"file://{tmp_path}/my%2520objects", cache).put("0" * 64, b"")
    assert (tmp_path / "my%20objects" / "bundles").is_dir()
