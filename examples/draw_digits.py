"""Draw how strange digits, mirrored digits and noise are to the demonstration's digits network.

scripts/serve &                       # or against any server: --url
.venv/bin/python examples/draw_digits.py docs/digits.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import httpx
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from dubito.recipes.demo import DIGITS

mpl.use("svg")
from matplotlib import pyplot as plt  # the backend is chosen first

COLOURS = {"held-out digits": "#2a6f97", "mirrored digits": "#e07a1f", "noise": "#9b2226"}


def main() -> None:
    """Ask a server about digits, mirrored digits and noise, and draw its answers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    arguments = parser.parse_args()
    with httpx.Client(base_url=arguments.url, timeout=60) as client:
        answers = {name: _ask(client, rows) for name, rows in _rows().items()}
        flag = client.get("/v1/models/digits/calibration").raise_for_status().json()["ood"]
    _draw(answers, flag["threshold"], arguments.path)


def _rows() -> dict[str, NDArray[np.float32]]:
    digits = DIGITS.splits().test.inputs
    mirrored = digits.reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64)
    noise = np.random.default_rng(0).random((300, 64)).astype(np.float32)
    return {"held-out digits": digits, "mirrored digits": mirrored, "noise": noise}


def _ask(client: httpx.Client, rows: NDArray[np.float32]) -> dict[str, list[float]]:
    body = {"inputs": rows.tolist(), "outputs": ["ood"]}
    reply = client.post("/v1/models/digits/predict", json=body).raise_for_status()
    return reply.json()["outputs"]["ood"]


def _draw(answers: dict[str, dict[str, list[float]]], threshold: float, path: Path) -> None:
    mpl.rcParams.update({"font.size": 10, "svg.hashsalt": "dubito", "axes.spines.top": False})
    figure, axes = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
    scores = np.concatenate([answer["score"] for answer in answers.values()])
    bins = np.geomspace(np.quantile(scores, 0.01), scores.max(), 41)
    for name, answer in answers.items():
        scores = np.clip(answer["score"], bins[0], bins[-1])
        share = np.mean(answer["flag"])
        axes.hist(
            scores,
            bins=bins,
            weights=np.full(len(scores), 100 / len(scores)),
            color=COLOURS[name],
            alpha=0.65,
            label=f"{name}: {share:.0%} flagged",
        )
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        "threshold of the flag",
        (threshold, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -10),
        textcoords="offset points",
        ha="right",
    )
    axes.set(xscale="log", xlabel="score of the flag, nats", ylabel="rows, %")
    axes.spines["right"].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=len(answers))
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
