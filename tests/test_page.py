"""The page at `/` in Chromium, against a server with keys and the demonstration's models."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from sklearn.datasets import load_diabetes, load_digits

from dubito.settings import Settings
from dubito.web.shell import DRAWING, STATIC

from .conftest import Server
from .holding import holding_jobs
from .http import npy

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KEY = "the-key-of-the-page"
VIEWS = ("models", "predict", "calibration", "label", "jobs", "live")
NPY = {"Content-Type": "application/x-npy"}
MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed (Debian: chromium)")
    if not DRAWING.is_file():
        pytest.skip("uPlot is not there: run python scripts/hatch_build.py, which needs npm")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def site(demonstration: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page") / "data"
    shutil.copytree(demonstration, folder)
    server = Server(
        Settings(
            data_dir=folder,
            api_key=SecretStr(KEY),
            warm_up_rows=(),
            timing_limit_ms=0,
            max_queue_ms=600_000,
            job_chunk_ms=5,
            job_checkpoint_ms=1,
        )
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def api(site: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=site.url, headers=headers, timeout=120) as client:
        yield client


class Seen:
    """A tab, and what went wrong in it: errors of the console, requests to other hosts."""

    def __init__(
        self, browser: Browser, url: str, *, key: str | None = KEY, **options: Any
    ) -> None:
        self.url = url
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(60_000)
        if key is not None:
            self.context.add_init_script(f"sessionStorage.setItem('dubito-key', '{key}')")
        self.page: Page = self.context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._sent)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _sent(self, request: Any) -> None:
        self.asked.append(request.url)
        if not request.url.startswith((f"{self.url}/", "blob:", "data:")):
            self.wrong.append(f"asked {request.url}")

    def go(self, fragment: str) -> Page:
        """Open a part of the page, and wait until it stands."""
        self.page.goto(f"{self.url}/#/{fragment}")
        self.page.wait_for_selector("main h1")
        return self.page


@pytest.fixture
def look(browser: Browser, site: Server) -> Iterator[Callable[..., Seen]]:
    """Opens tabs, in which at the end nothing may have gone wrong."""
    tabs: list[Seen] = []

    def opened(**options: Any) -> Seen:
        tabs.append(Seen(browser, site.url, **options))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.context.close()
    assert [tab.wrong for tab in tabs] == [[] for _ in tabs]


def heard(api: httpx.Client, job: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Listen to the progress of a job until it is as wanted."""
    with api.stream("GET", f"/v1/jobs/{job}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: ") and wanted(json.loads(line[6:])):
                return
    raise AssertionError(f"the job {job} ended otherwise")


def is_drawn(page: Page, title: str) -> bool:
    """Whether the canvas of a figure has ink on it."""
    figure = page.locator("figure", has=page.get_by_role("heading", name=title))
    figure.locator("canvas").wait_for()
    drawn: bool = figure.locator("canvas").evaluate(
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
        ".data.some(value => value > 0)"
    )
    return drawn


def test_the_shell_is_open_small_and_runs_no_script_of_its_text(site: Server) -> None:
    with httpx.Client(base_url=site.url) as client:
        shell = client.get("/")
        assert shell.status_code == 200
        for policy in ("script-src 'self';", "style-src 'self';", "default-src 'none'"):
            assert policy in shell.headers["Content-Security-Policy"]
        assert "data-wants-key" in shell.text
        assert not re.search(r"<style|\son\w+=|\sstyle=|<script(?![^>]* src=)|https?:", shell.text)
        for path in re.findall(r'(?:href|src)="(page/[^"]+)"', shell.text):
            if "drawing" not in path or DRAWING.is_file():
                assert client.get(f"/{path}").status_code == 200, path
        assert client.get("/v1/models").status_code == 401
        for outside in ("/page/%2e%2e/shell.py", "/page/..%2fshell.py", "/page/"):
            assert client.get(outside).status_code == 404
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    for path in files:
        if path.parent.name != "drawing" and path.suffix != ".svg":
            assert not re.search(r"innerHTML|https?://(?!www\.w3\.org/2000/svg)", path.read_text())


