"""Makes the pictures of docs/page.md: python scripts/page_pictures.py http://127.0.0.1:8000.

The server has the demonstration and no key. Needs Chromium, playwright and Pillow. A pool of digits
is stored, and a selection from it made, unless there is one.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from sklearn.datasets import load_digits

DOCS = Path(__file__).parent.parent / "docs"
POOL = "digits-to-label"
COLORS = 96  # of a picture, which is enough for text and lines, and a quarter of the bytes


@dataclass(frozen=True)
class Picture:
    """A picture of a part of the page.

    Args:
        name: of the file.
        fragment: of the address.
        width: of the window.
        scheme: `light` or `dark`.
        act: what a person does before it is taken.
    """

    name: str
    fragment: str
    width: int
    scheme: str
    act: Callable[[Page], None]


def _predict(button: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        page.get_by_role("button", name=button).click()
        page.get_by_role("button", name="Predict").click()
        page.locator(".verdict").wait_for()

    return act


def _label(page: Page) -> None:
    page.get_by_role("button", name="Label the latest selection").click()
    page.get_by_text("What the network says").click()


PICTURES = (
    Picture("page_predict", "predict/digits", 1280, "light", _predict("A four")),
    Picture("page_noise", "predict/digits", 400, "dark", _predict("Noise")),
    Picture("page_calibration", "calibration/digits", 1280, "dark", lambda page: None),
    Picture("page_label", "label/digits", 400, "light", _label),
)


def _select(url: str) -> None:
    """Let the server have a selection."""
    with httpx.Client(base_url=url, timeout=600) as client:
        if any(pool["pool"] == POOL for pool in client.get("/v1/pools").json()["pools"]):
            return
        file = io.BytesIO()
        np.save(file, load_digits().data[1000:1400] / 16)
        headers = {"Content-Type": "application/x-npy"}
        stored = client.post(f"/v1/pools?name={POOL}", content=file.getvalue(), headers=headers)
        stored.raise_for_status()
        asked = {"pool": POOL, "strategy": "batchbald", "k": 8}
        job = client.post("/v1/models/digits/select", json=asked).json()["job"]
        with client.stream("GET", f"/v1/jobs/{job}/events") as events:
            for _ in events.iter_lines():
                pass


def main(url: str) -> None:
    """Make all pictures."""
    _select(url)
    with sync_playwright() as driver:
        program = shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for picture in PICTURES:
            size = {"width": picture.width, "height": 800}
            context = browser.new_context(viewport=size, color_scheme=picture.scheme)
            page = context.new_page()
            page.goto(f"{url}/#/{picture.fragment}")
            page.wait_for_selector("main h1")
            picture.act(page)
            page.locator("canvas").last.wait_for()
            page.wait_for_load_state("networkidle")
            shot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
            path = DOCS / f"{picture.name}.png"
            shot.quantize(COLORS).save(path, optimize=True)
            print(f"{path.name}: {path.stat().st_size:,} bytes")
            context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
