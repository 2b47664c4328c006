"""The report: what it tells is in the dataset, equal datasets give equal bytes, and a browser needs nothing else."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely

from publish.report import MAP_CHIPS, ChipMap, Layer, page, report, timelines_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")


def _data(html: bytes) -> dict[str, Any]:
    """What the script of a page draws."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html.decode(), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="session")
def html(shown: Any) -> bytes:
    return report(shown.after)


def test_the_map_has_every_chip_where_it_is_with_its_split(shown: Any, html: bytes) -> None:
    data = _data(html)
    assert data["ids"] == list(shown.after.chips)
    layers = {layer["name"]: layer for layer in data["layers"]}
    split = layers["split"]
    names = [split["categories"][value][0] for value in split["values"]]
    assert names == [record.split for record in shown.records]
    assert {name: count for name, _, count in split["categories"]} == Counter(names)
    for record, steps in zip(shown.records, data["rings"], strict=True):
        corners = np.cumsum(np.array(steps).reshape(-1, 2), axis=0) / 1e5
        assert corners.mean(axis=0) == pytest.approx((record.lon, record.lat), abs=2e-5)
    clear = layers["s2: clear share"]["values"]
    assert clear[0] == 88
    assert layers["crops: most frequent class"]["values"][7] is None, "the empty chip has no class"
    assert data["notes"] == {"7": "no scene meets the chip"}


def test_the_most_frequent_class_and_the_balance_are_those_of_the_pixels(shown: Any, html: bytes) -> None:
    layer = next(one for one in _data(html)["layers"] if one["name"] == "crops: most frequent class")
    pixels = shown.arrays["label", "crops"]
    codes = [1, 2, 5]
    for chip in (0, 3, 11):
        counts = [(pixels[chip] == code).sum() for code in codes]
        told = layer["categories"][layer["values"][chip]][0]
        assert told == ("wheat", "maize </script>", "hemp")[int(np.argmax(counts))]
    train = np.array([record.split == "train" for record in shown.records])
    share = 100 * (pixels[train] == 5).sum() / (pixels[train] != 255).sum()
    row = re.search(r"hemp <small>5</small>.*?</tr>", html.decode(), re.DOTALL)
    assert row
    assert f"{share:.3g} %" in row[0]


def test_a_class_that_nobody_can_learn_is_told(shown: Any) -> None:
    from publish.report import Shares, _balance

    shares = Shares(np.array([0, 1, 1]), np.array([1, 1, 2]), np.array([0.5, 0.25, 0.25]))
    legend = {1: ("wheat", "#000000"), 2: ("hemp", "#ffffff")}
    found = _balance("crops", shares, legend, ["train", "test"])
    assert found["absent"] == ["hemp"]
    assert found["splits"] == ["train", "test"]
    assert [row["shares"] for row in found["rows"]] == [[100, 50], [None, 50]]


def test_the_same_dataset_gives_the_same_bytes_also_before_it_is_published(shown: Any, html: bytes) -> None:
    assert report(shown.after) == html
    assert (shown.folder.parent / "before.html").read_bytes() == html


def test_words_of_the_dataset_cannot_become_markup(html: bytes) -> None:
    text = html.decode()
    assert "maize </script>" not in text
    assert "<1>" not in text
    assert "32633_0_&lt;1&gt;" in text
    assert text.count("</script>") == 2
    assert "shown &amp; told" in text


def test_licences_and_alignment_are_told(html: bytes) -> None:
    text = html.decode()
    assert "© Somebody &amp; others" in text
    assert "6 chips measured: median distance from the reference" in text
    assert "nobody has measured what its splits share" in text, "there is no audit.json"


def test_audit_and_statistics_are_shown_where_they_are(shown: Any) -> None:
    from dataclasses import replace

    band: dict[str, Any] = {"count": 9, "void_share": 0.25, "hidden_share": 0.0, "histogram": [1, 4, 2]}
    band["physical"] = {
        "mean": 0.125,
        "std": 0.0625,
        "min": 0.0,
        "max": 1.0,
        "percentiles": {"p2": 0.01, "p50": 0.11, "p98": 0.5},
    }
    statistics = {"version": 1, "bands": {"s2": {"red": {"units": "1", "splits": {"train": band}}}}}
    pair = {"distance_m": {"shortest": 1234.4}, "overlap": {"m2": 25600.0}, "duplicates": {"s2": {"pairs": 0}}}
    pair |= {"scenes": {"s2": {"shared": 11, "share": 0.5}}, "spectra": {"s2": {"difference": [0.2, -0.744]}}}
    audit = {"pairs": {"train-test": pair}, "autocorrelation": {"s2": [{"range_m": 2756.1, "block_over_range": 0.726}]}}
    files = {"audit.json": json.dumps(audit).encode(), "statistics.json": json.dumps(statistics).encode()}
    text = report(replace(shown.after, files=files), pictured=0).decode()
    assert '<th scope="col">train-test</th>' in text
    for cell in (
        "1,234 m<",
        "25,600 m² (leak)",
        ">none<",
        "11, in 50 % of the chips",
        "-0.74 deviations",
        "up to 2,756 m",
    ):
        assert cell in text
    assert "s2 red" in text
    for number in ("0.125", "0.0625", "0.01", "0.11", "0.5"):
        assert f'<td class="n">{number}</td>' in text
    assert "25.0 %" in text
    assert "nobody has measured" not in text
    assert "<img" not in text