@pytest.mark.browser
def test_a_key_is_entered_once_and_stands_in_no_address(look: Callable[..., Seen]) -> None:
    tab = look(key=None)
    tab.page.goto(f"{tab.url}/")
    tab.page.get_by_label("Key", exact=True).fill(KEY)
    tab.page.keyboard.press("Enter")
    tab.page.get_by_role("heading", name="Models", exact=True).wait_for()
    tab.page.reload()
    tab.page.get_by_role("heading", name="Models", exact=True).wait_for()
    assert not tab.page.locator("dialog").is_visible()
    assert not any(KEY in url for url in [*tab.asked, tab.page.url])
    tab.page.get_by_role("button", name="Forget the key").click()
    assert tab.page.locator("dialog").is_visible()


@pytest.mark.browser
def test_a_digit_is_predicted_and_noise_is_flagged(look: Callable[..., Seen]) -> None:
    tab = look()
    page = tab.go("predict/digits")
    page.get_by_role("button", name="A four").click()
    page.get_by_role("button", name="Predict").click()
    verdict = page.locator(".verdict")
    verdict.get_by_text("accept").wait_for()
    assert verdict.locator(".answer").inner_text() == "4"
    assert "It says 4" in page.locator(".words").inner_text()
    assert is_drawn(page, "64 samples")
    assert page.get_by_role("heading", name="Doubt:").is_visible()
    page.get_by_role("button", name="Noise").click()
    page.get_by_role("button", name="Predict").click()
    verdict.get_by_text("reject").wait_for()
    assert "flagged" in verdict.inner_text()
    assert "ask somebody" in page.locator(".words").inner_text()
    page = tab.go("models/digits")
    assert page.get_by_role("row", name="suffix once per row and sample").is_visible()


@pytest.mark.browser
def test_classes_that_it_cannot_tell_apart_are_named(
    look: Callable[..., Seen], api: httpx.Client
) -> None:
    images = load_digits().images[1400:].reshape(-1, 64) / 16
    asked = {"inputs": images.tolist(), "outputs": ["mean", "decision"]}
    outputs = api.post("/v1/models/digits/predict", json=asked).json()["outputs"]
    decided, means = np.array(outputs["decision"]), np.array(outputs["mean"])
    runners_up = np.sort(means, -1)[:, -2]
    row = int(np.where(decided == "review", runners_up, -1).argmax())
    assert runners_up[row] >= 0.1
    page = look().go("predict/digits")
    page.get_by_label("Rows", exact=True).fill(" ".join(map(str, images[row])))
    page.get_by_role("button", name="Predict").click()
    page.locator(".verdict").get_by_text("review").wait_for()
    words = page.locator(".words").inner_text()
    named = re.search(r"cannot tell (\d) \(\S+ ?%\).* from (\d) \(\S+ ?%\); ask somebody", words)
    assert named is not None, words
    assert {int(digit) for digit in named.groups()} <= set(np.flatnonzero(means[row] >= 0.1))


@pytest.mark.browser
def test_numbers_and_files_are_predicted_and_refusals_are_told(
    look: Callable[..., Seen], tmp_path: Path
) -> None:
    page = look().go("predict/diabetes")
    rows = load_diabetes(scaled=False).data[:2]
    text = page.get_by_label("Rows", exact=True)
    text.fill("1 2 3")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("expected 10 numbers, got 3").wait_for()
    text.fill("\n".join(" ".join(map(str, row)) for row in rows))
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("The truth lies between").wait_for()
    assert is_drawn(page, "The answer")
    np.save(tmp_path / "rows.npy", np.concatenate([rows, rows]))
    page.get_by_label("Drop a file here").set_input_files(tmp_path / "rows.npy")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("4 rows").wait_for()
    page.get_by_role("button", name=re.compile("^3: ")).click()
    assert page.locator(".verdict").is_visible()


@pytest.mark.browser
def test_a_calibration_is_seen_in_pictures_and_numbers(look: Callable[..., Seen]) -> None:
    page = look().go("models/digits")
    assert page.get_by_role("row", name="head_dropout").is_visible()
    page.get_by_role("navigation").get_by_role("link", name="Calibration").click()
    for title in ("Reliability", "Risk and coverage", "Score of the flag"):
        assert is_drawn(page, title)
    page.get_by_text("As numbers").first.click()
    assert page.get_by_role("row", name=re.compile("^0.93 to 1.00")).is_visible()
    assert page.get_by_role("row", name="set coverage").is_visible()


