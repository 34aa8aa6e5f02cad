"""The page in a real browser: layout, playing, stepping, counting, and 200,000 predictions."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.eval.mistakes import OutcomeKind, find_outcomes
from bas.events import SOCCERNET_BALL_CLASSES as CLASSES
from bas.report.page.data import EvaluatedRun

pytestmark = pytest.mark.browser
Found = list[tuple[int, int, float]]
VIDEO_SECONDS = 12


TOO_WIDE = """[...document.querySelectorAll('main *, header *, nav *')].filter((each) => {
    if (each.closest('.scroll, nav ul, svg') && !each.matches('.scroll, nav ul, svg')) return false;
    const box = each.getBoundingClientRect();
    return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map((each) => each.outerHTML.slice(0, 80))"""

OVERLAPPING = """['main', 'header', '.tiles', '.bars', '.bars li', '.plots', '.transport', '#transport', '#timeline',
    '#player', '.side', '.board ul', '.board li', '#timeline-controls', '#timeline-controls > .row', '#errors-body',
    '.chips', '#lanes',
].flatMap((name) => [...document.querySelectorAll(name)]).flatMap((parent) => {
    const boxes = [...parent.children].map((each) => [each.outerHTML.slice(0, 70), each.getBoundingClientRect()])
        .filter(([, box]) => box.width && box.height);
    return boxes.flatMap(([one, a], index) => boxes.slice(index + 1).filter(([, b]) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1).map(([other]) => `${one} / ${other}`));
})"""

CLIPPED = """[...document.querySelectorAll('button, th, td, .bar-value, .bar-counts, .tile-value, h1, section > h2')]
    .filter((each) => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 2)
    .filter((each) => getComputedStyle(each).display !== 'inline').map((each) => each.outerHTML.slice(0, 80))"""

SPILLING = """[...document.querySelectorAll('section, #player, .screen, .row, .chips, .tiles, .bars li, td')]
    .filter((each) => each.scrollHeight > each.clientHeight + 3).map((each) => each.outerHTML.slice(0, 80))"""

NAMELESS = """[...document.querySelectorAll('select, input, button, canvas, video')].filter((each) =>
    !(each.labels?.length || each.textContent || each.ariaLabel || each.title)).map((each) => each.outerHTML)"""


def random_game(seed: int, *, num_frames: int, num_events: int, num_found: int) -> tuple[Any, Any]:
    """Events, and predictions of which many lie near one."""
    generator = np.random.default_rng(seed)
    frames = np.sort(generator.integers(0, num_frames, num_events))
    classes = np.minimum(generator.geometric(0.3, num_events) - 1, 11)
    near = generator.integers(0, num_events, num_found // 4)
    found_frames = np.concatenate(
        [frames[near] + generator.integers(-9, 10, len(near)), generator.integers(0, num_frames, num_found - len(near))]
    )
    found_classes = np.concatenate([classes[near], generator.integers(0, 12, num_found - len(near))])
    is_near = np.arange(num_found) < len(near)
    scores = np.where(is_near, generator.beta(3, 2, num_found), generator.beta(1, 8, num_found))
    events = np.stack([frames, classes, np.where(generator.random(num_events) < 0.9, 1, -1)], axis=1)
    return events, np.stack([np.clip(found_frames, 0, num_frames - 1), found_classes, scores], axis=1)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, subject: Callable[..., EvaluatedRun], pages_in: Any) -> Path:
    """Two runs on two matches, the first with a video of 12 s; the second makes 0.5 every class's best threshold."""
    folder = tmp_path_factory.mktemp("played")
    write_match(folder / "video", seconds=VIDEO_SECONDS, seed=1)
    shutil.move(folder / "video" / "224p.mp4", folder / "one & 'two' #3.mp4")
    events: Found = [(50, 0, 1), (100, 1, 1), (150, 0, 1), (200, 2, 1), (250, 0, 1)]
    found: Found = [(52, 0, 0.9), (101, 0, 0.6), (175, 0, 0.8), (251, 0, 0.95), (280, 3, 0.7), (30, 2, 0.04)]
    regular: Found = [(100 * number, number % 4, 1) for number in range(1, 181)]
    regular_found: Found = [(frame + 3, c, 0.5) for frame, c, _ in regular]
    first = {"league/one": (events, found), "league/two": ([(50, 0, 1), *regular], regular_found)}
    second = {"league/one": (events, found[:2]), "league/two": ([(50, 0, 1), *regular], regular_found[::3])}
    evaluated = [subject("ed", first, CLASSES, warnings=["one thing", "and another"]), subject("tcn", second, CLASSES)]
    return pages_in(folder / "page").write(  # type: ignore[no-any-return]
        evaluated, CLASSES, videos={"league/one": "../one%20%26%20%27two%27%20%233.mp4"}, seconds={"league/one": 12.0}
    )


def spot_at(window: Any, c: int, ms: int, *, is_event: bool) -> tuple[float, float]:
    """Where a tick is on the screen."""
    window.call("document.getElementById('player').scrollIntoView()")
    window.call("basReport.drawNow()")
    x, y = window.call(f"basReport.place({c}, {ms}, {str(is_event).lower()})")
    box = window.page.locator("#lanes-canvas").bounding_box()
    return box["x"] + x, box["y"] + y


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_or_overlaps(
    open_page: Callable[..., Any], played: Path, width: int, height: int, scheme: str
) -> None:
    window = open_page(played, width=width, height=height, color_scheme=scheme)
    assert window.call("document.documentElement.scrollWidth") <= width
    assert window.call(TOO_WIDE) == []
    assert window.call(OVERLAPPING) == []
    assert window.call(CLIPPED) == []
    assert window.call(SPILLING) == []


def test_the_page_tells_what_was_measured(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    text = window.page.inner_text("body")
    for part in (
        "mAP-10",
        "mAP-12",
        "2 matches",
        "186 events",
        "12 classes",
        "warnings about",
        "and another",
        "chance",
    ):
        assert part in text, part
    assert window.page.locator(".bars li").count() == 12
    assert window.page.locator(".plot").count() == 12
    assert window.page.locator(".confusion tbody tr").count() == 13
    assert window.call(NAMELESS) == []  # everything that can be used has a name


def test_without_labels_predictions_are_shown_and_nothing_is_judged(
    open_page: Callable[..., Any], subject: Callable[..., EvaluatedRun], pages_in: Any, tmp_path: Path
) -> None:
    found: Found = [(52, 0, 0.9), (101, 1, 0.1), (175, 0, 0.8)]
    page_path = pages_in(tmp_path).write([subject("ed", {"MY-MATCH": ([], found)}, CLASSES)], CLASSES)
    window = open_page(page_path)
    text = window.page.inner_text("body")
    assert "3 predictions" in text
    assert "Surest predictions" in text
    assert not [word for word in ("mAP", "False alarm", "false alarm", "Precision", "Missed", "F1") if word in text]
    assert window.page.locator("#errors-body tbody tr").count() == 3
    assert window.call(TOO_WIDE) == []
    assert window.call(OVERLAPPING) == []
    window.page.keyboard.press("n")
    assert window.page.inner_text("#picked").startswith("0:02.08  Prediction: PASS, confidence 0.900")


BOX = (
    "(({top, bottom, left, right}) => [top, bottom, left, right])(document.querySelector('%s').getBoundingClientRect())"
)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768)])
def test_video_and_lanes_fit_one_screen(open_page: Callable[..., Any], played: Path, width: int, height: int) -> None:
    window = open_page(played, width=width, height=height)
    assert window.call(BOX % "#timeline")[0] < 400  # it comes first
    for other in ("-1", "1"):
        window.page.select_option("#with", other)
        window.call("document.getElementById('timeline').scrollIntoView()")
        screen, lanes, whole = (window.call(BOX % each) for each in ("video", "#lanes-canvas", "#overview-canvas"))
        assert window.call(BOX % "#bar")[1] <= screen[0]
        assert screen[1] < lanes[0] < lanes[1] < whole[1] <= height
        assert lanes[3] <= width
        assert screen[1] - screen[0] >= 200


