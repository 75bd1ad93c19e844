"""What callers give arrives as it is, in any layout, byte order, type and container."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dubito.settings import Settings
from dubito_client import Client, InputError, Prediction
from dubito_client.bodies import Body, body_of, to_npz
from dubito_client.calls import JSON, NPY, NPZ, read_npz

from .conftest import Bundles, Server
from .http import ANIMALS, normals, upload

DTYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?"),
    arrays.unicode_string_dtypes(endianness="?", max_len=5),
)
FRAME = pd.DataFrame(normals(6), columns=list("abcd"))
SAME = {
    "as it is": normals(6),
    "in Fortran's order": np.asfortranarray(normals(6)),
    "of every second row": np.repeat(normals(6), 2, axis=0)[::2],
    "of the other byte order": normals(6).astype(">f4"),
    "of double precision": normals(6).astype(np.float64),
    "a list": normals(6).tolist(),
    "a list of arrays": [*normals(6)],
    "tuples": tuple(map(tuple, normals(6).tolist())),
    "a DataFrame": FRAME,
    "a DataFrame of columns of several types": FRAME.astype({"a": "float64"}),
    "a tensor": torch.from_numpy(normals(6)),
    "an object of one input": {"input": normals(6)},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[Client]:
    server = Server(Settings(data_dir=tmp_path_factory.mktemp("data"), num_samples=16))
    server.start()
    with httpx.Client(base_url=server.url) as raw:
        upload(raw, "animals", bundles("first")).raise_for_status()
    with Client(server.url) as client:
        yield client
    server.stop()


@given(st.data(), st.sampled_from("CF"))
def test_arrays_of_any_kind_come_back_equal_to_the_bit(data: st.DataObject, order: str) -> None:
    shapes = arrays.array_shapes(min_dims=0, max_side=4)
    drawn = data.draw(arrays.arrays(data.draw(DTYPES), data.draw(shapes)))
    array = np.asarray(drawn, order=order)  # type: ignore[call-overload]
    (back,) = read_npz(to_npz({"x": array})).values()
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("rows", SAME.values(), ids=SAME)
def test_the_same_numbers_are_answered_the_same(client: Client, rows: Any) -> None:
    same(client.predict("animals", rows), client.predict("animals", SAME["as it is"]))


@pytest.mark.parametrize("dtype", ["float16", ">f2", "int8", ">i4", "uint16"])
def test_other_types_are_answered_as_their_values(client: Client, dtype: str) -> None:
    rows = np.round(normals(6)).clip(0).astype(dtype)
    same(client.predict("animals", rows), client.predict("animals", rows.astype(np.float32)))


def same(first: Prediction, second: Prediction) -> None:
    for name, array in second.arrays.items():
        np.testing.assert_array_equal(first.arrays[name], array)


def test_large_arrays_go_out_and_come_back_whole(client: Client) -> None:
    rows = normals(100_000)
    pool = client.add_pool(rows)
    assert pool.sha256 == hashlib.sha256(to_npz({"inputs": rows})).hexdigest()
    assert pool.num_rows == 100_000
    samples = client.predict("animals", rows[:4000], outputs=["samples"]).samples
    with httpx.Client(base_url=client._url) as raw:
        reply = raw.post(
            f"{ANIMALS}/predict?outputs=samples",
            content=_npy(rows[:4000]),
            headers={"Content-Type": NPY, "Accept": NPY},
        )
    assert samples is not None
    assert samples.shape == (4000, 16, 3)
    assert reply.content == _npy(samples)


def _npy(array: Any) -> bytes:
    return body_of({"inputs": array}, {}, kinds=(NPY, NPZ)).content


@pytest.mark.parametrize(
    "rows",
    [
        np.array([[1.0, None]], dtype=object),
        np.array([[1 + 2j]]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        np.zeros(2, dtype=[("a", float)]),
        {"x": normals(2), "y": np.array([object()])},
    ],
    ids=["objects", "complex", "times", "records", "second input"],
)
def test_what_no_server_reads_is_refused_before_it_is_sent(rows: Any) -> None:
    for call in (Client.predict, Client.calibrate, Client.evaluate):
        with pytest.raises(InputError, match=r"expected an array of numbers or text, got dtype"):
            call("animals", rows)
    with pytest.raises(InputError, match="expected an array"):
        Client.add_pool(rows)


def test_hidden_values_and_nan_in_json_are_refused() -> None:
    with pytest.raises(InputError, match="masked"):
        Client.predict("animals", np.ma.masked_less(normals(3), 0))
    with pytest.raises(InputError, match="finite"):
        Client.predict("animals", [["text", float("nan")]])
    with pytest.raises(InputError, match="feedback: expected labels or targets"):
        Client.feedback("animals", "id")
    with pytest.raises(InputError, match="got 2 for 1 rows"):
        Client.feedback("animals", "id", [1, 2], rows=[0])


def _sent(rows: Any = None, **asked: Any) -> Body:
    return body_of({"inputs": normals(2) if rows is None else rows}, asked)


def test_mixed_labels_keep_what_each_of_them_means() -> None:
    """Numpy would make text of an integer beside a name, and an integer of a boolean."""
    for labels in (["7", 3], [1, True], [["a"], ["b", "c"]], [["a"], ["b"]], [0.5, True]):
        body = body_of({"inputs": normals(2), "labels": labels}, {})
        assert body.kind == JSON
        assert json.loads(body.content) == {"inputs": normals(2).tolist(), "labels": labels}


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        (["a", "b"], np.array(["a", "b"])),
        ([0, 1], np.array([0, 1])),
        ([[0, 1], [-1, 1]], np.array([[0, 1], [-1, 1]])),
        ([*np.array(["a", "b"])], np.array(["a", "b"])),
        ([np.int64(1), np.int8(0)], np.array([1, 0])),
        (pd.Series(["a", "b"]), np.array(["a", "b"])),
        (pd.Series([1, 0]), np.array([1, 0])),
        (np.array(["a", "b"], dtype=object), np.array(["a", "b"])),
    ],
)
def test_labels_of_one_kind_go_as_arrays(labels: Any, known: Any) -> None:
    body = body_of({"inputs": normals(2), "labels": labels, "ood_inputs": None}, {})
    assert body.kind == NPZ
    sent = read_npz(body.content)
    np.testing.assert_array_equal(sent["labels"], known)
    assert sent.keys() == {"inputs", "labels"}


def test_a_list_of_arrays_goes_as_one_and_keeps_its_type() -> None:
    body = body_of({"inputs": [*normals(3)]}, {}, kinds=(NPY, NPZ))
    assert body.kind == NPY
    assert body.content == _npy(normals(3))


def test_several_inputs_go_under_the_names_that_the_route_reads() -> None:
    rows = {"x": normals(2), "file": normals(2)}
    alone = body_of({"inputs": rows}, {}, kinds=(NPY, NPZ))
    assert read_npz(alone.content).keys() == {"x", "file"}
    labelled = body_of({"inputs": rows, "labels": [0, 1], "ood_inputs": rows}, {})
    assert read_npz(labelled.content).keys() == {
        *("inputs.x", "inputs.file", "labels", "ood_inputs.x", "ood_inputs.file")
    }


def test_fields_are_written_as_a_query_reads_them_and_numpys_numbers_as_numbers() -> None:
    body = _sent(seed=np.int64(3), per_class=True, outputs=("mean", "ood"), tolerance=None, xi=1e-9)
    assert body.query == {"seed": "3", "per_class": "true", "outputs": "mean,ood", "xi": "1e-09"}


def test_what_a_query_cannot_hold_goes_as_json(client: Client) -> None:
    assert json.loads(_sent(outputs=[]).content)["outputs"] == []
    rows = normals(3000)
    chosen = client.select(
        "animals", rows, strategy="entropy", k=2, exclude=np.arange(2998), version="default"
    )
    assert sorted(chosen.indices) == [2998, 2999]
    assert len(client.select("animals", rows, strategy="bald", k=2, exclude=[]).indices) == 2


def test_equal_requests_are_equal_bytes_and_share_their_id(client: Client) -> None:
    rows = {"input": normals(2)}
    first, second = (client.predict("animals", rows) for _ in range(2))
    assert first.request_id == second.request_id
    bodies = [body_of({"inputs": rows, "labels": [0, 1]}, {}).content for _ in range(2)]
    assert bodies[0] == bodies[1]


def test_a_row_on_which_the_network_overflows_has_no_label(client: Client) -> None:
    rows = normals(3)
    rows[1] = 3e38
    reply = client.predict("animals", rows)
    assert reply.mean is not None
    is_lost = np.isnan(reply.mean).any(axis=1).tolist()
    assert is_lost == [False, True, False]
    assert reply.label is not None
    assert [label is None for label in reply.label] == is_lost
