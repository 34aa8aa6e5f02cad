"""Export, and import of the export: the same store again, to the byte; what was cut off or tampered with is told."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bas.cache.convert import containers, exporting
from bas.cache.convert.annotations import annotated_video, read_annotations
from bas.cache.convert.archived import MATCH_NAME, ROOT_NAME
from bas.cache.convert.exporting import ExportOptions, ExportSummary, export_store
from bas.cache.convert.formats import import_source
from bas.cache.convert.importing import ImportSummary
from bas.cache.convert.npy_tables import open_npy
from bas.cache.convert.request import FindFolders, ImportRequest
from bas.cache.convert.tables import TableOptions
from bas.cache.match import MatchInfo, WeightsOrigin
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.commands.cache_export_view import export_json, export_view
from bas.errors import InputError
from bas.events import Event
from bas.files import FileLock

Tree = Callable[[Path], dict[str, bytes | None]]
FORMS = pytest.mark.parametrize("form", list(containers.CONTAINERS))
NESTED = "england_efl/2019-2020/2019-10-01 - Reading - Fulham"


@pytest.fixture
def store(maker: Any) -> FeatureStore:
    """Several views made apart and together, invalid rows, variable time stamps, nested ids, unlabelled matches."""
    maker.match("a", num_rows=300, views=("identity", "hflip"))
    with maker.writer("a", num_rows=300, views=("zoom",), provenance={"engine": "other", "n": [1, 2]}) as writer:
        writer.append({"zoom": maker.rows(300, seed=3)}, np.ones(300, bool))
        writer.commit()
    rng = np.random.default_rng(1)
    steps = np.sort(rng.integers(0, 10**6, 700)) - 5
    extra = {"half1_offset_frames": 9, "offset_from": "o.json", "note": {"née": [1.5, None]}}
    meta = maker.meta(labels=None, split=None, fps=Fraction(30000, 1001), time_base=Fraction(1, 90000), extra=extra)
    with maker.writer(NESTED, num_rows=700, pts_ticks=steps, match_meta=meta) as writer:
        writer.append({"identity": maker.rows(700, seed=4)}, rng.random(700) < 0.7)
        writer.commit()
    maker.match("b", num_rows=1, match_meta=maker.meta(labels=(), split="test", video={}))
    origin = WeightsOrigin(name="run", file_sha256="ab", run_sha256="cd", epoch=3, train_matches=("a",))
    return FeatureStore.create_or_open(maker.path, maker.settings(), classes=(), software={}, origin=origin)


def export(store: FeatureStore, folder: Path, form: str = "npy", **options: Any) -> ExportSummary:
    return export_store(store, folder, ExportOptions(container=form, **options))


@pytest.fixture
def bring(finder: FindFolders) -> Callable[..., ImportSummary]:
    return lambda root, path, **o: import_source(ImportRequest(root=root, store=path, **o), finder)


@FORMS
def test_the_store_is_the_same_again(
    store: FeatureStore, tmp_path: Path, bring: Callable[..., ImportSummary], tree: Tree, form: str
) -> None:
    summary = export(store, tmp_path / "e", form)
    assert [(each.match, each.status, each.rows) for each in summary.results] == [
        ("a", "exported", 300),
        ("b", "exported", 1),
        (NESTED, "exported", 700),
    ]
    again = bring(tmp_path / "e", tmp_path / "s")
    assert {result.status for result in again.results} == {"imported"}
    assert verify(tmp_path / "s") == []
    assert tree(tmp_path / "s") == tree(store.path)
    assert export(FeatureStore.open(tmp_path / "s"), tmp_path / "e", form).results[0].status == "already there"
    assert [result.status for result in bring(tmp_path / "e", tmp_path / "s").results] == ["already there"] * 3


def test_bytes_go_out_and_in_as_they_are(
    maker: Any, tmp_path: Path, bring: Callable[..., ImportSummary], tree: Tree
) -> None:
    store = FeatureStore.create_or_open(
        tmp_path / "u", maker.settings(4, dtype="uint8"), classes=("PASS",), software={"bas": "0"}
    )
    rows = np.random.default_rng(0).integers(0, 256, (20, 4), np.uint8)
    arguments: dict[str, Any] = {"match_meta": maker.meta(), "provenance": {}}
    with store.writer("m", num_rows=20, pts_ticks=np.arange(20), **arguments) as writer:
        writer.append({"identity": rows}, np.ones(20, bool))
        writer.commit()
    export(store, tmp_path / "e")
    np.testing.assert_array_equal(np.load(tmp_path / "e" / "m" / "identity.npy"), rows)
    bring(tmp_path / "e", tmp_path / "s")
    assert tree(tmp_path / "s") == tree(store.path)


def test_what_other_programs_read_of_npy(store: FeatureStore, tmp_path: Path) -> None:
    export(store, tmp_path / "e")
    folder = tmp_path / "e" / NESTED
    assert sorted(path.name for path in folder.iterdir()) == [
        *("identity.npy", "match.json", "pts.npy", "times_ms.npy", "valid.npy")
    ]
    np.testing.assert_array_equal(np.load(folder / "identity.npy"), store.rows(NESTED)[:])
    np.testing.assert_array_equal(np.load(folder / "valid.npy"), store.valid(NESTED))
    np.testing.assert_allclose(np.load(folder / "times_ms.npy"), (store.pts(NESTED) - 3) / 90, rtol=1e-15)
    labels = json.loads((tmp_path / "e" / "a" / "Labels-ball.json").read_text())
    assert (labels["UrlLocal"], labels["annotations"][0]["position"]) == ("a", "4000")
    assert json.loads((tmp_path / "e" / "b" / "Labels-ball.json").read_text())["annotations"] == []
    assert json.loads((tmp_path / "e" / "splits.json").read_text()) == {"train": ["a"], "test": ["b"]}
    assert (tmp_path / "e" / "classes.txt").read_text() == "PASS\nDRIVE\n"


def test_the_annotation_file_of_opentad_names_files_and_instants(store: FeatureStore, tmp_path: Path) -> None:
    export(store, tmp_path / "e")
    annotations = read_annotations(tmp_path / "e" / "annotations.json", instant="centre")
    assert set(annotations.videos) == {"a/identity", "b/identity", f"{NESTED}/identity"}
    assert all((tmp_path / "e" / f"{video}.npy").is_file() for video in annotations.videos)
    video = annotations.videos["a/identity"]
    assert (video.split, video.duration_seconds, video.fps) == ("train", 12.0, Fraction(25))
    assert video.events == (Event(4000, "PASS"),)
    assert annotations.videos[f"{NESTED}/identity"].split is None
    record = json.loads((tmp_path / "e" / "annotations.json").read_text())["database"]["a/identity"]["annotations"]
    assert record == [{"segment": [3.5, 4.5], "label": "PASS", "label_id": 0}]


@pytest.mark.parametrize(("ms", "segment"), [(0, [0, 0]), (200, [0, 0.4]), (11_960, [11.92, 12]), (6000, [5.5, 6.5])])
def test_segments_end_with_the_match_and_keep_their_centre(maker: Any, ms: int, segment: list[float]) -> None:
    labels = ({"label": "PASS", "position": str(ms)},)
    entry = annotated_video(MatchInfo("m", 300, maker.meta(labels=labels)), ("DRIVE", "PASS"))
    assert entry["annotations"] == [{"segment": segment, "label": "PASS", "label_id": 1}]


def test_what_other_programs_read_of_hdf5(store: FeatureStore, tmp_path: Path) -> None:
    export(store, tmp_path / "e", "h5")
    with h5py.File(tmp_path / "e" / "a" / "features.h5") as file:
        np.testing.assert_array_equal(file["features/hflip"][:], store.rows("a", "hflip")[:])
        np.testing.assert_array_equal(file["times_seconds"][:], (store.pts("a") - 3) / 12800)
        assert (file["pts"].attrs["time_base"], file["pts"].attrs["origin_ticks"]) == ("1/12800", "3")
        assert (file.attrs["fps"], file.attrs["backbone"], file.attrs["dim"]) == ("25", "x3d_s", 6)
        assert json.loads(file["labels"][()])[0]["label"] == "PASS"
    with h5py.File(tmp_path / "e" / NESTED / "features.h5") as file:
        assert "labels" not in file
        np.testing.assert_array_equal(file["valid"][:], store.valid(NESTED))


def test_some_matches_splits_and_views(
    store: FeatureStore, tmp_path: Path, bring: Callable[..., ImportSummary]
) -> None:
    assert [each.match for each in export(store, tmp_path / "m", matches=(NESTED,)).results] == [NESTED]
    assert [each.match for each in export(store, tmp_path / "t", splits=("test",)).results] == ["b"]
    results = {each.match: each for each in export(store, tmp_path / "v", views=("hflip",)).results}
    assert (results["a"].views, results["b"].status) == (("hflip",), "failed")
    assert not (tmp_path / "v" / "b").exists()
    assert "no view hflip" in results["b"].message
    bring(tmp_path / "v", tmp_path / "s")
    bring(tmp_path / "m", tmp_path / "s")
    some = FeatureStore.open(tmp_path / "s")
    assert (some.matches(), some.views("a"), verify(some.path)) == (["a", NESTED], ["hflip"], [])
    assert bring_all(store, tmp_path, bring) == ["hflip", "identity", "zoom"]


def bring_all(store: FeatureStore, tmp_path: Path, bring: Callable[..., ImportSummary]) -> list[str]:
    """Views of match a in `s` after all of it was imported as well."""
    export(store, tmp_path / "all")
    bring(tmp_path / "all", tmp_path / "s")
    assert verify(tmp_path / "s") == []
    return FeatureStore.open(tmp_path / "s").views("a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matches": ("c",)}, "no match 'c'"),
        ({"splits": ("valid",)}, "no match to export"),
        ({"splits": ("x",)}, "--split is not known"),
        ({"form": "csv"}, "--format is not known"),
        ({"views": ("../x",)}, "view name is not usable"),
    ],
)
def test_a_choice_that_cannot_be_made(
    store: FeatureStore, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export(store, tmp_path / "e", **options)
    assert not (tmp_path / "e").exists()


def test_a_folder_of_something_else_is_left_alone(store: FeatureStore, tmp_path: Path, maker: Any, tree: Tree) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(InputError, match="a folder with other things in it"):
        export(store, tmp_path / "other")
    export(store, tmp_path / "e", views=("identity",))
    before = tree(tmp_path / "e")
    with pytest.raises(InputError, match="another form"):
        export(store, tmp_path / "e", "h5")
    changed = maker.settings(hop=5)
    another = FeatureStore.create_or_open(tmp_path / "another", changed, classes=(), software={})
    with another.writer("a", num_rows=1, pts_ticks=[0], match_meta=maker.meta(labels=()), provenance={}) as writer:
        writer.append({"identity": np.ones((1, 6))}, np.ones(1, bool))
        writer.commit()
    with pytest.raises(InputError, match="these differ: hop"):
        export(another, tmp_path / "e")
    results = export(store, tmp_path / "e").results
    assert [each.status for each in results] == ["failed", "already there", "already there"]
    assert "exported before with other rows, labels or views" in results[0].message
    assert tree(tmp_path / "e") == before


class Killed(BaseException):
    """The process ends here."""


@FORMS
def test_a_killed_export_goes_on(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Tree, form: str
) -> None:
    export(store, tmp_path / "whole", form)
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if target.name == "b":
            raise Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(Killed):
        export(store, tmp_path / "e", form)
    monkeypatch.undo()
    assert (tmp_path / "e" / "a" / MATCH_NAME).is_file()
    assert not (tmp_path / "e" / "b").exists()
    assert [each.status for each in export(store, tmp_path / "e", form).results] == [
        *("already there", "exported", "exported")
    ]
    assert tree(tmp_path / "e") == tree(tmp_path / "whole") or form == "h5"
    assert {path.name for path in (tmp_path / "e").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_a_match_that_another_process_exports(store: FeatureStore, tmp_path: Path) -> None:
    import hashlib

    staged = tmp_path / "e" / ".partial" / f"{hashlib.sha256(b'b').hexdigest()}.lock"
    staged.parent.mkdir(parents=True)
    lock = FileLock.acquire(staged, wait_seconds=0)
    assert lock is not None
    with lock:
        summary = export(store, tmp_path / "e")
    assert [each.status for each in summary.results] == ["exported", "busy elsewhere", "exported"]
    assert not summary.complete


@FORMS
def test_damaged_rows_never_leave_the_store(store: FeatureStore, tmp_path: Path, maker: Any, form: str) -> None:
    with maker.shard.open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x3c")
    results = export(store, tmp_path / "e", form).results
    assert [each.status for each in results] == ["failed", "exported", "exported"]
    assert "view identity: the rows do not fit their sha256" in results[0].message
    assert not (tmp_path / "e" / "a").exists()
    assert not (tmp_path / "e" / ".partial").exists()


def test_a_killed_import_goes_on(
    store: FeatureStore,
    tmp_path: Path,
    bring: Callable[..., ImportSummary],
    monkeypatch: pytest.MonkeyPatch,
    tree: Tree,
) -> None:
    from bas.cache import store as store_module
    from bas.cache.convert import archive
    from bas.cache.writer import MatchWriter

    export(store, tmp_path / "e")
    in_blocks = lambda rows, _: ((start, min(rows, start + 256)) for start in range(0, rows, 256))  # noqa: E731
    monkeypatch.setattr(archive, "blocks", in_blocks)

    class Fragile(MatchWriter):
        def __init__(self, job: Any, *, resume: bool, journal_seconds: float) -> None:
            super().__init__(job, resume=resume, journal_seconds=0 * journal_seconds)

        def append(self, rows: Any, valid: Any) -> None:
            if self.rows_appended == 512:
                raise Killed
            super().append(rows, valid)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "MatchWriter", Fragile)
        with pytest.raises(Killed):
            bring(tmp_path / "e", tmp_path / "s")
    results = bring(tmp_path / "e", tmp_path / "s").results
    assert [each.status for each in results] == ["already there", "already there", "resumed"]
    assert tree(tmp_path / "s") == tree(store.path)


def other_row(folder: Path) -> None:
    rows = np.load(folder / "identity.npy")
    rows[5, 2] = 0.25
    np.save(folder / "identity.npy", rows)


def edited(**changes: Any) -> Callable[[Path], None]:
    """Replaces fields of match.json."""

    def edit(folder: Path) -> None:
        record = json.loads((folder / MATCH_NAME).read_text())
        (folder / MATCH_NAME).write_text(json.dumps(record | changes))

    return edit


def saved(name: str, array: Any) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / f"{name}.npy", array)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (other_row, "the rows do not fit their sha256"),
        (edited(id="d"), "names another match"),
        (edited(id="../b"), "match id is not usable"),
        (edited(id=5), "damaged"),
        (edited(format=2), "another format"),
        (edited(views={}), "damaged"),
        (edited(views={"../../identity": {"sha256": "x", "engine": {}}}), "view name is not usable"),
        (edited(views={"identity": {"sha256": 5, "engine": {}}}), "damaged"),
        (edited(views={"identity": {"sha256": "x", "engine": []}}), "damaged"),
        (edited(match={}), "match record is damaged"),
        (lambda folder: (folder / MATCH_NAME).write_text("[]"), "damaged"),
        (lambda folder: (folder / MATCH_NAME).write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "pts.npy").unlink(), "cannot be read"),
        (saved("identity", np.zeros((1, 6), np.float32)), "does not fit the match"),
        (saved("identity", np.zeros((2, 6), np.float16)), "does not fit the match"),
        (saved("pts", np.zeros(2, np.int64)), "does not fit"),
        (saved("pts", np.zeros(1)), "does not fit"),
        (saved("pts", np.array([5])), "pts does not fit its sha256"),
        (saved("valid", np.array([False])), "valid does not fit its sha256"),
        (edited(sha256={"pts": 5, "valid": None}), "damaged"),
        (saved("valid", np.array([7], np.uint8)), "neither 0 nor 1"),
    ],
)
def test_a_match_that_was_tampered_with_is_refused_alone(
    store: FeatureStore,
    tmp_path: Path,
    bring: Callable[..., ImportSummary],
    tamper: Callable[[Path], None],
    message: str,
) -> None:
    folder = "a" if tamper is other_row else "b"
    export(store, tmp_path / "e")
    tamper(tmp_path / "e" / folder)
    results = {each.match: each for each in bring(tmp_path / "e", tmp_path / "s").results}
    assert results[folder].status == "failed"
    assert message in results[folder].message
    made = FeatureStore.open(tmp_path / "s")
    assert made.matches() == sorted({"a", "b", NESTED} - {folder})
    assert verify(made.path) == []


@pytest.mark.parametrize("name", ["pts", "valid", "features/identity"])
def test_links_in_an_hdf5_export_are_not_followed(
    store: FeatureStore, tmp_path: Path, bring: Callable[..., ImportSummary], name: str
) -> None:
    export(store, tmp_path / "e", "h5")
    shutil.copy(tmp_path / "e" / "b" / "features.h5", tmp_path / "outside.h5")
    with h5py.File(tmp_path / "e" / "b" / "features.h5", "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "outside.h5"), name)
    results = {each.match: each for each in bring(tmp_path / "e", tmp_path / "s").results}
    assert (results["a"].status, results["b"].status) == ("imported", "failed")
    assert f"{name!r}: a link" in results["b"].message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "another format"),
        ({"container": "pickle"}, "container is not known"),
        ({"settings_key": "x"}, "do not fit their hash"),
        ({"classes": [5]}, "damaged"),
        ({"software": []}, "damaged"),
        ({"settings": {}}, "settings do not fit this version"),
        ({"weights_origin": {"name": 5}}, "origin of the weights is damaged"),
    ],
)
def test_a_root_that_was_tampered_with(
    store: FeatureStore, tmp_path: Path, bring: Callable[..., ImportSummary], changes: dict[str, Any], message: str
) -> None:
    export(store, tmp_path / "e")
    record = json.loads((tmp_path / "e" / ROOT_NAME).read_text())
    (tmp_path / "e" / ROOT_NAME).write_text(json.dumps(record | changes))
    with pytest.raises(InputError, match=message):
        bring(tmp_path / "e", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_an_export_says_itself_what_it_is(
    store: FeatureStore, tmp_path: Path, bring: Callable[..., ImportSummary]
) -> None:
    export(store, tmp_path / "e")
    with pytest.raises(InputError, match="--model cannot be chosen here"):
        bring(tmp_path / "e", tmp_path / "s", model="mine")
    shutil.rmtree(tmp_path / "e" / "a")
    bring(tmp_path / "e", tmp_path / "s")
    (tmp_path / "e" / "b" / "identity.npy").unlink()
    shutil.rmtree(tmp_path / "e" / "england_efl")
    with pytest.raises(InputError, match="cannot be read"):
        bring(tmp_path / "e", tmp_path / "t")


def test_what_is_told(store: FeatureStore, tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as capture:
        console.print(export_view(export(store, tmp_path / "e", views=("identity",))))
    assert "3 exported; 1,001 rows -> " in capture.get()
    document = export_json(export(store, tmp_path / "e", views=("zoom",)))
    assert (document["complete"], document["format"]) == (False, "npy")
    assert [each["status"] for each in document["matches"]] == ["failed"] * 3


MEMORY = """
import resource, sys
from pathlib import Path
from bas.cache.convert.exporting import ExportOptions, export_store
from bas.cache.convert.formats import import_source
from bas.cache.convert.request import ImportRequest
from bas.cache.store import FeatureStore

def peak_mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak_mb()
root, out = Path(sys.argv[1]), Path(sys.argv[2])
import_source(ImportRequest(root=root, store=out / "s", fps="25"), None)
export_store(FeatureStore.open(out / "s"), out / "e", ExportOptions())
import_source(ImportRequest(root=out / "e", store=out / "t"), None)
print(peak_mb() - before)
"""


def test_memory_stays_small_however_long_the_match(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    with (tmp_path / "flat" / "v.npy").open("wb") as file:  # 197 MB of zeros that take no room on the disk
        header = {"descr": "<f4", "fortran_order": False, "shape": (24_000, 2048)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 24_000 * 2048)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "flat"), str(tmp_path)]
    path = str(Path(exporting.__file__).resolve().parents[2] / ".typing")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": path})
    assert float(done.stdout) < 120
    table = open_npy(tmp_path / "e" / "v" / "identity.npy", TableOptions())
    assert table.shape == (24_000, 2048)
    assert not table.read(23_990, 24_000).any()