def test_the_phone_keeps_the_video_in_view(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played, width=390, height=844)
    window.call("document.getElementById('overview-canvas').scrollIntoView({ block: 'end' })")
    top, bottom, *_ = window.call(BOX % "video")
    assert top >= window.call(BOX % "#bar")[1] - 1
    assert bottom < window.call(BOX % "#overview-canvas")[0]
    assert window.call(TOO_WIDE) == []


def test_addresses_lead_to_an_instant_and_follow_what_is_picked(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played, fragment="match=league%2Ftwo&t=8.000&run=tcn")
    page = window.page
    assert page.input_value("#match") == "1"
    assert page.input_value("#run") == "1"
    assert page.inner_text("#picked").startswith("0:08.00  ")
    assert 0 <= window.call(BOX % "#timeline")[0] < 100
    page.select_option("#run", "0")
    page.select_option("#match", "0")
    page.keyboard.press("n")
    window.until("location.hash === '#match=league%2Fone&t=4.000&run=ed'")
    window.call("location.hash = '#match=league%2Fone&t=7.5'")
    window.until("Math.abs(basReport.state.cursorMs - 7500) <= 20")


def test_two_runs_lie_side_by_side(open_page: Callable[..., Any], played: Path) -> None:
    """Of the first match the first run finds two events, the second one of them."""
    window = open_page(played)
    page = window.page
    before = window.call("document.getElementById('lanes-canvas').toDataURL()")
    page.select_option("#with", "1")
    assert "Here ed alone finds 1, tcn alone 0." in page.inner_text("#counts")
    assert window.call("document.getElementById('lanes-canvas').toDataURL()") != before
    page.check("#differing")
    page.keyboard.press("n")
    first, second = page.inner_text("#picked").split("\n")
    assert first == "0:10.00  Hit: PASS, 40 ms late, confidence 0.950 (difference 1 of 1 in this match)"
    assert second.startswith("tcn: Missed: PASS")
    page.select_option("#run", "1")  # the run that it was compared with
    assert page.input_value("#with") == "-1"
    assert not page.is_checked("#differing")


