"""The feature bank gives the store's rows, wherever it keeps them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bas.cache import bank as bank_module
from bas.cache.bank import FeatureBank, Place, bank_of_rows, open_bank
from bas.cache.reduce import FitSettings, reduce_store
from bas.cache.store import FeatureStore
from bas.errors import InputError

LENGTHS = {"a": 600, "liga/b": 31, "liga/x": 300}
VIEWS = ("identity", "hflip")


@pytest.fixture
def rows(maker: Any) -> torch.Tensor:
    """(views, all rows, 6): what three matches hold."""
    parts = [maker.match(match_id, num_rows=length, views=VIEWS) for match_id, length in LENGTHS.items()]
    first = np.concatenate(parts)
    second = np.concatenate([(maker.rows(length) + 1).astype(np.float16) for length in LENGTHS.values()])
    return torch.from_numpy(np.stack([first, second])).float()


def opened(maker: Any, place: Place, **changes: Any) -> FeatureBank:
    return open_bank(maker.store(), list(LENGTHS), views=VIEWS, place=place, **changes)


INDICES = {
    "windows": [[0, 1, 2, 3], [596, 597, 598, 599]],
    "every third": [[10, 13, 16, 19], [590, 593, 596, 599]],
    "of several matches": [[0, 2, 4, 6], [600, 602, 604, 606], [631, 632, 633, 634], [900, 910, 920, 930]],
    "repeats at the end": [[627, 629, 630, 630], [599, 599, 599, 599], [600, 630, 630, 630]],
    "repeats inside": [[5, 6, 6, 8], [5, 5, 6, 7], [5, 7, 8, 11]],  # the ends fit a step of 1 or 2
    "one step": [[0], [600], [930]],
}


@pytest.mark.parametrize("place", ["ram", "mapped", "device", "auto"])
@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_windows_are_the_stores_rows(maker: Any, rows: torch.Tensor, place: Place, index: list[list[int]]) -> None:
    bank, index_bt = opened(maker, place), torch.tensor(index)
    for view in range(2):
        bank.will_need(index_bt, view=view)
        found = bank.gather(index_bt, view=view)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, rows[view][index_bt], rtol=0, atol=0)


def test_a_bank_knows_its_matches_and_its_size(maker: Any, rows: torch.Tensor) -> None:
    seen: list[tuple[int, int]] = []
    bank = opened(maker, "ram", on_progress=lambda done, total: seen.append((done, total)))
    assert [(match.id, match.first_row, match.num_rows) for match in bank.matches] == [
        ("a", 0, 600),
        ("liga/b", 600, 31),
        ("liga/x", 631, 300),
    ]
    assert (bank.num_views, bank.num_rows, bank.dim) == rows.shape
    assert bank.num_bytes == rows.numel() * 2
    assert seen == [(600, 931), (631, 931), (931, 931)]
    assert {place: opened(maker, place).place for place in bank_module.PLACES} == {
        "auto": "ram",
        "device": "ram",  # the CPU's own memory
        "ram": "ram",
        "mapped": "mapped",
    }


def test_auto_stays_in_the_files_where_memory_is_short(
    maker: Any, rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = rows.numel() * 2
    for free, place in ((needed / 0.6 + 1, "ram"), (needed / 0.6 - 1, "mapped"), (0, "mapped")):
        monkeypatch.setattr(bank_module, "free_memory_bytes", lambda free=free: free)
        assert opened(maker, "auto").place == place
    assert opened(maker, "ram").place == "ram"  # forced


def test_what_cannot_be_opened_is_refused(maker: Any, rows: torch.Tensor) -> None:
    assert rows.shape[0] == 2
    with pytest.raises(InputError, match="0 matches"):
        open_bank(maker.store(), [])
    with pytest.raises(InputError, match="place 'disk'"):
        open_bank(maker.store(), ["a"], place="disk")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no view 'crop'"):
        open_bank(maker.store(), ["a"], views=["identity", "crop"])
    with pytest.raises(InputError, match="no match 'z'"):
        open_bank(maker.store(), ["a", "z"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: banks on it are not tested")
@pytest.mark.parametrize("place", ["auto", "device", "ram", "mapped"])
def test_windows_arrive_on_the_gpu(maker: Any, rows: torch.Tensor, place: Place) -> None:
    bank = opened(maker, place, device="cuda")
    assert bank.place == ("device" if place == "auto" else place)
    for index in INDICES.values():
        found = bank.gather(torch.tensor(index), view=1)
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), rows[1][torch.tensor(index)], rtol=0, atol=0)


@pytest.mark.parametrize("place", ["ram", "mapped"])
@pytest.mark.parametrize("quantize", [False, True])
def test_reduced_rows_come_decoded_and_take_the_room_of_what_is_stored(
    maker: Any, tmp_path: Path, place: Place, quantize: bool
) -> None:
    for match_id, length in LENGTHS.items():
        maker.match(match_id, num_rows=length)
    reduce_store(maker.path, tmp_path / "r.zarr", asked=FitSettings(dim=4, quantize=quantize))
    store = FeatureStore.open(tmp_path / "r.zarr")
    assert store.reduction is not None
    bank, index = open_bank(store, list(LENGTHS), place=place), torch.tensor([[3, 5, 7], [640, 640, 641]])
    stored = np.concatenate([store.rows(match_id)[:] for match_id in LENGTHS])
    wanted = torch.from_numpy(store.reduction.decode(stored))
    torch.testing.assert_close(bank.gather(index), wanted[index], rtol=0, atol=0)
    assert bank.place == place
    assert bank.num_bytes == 931 * 4 * (1 if quantize else 2)
    alone = bank_of_rows(store.rows("liga/b")[:].copy(), match_id="liga/b", levels=store.reduction.levels)
    torch.testing.assert_close(alone.gather(torch.arange(31)[None])[0], wanted[600:631], rtol=0, atol=0)
