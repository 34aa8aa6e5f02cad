"""`bas report`: finished runs, predictions or a whole ablation, to one page that shows what they found and missed."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urljoin, urlsplit

from ..ablate.table import TABLE
from ..cache.layout import METADATA
from ..cache.store import FeatureStore
from ..data.games import LabelSet, find_labels, game_of_folder, stored_labels
from ..data.sources import find_sources as find_videos
from ..errors import InputError
from ..eval.figures import METRIC, figures
from ..eval.files import NoGamePredicted, PairedFiles, find_predictions, load, pair, same_tail
from ..eval.report import EvalSettings, Resampling
from ..eval.warnings import file_warnings
from ..events import SOCCERNET_BALL_CLASSES, Split, TimeGrid, read_events
from ..files import disk_errors
from ..heads.training.checkpoint import BEST
from ..predict import PredictOptions, predict
from ..workers import SILENT, Progress
from .clips import cut_clips
from .page.data import Clip, EvaluatedRun, PageMatch, page_data, require_own_page, write_page
from .sources import DEFAULT_FPS, ReportOptions, ReportSource, about_predictions, find_sources, read_record


@dataclass(frozen=True)
class ReportResult:
    """A finished report."""

    page: Path
    runs: tuple[EvaluatedRun, ...]
    num_videos: int
    """Matches that the page can play."""
    matches: tuple[PageMatch, ...]
    notes: tuple[str, ...]

    @property
    def video_files(self) -> dict[str, Path]:
        """Address of each video as a browser asks for it, where the page is at `/` of a server -> the file."""
        own = [match.video for match in self.matches if match.video and not urlsplit(match.video).scheme]
        own += [clip.address for match in self.matches for clip in match.clips]
        addresses = [unquote(urlsplit(urljoin("http://here/", video)).path) for video in own]
        files = [(self.page.parent / unquote(video)).resolve() for video in own]
        return dict(zip(addresses, files, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Where the page is, and the table of every run, as plain JSON."""
        return {
            "page": str(self.page),
            "num_matches": len(self.matches),
            "num_videos": self.num_videos,
            "runs": [{"name": run.name, **run.figures.report.to_json()} for run in self.runs],
            "notes": list(self.notes),
        }


def report(
    runs: Sequence[Path], out: Path, options: ReportOptions | None = None, progress: Progress = SILENT
) -> ReportResult:
    """Evaluate runs on the same games and write the page; predictions without labels are shown, not evaluated.

    Args:
        runs: folders of finished runs (predicted here where that was not done), of predictions, or of an ablation.
        out: folder for `index.html`.
        options: all else.
        progress: callbacks of predicting; a note for each run that is evaluated.

    Raises:
        InputError: a folder that is none of these, no labels, or nothing to evaluate.
    """
    options = options or ReportOptions()
    require_own_page(out)
    sources = find_sources(runs, options)
    labels, notes = _labels(sources, options), []
    for number, source in enumerate(sources):
        if source.run is not None:
            notes += _predict_missing(source, labels, progress)
            about = {**source.about, **about_predictions(read_record(source.predictions))}
            sources[number] = replace(source, about=about)
    labels, pairs = _paired(sources, labels, options)
    classes = _common_classes(sources, labels, pairs)
    fps = TimeGrid(sources[0].fps).judged.fps if len({source.fps for source in sources}) == 1 else DEFAULT_FPS

    evaluated = []
    for number, (source, paired) in enumerate(zip(sources, pairs, strict=True), 1):
        progress.note(f"{number}/{len(sources)} {source.name}: evaluating")
        loaded = load(paired, classes, fps)
        warnings = (*labels.problems, *file_warnings(paired, loaded, classes))
        settings = EvalSettings(metric=METRIC, fps=fps)
        if not labels.files:
            settings = replace(settings, num_chance_draws=0, resampling=Resampling(num_resamples=0))
        drawn = figures(loaded.games, classes, settings, warnings=warnings)
        evaluated.append(EvaluatedRun(source.name, source.about, loaded, drawn))

    if not labels.files:
        notes.append("no labels: predictions alone are shown; --labels DATA-SET or --store STORE evaluates them")
    matches, about_videos = _matches(evaluated, sources, options, out, fps, progress)
    names = [run.resolve().name for run in runs if (run / TABLE).exists()]
    names += [source.name for source in sources if source.ablation is None]
    title = options.title or ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    ablation = next((source.ablation.to_json() for source in sources if source.ablation), None)
    notes = [*notes, *about_videos]
    data = page_data(evaluated, matches, classes, title=title, fps=fps, ablation=ablation, notes=notes)
    with disk_errors(out):
        page = write_page(out, data)
    num_videos = sum(match.video is not None or bool(match.clips) for match in matches)
    return ReportResult(page, tuple(evaluated), num_videos, tuple(matches), tuple(notes))