def test_a_click_on_a_tick_plays_from_a_second_before(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    page = window.page
    window.until("document.querySelector('video').readyState >= 1")
    page.mouse.click(*spot_at(window, 0, 6000, is_event=True))
    window.until("!document.querySelector('video').paused && document.querySelector('video').currentTime > 5.2")
    assert 5.2 < window.call("document.querySelector('video').currentTime") < 7
    assert page.inner_text("#picked").startswith("0:06.00  Badly timed: PASS 1000 ms late, confidence 0.800")
    window.until("Math.abs(basReport.state.cursorMs / 1000 - document.querySelector('video').currentTime) < 0.3")
    page.keyboard.press(" ")
    window.until("document.querySelector('video').paused")
    page.mouse.click(*spot_at(window, 0, 10040, is_event=False))
    window.until("document.querySelector('video').currentTime > 9.1")
    assert page.inner_text("#picked").startswith("0:10.00  Hit: PASS, 40 ms late, confidence 0.950")


def test_a_click_seeks_to_the_second(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    window.until("document.querySelector('video').readyState >= 1")
    window.call("document.querySelector('video').play = () => Promise.resolve()")  # stays where it was sought to
    for c, ms in ((0, 2000), (1, 4000), (2, 8000)):
        window.page.mouse.click(*spot_at(window, c, ms, is_event=True))
        window.until("!document.querySelector('video').seeking")
        assert window.call("document.querySelector('video').currentTime") == pytest.approx(
            ms / 1000 - 1 + 0.02, abs=0.001
        )
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):  # at once: Chromium alone hangs on there-and-back
        window.page.keyboard.press(key)
    window.until("Math.abs(document.querySelector('video').currentTime - 7.06) < 0.001")
    window.until("!document.querySelector('video').seeking")
    assert window.page.inner_text("#now") == "0:07.04"


def test_lamps_light_up_at_their_instants(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    lamps = "[...document.querySelectorAll('.lamp')].map((each) => each.dataset.kind || '').slice(0, 4)"
    seen = {}
    for seconds in (1.9, 2.3, 4.2, 4.9):
        window.call(f"(() => {{ const v = document.querySelector('video'); v.currentTime = {seconds}; }})()")
        window.until(
            f"!document.querySelector('video').seeking && Math.abs(basReport.state.cursorMs - {1000 * seconds}) < 50"
        )
        seen[seconds] = window.call(lamps)  # label and prediction of PASS, then of DRIVE
    assert seen == {
        1.9: [""] * 4,
        2.3: ["hit", "hit", "", ""],
        4.2: ["", "wrong_class", "wrong_class", ""],
        4.9: [""] * 4,
    }


def test_keys_step_through_errors_in_order_with_the_filters_set(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    page = window.page

    def told(key: str) -> str:
        page.keyboard.press(key)
        return str(page.inner_text("#picked")).split(",")[0].split(" confidence")[0]

    forward = [told("n") for _ in range(4)]
    assert forward == [
        "0:04.00  Wrong class: DRIVE taken for PASS",
        "0:06.00  Badly timed: PASS 1000 ms late",
        "0:08.00  Missed: HEADER",
        "0:11.20  False alarm: HIGH PASS",
    ]
    assert [told("p") for _ in range(3)] == forward[2::-1]
    page.click("#timeline-controls .kind-missed")
    assert told("n") == "0:06.00  Badly timed: PASS 1000 ms late"
    assert told("n") == forward[3]  # the missed one is skipped
    page.click("#timeline-controls .kind-missed")
    assert [told("a") for _ in range(3)] == ["0:10.00  Hit: PASS", forward[2], forward[1]]
    assert told("d") == forward[2]
    page.keyboard.press("n")
    page.keyboard.press("n")
    assert page.input_value("#match") == "1"  # over the border into the next match
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    assert page.input_value("#match") == "1"


def test_the_list_of_errors_leads_into_the_timeline(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    page = window.page
    page.select_option("#match", "1")
    page.click("#errors-body .kind-wrong_class")
    row = page.locator("#errors-body tbody tr").first
    assert row.inner_text().split("\t")[1:] == ["DRIVE", "PASS", "0.600", "+40", "one"]
    row.locator("button").click()
    assert page.input_value("#match") == "0"
    assert page.inner_text("#picked").startswith("0:04.00  Wrong class: DRIVE taken for PASS")
    assert page.locator("#lanes-canvas").evaluate("each => each === document.activeElement")
    top = page.locator("#player").bounding_box()["y"]
    assert 0 <= top < 200


def test_runs_are_exchanged_everywhere(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    page = window.page
    assert page.input_value("#run") == "0"
    before = page.inner_text(".tile-value >> nth=0")
    page.select_option("#run", "1")
    assert page.inner_text(".tile-value >> nth=0") != before
    assert page.inner_text("tr.current th") == "tcn"
    assert window.call("basReport.state.run") == 1
    page.click("#results-body button:has-text('ed')")
    assert page.inner_text(".tile-value >> nth=0") == before


def test_every_threshold_sorts_out_as_python_does(
    open_page: Callable[..., Any], subject: Callable[..., EvaluatedRun], pages: Any
) -> None:
    run = subject("x", {"a": random_game(3, num_frames=9_000, num_events=300, num_found=1500)}, CLASSES)
    window, matched = open_page(pages.write([run], CLASSES)), run.figures.matched[0]
    seen = set()
    for threshold in (0, 3, 40, 110, 199):
        outcome = find_outcomes(matched, [threshold] * 12, half_width_frames=12, wide_frames=62)
        kinds, partners, event_kinds, event_partners = window.call(
            f"""(() => {{
                const view = basReport.viewOf(0, 0);
                const done = basReport.sortOut(view, new Array(12).fill({threshold}));
                return [done.kinds, done.partners, done.eventKinds, done.eventPartners].map((each) => Array.from(each));
            }})()"""
        )
        assert event_kinds == outcome.event_kinds.tolist()
        assert kinds == outcome.prediction_kinds.tolist()
        assert partners == outcome.prediction_partners.tolist()
        assert event_partners == outcome.event_partners.tolist()
        seen |= {*kinds, *event_kinds}
    assert seen == {*OutcomeKind}


def test_the_slider_counts_live_and_comes_back(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    page = window.page
    own = page.inner_text("#counts")
    assert own.startswith("This match: 2 of 5 events found, 3 other predictions")
    page.locator("#threshold").fill("190")  # 0.955: nothing
    assert page.inner_text("#counts").startswith("This match: 0 of 5 events found, 0 other predictions")
    page.locator("#threshold").fill("150")  # 0.754
    assert page.inner_text("#counts").startswith("This match: 2 of 5 events found, 1 other prediction:")
    assert page.inner_text("#count-4") == "2"
    page.check("#own-thresholds")
    assert page.inner_text("#counts") == own


def test_classes_can_be_left_out(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    window.page.uncheck(".board input[value='0']")
    window.until("basReport.lanes().length === 11")
    assert window.page.inner_text("#counts").startswith("This match: 0 of 2 events found, 1 other prediction")
    window.page.check(".board input[value='-1']")
    assert window.page.inner_text("#counts").startswith("This match: 2 of 5 events found")


def test_wheel_drag_and_buttons_move_the_window(open_page: Callable[..., Any], played: Path) -> None:
    window = open_page(played)
    page = window.page
    page.select_option("#match", "1")

    def extent() -> tuple[float, float]:
        first, last = window.call("[basReport.state.fromMs, basReport.state.toMs]")
        return first, last - first

    assert extent() == (0, 120_000)
    x, y = spot_at(window, 0, 60_000, is_event=True)
    page.mouse.move(x, y - 2)
    page.mouse.wheel(0, -400)
    window.until("basReport.state.toMs - basReport.state.fromMs < 60000")
    first, length = extent()
    assert first + length * 0.5 == pytest.approx(60_000, abs=1500)  # what is under the pointer stays there
    page.mouse.down()
    page.mouse.move(x - 200, y - 2, steps=4)
    page.mouse.up()
    assert extent()[0] > first + 1000
    assert extent()[1] == pytest.approx(length)
    page.keyboard.press("0")
    assert extent()[0] == 0
    assert extent()[1] > 700_000
    page.click("#zoom button >> nth=1")
    assert extent()[1] == pytest.approx(window.call("basReport.state.view.lengthMs") / 1.6)


def test_a_file_that_no_browser_plays_is_told_in_place(
    open_page: Callable[..., Any], subject: Callable[..., EvaluatedRun], pages: Any
) -> None:
    games: dict[str, tuple[Found, Found]] = {
        name: ([(25, 0, 1.0)], [(26, 0, 0.5)]) for name in ("broken", "gone", "none")
    }
    pages.folder.mkdir()
    (pages.folder / "broken.mkv").write_bytes(b"no video at all")
    videos = {"broken": "broken.mkv", "gone": "gone.mp4"}
    page = open_page(pages.write([subject("a", games, ["HIT"])], ["HIT"], videos=videos), expect_problems=True).page
    for match, words in ((0, "This browser cannot play broken.mkv"), (1, "gone.mp4"), (2, "No video of this match")):
        page.select_option("#match", str(match))
        page.wait_for_selector(f"#no-video:visible :text({words!r})")
        assert not page.locator("video").is_visible()
        page.keyboard.press("d")  # the timeline works all the same
        assert page.inner_text("#picked").startswith("0:01.00  Hit: HIT, 40 ms late")


def test_names_are_text_and_nothing_else(
    open_page: Callable[..., Any], subject: Callable[..., EvaluatedRun], pages: Any
) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    games: dict[str, tuple[Found, Found]] = {f"a/{bad}\u2028": ([(25, 0, 1.0)], [(90, 1, 0.5)])}
    classes = [f"{bad}1", "<b>two</b>"]
    run = subject(f"{{{{data}}}}{bad}", games, classes, warnings=[bad])
    window = open_page(pages.write([run], classes, title=bad, notes=[bad]))
    assert window.call("document.querySelectorAll('img, b').length") == 0
    assert window.page.inner_text("h1") == bad
    assert window.page.title() == bad
    assert window.page.locator(".bar-name >> nth=1").inner_text() == "<b>two</b>"


def test_a_foreign_page_is_not_overwritten_and_an_own_one_is(subject: Callable[..., EvaluatedRun], pages: Any) -> None:
    run = subject("a", {"m": ([(25, 0, 1.0)], [(26, 0, 0.5)])}, ["HIT"])
    pages.folder.mkdir()
    (pages.folder / "index.html").write_text("<!doctype html><title>my thesis</title>")
    with pytest.raises(InputError, match="would be overwritten"):
        pages.write([run], ["HIT"])
    (pages.folder / "index.html").unlink()
    assert pages.write([run], ["HIT"], title="first") == pages.folder / "index.html"
    assert "second" in pages.write([run], ["HIT"], title="second").read_text()


TIMED = "(() => { const began = performance.now(); %s; return performance.now() - began; })()"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, subject: Callable[..., EvaluatedRun], pages_in: Any) -> Path:
    """Seven matches of 95 minutes with 12,000 events and 200,000 predictions."""
    games = {
        f"england/2019/match {number}": random_game(number, num_frames=142_500, num_events=1715, num_found=30_000)
        for number in range(7)
    }
    run = subject("ed", games, CLASSES, resamples=0)
    assert sum(len(game.events.frames) for game in run.loaded.games) > 11_900
    assert sum(len(game.predictions.frames) for game in run.loaded.games) > 200_000
    return pages_in(tmp_path_factory.mktemp("crowded")).write([run], CLASSES)  # type: ignore[no-any-return]


def test_two_hundred_thousand_predictions_stay_quick(open_page: Callable[..., Any], crowded: Path) -> None:
    window = open_page(crowded)
    assert window.call("performance.now()") < 4000  # alone on a core it is below 1 s
    for setup in ("basReport.setWindow(0, 1e9)", "basReport.setWindow(0, 120000)"):
        window.call(setup)
        assert window.call(TIMED % "for (let i = 0; i < 20; i++) basReport.drawNow()") / 20 < 33, setup
    assert window.call(TIMED % "basReport.setThreshold(30)") < 250
