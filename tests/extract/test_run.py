"""`bas extract` from end to end, on small synthetic matches and a small random X3D."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from bas.cache.store import FeatureStore
from bas.data.sources import find_sources
from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.extract.backbones.weights import load_weights, save_backbone_checkpoint
from bas.extract.extractor import Extractor
from bas.extract.options import ExtractOptions, ExtractRunOptions, parse_shard, share_out
from bas.extract.run import chosen_matches, extract
from bas.workers import Summary

pytestmark = pytest.mark.usefixtures("known_graphs")
OPTIONS = ExtractOptions(backbone="x3d_xs", depth=4, weights="none", size=(64, 36), window=8, hop=4, stride=2)
LONG_FRAMES, SHORT_FRAMES = 325, 150
Cli = Callable[..., int]


@pytest.fixture(scope="module")
def data_set_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two matches of 13 and 6 s: 325 and 150 frames; progress is saved after 256."""
    root = tmp_path_factory.mktemp("data")
    write_match(root / "long", seconds=LONG_FRAMES / 25, seed=1)
    write_match(root / "short", seconds=SHORT_FRAMES / 25, seed=2)
    (root / "splits.json").write_text(json.dumps({"train": ["long"], "test": ["short"]}))
    return root


@pytest.fixture(scope="module")
def whole_store(data_set_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an uninterrupted run, both views."""
    path = tmp_path_factory.mktemp("whole") / "s.zarr"
    assert run(data_set_folder, path, views=("identity", "hflip")).complete
    return path


def run(data: Path, store: Path, **how: object) -> Summary:
    return extract(find_sources([data]), store, OPTIONS, ExtractRunOptions(**({"engine": "openvino"} | how)))  # type: ignore[arg-type]


def tree(root: Path) -> dict[str, bytes]:
    """Every file of a store, whole."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_rows_are_those_of_the_plain_network_on_each_window(whole_store: Path, data_set_folder: Path) -> None:
    """Straight from the definition: decode all, run plain PyTorch clip by clip, average with Hann weights."""
    module, record = load_weights("x3d_xs", 4, "none")
    with av.open(data_set_folder / "short" / "224p.mp4") as container:
        how: dict[str, Any] = {"src_colorspace": "ITU601", "dst_colorspace": "ITU601", "dst_color_range": "JPEG"}
        decoded = container.decode(video=0)
        frames = [each.reformat(64, 36, "rgb24", interpolation="BICUBIC", **how).to_ndarray() for each in decoded]
    pixels = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float() / 255  # (3, T, H, W)
    pixels = (pixels - torch.tensor(record.mean).view(3, 1, 1, 1)) / torch.tensor(record.std).view(3, 1, 1, 1)
    num_frames, window, hop, stride = len(frames), 8, 4, 2
    total, weight = np.zeros((num_frames, record.dim)), np.zeros(num_frames)
    hann = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    for phase in range(stride):
        for start in range(0, num_frames // stride - window + hop, hop):
            steps = np.arange(start, start + window) * stride + phase
            with torch.no_grad():
                clip = module(pixels[None, :, np.minimum(steps, num_frames - 1)])[0].numpy()
            inside = steps < num_frames
            total[steps[inside]] += clip[inside] * hann[inside, None]
            weight[steps[inside]] += hann[inside]
    stored = np.asarray(FeatureStore.open(whole_store).rows("short")[0:num_frames], np.float32)
    wanted = total / weight[:, None]
    assert np.abs(stored - wanted).max() <= 2e-3 * np.abs(wanted).max()
    assert np.abs(wanted).max() > 0.01


def test_hflip_is_another_view_with_its_own_features(whole_store: Path) -> None:
    store = FeatureStore.open(whole_store)
    assert store.views("long") == ["hflip", "identity"]
    identity, hflip = (
        np.asarray(store.rows("long", view)[0:LONG_FRAMES], np.float32) for view in ("identity", "hflip")
    )
    assert np.abs(identity - hflip).max() > 1e-3


def test_labels_split_time_and_classes_travel_with_the_store(whole_store: Path, data_set_folder: Path) -> None:
    store = FeatureStore.open(whole_store)
    info = store.match("short")
    assert (info.num_rows, info.meta.split, int(info.meta.fps)) == (SHORT_FRAMES, "test", 25)
    assert info.meta.events() == find_sources([data_set_folder]).events(find_sources([data_set_folder]).matches[1])
    seconds = [int(ticks) * info.meta.time_base for ticks in store.pts("short")]
    assert seconds == [Fraction(frame, 25) for frame in range(SHORT_FRAMES)]
    assert store.valid("short").all()
    assert set(store.classes) == {"PASS", "DRIVE", *store.classes}


@pytest.mark.parametrize("how", [{"batch": 1, "decode_threads": 3}, {"batch": 5, "decode_threads": 1}])
def test_batch_and_threads_change_no_bit(
    how: dict[str, int], whole_store: Path, data_set_folder: Path, tmp_path: Path
) -> None:
    run(data_set_folder, tmp_path / "s.zarr", views=("identity", "hflip"), **how)
    assert tree(tmp_path / "s.zarr") == tree(whole_store)


def test_sharing_out_and_adding_views_later_change_no_bit(
    whole_store: Path, data_set_folder: Path, tmp_path: Path
) -> None:
    for view in ("identity", "hflip"):
        for index in (1, 0):
            summary = run(data_set_folder, tmp_path / "s.zarr", views=(view,), shard=(index, 2))
            assert [result.status for result in summary.results] == ["extracted"]
    assert tree(tmp_path / "s.zarr") == tree(whole_store)
    again = run(data_set_folder, tmp_path / "s.zarr", views=("identity", "hflip"))
    assert {result.status for result in again.results} == {"already there"}


def test_share_out_is_a_balanced_partition() -> None:
    lengths = [100, 7, 100, 33, 33, 34, 0, 5]
    shares = [share_out(lengths, index=index, count=3) for index in range(3)]
    assert sorted(position for share in shares for position in share) == list(range(len(lengths)))
    loads = [sum(lengths[position] for position in share) for share in shares]
    assert max(loads) - min(loads) <= 8


def test_other_settings_into_the_same_store_are_refused_by_name(
    whole_store: Path, data_set_folder: Path, bas: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(whole_store)
    assert bas("extract", data_set_folder, "--out", whole_store, "--engine", "torch", "--hop", 8) == 2
    assert "these differ: hop" in capsys.readouterr().err
    assert bas("extract", data_set_folder, "--out", whole_store, "--engine", "torch", "--depth", 5) == 2
    assert "depth" in capsys.readouterr().err
    assert tree(whole_store) == before


def test_options_left_out_follow_the_store(whole_store: Path, data_set_folder: Path, tmp_path: Path, bas: Cli) -> None:
    shutil.copytree(whole_store, tmp_path / "s.zarr")
    shutil.copytree(data_set_folder / "short", tmp_path / "more" / "third")
    assert bas("extract", tmp_path / "more", "--out", tmp_path / "s.zarr") == 0
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.matches() == ["long", "short", "third"]
    assert np.array_equal(store.rows("third")[0:SHORT_FRAMES], store.rows("short")[0:SHORT_FRAMES])


def half_of(whole: Path, broken: Path) -> None:
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def of_a_length_that_no_file_can_have(whole: Path, broken: Path) -> None:
    """A broken DURATION tag asked for a grid of 655 TiB, and the next match was not extracted."""
    with av.open(whole) as source, av.open(broken, "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        stream.metadata["DURATION"] = "999999999:59:59.00"
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    tagged, written = broken.read_bytes(), b"00:00:06.000000000"  # the muxer puts the true length in the place of ours
    assert tagged.count(written) == 1
    broken.write_bytes(tagged.replace(written, b"999999999:59:59.00"))


@pytest.mark.parametrize(
    ("game", "write_broken", "why"),
    [("long", half_of, "not a video that can be read"), ("short", of_a_length_that_no_file_can_have, "not believable")],
)
def test_a_bad_video_fails_alone_and_says_why(
    game: str,
    write_broken: Callable[[Path, Path], None],
    why: str,
    data_set_folder: Path,
    tmp_path: Path,
    bas: Cli,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_set_folder / "short", data / "good")
    (data / "bad").mkdir()
    write_broken(data_set_folder / game / "224p.mp4", data / "bad" / "224p.mkv")
    (data / "bad" / "Labels-ball.json").write_text('{"annotations": []}')
    arguments = ["--out", tmp_path / "s.zarr", "--backbone", "regnety_002", "--weights", "none", "--size", "32x32"]
    assert bas("extract", data, *arguments, "--engine", "torch", "--json") == 2
    printed = capsys.readouterr()
    bad, good = json.loads(printed.out)["matches"]
    assert (bad["match"], bad["status"], good["match"], good["status"]) == ("bad", "failed", "good", "extracted")
    assert why in bad["message"]
    assert "Traceback" not in printed.err
    assert FeatureStore.open(tmp_path / "s.zarr").matches() == ["good"]


def test_an_exception_of_any_kind_ends_its_match_alone(data_set_folder: Path, tmp_path: Path) -> None:
    def open_or_break(self: Extractor, path: Path, **more: Any) -> Any:
        if "long" in str(path):
            raise MemoryError("655 TiB")
        return real(self, path, **more)

    real = Extractor.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Extractor, "open", open_or_break)
        summary = run(data_set_folder, tmp_path / "s.zarr", engine="torch")
    assert [result.status for result in summary.results] == ["failed", "extracted"]
    assert summary.results[0].message == "MemoryError: 655 TiB"
    assert "Traceback" in summary.results[0].details


def test_a_damaged_video_needs_leave(data_set_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    damaged = bytearray((data_set_folder / "long" / "224p.mp4").read_bytes())
    start = damaged.find(b"mdat") + 4
    for spot in range(start + 20_000, len(damaged) - 20_000, len(damaged) // 6):
        damaged[spot : spot + 300] = bytes(range(256)) + bytes(44)
    (tmp_path / "m" / "224p.mp4").write_bytes(damaged)
    refused = run(tmp_path / "m", tmp_path / "s.zarr", max_bad_share=0.01).results[0]
    assert refused.status == "failed"
    assert "--max-bad-share" in refused.message
    allowed = run(tmp_path / "m", tmp_path / "s.zarr", max_bad_share=1.0).results[0]
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert allowed.columns["invalid"] == int((~store.valid("m")).sum())
    assert 0 < allowed.columns["invalid"] < LONG_FRAMES


def test_a_late_start_is_no_damage(data_set_folder: Path, tmp_path: Path) -> None:
    with av.open(data_set_folder / "short" / "224p.mp4") as source, av.open(tmp_path / "late.mp4", "w") as late:
        stream = source.streams.video[0]
        copy = late.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts + 2 * 12800, packet.dts + 2 * 12800  # 2 s
                packet.stream = copy
                late.mux(packet)
    result = run(tmp_path / "late.mp4", tmp_path / "s.zarr", max_bad_share=0.0).results[0]
    assert (result.status, result.num_rows, result.columns["invalid"]) == ("extracted", 50 + SHORT_FRAMES, 50)
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.valid("late").tolist() == [False] * 50 + [True] * SHORT_FRAMES


def test_what_a_finetuned_checkpoint_was_trained_with_cannot_be_overruled(
    data_set_folder: Path, tmp_path: Path, bas: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    module, record = load_weights("x3d_xs", 4, "none")
    record = replace(record, stride=3, window=10, width=64, height=36)
    save_backbone_checkpoint(tmp_path / "tuned.safetensors", module, record)
    arguments = ["extract", data_set_folder, "--out", tmp_path / "s.zarr", "--split", "test", "--engine", "torch"]
    arguments += ["--backbone", "x3d_xs", "--depth", 4, "--weights", tmp_path / "tuned.safetensors"]
    assert bas(*arguments, "--stride", 2) == 2
    error = capsys.readouterr().err
    assert "--stride" in error
    assert "3" in error
    assert bas(*arguments) == 0
    settings = FeatureStore.open(tmp_path / "s.zarr").settings
    assert (settings.stride, settings.window, settings.width, settings.weights) == (3, 10, 64, "tuned.safetensors")
    assert bas("extract", data_set_folder, "--out", tmp_path / "s.zarr") == 2
    assert "--weights FILE" in capsys.readouterr().err


def test_verify_extracts_again_and_notices_other_features(
    whole_store: Path, data_set_folder: Path, tmp_path: Path, bas: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bas("cache", "verify", whole_store, "--videos", data_set_folder) == 0
    assert "all is well" in capsys.readouterr().out
    other = tmp_path / "s.zarr"
    options = ExtractOptions(backbone="x3d_xs", depth=4, weights="none", size=(64, 36), window=8, hop=8, stride=2)
    extract(find_sources([data_set_folder]), other, options, ExtractRunOptions(), split=("test",))
    for file in ("zarr.json", "c/0/0"):  # features of another plan under this store's settings: only a video can tell
        shutil.copy(whole_store / "short/features/identity" / file, other / "short/features/identity" / file)
    assert bas("cache", "verify", other) == 0
    assert bas("cache", "verify", other, "--videos", data_set_folder) == 2
    assert "rows differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--shard", "2/2"], "--shard"),
        (["--shard", "half"], "--shard"),
        (["--size", "398"], "--size"),
        (["--views", "identity,vflip"], "vflip"),
        (["--blend", "cosine"], "--blend"),
        (["--batch", "0"], "--batch"),
        (["--fps", "0"], "frame rate"),
        (["--hop", "60"], "hop"),
        (["--backbone", "x3d_q"], "x3d_q"),
        (["--backbone", "efficientnet_b0", "--window", "50"], "window"),
        (["--depth", "6"], "--depth"),
        (["--depth", "5,2"], "in order, as 2,3,4,5"),
        (["--weights", "missing.safetensors"], "missing.safetensors"),
        (["--split", "valid"], "valid"),
        (["--max-bad-share", "2"], "--max-bad-share"),
        (["--scaler", "torch-bilinear", "--engine", "openvino"], "resize"),
    ],
)
def test_bad_options_say_so_and_write_nothing(
    arguments: list[str],
    named: str,
    data_set_folder: Path,
    tmp_path: Path,
    bas: Cli,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = [] if "--weights" in arguments else ["--weights", "none"]
    assert bas("extract", data_set_folder, "--out", tmp_path / "s.zarr", *weights, *arguments) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "Traceback" not in error
    assert not list(tmp_path.rglob("features"))


def test_no_match_of_the_split_is_an_error(data_set_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no match to extract"):
        extract(find_sources([data_set_folder]), tmp_path / "s", OPTIONS, ExtractRunOptions(), split=("challenge",))


def test_the_device_scaler_sees_the_whole_picture_and_is_in_the_key(data_set_folder: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, backbone="efficientnet_b0", depth=None, window=None, hop=None, stride=None)
    stores = []
    for scaler in ("swscale-bicubic", "torch-bilinear"):
        path = tmp_path / f"{scaler}.zarr"
        sources = find_sources([data_set_folder])
        scaled = replace(options, scaler=scaler)
        summary = extract(sources, path, scaled, ExtractRunOptions(engine="torch"), split=("test",))
        assert summary.complete, summary.results
        stores.append(FeatureStore.open(path))
    assert stores[0].settings.key() != stores[1].settings.key()
    a, b = (np.asarray(store.rows("short")[0:SHORT_FRAMES], np.float32) for store in stores)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert 0.9 < cosine.min() < 0.999999


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1", "WORLD_SIZE": "4"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"},
    ],
)
def test_a_share_is_taken_from_the_launcher_or_it_is_said_what_to_type(environment: dict[str, str]) -> None:
    assert parse_shard("auto", environment) == parse_shard("1/4", {}) == (1, 4)
    with pytest.raises(InputError, match="--shard auto finds no launcher"):
        parse_shard("auto", {"RANK": "1"})


def test_shares_do_not_depend_on_what_is_stored_or_can_be_read(whole_store: Path, data_set_folder: Path) -> None:
    """Workers that start late, beside others that have written much, take what they would have taken at first."""
    data_set = find_sources([data_set_folder])
    shares = [chosen_matches(data_set, (), ExtractRunOptions(shard=(index, 2))) for index in range(2)]
    assert [[match.id for match in share] for share in shares] == [["long"], ["short"]]
    for unreadable in (0, 1):  # one worker cannot open a file that the others can
        videos = [replace(match, video=None) if i == unreadable else match for i, match in enumerate(data_set.matches)]
        blind = replace(data_set, matches=tuple(videos))
        seen = [chosen_matches(blind, (), ExtractRunOptions(shard=(index, 2))) for index in range(2)]
        assert [[match.id for match in share] for share in seen] == [["long"], ["short"]]
    summary = extract(data_set, whole_store, OPTIONS, ExtractRunOptions(engine="openvino", shard=(1, 2)))
    assert [(result.match_id, result.status) for result in summary.results] == [("short", "already there")]