_NO_LABELS = LabelSet({}, (), (), {})


def _labels(sources: Sequence[ReportSource], options: ReportOptions) -> LabelSet:
    """Events of the games to evaluate on: those of the split, or all where only predictions are given.

    No game where predictions are all that there is: they are shown without figures.

    Raises:
        InputError: no labels can be found for a run.
    """
    split = next((source.split for source in sources if source.split is not None), None)
    if options.labels is not None:
        return find_labels(options.labels, splits=(split,) if split else ())
    found = next((source for source in sources if source.store is not None), None)
    if found is None and all(source.run is None for source in sources):
        return _NO_LABELS
    if found is None or found.store is None:
        raise InputError(
            f"{sources[0].name}: no labels to evaluate by",
            got="neither the run nor the options say where they are",
            wanted="the feature store, or the data set",
            cure="--store STORE or --labels DATA-SET",
        )
    if found.store in found.videos:  # of a finetuned run, made from videos
        return find_labels(found.store, splits=(split,) if split else ())
    return stored_labels(FeatureStore.open(found.store), splits=() if split is None else (split,))


def _predict_missing(source: ReportSource, labels: LabelSet, progress: Progress) -> list[str]:
    """Make the predictions of a run where they are not there yet; what went wrong with single games.

    Raises:
        InputError: no store, or the folder holds predictions of another run.
    """
    assert source.run is not None
    if _is_predicted(source.run, source.predictions, labels):
        return []
    if source.store is None:
        raise InputError(
            f"{source.run}: its feature store is not known",
            got=f"no predictions in {source.predictions}, and run.json does not say where the store is now",
            cure="--store STORE, or for a finetuned run --labels DATA-SET",
        )
    assert source.split is not None
    options = PredictOptions(splits=(cast(Split, source.split),))
    summary = predict([source.store], [source.run], source.predictions, options, progress=progress)
    return [f"{source.name}: {each.match_id}: {each.message}" for each in summary.results if not each.is_done]


def _is_predicted(run: Path, folder: Path, labels: LabelSet) -> bool:
    """Whether `folder` holds the run's own predictions of every game to evaluate on.

    Raises:
        InputError: it holds others.
    """
    record = read_record(folder)
    if not record or not (run / BEST).is_file():
        return False
    if record["made_with"].get("weights_sha256") != [hashlib.sha256((run / BEST).read_bytes()).hexdigest()]:
        raise InputError(
            f"{folder}: holds predictions that this run did not make", cure="remove that folder: it is made anew"
        )
    done = [game for game, about in record["games"].items() if about]
    return all(any(same_tail(game, other) for other in done) for game in labels.files)


def _common_classes(sources: Sequence[ReportSource], labels: LabelSet, pairs: Sequence[PairedFiles]) -> tuple[str, ...]:
    """The class list of the runs where they agree, else that of the labels; without labels, what was predicted.

    Raises:
        InputError: none is known.
    """
    lists = {source.classes for source in sources if source.classes}
    classes = next(iter(lists)) if len(lists) == 1 else labels.classes
    if classes == SOCCERNET_BALL_CLASSES:  # of a data set of one's own they are those that are labelled
        classes = labels.classes or classes
    if not labels.files and not classes:
        files = [file for paired in pairs for _, file in paired.files.values() if file]
        classes = tuple(sorted({event.label for file in files for event in read_events(file, key="predictions")}))
    if not classes:
        raise InputError("no class list", cure="put classes.txt into the data set, or predict with bas predict")
    return classes


