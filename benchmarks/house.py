"""How large the house is: files, lines, classes, own files per command. `python benchmarks/house.py [CHECKOUT...]`.

Side by side for several checkouts, such as a worktree of an older commit. Nothing is timed but `bas --help`.
"""

import ast
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

LEFT_OUT = {"tests", "benchmarks", "docs", ".typing", ".ci"}
TRACE = """
import runpy, sys
from pathlib import Path
root, seen = sys.argv[1], set()
def called(frame, event, _):
    # a body of a class or module has no fast locals: only functions count
    if event == "call" and frame.f_code.co_flags & 1 and frame.f_code.co_filename.startswith(root):
        seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))
import threading
sys.path.insert(0, root + "/.typing")
root = str(Path(root).resolve()) + "/"
threading.setprofile(called); sys.setprofile(called)
sys.argv = ["bas", *sys.argv[2:]]
try:
    runpy.run_module("bas", run_name="__main__")
except SystemExit as stop:
    code = stop.code
sys.setprofile(None)
functions = seen
print(f"TRACED {code} {len({path for path, _ in functions})} {len(functions)}")
"""


def python_files(root: Path) -> list[Path]:
    """Tracked Python files of the package."""
    names = subprocess.run(["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in names.split() if name.split("/")[0] not in LEFT_OUT]


def structure(root: Path) -> dict[str, object]:
    """Counts over the source of a checkout."""
    files = python_files(root)
    texts = [path.read_text() for path in files]
    classes = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    methods = [sum(isinstance(part, ast.FunctionDef) for part in node.body) for node in classes]
    names = Counter(node.name for node in classes if not node.name.startswith("_"))
    comments = sum(bool(re.match(r"\s*#|.*  # (?!type:|noqa)", line)) for text in texts for line in text.splitlines())
    lines = sum(len(text.splitlines()) for text in texts)
    pages = subprocess.run(
        "git ls-files '*.js' '*.css' '*.html' | xargs cat | wc -l",
        shell=True,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    tests = list((root / "tests").rglob("*.py"))
    return {
        "files (Python)": len(files),
        "lines (Python)": lines,
        "lines of the page (js, css, html)": int(pages.stdout),
        "lines of tests": sum(len(path.read_text().splitlines()) for path in tests),
        "dataclasses": sum("dataclass" in ast.unparse(part) for node in classes for part in node.decorator_list),
        "classes with fewer than two methods": sum(count < 2 for count in methods),
        "type names that mean several things": sum(count > 1 for count in names.values()),
        "comments, % of lines": round(100 * comments / lines, 1),
    }


def help_seconds(root: Path) -> float:
    """Median time of `bas --help`."""
    times = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "bas", "--help"], cwd=root / ".typing", capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 2)


def own_files(root: Path, folder: Path) -> dict[str, object]:
    """Own files and functions that a command passes, from synthetic matches to a pushed store."""
    found: dict[str, object] = {}
    settings = (root / "heads" / "training" / "settings.py").read_text()
    frames = "--frames-per-epoch" if "frames_per_epoch" in settings else "--epoch-steps"  # its name before 2026-11-27
    _bas(root, folder, "data", "synthetic", "m", "--minutes", "0.4", "--matches", "3", traced=False)
    video = next((folder / "m").rglob("*.mp4"))
    for name, arguments in {
        "extract": ("extract", "m", "--out", "s.zarr", "--weights", "none", "--size", "96x64", "--engine", "torch"),
        "train-head": ("train-head", "s.zarr", "--head", "fc", "--epochs", "1", frames, "2000", "--out", "run"),
        "predict from a store": ("predict", "s.zarr", "--split", "test", "--run", "run", "--out", "p"),
        "predict of an mp4": ("predict", str(video), "--run", "run", "--out", "q", "--engine", "torch"),
        "push to a folder": ("cache", "push", "s.zarr", "pushed"),
    }.items():
        found[f"own files (functions) of {name}"] = _bas(root, folder, *arguments, traced=True)
    return found


def _bas(root: Path, folder: Path, *arguments: str, traced: bool) -> str:
    command = ["-c", TRACE, str(root)] if traced else ["-m", "bas"]
    environment = {"PYTHONPATH": str(root / ".typing"), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, *command, *arguments], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    if not traced:
        return done.stdout
    marks = re.findall(r"TRACED (\S+) (\d+) (\d+)", done.stdout)
    is_done = marks and marks[0][0] in ("0", "None")
    return f"{marks[0][1]} ({marks[0][2]})" if is_done else f"failed: {done.stderr[-400:]}"


def main() -> None:
    """Print one table."""
    roots = [Path(each).resolve() for each in sys.argv[1:] or ["."]]
    columns = []
    for root in roots:
        with tempfile.TemporaryDirectory() as folder:
            columns.append(structure(root) | {"`bas --help`, s": help_seconds(root)} | own_files(root, Path(folder)))
    print("| | " + " | ".join(root.name for root in roots) + " |")
    print("|---" * (len(roots) + 1) + "|")
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(str(column[name]) for column in columns) + " |")


if __name__ == "__main__":
    main()
