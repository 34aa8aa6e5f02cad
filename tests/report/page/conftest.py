"""Report pages made from spots, and a headless Chromium that opens them."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.eval.figures import METRIC, figures
from bas.eval.files import LoadedGames, SpotTimes
from bas.eval.report import EvalSettings, Resampling
from bas.eval.spots import Game, Spots
from bas.label.options import LabelOptions
from bas.label.server import bound_server, label_app
from bas.label.session import Session, opened_session
from bas.report.page.data import EvaluatedRun, PageMatch, label_page, page_data, write_page

FPS = Fraction(25)
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
Found = Sequence[tuple[int, int, float]]


def collect(found: Found, num_classes: int) -> Spots:
    """From (frame, class, value)."""
    columns = np.asarray(found, dtype=np.float64).reshape(-1, 3).T
    return Spots.collect(columns[0].astype(int), columns[1].astype(int), columns[2], num_classes=num_classes)


def make_subject(
    name: str,
    games: Mapping[str, tuple[Found, Found]],
    classes: Sequence[str],
    *,
    warnings: Sequence[str] = (),
    resamples: int = 20,
) -> EvaluatedRun:
    """A run from (events, predictions) of every match; frames are 40 ms."""
    made = [Game(*(collect(found, len(classes)) for found in both)) for both in games.values()]
    loaded = LoadedGames(
        games=tuple(made),
        times=tuple(SpotTimes(40 * game.events.frames, 40 * game.predictions.frames) for game in made),
        names=tuple(games),
        foreign_events={},
        foreign_predictions={},
        one_sided_halves=(),
        num_beyond=0,
        num_unscored=0,
    )
    settings = EvalSettings(METRIC, FPS, resampling=Resampling(resamples), num_chance_draws=1)
    return EvaluatedRun(name, {"head": "ed"}, loaded, figures(made, classes, settings, warnings=warnings))


@dataclass
class Pages:
    """Writes pages."""

    folder: Path
    evaluated: list[EvaluatedRun] = field(default_factory=list)

    def data(self, evaluated: Sequence[EvaluatedRun], classes: Sequence[str], **more: Any) -> dict[str, Any]:
        """The page's JSON; videos by match name, the rest as `page_data` takes it."""
        names = dict.fromkeys(name for subject in evaluated for name in subject.loaded.names)
        videos, seconds = more.pop("videos", {}), more.pop("seconds", {})
        matches = [PageMatch(name, seconds.get(name, 0.0), videos.get(name)) for name in names]
        return page_data(evaluated, matches, classes, title=more.pop("title", "a report"), fps=FPS, **more)

    def write(self, evaluated: Sequence[EvaluatedRun], classes: Sequence[str], **more: Any) -> Path:
        """The page's file."""
        return write_page(self.folder, self.data(evaluated, classes, **more))


@pytest.fixture(scope="session")
def subject() -> Callable[..., EvaluatedRun]:
    """Makes runs."""
    return make_subject


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    """Writes pages into the test's folder."""
    return Pages(tmp_path / "page")


@pytest.fixture(scope="session")
def pages_in() -> Callable[[Path], Pages]:
    """Writes pages into any folder."""
    return Pages


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium; skips loudly without it or playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="THE PAGE IS NOT TESTED: pip install playwright")
    if not CHROMIUM.exists():
        pytest.skip("THE PAGE IS NOT TESTED: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(CHROMIUM_ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Window:
    """An open page, and what went wrong in it."""

    page: Any
    problems: list[str]

    def call(self, script: str) -> Any:
        """A value of the page."""
        return self.page.evaluate(script)

    def until(self, script: str, *, seconds: float = 10.0) -> None:
        """Wait for a value to be true. Playwright's own waiting needs `eval`, which the page forbids."""
        deadline = time.monotonic() + seconds
        while not self.call(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            self.page.wait_for_timeout(20)


@dataclass
class Labelling:
    """A session of `bas label` with its server, and a browser that opens windows on it."""

    session: Session
    address: str
    browser: Any
    problems: list[str] = field(default_factory=list)

    def window(self, *, fragment: str = "", width: int = 1280, height: int = 900) -> Window:
        """Another window on the page, when it is ready."""
        page = self.browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
        page.on("console", lambda said: self.problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(f"{self.address}#{fragment}")
        page.wait_for_selector("html[data-ready]")
        return Window(page, self.problems)

    def items(self, number: int = 0) -> list[tuple[Any, ...]]:
        """What is marked on the disk's side, in order of time: (kind, ms, label) or (kind, from, to)."""
        items = self.session.matches[number].document.items.values()
        names = {"stretch": ("from_ms", "to_ms")}
        found = [(item["kind"], *(item[name] for name in names.get(item["kind"], ("ms", "label")))) for item in items]
        return sorted(found, key=lambda item: (item[1], item[0]))


@pytest.fixture
def label(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Labelling]]:
    """Starts `bas label` on videos; errors in the consoles of its windows fail the test at its end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Session, "begin_extraction", lambda _: None)  # no features are made
    started: list[Labelling] = []
    with contextlib.ExitStack() as stack:

        def start(*videos: Path, classes: Sequence[str] = ("PASS", "DRIVE"), store: Path | None = None) -> Labelling:
            options = LabelOptions(classes=tuple(classes), person="anna")
            session = stack.enter_context(opened_session(videos, store or tmp_path / "none.zarr", options))
            server, listener, address = bound_server(label_app(session, label_page()))
            stack.enter_context(contextlib.closing(listener))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()

            def end() -> None:
                server.should_exit = True
                thread.join()

            stack.callback(end)
            started.append(Labelling(session, address, chromium))
            return started[-1]

        yield start
        for context in chromium.contexts:
            context.close()
    assert [problem for each in started for problem in each.problems] == []


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Window]]:
    """Opens a file from disk at a size; console errors and failed requests fail the test at its end."""
    opened: list[Window] = []

    def start(
        file: Path,
        *,
        fragment: str = "",
        width: int = 1280,
        height: int = 900,
        expect_problems: bool = False,
        **options: Any,
    ) -> Window:
        page = chromium.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
        window = Window(page, [])
        problem = window.problems.append
        page.on("console", lambda said: problem(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problem(str(error)))
        page.on("requestfailed", lambda request: problem(f"failed: {request.url}"))
        page.on("request", lambda request: problem(request.url) if request.url.startswith("http") else None)
        page.goto(f"{file.as_uri()}#{fragment}")
        page.wait_for_selector("html[data-ready]")
        if not expect_problems:
            opened.append(window)
        return window

    yield start
    for context in chromium.contexts:
        context.close()
    assert [problem for window in opened for problem in window.problems] == []
