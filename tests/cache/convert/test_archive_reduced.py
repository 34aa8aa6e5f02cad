"""Export of a reduced store: its components travel along, and the import is the same store again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from bas.cache.convert import exporting
from bas.cache.convert.archived import MATCH_NAME
from bas.cache.convert.containers import CONTAINERS
from bas.cache.convert.exporting import ExportOptions, export_store
from bas.cache.convert.formats import import_source
from bas.cache.convert.request import FindFolders, ImportRequest
from bas.cache.reduce.files import BESIDE_NAME, BESIDE_PART
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError

FITS = [{"dim": 3, "quantize": True}, {"dim": 3}, {"quantize": True}]


@pytest.fixture
def full(maker: Any) -> Any:
    """A store of full rows, of two views, and its maker."""
    maker.match("liga/a", num_rows=300, views=("identity", "hflip"))
    maker.match("b", num_rows=40, match_meta=maker.meta(split="test", labels=()))
    return maker


@pytest.mark.parametrize("form", list(CONTAINERS))
@pytest.mark.parametrize("fit", FITS, ids=str)
def test_the_reduced_store_is_the_same_again(
    full: Any,
    tmp_path: Path,
    finder: FindFolders,
    tree: Callable[[Path], object],
    form: str,
    fit: dict[str, Any],
) -> None:
    reduced = full.reduced(**fit)
    assert export_store(FeatureStore.open(reduced), tmp_path / "e", ExportOptions(container=form)).complete
    assert import_source(ImportRequest(root=tmp_path / "e", store=tmp_path / "s"), finder).complete
    assert tree(tmp_path / "s") == tree(reduced)
    assert verify(tmp_path / "s") == []
    again = export_store(FeatureStore.open(tmp_path / "s"), tmp_path / "e", ExportOptions(container=form))
    assert {each.status for each in again.results} == {"already there"}


def test_other_programs_decode_npy_as_it_is_told(full: Any, tmp_path: Path) -> None:
    store = FeatureStore.open(full.reduced())
    export_store(store, tmp_path / "e", ExportOptions())
    told = json.loads((tmp_path / "e" / "b" / MATCH_NAME).read_text())
    assert told["decode"] == "what heads see: row * scale + offset; full rows, nearly: (row * scale + offset) @ " + (
        "components + mean"
    )
    assert told["decode_with"].startswith(BESIDE_NAME)
    row, arrays = np.load(tmp_path / "e" / "b" / "identity.npy"), load_file(tmp_path / "e" / BESIDE_NAME)
    assert row.dtype == np.uint8
    seen = row * arrays["scale"] + arrays["offset"]
    assert store.reduction is not None
    np.testing.assert_array_equal(seen, store.reduction.decode(store.rows("b")[:]))
    nearly, before = seen @ arrays["components"] + arrays["mean"], FeatureStore.open(full.path).rows("b")[:]
    assert ((nearly - before) ** 2).mean() < 0.6 * before.astype(np.float32).var()  # 3 of 6 channels of noise


def test_other_programs_decode_hdf5_as_it_is_told(full: Any, tmp_path: Path) -> None:
    store = FeatureStore.open(full.reduced(quantize=True))
    export_store(store, tmp_path / "e", ExportOptions(container="h5"))
    with h5py.File(tmp_path / "e" / "b" / "features.h5") as file:
        assert file.attrs["decode"] == "full rows, nearly: row * scale + offset"
        rows = file["features/identity"][:] * file["scale"][:] + file["offset"][:]
    assert np.abs(rows - FeatureStore.open(full.path).rows("b")[:]).max() < 0.1


def test_full_rows_have_nothing_to_decode(full: Any, tmp_path: Path) -> None:
    export_store(FeatureStore.open(full.path), tmp_path / "e", ExportOptions())
    assert not (tmp_path / "e" / BESIDE_NAME).exists()
    assert "decode" not in json.loads((tmp_path / "e" / "b" / MATCH_NAME).read_text())


def test_an_export_killed_before_its_root_goes_on(
    full: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Callable[[Path], object]
) -> None:
    store = FeatureStore.open(full.reduced())
    export_store(store, tmp_path / "whole", ExportOptions())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "write_json_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            export_store(store, tmp_path / "e", ExportOptions())
    assert [path.name for path in (tmp_path / "e").iterdir()] == [BESIDE_NAME]
    (tmp_path / "e" / BESIDE_PART).write_bytes(b"half")
    assert export_store(store, tmp_path / "e", ExportOptions()).complete
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


def other_mean(path: Path) -> None:
    """Valid, with the header kept, but not those of the rows."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def no_record(path: Path) -> None:
    save_file(load_file(path), path)


def other_type(kind: torch.dtype) -> Callable[[Path], None]:
    """Numbers that NumPy does not know."""

    def write(path: Path) -> None:
        with safe_open(path, "pt") as file:
            record, arrays = file.metadata(), {name: file.get_tensor(name).to(kind) for name in file.keys()}  # noqa: SIM118
        save_torch(arrays, path, record)

    return write


HARMS = [
    (Path.unlink, "no such file"),
    (other_mean, "damaged"),
    (no_record, "damaged"),
    (other_type(torch.bfloat16), "damaged"),
    (other_type(torch.float8_e4m3fn), "damaged"),
]


@pytest.mark.parametrize(("harm", "message"), [*HARMS, (lambda path: path.write_bytes(b"x" * 50), "damaged")])
def test_damaged_or_missing_components_are_refused_by_name(
    full: Any, tmp_path: Path, finder: FindFolders, harm: Callable[[Path], object], message: str
) -> None:
    store = FeatureStore.open(full.reduced())
    export_store(store, tmp_path / "e", ExportOptions())
    harm(tmp_path / "e" / BESIDE_NAME)
    for act in (
        lambda: import_source(ImportRequest(root=tmp_path / "e", store=tmp_path / "s"), finder),
        lambda: export_store(store, tmp_path / "e", ExportOptions()),
    ):
        with pytest.raises(InputError, match=message) as told:
            act()
        assert BESIDE_NAME in str(told.value)
    assert not (tmp_path / "s").exists()


def test_exports_of_other_components_are_not_mixed(full: Any, tmp_path: Path, finder: FindFolders) -> None:
    export_store(FeatureStore.open(full.reduced()), tmp_path / "e", ExportOptions())
    other = full.reduced("other", dim=2, quantize=True)
    with pytest.raises(InputError, match="these differ: dim, reduction"):
        export_store(FeatureStore.open(other), tmp_path / "e", ExportOptions())
    with pytest.raises(InputError, match="these differ: dim, reduction"):
        import_source(ImportRequest(root=tmp_path / "e", store=other), finder)
