"""The viewer in a real browser: what is seen, moved, judged and linked to."""

import csv
import functools
import http.server
import json
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from runs_to_look_at import CLASSES, FORMULA, HOSTILE

from doubtmap.reports.maps import read_map
from doubtmap.viewer import gather, write_static
from doubtmap.viewer.pixels import read_codes
from doubtmap.viewer.server import make_server

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
playwright.expect.set_options(timeout=20_000)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(runs, tmp_path_factory):
    """Addresses of pages over copies of the runs, whose verdicts may be changed."""
    servers, place = [], tmp_path_factory.mktemp("served")
    copies = {}

    def serve(*names):
        for name in names:
            if name not in copies:
                copies[name] = shutil.copytree(getattr(runs, name), place / name)
        server, address = make_server(gather([copies[name] for name in names]))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return address

    addresses = {"two": serve("first", "second"), "turned": serve("first", "turned")}
    addresses |= {"scored": serve("scored", "objects", "more")}
    yield addresses | {"folder": place}
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def look(browser):
    """Open a page; at the end nothing may have been complained of on its console."""
    said, contexts = [], []

    def open_page(address, **kind):
        contexts.append(browser.new_context(viewport={"width": 1000, "height": 700}, **kind))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def tiles(page):
    """Names in the grid, in order."""
    found = page.locator(".tile .name")
    found.first.wait_for()
    return found.all_text_contents()


def opened(page, name):
    page.wait_for_selector(f'body[data-shown="{name}"]')


def test_the_grid_sorts_and_filters_and_the_address_says_so(look, served):
    page = look(served["two"])
    names = gather([served["folder"] / "first"]).names
    assert tiles(page) == names
    playwright.expect(page.locator("#direction")).to_be_disabled()
    found = gather([served["folder"] / "first"]).runs[0].table["accuracy"]
    values = [float(f"{value:.5g}") for value in found]
    page.locator("#sort").select_option("accuracy (A)")
    expected = [names[at] for at in np.argsort(-np.array(values), kind="stable")]
    playwright.expect(page.locator(".tile .name")).to_have_text(expected)
    page.locator("#direction").click()
    playwright.expect(page.locator(".tile .name").first).to_have_text(expected[-1])
    page.locator("#add-filter").click()
    page.get_by_label("Value").fill(str(sorted(values)[1]))
    kept = [value for value in values if value >= sorted(values)[1]]
    playwright.expect(page.locator("#count")).to_have_text(re.compile(f"^{len(kept)} of 4"))
    page.wait_for_url(re.compile("where=accuracy"))
    again = look(page.url)
    assert again.locator("#count").text_content() == page.locator("#count").text_content()
    again.locator("#search").fill("no such name")
    playwright.expect(again.locator("#count")).to_have_text("0 of 4 images")


def test_names_that_try_to_be_markup_are_texts(look, served):
    page = look(served["scored"])
    assert HOSTILE in tiles(page)
    page.get_by_text(HOSTILE, exact=True).click()
    playwright.expect(page.locator("#side h2")).to_have_text(HOSTILE)
    playwright.expect(page).to_have_title(f"{HOSTILE}: doubtmap view")
    assert page.locator("img[src=x]").count() == 0


def test_the_threshold_counts_what_the_maps_hold(look, served):
    run = gather([served["folder"] / "first"]).runs[0]
    doubt = read_map(run.map_file(run.layer("doubt:entropy"), 1))
    label, predicted = (
        read_codes(run.map_file(run.layer(key), 1)) for key in ("labels", "classes")
    )
    threshold = float(f"{np.quantile(doubt, 0.7):.4g}")
    hash = f"#image={run.names[1]}&layer=doubt%3Aentropy&threshold={threshold}"
    page = look(served["two"] + hash)
    opened(page, run.names[1])
    said = page.locator("#above").text_content()
    above, wrong = doubt >= threshold, (label >= 0) & (label != predicted)
    share = float(re.search(r"([\d.]+) % reach", said)[1])
    assert share == pytest.approx(100 * above.mean(), abs=0.06)
    precision, recall = map(
        float, re.search(r"wrong ones hereprecision ([\d.]+), recall ([\d.]+)", said).groups()
    )
    assert precision == pytest.approx(
        (above & wrong).sum() / (above & (label >= 0)).sum(), abs=2e-3
    )
    assert recall == pytest.approx((above & wrong).sum() / wrong.sum(), abs=2e-3)
    marks = run.layer("doubt:entropy").thresholds["wrong"]
    expected = np.interp(-threshold, -np.array(marks["threshold"]), marks["recall"])
    told = re.search(r"wrong ones of the runprecision [\d.]+, recall ([\d.]+)", said)
    assert float(told[1]) == pytest.approx(expected, abs=1e-3)
    page.locator("#threshold").evaluate(
        "e => { e.value = 1000; e.dispatchEvent(new Event('input')) }"
    )
    playwright.expect(page.locator("#above")).to_contain_text("0.00 % reach it")


def test_the_pixel_under_the_pointer_is_told(look, served):
    run = gather([served["folder"] / "first"]).runs[0]
    page = look(served["two"] + f"#image={run.names[0]}&layer=doubt%3Aentropy")
    opened(page, run.names[0])
    box = page.locator(".world img").bounding_box()
    x, y = box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"]
    page.mouse.move(x, y)
    said = page.locator("#readout").text_content()
    column, row = map(int, re.match(r"(\d+), (\d+)", said).groups())
    assert (column, row) == (pytest.approx(24, abs=1), pytest.approx(48, abs=1))
    doubt = read_map(run.map_file(run.layer("doubt:entropy"), 0))
    assert float(re.search(r"entropy ([\d.]+)", said)[1]) == pytest.approx(
        float(doubt[row, column]), abs=1e-3
    )
    predicted = read_codes(run.map_file(run.layer("classes"), 0))[row, column]
    assert f"prediction {run.class_names[predicted]}" in said


