"""Training clips are the windows of stage two, as pictures."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bas.cache.bank import open_bank
from bas.cache.store import FeatureStore
from bas.data.sources import DataSet, find_sources
from bas.errors import InputError
from bas.extract.engines.pytorch import Normalised
from bas.extract.extractor import Extractor
from bas.extract.options import ExtractOptions
from bas.extract.options import ExtractRunOptions as ExtractRun
from bas.extract.run import extract
from bas.finetune import data as clips_module
from bas.finetune.data import ClipBatch, TrainingClips, VideoSource, clip_seed, is_flipped
from bas.finetune.start import Start
from bas.heads.training.data import Examples, choose_matches
from bas.heads.training.settings import FinetuneSettings

pytestmark = pytest.mark.usefixtures("one_thread")
Tiny = Callable[..., FinetuneSettings]
CPU = torch.device("cpu")


@pytest.fixture
def begun(start: Callable[..., Start], tiny: Tiny) -> Start:
    return start(tiny())


@pytest.fixture
def make(data: DataSet, begun: Start) -> Callable[[FinetuneSettings], TrainingClips]:
    def clips(settings: FinetuneSettings) -> TrainingClips:
        source = VideoSource(data, Extractor(begun.backbone, begun.features))
        chosen = choose_matches(source.matches(), stride=settings.stride)
        return TrainingClips(chosen, source, settings, threads=2, device=CPU)

    return clips


Make = Callable[[FinetuneSettings], TrainingClips]


def same(one: ClipBatch, two: ClipBatch) -> bool:
    tensors = [(getattr(one.targets, each.name), getattr(two.targets, each.name)) for each in fields(one.targets)]
    return one.seeds == two.seeds and all(torch.equal(*each) for each in [(one.pixels, two.pixels), *tensors])


def test_pixels_are_the_pictures_of_the_steps(tiny: Tiny, make: Make, data: DataSet, begun: Start) -> None:
    settings = tiny(stride=3, hop_rows=7, frames_per_epoch=8 * 4 * 4)
    clips = make(settings)
    extractor = Extractor(begun.backbone, begun.features)
    videos = [extractor.open(match.require_video()) for match in data.matches if match.split == "train"]
    pictures = [np.stack([frame.image for frame in video.frames()]) for video in videos]
    numbers = clips.windows.batches(0)
    for batch, windows in zip(clips.batches(0, first_step=0), numbers, strict=True):
        assert len(batch) == 1
        for pixels, window in zip(batch[0].pixels.numpy(), windows, strict=True):
            row = int(clips.windows.first_row_w[window])
            match = int(row >= len(pictures[0]))
            rows = row - match * len(pictures[0]) + 3 * np.arange(8)
            rows = np.minimum(rows, len(pictures[match]) - 1)
            assert np.array_equal(pixels, pictures[match][rows])
    assert clips.waited_seconds > 0


def test_a_batch_is_that_of_stage_two(tiny: Tiny, make: Make, begun: Start, videos: Path, tmp_path: Path) -> None:
    """The same windows in the same order with the same targets; the pictures' rows are those stored."""
    options = ExtractOptions(backbone=begun.features.backbone, weights="none", size=(48, 32))
    assert extract(find_sources([videos]), tmp_path / "rows.zarr", options, ExtractRun(engine="torch")).complete
    store, settings = FeatureStore.open(tmp_path / "rows.zarr"), tiny(clip_len=40, frames_per_epoch=40 * 4 * 2)
    chosen = choose_matches(store, stride=settings.stride)
    bank = open_bank(store, chosen.ids, views=("identity",), device=CPU, place="ram")
    net = Normalised(begun.backbone, mean=begun.features.mean, std=begun.features.std)
    num_padded = 0
    for epoch in range(2):
        stored = Examples.of(chosen, bank, settings).epoch(epoch)
        for (part,), batch in zip(make(settings).batches(epoch, first_step=0), stored, strict=True):
            for each in fields(batch.targets):
                assert torch.equal(getattr(part.targets, each.name), getattr(batch.targets, each.name))
            num_padded += int((~part.targets.mask_bt).sum())
            with torch.inference_mode():
                rows_btc = net(part.pixels)
            assert float((rows_btc - batch.features_btc).norm() / batch.features_btc.norm()) < 1e-3  # stored as fp16
    assert num_padded


