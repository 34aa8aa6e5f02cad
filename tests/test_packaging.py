"""What is installed is what is here, and imports run one way."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE_FOLDERS = ("ablate", "cache", "commands", "data", "eval", "extract", "finetune", "heads", "label", "report")
NOT_INSTALLED = {"tests", "benchmarks", "docs"}
ROOT_MODULES = {"__init__", "__main__", "api", "cli", "errors", "events", "files", "predict", "published", "workers"}
BASE = {"errors", "events", "files", "workers"}
STAGES = BASE | {"data", "cache", "extract", "heads", "eval"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "events": {"errors", "files"},
    "workers": {"errors", "files"},
    "eval": BASE,
    "cache": BASE,
    "data": BASE | {"cache", "workers", "extract", "eval"},
    "extract": BASE | {"cache", "data", "workers"},
    "heads": BASE | {"cache", "eval"},
    "predict": STAGES | {"published"},
    "published": STAGES | {"finetune"},
    "finetune": STAGES,
    "ablate": STAGES | {"finetune", "predict", "workers"},
    "report": STAGES | {"predict", "ablate"},
    "label": STAGES,
    "api": STAGES | {"predict"},
}
"""Part -> the parts that it may import: cli -> stages -> cache -> events."""


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]  # type: ignore[no-any-return]


def test_every_folder_of_code_is_packaged() -> None:
    folders = {path.parent.relative_to(ROOT) for path in ROOT.rglob("*.py")}
    code = {folder for folder in folders if folder.parts and not folder.parts[0].startswith(".")}
    code = {folder for folder in code if folder.parts[0] not in NOT_INSTALLED | {"build", "out"}}
    assert {"bas", *(f"bas.{'.'.join(folder.parts)}" for folder in code)} == set(project()["packages"])  # type: ignore[call-overload]


def test_every_other_file_of_the_packages_is_packaged() -> None:
    data: dict[str, list[str]] = project()["package-data"]  # type: ignore[assignment]
    wanted = {path for folder, names in data.items() for name in names for path in folder_of(folder).glob(name)}
    names = subprocess.run(["git", "ls-files", *CODE_FOLDERS], cwd=ROOT, capture_output=True, text=True, check=False)
    found = {ROOT / name for name in names.stdout.splitlines() if not name.endswith(".py")}
    assert found <= wanted
    assert (ROOT / "report" / "page" / "index.html") in wanted


def folder_of(package: str) -> Path:
    return ROOT.joinpath(*package.split(".")[1:])


def test_the_root_holds_no_stray_module() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == ROOT_MODULES


def test_the_links_for_mypy_and_pytest_are_complete() -> None:
    links = {link.name: link.resolve() for link in (ROOT / ".typing" / "bas").iterdir() if link.name != "__pycache__"}
    wanted = (
        {"py.typed": ROOT / "py.typed"}
        | {f"{name}.py": ROOT / f"{name}.py" for name in ROOT_MODULES}
        | {name: ROOT / name for name in CODE_FOLDERS}
    )
    assert links == wanted


def imported_parts(path: Path) -> set[str]:
    """Parts of bas that a module imports, by its relative imports."""
    depth = len(path.relative_to(ROOT).parts)  # 1 for a root module
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            parts |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "level", 0) == 0:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(name.split(".")[0] == "bas" for name in names), f"{path}: import bas by relative imports"
    return {part for part in parts if not part.startswith("__")}  # bas.__version__ is no part


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_run_one_way(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py")) or [ROOT / f"{part}.py"]
    for path in files:
        wrong = imported_parts(path) - MAY_IMPORT[part] - {part}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, bas.cli; print([m for m in ('torch', 'av', 'zarr', 'timm', 'openvino') if m in sys.modules])"
    environment = {"PYTHONPATH": str(ROOT / ".typing"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_names_a_package_index_and_none_is_large() -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not names:
        pytest.skip("not a git checkout")
    for path in (ROOT / name for name in names.split("\0") if name):
        if path.is_file() and not path.is_symlink():
            assert path.stat().st_size < 1_000_000, path
            assert "index" + "-url" not in path.read_text(errors="ignore"), path
