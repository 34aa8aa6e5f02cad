"""Nothing that is read can run code: no reader unpickles, and planted pickles do not go off."""

import ast
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from bas.cache.convert.scores import read_scores
from bas.errors import InputError
from bas.extract.backbones.tensor_files import read_tensors

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(
    path
    for path in ROOT.rglob("*.py")
    if not {"tests", "build", "benchmarks"} & set(path.relative_to(ROOT).parts)
    and path.parts[len(ROOT.parts)][0] != "."
)
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
NEEDS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
"""A call -> the keyword that it must name, with this value."""
MAY_IMPORT = {("extract/backbones/tensor_files.py", "pickle")}  # for the error that torch raises


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_the_code_never_unpickles() -> None:
    assert len(CODE) > 100
    for path in CODE:
        name, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())
        for function, call in calls(tree):
            assert function not in FORBIDDEN, f"{name}: {function}"
            assert function.split(".")[0] not in UNPICKLERS, f"{name}: {function}"
            if function in NEEDS:
                keyword, wanted = NEEDS[function]
                given = {each.arg: each.value for each in call.keywords}
                value = given.get(keyword)
                assert isinstance(value, ast.Constant), f"{name}: {function} without {keyword}"
                assert value.value is wanted, f"{name}: {function} without {keyword}={wanted}"
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found = {each.split(".")[0] for each in names} & UNPICKLERS
            assert {(name, each) for each in found} <= MAY_IMPORT, f"{name}: {found}"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "ran")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Where a bomb that goes off leaves a file; a plain unpickling shows that it would."""
    path = tmp_path / "mark"
    pickle.loads(pickle.dumps(Bomb(path)))
    assert path.read_text() == "ran"
    path.unlink()
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_planted_weights_file_does_not_go_off(mark: Path, tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save({"a": torch.ones(2), "b": Bomb(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError):
        read_tensors(path)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError):
        read_tensors(path)
    assert not mark.exists()


def test_a_packed_weights_file_is_not_unpacked(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(1 << 18)}, plain)
    assert set(read_tensors(plain)[0]) == {"a"}
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    with pytest.raises(InputError, match="unpack to more"):
        read_tensors(packed)


def test_tensors_without_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    for odd in (torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")):
        torch.save({"a": odd}, path)
        with pytest.raises(InputError):
            read_tensors(path)


def test_planted_arrays_do_not_go_off(mark: Path, tmp_path: Path) -> None:
    odd = np.array([Bomb(mark)], dtype=object)
    np.savez(tmp_path / "scores.npz", frame_indexes=np.arange(1), scores=odd, allow_pickle=True)
    with pytest.raises(InputError, match="damaged"):
        read_scores(tmp_path / "scores.npz")
    (tmp_path / "scores.npz").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError):
        read_scores(tmp_path / "scores.npz")
    held = io.BytesIO()
    np.save(held, odd, allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "scores.npz", "w") as file:
        file.writestr("frame_indexes.npy", held.getvalue())
        file.writestr("scores.npy", held.getvalue())
    with pytest.raises(InputError):
        read_scores(tmp_path / "scores.npz")
    assert not mark.exists()
    assert zarr.config.get("codecs.zstd") == "zarr.codecs.zstd.ZstdCodec"


def test_scores_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        held = io.BytesIO()
        np.save(held, np.arange(1))
        file.writestr("frame_indexes.npy", held.getvalue())
        file.writestr("scores.npy", b"")
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02")  # the directory's entry of the scores says 4 GB
    data[place + 24 : place + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="claims more than it can hold"):
        read_scores(path)
