"""How fast stores go to and from a hub on this machine: `bas cache push` and `pull` against the hub's own client.

    PYTHONPATH=.typing:benchmarks:. HF_HOME=/tmp/hf python benchmarks/hub_speed.py [--matches 6] [--repeats 5]

Both bring the same store to an empty data set of a server that speaks the hub's protocol (see its docstring; each round
has a new one, in a process of its own), large files by Xet or by LFS, and fetch it from there. Medians in MB/s. No line
is in between: what is compared is the work around it. The hub's client brings the bytes; ours also holds every file
against its hash, checks what `bas cache verify` checks, and shows a match whole or not at all.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from common import interleaved, machine, median_ratio, spread
from huggingface_hub import constants
from stores import random_store

from bas.cache.share.pull import Selection, pull
from bas.cache.share.push import push

URL = "hf://datasets/ann/feats"
SERVE = """
import sys, time
from pathlib import Path
from tests.cache.share.hub_server import HubServer
server = HubServer(Path(sys.argv[1]))
server.large_from_bytes = 10_000_000
server.make("ann/feats")
print(server.url, flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matches", type=int, default=6)
    parser.add_argument("--num-rows", type=int, default=60_000, help="rows of a match, of 192 channels")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["HF_TOKEN"] = "hf_writer00"
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        matches = {f"m{number}": arguments.num_rows for number in range(arguments.matches)}
        store = random_store(Path(folder) / "store", 192, train=matches, valid={}).path
        for name, without_xet in (("Xet", False), ("LFS", True)):
            constants.HF_HUB_DISABLE_XET = without_xet
            rates = interleaved(pushes(store, Path(folder)), repeats=arguments.repeats)
            show(f"push by {name}", rates)
        with hub(Path(folder)):
            push(store, URL, Selection())
            show("pull", interleaved(pulls(Path(folder)), repeats=arguments.repeats))


def pushes(store: Path, folder: Path) -> dict[str, Callable[[], float]]:
    """Each to an empty data set."""

    def theirs() -> None:
        huggingface_hub.HfApi(endpoint=os.environ["HF_ENDPOINT"]).upload_folder(
            repo_id="ann/feats", repo_type="dataset", folder_path=store
        )

    def ours() -> None:
        outcome = push(store, URL, Selection())
        assert outcome.complete

    def at_a_new_hub(act: Callable[[], None]) -> Callable[[], float]:
        def task() -> float:
            with hub(folder):
                act()
            return megabytes(store)

        return task

    return {"bas": at_a_new_hub(ours), "huggingface_hub": at_a_new_hub(theirs)}


def pulls(folder: Path) -> dict[str, Callable[[], float]]:
    """Each into an empty folder."""
    target = folder / "back"

    def theirs() -> float:
        shutil.rmtree(target, ignore_errors=True)
        api = huggingface_hub.HfApi(endpoint=os.environ["HF_ENDPOINT"])
        api.snapshot_download("ann/feats", repo_type="dataset", local_dir=target)
        return megabytes(target)

    def ours() -> float:
        shutil.rmtree(target, ignore_errors=True)
        assert pull(URL, target, Selection()).complete
        return megabytes(target)

    return {"bas": ours, "huggingface_hub": theirs}


@contextmanager
def hub(folder: Path) -> Iterator[None]:
    """A new hub; HF_ENDPOINT names it."""
    with tempfile.TemporaryDirectory(dir=folder) as storage:
        command = [sys.executable, "-c", SERVE, storage]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        os.environ["HF_ENDPOINT"] = server.stdout.readline().strip()
        try:
            yield
        finally:
            server.kill()
            server.wait()


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def show(what: str, rates: dict[str, list[float]]) -> None:
    for name, values in rates.items():
        print(f"{what:<12} {name:<16} {spread(values)} MB/s")
    print(f"{what:<12} ratio            {median_ratio(rates['bas'], rates['huggingface_hub']):.2f}")


if __name__ == "__main__":
    main()