@pytest.mark.browser
def test_a_job_is_watched_to_its_end(look: Callable[..., Seen], api: httpx.Client) -> None:
    rows = np.tile(load_diabetes(scaled=False).data, (10, 1))
    api.post("/v1/pools?name=many", content=npy(rows), headers=NPY).raise_for_status()
    with holding_jobs() as is_open:
        job = api.post(
            "/v1/models/diabetes/predict", json={"pool": "many", "num_samples": 8}
        ).json()["job"]
        heard(api, job, lambda page: 0 < page["done"] < len(rows))
        page = look().go("jobs")
        card = page.locator("section", has_text=job)
        card.get_by_text("running").wait_for()
        share = float(card.get_by_role("progressbar").evaluate("bar => bar.value"))
        assert 0 < share < 1
        is_open.set()
        card.get_by_text("succeeded").wait_for()
        assert card.get_by_role("button", name="Keep the result").is_visible()


@pytest.mark.browser
def test_the_latest_selection_is_labelled_and_goes_back_as_feedback(
    look: Callable[..., Seen], api: httpx.Client
) -> None:
    digits = load_digits()
    rows, labels = digits.data[1400:1460] / 16, digits.target[1400:1460]
    api.post("/v1/pools?name=unlabelled", content=npy(rows), headers=NPY).raise_for_status()
    asked = {"pool": "unlabelled", "strategy": "bald", "k": 3, "num_samples": 8}
    job = api.post("/v1/models/digits/select", json=asked).json()["job"]
    heard(api, job, lambda page: page["state"] == "succeeded")
    page = look().go("label/digits")
    page.get_by_role("button", name="Label the latest selection").click()
    for place in range(3):
        heading = page.get_by_role(
            "heading", name=re.compile(rf"^Row \d+ of the pool, {place + 1}")
        )
        heading.wait_for()
        assert page.get_by_label("The row as a picture").is_visible()
        row = int(heading.inner_text().split()[1])
        page.locator(".labels").get_by_role("button", name=str(labels[row]), exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Keep the labels").click()
    kept = Path(download.value.path()).read_text().splitlines()
    chosen = api.get(f"/v1/jobs/{job}/result").json()["indices"]
    assert kept == ["index,label", *(f"{row},{labels[row]}" for row in chosen)]
    page.get_by_role("button", name="Send 3 as feedback").click()
    page.get_by_text("3 outcomes are stored").wait_for()
    assert api.get("/v1/models/digits/monitoring").json()["outcomes"]["rows"] == 3
    page.get_by_role("link", name="See what they say").click()
    page.get_by_role("row", name="outcomes 3").wait_for()


@pytest.mark.browser
def test_every_part_is_accessible_and_fits(look: Callable[..., Seen]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = look(viewport={"width": 1280, "height": 800}, color_scheme="light")
    contrast = {"runOnly": ["color-contrast", "scrollable-region-focusable"]}
    for view in VIEWS:
        page = tab.go(f"{view}/digits")
        if view == "predict":
            page.get_by_role("button", name="A seven").click()
            page.get_by_role("button", name="Predict").click()
            page.locator(".verdict").wait_for()
        for width, scheme, options in ((1280, "light", {}), (400, "dark", contrast)):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page, options=options).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert not serious, (view, [(one["id"], one["nodes"][0]["html"]) for one in serious])
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    for name in ("Models", "Predict"):
        page.get_by_role("navigation").get_by_role("link", name=name).focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name=name, exact=True).wait_for()


@pytest.mark.browser
def test_without_the_library_that_draws_the_page_says_so_and_shows_numbers(
    look: Callable[..., Seen],
) -> None:
    tab = look()
    tab.page.route("**/drawing/*.js", lambda route: route.fulfill(status=200, body=""))
    page = tab.go("calibration/digits")
    assert page.get_by_text("built without uPlot").first.is_visible()
    assert page.get_by_role("row", name=re.compile("^0.93 to 1.00")).is_visible()
