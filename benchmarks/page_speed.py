"""The label page in headless Chromium: milliseconds from a key to drawn lanes, beside the number of spots.

    python benchmarks/page_speed.py [--spots 0,1000,12000] [--keys 60]

A match of 90 minutes with twelve classes, as many spots as named, 4,000 proposals, and confidence curves; seen
whole, and two minutes of it. Keys are in turn: a frame on, a spot of each of three classes, next spot, next proposal,
accept, reject. The last column is the ratio to the first size, key by key.
"""

import argparse
import tempfile
import threading
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
from common import machine, median_ratio, spread
from playwright.sync_api import sync_playwright

from bas.label.learn import Proposals
from bas.label.options import LabelOptions
from bas.label.server import bound_server, label_app
from bas.label.session import Session, opened_session
from bas.report.page.data import label_page

CHROMIUM = "/usr/bin/chromium"
ROWS, PROPOSALS = 135_000, 4000
CLASSES = tuple(f"CLASS {number}" for number in range(12))
VIEWS = {"whole match": "basLabel.setWindow(0, 1e9)", "two minutes": "basLabel.setWindow(0, 120000)"}
PRESS = """async (count) => {
    const taken = [];
    const keys = ['ArrowRight', '1', 'd', 'ArrowRight', '2', 'ArrowRight', '3', 'n', 'Enter', 'x'];
    for (let turn = 0; turn < count; turn++) {
        const key = keys[turn % keys.length];
        const press = new KeyboardEvent('keydown', { bubbles: true, key, code: Number(key) ? `Digit${key}` : key });
        const began = performance.now();
        document.getElementById('lanes-canvas').dispatchEvent(press);
        basLabel.drawNow();
        taken.push(performance.now() - began);
        await new Promise((wake) => { setTimeout(wake, 30); });
    }
    return taken;
}"""


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", default="0,1000,12000")
    parser.add_argument("--keys", type=int, default=60)
    arguments = parser.parse_args()
    print(machine())
    print("| spots | view | ms a key | times the first |\n|---|---|---|---|")
    first: dict[str, list[float]] = {}
    for spots in map(int, arguments.spots.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), spots, arguments.keys)
        for view, taken in found.items():
            ratio = median_ratio(taken, first.setdefault(view, taken))
            print(f"| {spots:,} | {view} | {spread(taken)} | {ratio:.2f} |")


def measure(folder: Path, num_spots: int, num_keys: int) -> dict[str, list[float]]:
    """View -> milliseconds of each key."""
    video = folder / "match.mp4"
    write_video(video)
    options = LabelOptions(classes=CLASSES, person="me")
    with (
        mock.patch.object(Session, "begin_extraction", return_value=None),
        opened_session([video], folder / "none.zarr", options) as session,
    ):
        fill(session, num_spots)
        server, listener, address = bound_server(label_app(session, label_page()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        with closing(listener):
            thread.start()
            try:
                return press_keys(address, num_keys)
            finally:
                server.should_exit = True
                thread.join()


def write_video(path: Path) -> None:
    """Ten seconds of grey: the lanes are measured, not the video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(250):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), "rgb24")))
        container.mux(stream.encode(None))


def fill(session: Session, num_spots: int) -> None:
    """Mark spots, and propose as if training had ended."""
    generator = np.random.default_rng(0)
    spots = [
        {"id": f"s{n}", "before": None, "after": {"kind": "spot", "ms": int(row) * 40, "label": CLASSES[n % 12]}}
        for n, row in enumerate(generator.integers(0, ROWS, num_spots))
    ]
    # the match has 90 minutes also where there is no spot
    whole: dict[str, Any] = {
        "id": "all",
        "before": None,
        "after": {"kind": "stretch", "from_ms": 0, "to_ms": 40 * ROWS},
    }
    session.change(0, [*spots, whole])
    match_id = session.matches[0].match.id
    session.proposals[match_id] = Proposals(
        match_id,
        np.sort(generator.integers(0, ROWS, PROPOSALS)) * 40,
        generator.integers(0, 12, PROPOSALS),
        generator.random(PROPOSALS).astype(np.float32),
        generator.random(PROPOSALS).astype(np.float32),
        generator.random(PROPOSALS).astype(np.float32),
        generator.integers(0, 256, (12, ROWS)).astype(np.uint8),
        Fraction(25),
    )
    session.version = 1


def press_keys(address: str, num_keys: int) -> dict[str, list[float]]:
    """View -> milliseconds of each key, in a browser of its own."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        while not page.evaluate("basLabel.proposed.curves !== null"):
            page.wait_for_timeout(100)
        found = {}
        for name, view in VIEWS.items():
            page.evaluate(view)
            found[name] = page.evaluate(PRESS, num_keys)
        browser.close()
        return found


if __name__ == "__main__":
    main()
