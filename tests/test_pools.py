"""Stored pools: what is taken, what is refused, and that nothing of what is refused stays."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from dubito.errors import InputError
from dubito.pools.addresses import check_address
from dubito.pools.cache import PoolCache
from dubito.pools.data import PoolData
from dubito.pools.unpack import unpack
from dubito.settings import Settings
from dubito_nn import InputSpec

from .conftest import Server
from .http import npy
from .pictures import png
from .s3 import S3

NPY, NPZ, PARQUET = "application/x-npy", "application/x-npz", "application/vnd.apache.parquet"
LIMIT = 200_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "allowed").mkdir()
    return Settings(
        data_dir=tmp_path / "data",
        max_pool_bytes=LIMIT,
        pool_addresses=(f"file://{tmp_path}/allowed",),
    )


@pytest.fixture(scope="module")
def shared_settings(shared_settings: Settings) -> Settings:
    return shared_settings.model_copy(update={"max_pool_bytes": LIMIT})


def npz(**arrays: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def parquet(columns: dict[str, object], **options: object) -> bytes:
    pa = pytest.importorskip("pyarrow")
    file = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), file, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def _parquet_is_there() -> None:
    pytest.importorskip("pyarrow.parquet")


def send(client: httpx.Client, content: bytes, kind: str, name: str = "pool") -> httpx.Response:
    return client.post(
        "/v1/pools", params={"name": name}, content=content, headers={"Content-Type": kind}
    )


ROWS = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
COLUMNS = {f"x{place}": ROWS[:, place] for place in range(4)}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (NPY, lambda: npy(ROWS)),
        (NPY, lambda: npy(ROWS, version=(2, 0))),
        (NPY, lambda: npy(ROWS, version=(3, 0))),
        (NPY, lambda: npy(np.asfortranarray(ROWS))),
        (NPZ, lambda: npz(inputs=ROWS)),
        (NPZ, lambda: npz(inputs=np.asfortranarray(ROWS))),
        (PARQUET, lambda: parquet(COLUMNS, row_group_size=7)),
        (PARQUET, lambda: parquet({"inputs": list(ROWS)}, row_group_size=7)),
    ],
)
def test_every_format_is_laid_out_as_the_same_rows(
    tmp_path: Path, kind: str, content: object
) -> None:
    assert callable(content)
    (tmp_path / "file").write_bytes(content())
    (tmp_path / "room").mkdir()
    found = unpack(
        tmp_path / "file", kind.rpartition("x-")[2].rpartition(".")[2], tmp_path / "room", LIMIT
    )
    assert found.num_rows == 50
    data = PoolData(tmp_path / "room")
    np.testing.assert_array_equal(np.asarray(data.rows(0, 50)), ROWS)
    np.testing.assert_array_equal(np.asarray(data.take(np.array([3, 4, 40]))), ROWS[[3, 4, 40]])


@pytest.mark.parametrize("dtype", [">f8", "<i4", "?"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_rows_in_fortrans_order_are_laid_out_as_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, is_packed: bool
) -> None:
    monkeypatch.setattr("dubito.pools.stream.BLOCK_BYTES", 64)  # so that blocks have to meet
    rows = np.random.default_rng(0).integers(0, 9, (101, 3, 2)).astype(dtype)
    rooms = []
    for place, array in enumerate((rows, np.asfortranarray(rows))):
        file, room = tmp_path / f"file{place}.npz", tmp_path / f"room{place}"
        if is_packed:
            np.savez_compressed(file, inputs=array, other=array[:, 0])
        else:
            file.write_bytes(npy(array))
        room.mkdir()
        unpack(file, "npz" if is_packed else "npy", room, LIMIT)
        rooms.append({path.name: path.read_bytes() for path in room.iterdir()})
    assert rooms[0] == rooms[1]
    assert len(rooms[0]) == 2 + is_packed


def test_a_pool_is_stored_listed_and_deleted(client: httpx.Client) -> None:
    reply = send(client, npy(ROWS), NPY)
    assert reply.status_code == 201
    page = reply.json()
    assert reply.headers["location"] == "/v1/pools/pool"
    assert (page["pool"], page["num_rows"], page["format"]) == ("pool", 50, "npy")
    assert page["columns"] == [{"name": "inputs", "dtype": "<f4", "shape": [4]}]
    assert client.get("/v1/pools/pool").json() == page
    again = send(client, npy(ROWS), NPY)
    assert again.status_code == 409
    other = send(client, npy(ROWS), NPY, name="other").json()  # the same object under two names
    assert [one["pool"] for one in client.get("/v1/pools").json()["pools"]] == ["other", "pool"]
    assert client.delete("/v1/pools/pool").status_code == 204
    assert client.get("/v1/pools/other").json() == other
    assert client.delete("/v1/pools/pool").status_code == 404


def test_the_object_of_the_last_pool_goes_with_it(client: httpx.Client, settings: Settings) -> None:
    for name in ("pool", "other"):
        send(client, npy(ROWS), NPY, name=name)
    for name, left in (("pool", 1), ("other", 0)):
        client.delete(f"/v1/pools/{name}").raise_for_status()
        assert len(list((settings.objects_dir / "pools").glob("*/*"))) == left
        assert len(list(settings.pool_cache_dir.iterdir())) == left


def _deflated(size: int) -> bytes:
    """Much out of little."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", npy(np.zeros((size // 4, 1), np.float32)))
    return file.getvalue()


def _understated() -> bytes:
    """An archive that says of its array that it is small."""
    content = bytearray(_deflated(4 * LIMIT))
    size = struct.pack("<I", len(npy(np.zeros((LIMIT, 1), np.float32))))
    assert content.count(size) >= 1
    return bytes(content).replace(size, struct.pack("<I", 200))


def _bad() -> dict[str, tuple[str, object, int, str]]:
    nan, wide = ROWS.copy(), np.zeros((LIMIT // 4 + 1, 1), np.float32)
    nan[7, 2] = np.nan
    objects = np.array([[{}, 1]], dtype=object)
    return {
        "nothing": (NPY, lambda: b"", 422, "npy array"),
        "cut": (NPY, lambda: npy(ROWS)[:-4], 422, "800 bytes, 796"),
        "longer": (NPY, lambda: npy(ROWS) + b"1234", 422, "800 bytes, 804"),
        "pickle": (NPY, lambda: npy(objects, allow_pickle=True), 422, "object"),
        "text": (NPY, lambda: npy(np.array([["a"]])), 422, "<U1"),
        "complex": (NPY, lambda: npy(ROWS.astype(np.complex64)), 422, "complex64"),
        "number": (NPY, lambda: npy(np.float32(1)), 422, r"shape \(\)"),
        "no rows": (NPY, lambda: npy(ROWS[:0]), 422, "at least one row"),
        "no numbers": (NPY, lambda: npy(ROWS[:, :0]), 422, "at least one row"),
        "nan": (NPY, lambda: npy(nan), 422, "nan in row 7"),
        "large": (NPY, lambda: npy(wide), 413, "at most 200000"),
        "no archive": (NPZ, lambda: npy(ROWS), 422, "npz"),
        "lengths": (NPZ, lambda: npz(a=ROWS, b=ROWS[:3]), 422, "same number of rows"),
        "a name twice": (NPZ, lambda: npz(**{"a": ROWS, "inputs.a": ROWS}), 422, "a name twice"),
        "pickle within": (NPZ, lambda: npz(a=objects), 422, "object"),
        "bomb": (NPZ, lambda: _deflated(4 * LIMIT), 413, "once inflated"),
        "understated bomb": (NPZ, _understated, 422, "npy array"),
        "no parquet": (PARQUET, lambda: npy(ROWS), 422, "parquet"),
        "cut parquet": (PARQUET, lambda: parquet(COLUMNS)[:-30], 422, "parquet"),
        "lists": (PARQUET, lambda: parquet({"a": ["x", "y"], "b": [[1], [2]]}), 422, "got list"),
        "long": (PARQUET, lambda: parquet({"a": ["x" * 20_001, "y"]}), 422, "at most 20000 bytes"),
        "null": (PARQUET, lambda: parquet({"a": [1.0, None]}), 422, "null"),
        "nan cell": (PARQUET, lambda: parquet({"a": [1.0, np.nan]}), 422, "nan in row 1"),
        "ragged": (PARQUET, lambda: parquet({"a": [[1.0], [1.0, 2.0]]}), 422, "equal length"),
        "both": (PARQUET, lambda: parquet({"a": [[1.0]], "b": [1.0]}), 422, "got both"),
        "runs": (PARQUET, lambda: parquet({"a": np.zeros(10**6)}), 413, "once decoded"),
        "header alone": ("text/csv", lambda: b"a,b\n", 422, "row"),
        "lines": ("text/plain", lambda: b"1,2", 415, r"got text/plain: .*df\.to_parquet"),
    }


@pytest.mark.parametrize("case", list(_bad()))
def test_what_is_no_pool_is_refused_with_a_reason_and_leaves_nothing(
    shared: httpx.Client, shared_settings: Settings, case: str
) -> None:
    kind, make, status, words = _bad()[case]
    assert callable(make)
    reply = send(shared, make(), kind)
    assert reply.status_code == status, reply.text
    assert re.search(words, reply.json()["detail"]), reply.text
    assert shared.get("/v1/pools").json() == {"pools": []}
    assert not list((shared_settings.objects_dir / "pools").glob("*/*"))
    assert not list(shared_settings.pool_cache_dir.iterdir())
    assert not list(shared_settings.incoming_dir.iterdir())


@pytest.mark.parametrize("name", ["Pool", "../pool", "a" * 65, "1"])
def test_names_follow_the_one_pattern(shared: httpx.Client, name: str) -> None:
    assert send(shared, npy(ROWS), NPY, name=name).status_code == 422


def test_a_pool_is_taken_from_an_allowed_address(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "allowed" / "rows.npy").write_bytes(npy(ROWS))
    address = f"file://{tmp_path}/allowed/rows.npy"
    reply = client.post("/v1/pools", json={"name": "pool", "address": address})
    assert reply.status_code == 201, reply.text
    assert reply.json()["address"] == address
    (tmp_path / "allowed" / "rows.npy").unlink()
    assert client.get("/v1/pools/pool").json()["num_rows"] == 50


def test_no_other_address_is_opened(client: httpx.Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret.npy"
    secret.write_bytes(npy(ROWS))
    (tmp_path / "allowed" / "link.npy").symlink_to(secret)
    (tmp_path / "allowed2").mkdir()
    (tmp_path / "allowed2" / "rows.npy").write_bytes(npy(ROWS))
    for address in (
        f"file://{secret}",
        f"file://{tmp_path}/allowed/../secret.npy",
        f"file://{tmp_path}/allowed/%2e%2e/secret.npy",
        f"file://{tmp_path}/allowed/link.npy",
        f"file://{tmp_path}/allowed2/rows.npy",
        f"file://localhost{tmp_path}/allowed/rows.npy",
        f"{secret}",
        "http://127.0.0.1:80/rows.npy",
        "s3://bucket/rows.npy",
        "",
    ):
        reply = client.post("/v1/pools", json={"name": "pool", "address": address})
        assert reply.status_code == 422, (address, reply.text)
        assert "address" in reply.json()["detail"]
    assert client.get("/v1/pools").json() == {"pools": []}


def test_without_a_setting_no_address_is_allowed() -> None:
    with pytest.raises(InputError, match="DUBITO_POOL_ADDRESSES"):
        check_address("s3://bucket/rows.npy", ())
    check_address("s3://bucket/pools/rows.npy", ("s3://bucket/pools",))
    check_address("s3://bucket/pools/rows.npy", ("s3://bucket/pools/",))
    with pytest.raises(InputError, match="DUBITO_POOL_ADDRESSES"):
        check_address("s3://bucket/pools2/rows.npy", ("s3://bucket/pools",))


def test_a_damaged_copy_is_not_used(tmp_path: Path) -> None:
    cache = PoolCache(tmp_path / "cache", 10**9)
    (tmp_path / "file").write_bytes(npy(ROWS))
    with cache.room() as room:
        unpack(tmp_path / "file", "npy", room, LIMIT)
        cache.keep("digest", room)
    found = cache.get("digest")
    assert found is not None
    array = tmp_path / "cache" / "digest" / "0.npy"
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    assert cache.get("digest") is None
    assert not (tmp_path / "cache" / "digest").exists()


def test_the_oldest_pools_leave_a_full_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(npy(ROWS))
    cache = PoolCache(tmp_path / "cache", 2500)  # two of about 1100 bytes
    for digest in ("a", "b", "c"):
        with cache.room() as room:
            unpack(tmp_path / "file", "npy", room, LIMIT)
            cache.keep(digest, room)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["b", "c"]


def test_pools_and_jobs_in_a_bucket(serve: object, tmp_path: Path, s3: S3) -> None:
    assert callable(serve)
    bucket = s3.bucket()
    settings = Settings(
        data_dir=tmp_path / "one",
        object_store_url=f"s3://{bucket}/all",
        object_store_allow_http=True,
        pool_addresses=(f"s3://{bucket}/given",),
    )
    server: Server = serve(settings)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert send(client, npy(ROWS), NPY).status_code == 201
        (tmp_path / "one" / "pools").rename(tmp_path / "gone")
        (tmp_path / "one" / "pools").mkdir()
        pools = server.app.state.access.application.pools
        data = pools.open(pools.get("pool").digest, "npy")  # from the bucket again
        np.testing.assert_array_equal(np.asarray(data.rows(0, 50)), ROWS)
        missing = {"address": f"s3://{bucket}/given/none.npy"}
        assert client.post("/v1/pools", json=missing).status_code == 422
        assert client.delete("/v1/pools/pool").status_code == 204
        for name, shade in (("b/two", 2), ("one", 1)):
            s3.put(f"{bucket}/given/photos/{name}.png", png(np.full((8, 8), shade, np.uint8)))
        photos = {"name": "photos", "address": f"s3://{bucket}/given/photos/"}
        assert client.post("/v1/pools", json=photos).json()["num_rows"] == 2
        shown = client.get("/v1/pools/photos/rows", params={"indices": "0,1"}).json()
        assert shown["indices"] == [0, 1]
        assert all(row.startswith("data:image/png;base64,") for row in shown["rows"])
        empty = {"address": f"s3://{bucket}/given/none/"}
        assert client.post("/v1/pools", json=empty).status_code == 422


def test_some_rows_of_a_pool_are_shown_as_they_were_stored(client: httpx.Client) -> None:
    def shown(pool: str, indices: str) -> httpx.Response:
        return client.get(f"/v1/pools/{pool}/rows", params={"indices": indices})

    cells = {"x": [1.5, 2.5, 3.5], "city": ["Rome", None, "Pisa"]}
    for name, content, kind in (
        ("plain", npy(ROWS), NPY),
        ("named", npz(a=ROWS, b=ROWS[:, :1]), NPZ),
        ("numbers", parquet(COLUMNS), PARQUET),
        ("cells", parquet(cells), PARQUET),
    ):
        send(client, content, kind, name).raise_for_status()
    chosen = ROWS[[7, 3]].tolist()
    assert shown("plain", "7,3").json() == {
        "pool": "plain",
        "indices": [7, 3],
        "features": [],
        "rows": chosen,
    }
    assert shown("named", "7,3").json()["rows"] == {"a": chosen, "b": ROWS[[7, 3], :1].tolist()}
    numbers = shown("numbers", "7,3").json()
    assert (numbers["rows"], numbers["features"]) == (chosen, list(COLUMNS))
    assert shown("cells", "2,1").json()["rows"] == {"x": [3.5, 2.5], "city": ["Pisa", None]}
    beyond = shown("plain", "0,50")
    assert beyond.status_code == 422
    assert "the rows 0 to 49, got 50" in beyond.json()["detail"]
    for wrong in ("-1", "x", "1.5", "", ",".join(["1"] * 1001)):
        assert shown("plain", wrong).status_code == 422, wrong
    assert client.get("/v1/pools/plain/rows").status_code == 422
    assert shown("nobody", "0").status_code == 404


def test_a_pool_without_a_name_is_named_by_its_digest(client: httpx.Client) -> None:
    reply = client.post("/v1/pools", content=npy(ROWS), headers={"Content-Type": NPY})
    page = json.loads(reply.content)
    assert page["pool"] == f"pool-{page['sha256'][:12]}"


def _unpacked(tmp_path: Path, content: bytes) -> PoolData:
    (tmp_path / "file").write_bytes(content)
    room = tmp_path / "room"
    room.mkdir()
    unpack(tmp_path / "file", "parquet", room, LIMIT)
    return PoolData(room)


def _indexed(kind: str) -> bytes:
    """The rows as a DataFrame with an index of some kind, saved by pandas or by what reads it."""
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    order = np.random.default_rng(1).permutation(50)
    frame, file = pd.DataFrame(COLUMNS), io.BytesIO()
    match kind:
        case "shuffled" | "bare" | "selected":
            frame.index = pd.Index(order)
        case "named":
            frame.index = pd.Index(order, name="id")
        case "text":
            frame.index = pd.Index([f"row {place}" for place in order], name="id")
        case "several":
            frame.index = pd.MultiIndex.from_arrays([order, order[::-1]], names=["id", None])
        case "only":
            frame = pd.DataFrame(index=pd.Index(order))
    table = pa.Table.from_pandas(frame)
    if kind == "bare":  # as libraries write it that know nothing of pandas
        table = table.replace_schema_metadata(None)
    if kind == "selected":
        table = table.select(list(COLUMNS))
    if kind == "damaged":
        table = table.replace_schema_metadata({b"pandas": b"{"})
    pa.parquet.write_table(table, file, row_group_size=7)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind", ["range", "shuffled", "named", "text", "several", "bare", "selected"]
)
def test_an_index_of_pandas_is_no_feature(tmp_path: Path, kind: str) -> None:
    data = _unpacked(tmp_path, _indexed(kind))
    np.testing.assert_array_equal(np.asarray(data.rows(0, 50)), ROWS)


def test_the_index_of_lists_is_no_input(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame, file = pd.DataFrame({"inputs": list(ROWS)}, index=np.arange(50)[::-1]), io.BytesIO()
    frame.to_parquet(file)
    data = _unpacked(tmp_path, file.getvalue())
    np.testing.assert_array_equal(np.asarray(data.rows(0, 50)), ROWS)


@pytest.mark.parametrize(
    ("kind", "told"), [("only", "beside pandas' index, got none"), ("damaged", "got no JSON")]
)
def test_a_table_without_columns_or_with_a_damaged_description_is_refused(
    tmp_path: Path, kind: str, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        _unpacked(tmp_path, _indexed(kind))


def test_columns_go_to_the_inputs_of_their_names(tmp_path: Path) -> None:
    data = _unpacked(tmp_path, _indexed("shuffled"))
    x0, x1 = InputSpec("x0", "float32", ()), InputSpec("x1", "float32", (1,))
    data.read_for([x1, x0])
    rows = data.take(np.array([3, 9]))
    assert isinstance(rows, dict)
    assert list(rows) == list(COLUMNS)  # what is too much is refused by its name
    np.testing.assert_array_equal(rows["x0"], ROWS[[3, 9], 0])
    np.testing.assert_array_equal(rows["x1"], ROWS[[3, 9], 1:2])
    data.read_for([InputSpec("x", "float32", (4,))])
    np.testing.assert_array_equal(np.asarray(data.rows(0, 50)), ROWS)