def test_more_chips_than_a_map_holds_are_sampled_evenly_and_counted_all() -> None:
    chips = _grid(MAP_CHIPS + 5000)
    html = page(title="t", kind="Plan", numbers=[], chips=chips)
    data = _data(html)
    assert len(data["ids"]) == len(data["rings"]) == MAP_CHIPS
    split = data["layers"][0]
    assert sum(count for _, _, count in split["categories"]) == MAP_CHIPS + 5000
    assert "An even sample of 20,000 of 25,000 chips" in html.decode()


def test_chips_on_the_antimeridian_lie_beside_each_other() -> None:
    parts = shapely.union_all([shapely.box(179.99, 0, 180, 0.02), shapely.box(-180, 0, -179.99, 0.02)])
    outlines = np.array([shapely.box(179.97, 0, 179.99, 0.02), parts, shapely.box(-179.99, 0, -179.97, 0.02)])
    layer = Layer.of_text("split", ["train"] * 3, {})
    data = _data(page(title="t", kind="Plan", numbers=[], chips=ChipMap("abc", outlines, None, (layer,))))
    west = [min(np.cumsum(ring[::2])) / 1e5 for ring in data["rings"]]
    assert west == pytest.approx([179.97, 179.99, 180.01])


def test_scenes_are_counted_by_time_and_reason(tmp_path: Path) -> None:
    import datetime as dt
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    days = [dt.datetime(2021, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days) for days in (0, 3, 3, 700)]
    why = [
        "",
        "copy of S2A_MSIL2A_20210426T090031, which is preferred",
        "",
        "copy of S2A_MSIL2A_20210427T090031, which is preferred",
    ]
    table = pa.table(
        {
            "curate:source": ["s2"] * 4,
            "curate:status": ["used" if not reason else "dropped" for reason in why],
            "curate:reason": why,
            "datetime": pa.array(days, pa.timestamp("us", "UTC")),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out)
    (line,) = timelines_of(out.getvalue(), ["s2"])
    assert (line["used"], line["dropped"]) == (2, 2)
    assert line["reasons"] == [("copy of …, which is preferred", 2)]
    chart = line["chart"]
    assert sum(bar.parts[0] for bar in chart.bars) == pytest.approx(sum(bar.parts[1] for bar in chart.bars))
    assert all(0 <= bar.x <= bar.x + bar.width <= 1000.001 for bar in chart.bars)
    assert all(0 <= x <= 1000 for x, _ in chart.ticks)


def _grid(count: int) -> ChipMap:
    """Chips side by side, with what a dataset of three labels knows of them."""
    side = int(np.ceil(np.sqrt(count)))
    column, row = np.arange(count) % side, np.arange(count) // side
    west, south = 10 + 0.03 * column, 40 + 0.02 * row
    splits = np.array(["train", "val", "test", "buffer"])[(column // 7 + row // 5) % 4].tolist()
    layers = [Layer.of_text("split", splits, {"train": "#3f7fbf"})]
    layers += [Layer(f"number {at}", ((column * (at + 1)) % 101).tolist(), unit="%") for at in range(8)]
    outlines = np.asarray(shapely.box(west, south, west + 0.0298, south + 0.0198), dtype=object)
    ids = [f"32633_{c}_{r}" for c, r in zip(column.tolist(), row.tolist(), strict=True)]
    return ChipMap(ids, outlines, shapely.box(10, 40, 10 + 0.03 * side, 40 + 0.02 * side), tuple(layers))


# ---- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def _opened(browser: Browser, path: Path, heard: list[str], **options: Any) -> Page:
    """The page, with everything it complains of or asks the network for in ``heard``."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
    # Reading the map back, as _colours does, makes Chromium remark on its speed.
    opened.on("console", lambda said: heard.append(said.text) if "Multiple readback" not in said.text else None)
    opened.on("pageerror", lambda error: heard.append(f"error: {error}"))
    opened.on(
        "request",
        lambda asked: (
            heard.append(f"request: {asked.url[:60]}") if not asked.url.startswith(("data:", "file:")) else None
        ),
    )
    opened.goto(path.as_uri())
    return opened


def _colours(opened: Page) -> set[tuple[int, ...]]:
    """Colours that cover much of the map."""
    opened.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    counted: dict[str, int] = opened.evaluate(
        """() => {
            const map = document.getElementById("map");
            const dots = map.getContext("2d").getImageData(0, 0, map.width, map.height).data, seen = {};
            for (let i = 0; i < dots.length; i += 4) {
                if (!dots[i + 3]) continue;
                const key = `${dots[i]},${dots[i + 1]},${dots[i + 2]}`;
                seen[key] = (seen[key] || 0) + 1;
            }
            return seen;
        }"""
    )
    most = sorted(counted, key=lambda key: -counted[key])[:8]
    return {tuple(map(int, key.split(","))) for key in most}


def test_a_browser_draws_the_map_and_tells_a_chip_without_any_request(
    browser: Browser, html: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(html)
    heard: list[str] = []
    opened = _opened(browser, path, heard)
    assert {(0x3F, 0x7F, 0xBF), (0xD9, 0xA2, 0x1B), (0xD6, 0x45, 0x5D)} <= _colours(opened)

    chart = opened.locator("#map")
    box = chart.bounding_box()
    assert box
    chart.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    detail = opened.locator("#detail")
    first = detail.locator("h3").inner_text()
    assert first in [f"32633_{chip}_<1>" for chip in (5, 6)], "the middle of the row"
    assert detail.locator("img").count() == 6
    chart.press("ArrowRight")
    second = detail.locator("h3").inner_text()
    assert int(second.split("_")[1]) == int(first.split("_")[1]) + 1

    opened.get_by_label("Colour by").select_option(label="crops: most frequent class")
    assert "maize </script>" in opened.locator("#legend").inner_text()
    assert _colours(opened) & {(0x11, 0x22, 0x33), (0x44, 0x55, 0x66), (0x77, 0x88, 0x99)}
    opened.get_by_label("Find chip").fill("32633_7")
    assert detail.locator("h3").inner_text() == "32633_7_<1>"
    assert "no scene meets the chip" in detail.inner_text()
    assert "curate show" in detail.inner_text(), "an empty chip has no pictures"
    opened.locator("article button").first.click()
    assert detail.locator("img").count() == 6
    assert heard == []
    assert opened.evaluate("() => [...document.images].every((one) => one.complete && one.naturalWidth)")
    assert opened.evaluate("() => [...document.images].every((one) => one.alt.length > 10)")
    opened.close()


def test_the_page_has_a_dark_side_and_fits_a_phone(browser: Browser, html: bytes, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(html)
    heard: list[str] = []
    ground = {}
    for scheme in ("light", "dark"):
        opened = _opened(browser, path, heard, color_scheme=scheme)
        ground[scheme] = opened.evaluate("() => getComputedStyle(document.body).backgroundColor")
        opened.set_viewport_size({"width": 390, "height": 800})
        assert opened.evaluate("() => document.documentElement.scrollWidth <= 390"), "nothing is wider than the screen"
        opened.close()
    assert (
        sum(map(int, re.findall(r"\d+", ground["light"])))
        > 600
        > 150
        > sum(map(int, re.findall(r"\d+", ground["dark"])))
    )
    assert heard == []


def test_twenty_thousand_chips_are_one_file_of_bounded_size_that_opens_at_once(
    browser: Browser, tmp_path: Path
) -> None:
    html = page(title="many", kind="Dataset", numbers=[], chips=_grid(MAP_CHIPS))
    assert len(html) < 4_000_000
    path = tmp_path / "many.html"
    path.write_bytes(html)
    heard: list[str] = []
    start = time.perf_counter()
    opened = _opened(browser, path, heard)
    assert (0x3F, 0x7F, 0xBF) in _colours(opened)
    assert time.perf_counter() - start < 15, "a few seconds, and room for a busy machine"
    chart = opened.locator("#map")
    box = chart.bounding_box()
    assert box
    chart.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert opened.locator("#detail h3").inner_text().startswith("32633_")
    chart.press("+")
    chart.press("0")
    assert heard == []
    opened.close()
