"""A table with every kind of column, and a tiny network that declares how it reads it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from dubito_nn import Bundle, export, preprocess

CSV, NDJSON = "text/csv", "application/x-ndjson"
PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
JOBS = ("nurse", "teacher", "clerk")
TABLE = preprocess.TableInput(
    (
        preprocess.Number("age", mean=40.0, scale=10.0, missing=40.0, input="numbers"),
        preprocess.Category("smoker", ("no", "yes"), "one_hot", "zeros", input="numbers"),
        preprocess.Boolean("insured", missing=False, input="numbers"),
        preprocess.Date("born", unit="days", mean=7000.0, scale=4000.0, input="numbers"),
        preprocess.Category("job", JOBS, unknown="other", input="job"),
    )
)


class Two(nn.Module):
    """Numbers side by side, and an index that is embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(JOBS) + 1, 3)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def forward(self, numbers: Tensor, job: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([numbers, self.embedding(job)], 1))
        return out


def frame(count: int, seed: int = 0) -> pd.DataFrame:
    """Rows with empty cells and unknown categories among them."""
    random = np.random.default_rng(seed)
    born = np.datetime64("1980-01-01") + random.integers(0, 9000, count)
    table = pd.DataFrame(
        {
            "id": [f"p{row}" for row in range(count)],
            "age": random.normal(40, 10, count).round(2),
            "smoker": random.choice(["no", "yes", "sometimes"], count),
            "insured": random.choice([True, False], count),
            "born": np.datetime_as_string(born.astype("datetime64[D]")),
            "job": random.choice([*JOBS, "pilot"], count),
        }
    )
    table["sick"] = random.choice(["no", "yes"], count)
    table.loc[random.random(count) < 0.2, "age"] = np.nan
    return table


def expected(table: pd.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    """What the network reads of a table, computed by other means."""
    days = (pd.to_datetime(table["born"]) - pd.Timestamp("1970-01-01")).dt.days
    numbers = [
        (table["age"].fillna(40.0) - 40) / 10,
        table["smoker"] == "no",
        table["smoker"] == "yes",
        table["insured"],
        (days - 7000) / 4000,
    ]
    job = table["job"].map({name: index for index, name in enumerate(JOBS)}).fillna(3)
    return {
        "numbers": np.stack([np.asarray(one, np.float64) for one in numbers], 1),
        "job": np.asarray(job, np.int64),
    }


def exported(path: Path, declared: object = TABLE) -> Bundle:
    """The network as a bundle that declares the table."""
    torch.manual_seed(0)
    rows = expected(frame(20))
    example = {
        "numbers": torch.tensor(rows["numbers"], dtype=torch.float32),
        "job": torch.tensor(rows["job"]),
    }
    return export(
        Two(),
        example,
        path,
        task="classification",
        output="logits",
        classes=("no", "yes"),
        preprocess=declared,  # type: ignore[arg-type]
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    plain = table.astype(object).where(table.notna(), None)
    found: list[dict[str, Any]] = plain.to_dict("records")
    return found


def written(table: pd.DataFrame, kind: str) -> bytes:
    """A table as a file of one kind."""
    if kind == CSV:
        return table.to_csv(index=False).encode()
    if kind == NDJSON:
        return b"\n".join(pd.Series(row).to_json().encode() for row in records(table))
    file = io.BytesIO()
    if kind == PARQUET:
        table.to_parquet(file)
    else:
        whole = pa.Table.from_pandas(table)
        with pa.ipc.new_stream(file, whole.schema) as writer:
            writer.write_table(whole)
    return file.getvalue()