def _paired(
    sources: Sequence[ReportSource], labels: LabelSet, options: ReportOptions
) -> tuple[LabelSet, list[PairedFiles]]:
    """Labels and predictions of the same games for every source; none of the labels where nobody asked for them and
    they are of other games, as those of the store that a run was trained on.

    Raises:
        InputError: predictions of other games.
    """
    found = [find_predictions(each.predictions, game_id=game_of_folder(each.predictions)) for each in sources]
    unlabelled = [PairedFiles({game: ((), file) for game, file in each.items()}, ()) for each in found]
    if not labels.files:
        return labels, unlabelled
    try:
        pairs = [pair(labels.files, predictions, labels.videos) for predictions in found]
    except NoGamePredicted:
        if options.labels or options.store or any(source.run is not None for source in sources):
            raise
        return _NO_LABELS, unlabelled
    if any(source.split is not None for source in sources):
        return labels, pairs
    # then the predictions say which games are evaluated
    held = {game for paired in pairs for game, (_, predictions) in paired.files.items() if predictions}
    pairs = [replace(each, files={game: each.files[game] for game in each.files if game in held}) for each in pairs]
    return labels, pairs


def _matches(
    evaluated: Sequence[EvaluatedRun],
    sources: Sequence[ReportSource],
    options: ReportOptions,
    out: Path,
    fps: Fraction,
    progress: Progress,
) -> tuple[list[PageMatch], list[str]]:
    """Every match of any run with its length and video (or clips of it), and what is to be said about videos."""
    names = list(dict.fromkeys(name for run in evaluated for name in run.loaded.names))
    seconds = _lengths(sources)
    videos, notes = _videos(sources, options)
    places = {name: _of_tail(videos, name) for name in names}
    without = [name for name in names if places[name] is None]
    clips: dict[str, tuple[Clip, ...]] = {}
    if options.bundle:
        there = {name: place for name, place in places.items() if place is not None}
        clips, problems = cut_clips(evaluated, there, out, fps, progress)
        notes, places = [*notes, *problems], dict.fromkeys(names)
    matches = [
        PageMatch(
            name,
            _of_tail(seconds, name) or 0.0,
            _address(places[name], out) if places[name] else None,
            clips.get(name, ()),
        )
        for name in names
    ]
    if without:
        place = "; --videos DATA-SET names them" if not (options.videos or options.labels) else ""
        notes.append(f"no video for {len(without)} of {len(matches)} match(es), such as {without[0]}{place}")
    return matches, notes


def _videos(sources: Sequence[ReportSource], options: ReportOptions) -> tuple[dict[str, Path], list[str]]:
    """Match name (with `/2` for a second half of its own) -> video file."""
    roots = list(options.videos) or [path for path in (options.labels,) if path is not None and path.is_dir()]
    roots = roots or [path for source in sources[:1] for path in source.videos if not (path / METADATA).exists()]
    if not roots:
        return {}, []
    data_set = find_videos(roots, with_labels=False)
    found = {}
    for match in data_set.matches:
        if match.video is not None:
            found[match.game if match.half in (None, 1) else f"{match.game}/{match.half}"] = match.video
    return found, [] if found else [f"{', '.join(map(str, roots))}: no video found"]


def _lengths(sources: Sequence[ReportSource]) -> dict[str, float]:
    """Match name -> seconds, from what the predictions say of their rows."""
    found: dict[str, float] = {}
    for source in sources:  # runs may have been predicted from stores of different length: the page shows the longest
        for game, about in read_record(source.predictions).get("games", {}).items():
            for number, part in enumerate((about or {}).get("parts", ()), 1):
                name = game if number == 1 else f"{game}/{number}"
                found[name] = max(found.get(name, 0.0), float(part.get("rows", 0) / source.fps))
    return found


def _of_tail(of_name: Mapping[str, Any], name: str) -> Any:
    """The entry of a name, or of the only one that ends like it."""
    near = [each for each in of_name if same_tail(each, name)]
    chosen = name if name in of_name else near[0] if len(near) == 1 else None
    return of_name[chosen] if chosen is not None else None


def _address(video: Path, out: Path) -> str:
    """Where a page in `out` finds a file: relative to it, or absolute on another drive."""
    try:
        relative = Path(os.path.relpath(video.resolve(), out.resolve()))
    except ValueError:
        return video.resolve().as_uri()
    return quote(relative.as_posix())
