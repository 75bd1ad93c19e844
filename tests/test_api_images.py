"""Images over HTTP: as base64, as files and in archives, by all that takes rows; hostile ones."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from dubito.settings import Settings
from dubito_client import Client

from .conftest import Bundles, Server
from .declared import as_declared
from .http import npy, upload
from .pictures import TAR, ZIP, archive, base64_of, digits, encoded, exported, folder, png
from .test_images import HOSTILE, bomb

DIGIT = "/v1/models/digit"
KINDS = {"PNG": "image/png", "TIFF": "image/tiff", "WEBP": "image/webp", "JPEG": "image/jpeg"}
FILES = folder(12, 1000)
NAMES = sorted(FILES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pools may be taken from."""
    root = tmp_path_factory.mktemp("photos")
    for name, content in folder(40, 1000).items():
        (root / "digits" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "digits" / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, bundles: Bundles, photos: Path
) -> Iterator[httpx.Client]:
    """A server with a model that declares images, and one that declares nothing."""
    here = tmp_path_factory.mktemp("digit")
    exported(here / "digit.dubito")
    allowed = (f"file://{photos}",)
    server = Server(
        Settings(data_dir=here / "data", num_samples=4, max_rows=500, pool_addresses=allowed)
    )
    server.start()
    hooks = {"response": [as_declared]}
    with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
        upload(client, "digit", here / "digit.dubito").raise_for_status()
        upload(client, "animals", bundles("first")).raise_for_status()
        yield client
    server.stop()


def sent(
    client: httpx.Client, path: str, kind: str, content: bytes, **query: Any
) -> httpx.Response:
    return client.post(path, content=content, headers={"Content-Type": kind}, params=query)


@pytest.fixture(scope="module")
def known(client: httpx.Client) -> Any:
    """What the model answers to the digits of `FILES` as tensors, in the order of their names."""
    images = [np.asarray(Image.open(io.BytesIO(FILES[name]))) for name in NAMES]
    rows = (np.stack(images)[:, None] / 16).tolist()
    reply = client.post(f"{DIGIT}/predict", json={"inputs": rows, "preprocess": False})
    assert reply.status_code == 200, reply.text
    return reply.json()["outputs"]


def test_images_of_a_pool_are_shown_as_text_that_can_be_predicted(
    client: httpx.Client, known: Any
) -> None:
    sent(client, "/v1/pools", ZIP, archive(FILES, ZIP), name="shown").raise_for_status()
    page = client.get("/v1/pools/shown/rows?indices=3,0").json()
    starts = {row.partition(",")[0] for row in page["rows"]}
    assert starts == {"data:image/png;base64"}
    reply = client.post(f"{DIGIT}/predict", json={"inputs": page["rows"]}).json()
    np.testing.assert_allclose(reply["outputs"]["mean"], [known["mean"][row] for row in (3, 0)])


def test_base64_is_answered_as_its_tensors_are(client: httpx.Client, known: Any) -> None:
    rows = [base64_of(FILES[name]) for name in NAMES]
    for inputs in (rows, {"image": rows}, [{"image": row} for row in rows]):
        page = client.post(f"{DIGIT}/predict", json={"inputs": inputs}).json()
        np.testing.assert_allclose(page["outputs"]["mean"], known["mean"], atol=1e-6)
    named = {"image": rows, "name": NAMES}
    page = client.post(f"{DIGIT}/predict", json={"inputs": named, "id_column": "name"}).json()
    assert page["ids"] == NAMES


@pytest.mark.parametrize("format", KINDS)
def test_a_file_is_one_row(client: httpx.Client, format: str) -> None:
    pixels = np.kron(digits()[0][1000] * 15, np.ones((8, 8), np.uint8))
    content = encoded(Image.fromarray(pixels), format)
    reply = sent(client, f"{DIGIT}/predict", KINDS[format], content)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["outputs"]["label"]) == 1
    same = client.post(f"{DIGIT}/predict", json={"inputs": [base64_of(content)]}).json()
    assert reply.json()["outputs"]["mean"] == same["outputs"]["mean"]


@pytest.mark.parametrize("kind", [ZIP, TAR])
def test_an_archive_is_a_row_for_each_file_with_its_name(
    client: httpx.Client, known: Any, kind: str
) -> None:
    reply = sent(client, f"{DIGIT}/predict", kind, archive(FILES, kind))
    assert reply.status_code == 200, reply.text
    page = reply.json()
    np.testing.assert_allclose(page["outputs"]["mean"], known["mean"], atol=1e-6)
    assert page["ids"] == NAMES
    query = {"strategy": "bald", "k": 3}
    chosen = sent(client, f"{DIGIT}/select", kind, archive(FILES, kind), **query).json()
    assert chosen["ids"] == [NAMES[index] for index in chosen["indices"]]