def test_an_epoch_goes_on_where_it_was_left(tiny: Tiny, make: Make) -> None:
    settings = tiny(accumulate=2)
    whole = list(make(settings).batches(1, first_step=0))
    rest = list(make(settings).batches(1, first_step=2))
    assert (len(whole), len(rest)) == (3, 1)
    assert all(same(*parts) for parts in zip(whole[2], rest[0], strict=True))
    other = next(iter(make(settings).batches(0, first_step=0)))
    assert not same(whole[0][0], other[0])
    seeds = [seed for batch in whole for part in batch for seed in part.seeds]
    assert seeds == [clip_seed(settings.seed, 1, clip) for clip in range(12)]
    assert len(set(seeds)) == 12


def test_parts_and_processes_share_out_one_batch(tiny: Tiny, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [part for (part,) in make(tiny()).batches(0, first_step=0)]
    monkeypatch.setattr(clips_module, "num_processes", lambda: 2)
    found = []
    for index in range(2):
        monkeypatch.setattr(clips_module, "process_index", lambda index=index: index)
        found.append(list(make(tiny(accumulate=2)).batches(0, first_step=0)))
    for step, part in enumerate(whole):
        shares = [found[index][step][number] for number in range(2) for index in range(2)]  # parts, then processes
        assert torch.equal(torch.cat([share.pixels for share in shares]), part.pixels)
        assert tuple(seed for share in shares for seed in share.seeds) == part.seeds
        labels = [found[index][step][number].targets.label_btn for index in range(2) for number in range(2)]
        assert torch.equal(torch.cat(labels[:2]), part.targets.label_btn)
        assert torch.equal(torch.cat(labels[2:]), part.targets.label_btn)


def test_the_spread_is_even_and_never_more_than_there_is(tiny: Tiny, make: Make) -> None:
    clips = make(tiny(hop_rows=20))
    assert len(list(clips.spread(3))) == 3
    everything = list(clips.spread(1000))
    assert len(everything) == clips.windows.num_windows
    assert {tuple(pixels.shape) for pixels in everything} == {(1, 8, 32, 48, 3)}


def test_a_video_without_labels_is_refused_before_it_is_read(
    tiny: Tiny, train: Any, write_match: Any, tmp_path: Path
) -> None:
    for name in ("train/a", "train/b", "valid/x"):
        write_match(tmp_path / "data" / name, num_frames=40, seed=0)
    (tmp_path / "data" / "train" / "b" / "Labels-ball.json").unlink()
    (tmp_path / "data" / "train" / "b" / "224p.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="match 'b' has no labels\n  got:    a video alone") as error:
        train(tmp_path / "run", tiny(), data_set=find_sources([tmp_path / "data"]))
    assert "splits.json" in error.value.cure
    assert not (tmp_path / "run").exists()


def test_without_a_match_to_validate_nothing_begins(tiny: Tiny, train: Any, write_match: Any, tmp_path: Path) -> None:
    write_match(tmp_path / "data" / "train" / "a", num_frames=40, seed=0)
    with pytest.raises(InputError, match="no match in the split 'valid'\n  got:    1 train") as error:
        train(tmp_path / "run", tiny(), data_set=find_sources([tmp_path / "data"]))
    assert "--valid" in error.value.cure
    assert not (tmp_path / "run").exists()


def test_labels_of_mirrored_clips_are_of_the_other_team(data: DataSet, begun: Start, tiny: Tiny) -> None:
    source = VideoSource(data, Extractor(begun.backbone, begun.features))
    settings = tiny(augment="flip", accumulate=2)
    chosen = choose_matches(source.matches(), stride=settings.stride, is_by_team=True)
    assert chosen.classes == ("LEFT-left", "LEFT-right", "RIGHT-left", "RIGHT-right")
    clips = TrainingClips(chosen, source, settings, threads=2, device=CPU)
    seen = set()
    for number, batch in enumerate(clips.batches(0, first_step=0)):
        windows = np.split(clips.windows.batches(0)[number], 2)
        for part, of_part in zip(batch, windows, strict=True):
            plain = clips.windows.targets_of(*clips.windows.index(of_part))
            for clip, seed in enumerate(part.seeds):
                order = [1, 0, 3, 2] if is_flipped(seed) else [0, 1, 2, 3]
                assert torch.equal(part.targets.presence_btk[clip], plain.presence_btk[clip][:, order])
                seen.add(is_flipped(seed))
    assert seen == {True, False}
