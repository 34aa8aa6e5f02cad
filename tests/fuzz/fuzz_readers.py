"""Coverage-guided fuzzing of the readers, by hand. No part of the tests; needs atheris in an environment of its own:

    PYTHONPATH=.typing python tests/fuzz/fuzz_readers.py TARGET CORPUS-FOLDER [-max_total_time=600] [-max_len=4096]

Targets: root, match, array (metadata of a view; its index and rows follow), index (shard), journal, labels, tensors
(safetensors), run. The corpus begins with a real file. A finding is any exception but InputError, more than a second,
or more than 2 GB (`-rss_limit_mb`); libFuzzer leaves the input behind.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bas"]):
    from bas.cache.match import MatchMeta, info
    from bas.cache.partial import read_journal
    from bas.cache.settings import FeatureSettings
    from bas.cache.store import FeatureStore
    from bas.errors import InputError
    from bas.events import read_labels

    if sys.argv[1] in ("run", "tensors"):
        from bas.extract.backbones.tensor_files import read_tensors
        from bas.extract.backbones.weights import FinetunedRun
        from bas.heads.training.checkpoint import RunRecord
        from bas.heads.training.settings import TrainSettings

import numpy as np

NUM_ROWS = 300


def make_store(path: Path) -> FeatureStore:
    """A store with match a, and unfinished work on match b."""
    settings = FeatureSettings.imported(kind="x", model="none", dim=6, fps="25")
    store = FeatureStore.create_or_open(path, settings, classes=("PASS", "DRIVE"), software={"bas": "0"})
    meta = MatchMeta(fps=Fraction(25), time_base=Fraction(1, 25), origin_ticks=0, split="train", labels=(LABEL,))
    for match_id in ("a", "b"):
        with store.writer(
            match_id, num_rows=NUM_ROWS, pts_ticks=np.arange(NUM_ROWS), match_meta=meta, provenance={}
        ) as writer:
            rows = np.random.default_rng(0).normal(size=(NUM_ROWS, 6))
            writer.append({"identity": rows[:256]}, np.ones(256, bool))
            if match_id == "a":
                writer.append({"identity": rows[256:]}, np.ones(NUM_ROWS - 256, bool))
                writer.commit()
    return store


LABEL = {"gameTime": "1 - 00:04", "label": "PASS", "position": "4000", "team": "home", "visibility": "visible"}


def read_store(root: Path) -> None:
    """Everything that a command reads of it."""
    store = FeatureStore.open(root)
    for read in (
        lambda: list(store.match("a").meta.events() or ()),
        lambda: store.pts("a"),
        lambda: float(store.rows("a")[5:290:3].sum()),
        lambda: info(store),
    ):
        with contextlib.suppress(InputError):
            read()


def make_run(folder: Path) -> None:
    """A `run.json` as a new run has it."""
    features = FeatureSettings.imported(kind="x", model="none", dim=6, fps="25")
    record = RunRecord(
        settings=TrainSettings(head="fc"),
        features=features,
        classes=("PASS",),
        fps=Fraction(25),
        train_matches=("a",),
        valid_matches=("b",),
        num_train_events={"PASS": 3},
        num_parameters=9,
        software={"bas": "0"},
    )
    record.write(folder)


def prepare(target: str, folder: Path) -> tuple[Path, Callable[[], object]]:
    """The file that the fuzzer writes, with a real one in its place, and what reads it."""
    folder.mkdir(exist_ok=True)
    if target == "labels":
        (folder / "labels.json").write_text(json.dumps({"annotations": [LABEL]}))
        return folder / "labels.json", lambda: read_labels(folder / "labels.json")
    if target == "run":
        make_run(folder)

        def read_run() -> None:
            RunRecord.read(folder).to_json()
            FinetunedRun.read(folder)

        return folder / "run.json", read_run
    if target == "tensors":
        import torch
        from safetensors.torch import save_file

        path = folder / "x.safetensors"
        save_file({"a": torch.ones(3, 2), "b": torch.zeros(5)}, path, metadata={"bas": '{"dim": 3}'})
        return path, lambda: read_tensors(path)
    root = folder / "store"
    make_store(root)
    (partial,) = (root / ".partial").iterdir()
    places = {
        "root": root / "zarr.json",
        "match": root / "a" / "zarr.json",
        "array": root / "a" / "features" / "identity" / "zarr.json",
        "index": root / "a" / "features" / "identity" / "c" / "0" / "0",
        "journal": partial / "journal.json",
    }
    return places[target], (lambda: read_journal(partial)) if target == "journal" else (lambda: read_store(root))


def main() -> None:
    """Fuzz one target until a limit of libFuzzer's ends it."""
    target, corpus = sys.argv[1], Path(sys.argv[2])
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path, read = prepare(target, folder)
    corpus.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, corpus / "real")

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(InputError):
            read()

    atheris.Setup([sys.argv[0], *sys.argv[2:], "-timeout=1", "-rss_limit_mb=2048"], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