def test_keys_go_through_images_layers_and_verdicts(look, served):
    page = look(served["two"])
    names = tiles(page)
    page.locator("#grid").focus()
    page.keyboard.press("Enter")
    opened(page, names[0])
    checked = page.locator(".layers [aria-checked=true]")
    playwright.expect(checked).to_contain_text("doubt: entropy")
    page.keyboard.press("j")
    opened(page, names[1])
    page.keyboard.press("1")
    playwright.expect(checked).to_contain_text("image")
    page.wait_for_url(re.compile("layer=(&|$)"))
    page.keyboard.press("4")
    playwright.expect(checked).to_contain_text("right or wrong")
    page.keyboard.press("a")
    playwright.expect(page.locator(".verdicts [aria-pressed=true]")).to_have_text("label wrong")
    page.get_by_label("Note").fill("=hidden")
    page.get_by_label("Note").press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    playwright.expect(page.locator("#help-panel")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    playwright.expect(page.locator(".tile .said")).to_have_text("label wrong")
    kept = json.loads((served["folder"] / "first" / "verdicts.json").read_text())["verdicts"]
    assert kept[names[1]]["verdict"] == "label wrong"
    with page.expect_download() as download:
        page.locator("#export").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert [(row["image"], row["note"]) for row in rows] == [(names[1], "'=hidden")]


def test_two_runs_stand_side_by_side_and_a_link_brings_back_the_view(look, served):
    names = gather([served["folder"] / "first"]).names
    page = look(served["two"] + f"#image={names[2]}&layer=changed&other=1&at=0.3,0.4,3")
    opened(page, names[2])
    assert page.locator(".pane").count() == 2
    first, second = (
        page.locator(".world").nth(at).evaluate("e => e.style.transform") for at in (0, 1)
    )
    assert first == second
    runs = gather([served["folder"] / name for name in ("first", "second")]).runs
    a, b = (read_codes(run.map_file(run.layer("classes"), 2)) for run in runs)
    painted = page.locator("canvas").first.evaluate(
        "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n }"
    )
    assert painted == (a != b).sum() > 0
    page.keyboard.press("b")
    playwright.expect(page.locator(".pane")).to_have_count(1)


def test_classes_in_another_order_are_no_change(look, served):
    for layer, painted in (("changed", 0), ("classes", 1)):
        name = gather([served["folder"] / "first"]).names[0]
        page = look(served["turned"] + f"#image={name}&layer={layer}&other=1")
        opened(page, name)
        canvas = page.locator("canvas").nth(1)
        shown = canvas.evaluate(
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v)"
        )
        assert shown == bool(painted)
    about = gather([served["folder"] / name for name in ("first", "turned")]).index("")["runs"]
    first, second = (set(zip(run["classes"], run["colours"], strict=True)) for run in about)
    legend = page.locator(".legend li").all_text_contents()
    beside = [name for name, _ in second - first]
    assert sorted(legend) == sorted([*CLASSES, *(f"{name} (B)" for name in beside)])


def test_objects_are_drawn_over_doubt_and_dark_and_small_screens_show_all(look, served):
    page = look(served["scored"] + "#image=plain", color_scheme="dark")
    page.set_viewport_size({"width": 420, "height": 800})
    opened(page, "plain")
    counts = []
    for name in ("objects", "more"):
        held = json.loads((served["folder"] / name / "objects.json").read_text())
        number = next(i["id"] for i in held["images"] if i["file_name"].endswith("plain.png"))
        counts.append(sum(a["image_id"] == number for a in held["annotations"]))
    assert min(counts) > 0  # and the objects of both runs are drawn
    playwright.expect(page.locator(".world svg > :not(.further)")).to_have_count(counts[0])
    playwright.expect(page.locator(".world svg > .further")).to_have_count(counts[1])
    titles = page.locator(".world svg > .further title").all_text_contents()
    assert all(title.startswith("C: ") for title in titles)
    width, scale = page.locator(".world svg > *").first.evaluate(
        "e => [parseFloat(getComputedStyle(e).strokeWidth),"
        " new DOMMatrix(getComputedStyle(e.closest('.world')).transform).a]"
    )
    assert scale > 1 and width * scale == pytest.approx(2, abs=0.01)
    page.keyboard.press("o")
    playwright.expect(page.locator(".world svg")).to_be_hidden()
    wide = page.evaluate_handle("document.documentElement").evaluate("e => e.scrollWidth")
    assert wide <= 420
    paper = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert paper == "rgb(23, 23, 26)"


def test_a_folder_on_any_web_server_shows_the_same(look, runs, tmp_path):
    write_static(gather([runs.scored]), tmp_path)
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=tmp_path)
    )
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    page = look(address + f"#image={quote(FORMULA)}")
    opened(page, FORMULA)
    page.keyboard.press("f")
    playwright.expect(page.locator(".verdicts [aria-pressed=true]")).to_have_text("fine")
    with page.expect_download() as download:
        page.locator("#export").click()
    assert Path(download.value.path()).read_text().splitlines()[1].startswith("'=cmd(),fine,")
    page.reload()
    playwright.expect(page.locator(".verdicts [aria-pressed=true]")).to_have_text("fine")
    page.close()
    server.shutdown()
    server.server_close()