def test_labels_are_the_folders_of_an_archive(client: httpx.Client) -> None:
    held_out = folder(160, 1000)
    fitted = sent(client, f"{DIGIT}/calibrate", ZIP, archive(held_out, ZIP))
    assert fitted.status_code == 200, fitted.text
    assert fitted.json()["num_rows"] == 160
    judged = sent(client, f"{DIGIT}/evaluate", TAR, archive(held_out, TAR)).json()
    assert judged["report"]["accuracy"] > 0.8
    apart = {
        "inputs": [base64_of(held_out[name]) for name in sorted(held_out)],
        "labels": [name[0] for name in sorted(held_out)],
    }
    same = client.post(f"{DIGIT}/evaluate", json=apart).json()
    assert same["report"] == judged["report"]
    lines = "\n".join(f"{name},{name[0]}" for name in held_out)
    table = {**held_out, "metadata.csv": f"file_name,digit\n{lines}".encode()}
    named = sent(client, f"{DIGIT}/evaluate", ZIP, archive(table, ZIP), label="digit")
    assert named.json()["report"] == judged["report"]
    page = sent(client, f"{DIGIT}/predict", ZIP, archive(FILES, ZIP)).json()
    query = {"request_id": page["request_id"], "label": "label"}
    told = sent(client, f"{DIGIT}/feedback", ZIP, archive(FILES, ZIP), **query)
    assert told.status_code == 200, told.text
    assert told.json()["stored"][0]["new"] == 12


def _result(client: httpx.Client, action: str, **fields: Any) -> bytes:
    """The result of a job on a stored pool."""
    reply = client.post(f"{DIGIT}/{action}", json=fields)
    assert reply.status_code == 202, reply.text
    job = reply.json()["job"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        assert "succeeded" in "".join(events.iter_text())
    return client.get(f"/v1/jobs/{job}/result").content


def test_a_stored_archive_and_a_folder_are_worked_through_as_files_are(
    client: httpx.Client, photos: Path
) -> None:
    files = folder(40, 1000)
    page = sent(client, f"{DIGIT}/predict", ZIP, archive(files, ZIP), calibration="none").json()
    address = {"address": f"file://{photos}/digits/"}
    pools = [sent(client, "/v1/pools", kind, archive(files, kind)) for kind in (ZIP, TAR)]
    for reply in (*pools, client.post("/v1/pools", json=address)):
        assert reply.status_code == 201, reply.text
        stored = reply.json()
        assert (stored["num_rows"], stored["columns"][0]["name"]) == (40, "image")
        asked = {"pool": stored["pool"], "calibration": "none"}
        found = np.load(io.BytesIO(_result(client, "predict", **asked)))
        np.testing.assert_allclose(found["mean"], page["outputs"]["mean"], atol=1e-6)
        assert found["ids"].tolist() == page["ids"] == sorted(files)
    ours = Client(str(client.base_url), http=client)
    job = ours.predict_pool("digit", stored["pool"], calibration="none")
    ours.wait(job)
    assert ours.job_prediction(job).ids == sorted(files)
    chosen = json.loads(_result(client, "select", pool=stored["pool"], strategy="bald", k=3))
    query = {"strategy": "bald", "k": 3}
    same = sent(client, f"{DIGIT}/select", ZIP, archive(files, ZIP), **query).json()
    assert (chosen["ids"], chosen["indices"]) == (same["ids"], same["indices"])


def test_pools_that_do_not_fit_are_refused(client: httpx.Client, photos: Path) -> None:
    pool = sent(client, "/v1/pools", ZIP, archive(FILES, ZIP), name="few").json()["pool"]
    rows = npy(np.zeros((3, 4), np.float32))
    numbers = sent(client, "/v1/pools", "application/x-npy", rows).json()["pool"]
    large = archive({"a.png": bomb(6000, 5000)}, ZIP)
    outside = {"address": f"file://{photos.parent}/"}
    (photos / "empty").mkdir()
    for reply, status, reason in (
        (client.post("/v1/models/animals/predict", json={"pool": pool}), 422, "is of images"),
        (
            client.post(f"{DIGIT}/predict", json={"pool": pool, "preprocess": False}),
            422,
            "is of images",
        ),
        (client.post(f"{DIGIT}/predict", json={"pool": numbers}), 422, "base64"),
        (sent(client, "/v1/pools", ZIP, large), 413, "6000 x 5000"),
        (sent(client, "/v1/pools", ZIP, archive({"a.png": b"<svg/>"}, ZIP)), 422, "an SVG"),
        (client.post("/v1/pools", json=outside), 422, "DUBITO_POOL_ADDRESSES"),
        (client.post("/v1/pools", json={"address": f"file://{photos}/none/"}), 422, "address"),
        (client.post("/v1/pools", json={"address": f"file://{photos}/empty/"}), 422, "address"),
    ):
        assert (reply.status_code, reason in reply.json()["detail"]) == (status, True), reply.text


def test_the_client_sends_images_of_pillow_files_and_paths(
    client: httpx.Client, known: Any, tmp_path: Path
) -> None:
    ours = Client(str(client.base_url), http=client)
    images = [Image.open(io.BytesIO(FILES[name])) for name in NAMES]
    paths = [tmp_path / f"{row}.png" for row in range(len(NAMES))]
    for path, name in zip(paths, NAMES, strict=True):
        path.write_bytes(FILES[name])
    for rows in (images, {"image": images}, [FILES[name] for name in NAMES], paths):
        reply = ours.predict("digit", rows, calibration="none")
        np.testing.assert_allclose(reply.mean, known["mean"], atol=1e-6)
    turned = Image.fromarray(digits()[0][1000])
    turned.getexif()[0x0112] = 6
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encoded(Image.fromarray(digits()[0][1000]), "PNG", exif=exif)
    both = [ours.predict("digit", [row]).mean for row in (Image.open(io.BytesIO(file)), file)]
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.parametrize("name", [*HOSTILE][:8])
def test_hostile_images_are_refused_and_the_next_request_succeeds(
    client: httpx.Client, name: str
) -> None:
    kind, reason, content = HOSTILE[name]
    if name == "a huge ratio":
        return  # which this model squeezes
    forms = [
        client.post(f"{DIGIT}/predict", json={"inputs": [base64_of(content)]}),
        sent(client, f"{DIGIT}/predict", "image/png", content),
        sent(client, f"{DIGIT}/predict", ZIP, archive({"a.png": content}, ZIP)),
    ]
    for reply in forms:
        assert (reply.status_code, reason in reply.json()["detail"]) == (kind.status, True)
        assert sent(client, f"{DIGIT}/predict", "image/png", png(np.eye(8, dtype=np.uint8)))


def test_what_is_no_image_here_is_refused(client: httpx.Client) -> None:
    image = png(np.eye(8, dtype=np.uint8))
    rows = np.zeros((1, 1, 8, 8)).tolist()
    for reply, status, reason in (
        (client.post(f"{DIGIT}/predict", json={"inputs": rows}), 422, "`preprocess` false"),
        (client.post(f"{DIGIT}/predict", json={"inputs": base64_of(image)}), 422, "a list of"),
        (sent(client, "/v1/models/animals/predict", "image/png", image), 415, "no preprocess"),
        (sent(client, f"{DIGIT}/predict", "image/gif", image), 415, "image/png"),
        (sent(client, f"{DIGIT}/feedback", "image/png", image), 415, "application/zip"),
        (sent(client, f"{DIGIT}/evaluate", "image/png", image, label="x"), 422, "add `x`"),
    ):
        assert (reply.status_code, reason in reply.json()["detail"]) == (status, True), reply.text


def test_the_manifest_says_what_is_declared(client: httpx.Client) -> None:
    (part,) = client.get(f"{DIGIT}/versions/1").json()["manifest"]["preprocess"]
    assert (part["kind"], part["mode"], part["size"]) == ("image", "L", [8, 8])


def test_a_damaged_file_of_a_pool_fails_the_job_by_name(client: httpx.Client) -> None:
    whole = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    files = {"a.jpg": whole, "b/cut.jpg": whole[: len(whole) // 2]}
    pool = sent(client, "/v1/pools", ZIP, archive(files, ZIP)).json()["pool"]
    job = client.post(f"{DIGIT}/predict", json={"pool": pool}).json()["job"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        ended = "".join(events.iter_text())
    assert "failed" in ended
    assert "file `b/cut.jpg`" in client.get(f"/v1/jobs/{job}").text


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("file_name,who\n{0},x\n{0},y\n", "each file once"),
        ("file_name,file\n{0},1\n", "no column `file`"),
    ],
)
def test_a_table_of_images_that_contradicts_itself_is_refused(
    client: httpx.Client, table: str, reason: str
) -> None:
    (name, content), *_ = sorted(FILES.items())
    files = {name: content, "metadata.csv": table.format(name).encode()}
    answer = sent(client, f"{DIGIT}/predict", ZIP, archive(files, ZIP))
    assert (answer.status_code, reason in answer.json()["detail"]) == (422, True), answer.text


def test_the_client_stores_an_archive(client: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    path.write_bytes(archive(FILES, ZIP))
    ours = Client(str(client.base_url), http=client)
    assert ours.add_pool(path, "by-client").num_rows == len(FILES)
