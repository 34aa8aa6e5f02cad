"""Frames by torchcodec (on a CPU, where it is installed) are those of PyAV; what is not for a GPU is refused."""

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bas.cache.settings import FeatureSettings
from bas.errors import InputError
from bas.extract.backbones.registry import backbone_spec
from bas.extract.backbones.weights import load_weights
from bas.extract.extractor import Extractor, require_nvdec, resolve_settings
from bas.extract.options import ExtractOptions
from bas.extract.video.nvdec import nvdec_decoders
from bas.extract.video.picture import PictureFormat
from bas.extract.video.reader import Video, open_video, probe_video

SIZE = (160, 96)
IRREGULAR = np.cumsum(np.random.default_rng(0).choice([512, 500, 1024, 2560, 300], 60)).tolist()
Changed = Callable[[dict[str, Any]], None]


def opened(path: Path, *, fps: int | None = 25, threads: int = 2) -> Video:
    picture = PictureFormat(width=SIZE[0], height=SIZE[1])
    return open_video(path, fps=Fraction(fps) if fps else None, picture=picture, threads=threads)


def on_cpu(video: Video, size: tuple[int, int] = SIZE) -> Video:
    return video.decoded_by(partial(nvdec_decoders, device=torch.device("cpu"), size=size))


class StandIn:
    """`torchcodec.decoders.VideoDecoder` as far as it is used, by PyAV."""

    cpu_fallback: Any = False
    change: Changed = staticmethod(lambda _: None)

    def __init__(self, path: Path, **options: Any) -> None:
        assert set(options) == {"stream_index", "dimension_order", "device", "custom_frame_mappings"}
        self.video = opened(path, fps=None, threads=1)

    def get_frames_at(self, indices: list[int]) -> Any:
        pictures = dict(self.video._pictures(np.array(indices)))
        ticks = self.video.table.pts_ticks[indices].astype(float)
        batch = {
            "data": torch.from_numpy(np.stack([pictures[index] for index in indices])),
            "pts_seconds": torch.from_numpy(ticks * float(self.video.table.time_base)),
        }
        type(self).change(batch)
        return SimpleNamespace(**batch)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    decoder = type("Decoder", (StandIn,), {})
    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=decoder))
    return decoder


@pytest.mark.parametrize("kind", ["stand-in", "torchcodec"])
@pytest.mark.parametrize("fps", [10, None])
@pytest.mark.parametrize("name", ["even.mp4", "irregular.mp4", "irregular.mkv", "open.mp4"])
def test_steps_frames_and_pixels_are_those_of_pyav(
    make_clip: Callable[..., Path], request: pytest.FixtureRequest, kind: str, fps: int | None, name: str
) -> None:
    if kind == "stand-in":
        request.getfixturevalue("stand_in")
    else:
        try:
            import torchcodec.decoders  # noqa: F401
        except (ImportError, RuntimeError, OSError):
            pytest.skip("TORCHCODEC NOT TESTED: pip install torchcodec, with FFmpeg's shared libraries")
    options = {"x264-params": "open-gop=1:bframes=3:keyint=12"} if name == "open.mp4" else {"bf": "2"}
    video = opened(make_clip(name, pts=IRREGULAR if "irregular" in name else None, options=options), fps=fps)
    for start in (0, video.num_steps // 2):
        pairs = list(zip(video.frames(start), on_cpu(video).frames(start), strict=True))
        assert len(pairs) == video.num_steps - start
        for by_pyav, frame in pairs:
            assert (frame.step, frame.valid) == (by_pyav.step, by_pyav.valid)
            assert np.array_equal(frame.image, by_pyav.image)


@pytest.mark.usefixtures("stand_in")
def test_rows_of_frames_on_the_device_are_those_of_pyav(make_clip: Callable[..., Path]) -> None:
    module, record = load_weights("regnety_002", None, "none")
    settings = resolve_settings(ExtractOptions(size=SIZE), record, backbone_spec("regnety_002"), None)
    extractor = Extractor(module, settings, kind="torch", device="cpu")
    video = extractor.open(make_clip("a.mp4", num_frames=80, pts=None))
    wanted, rows = (
        np.concatenate([block.rows["identity"] for block in extractor.rows(each)]) for each in (video, on_cpu(video))
    )
    assert np.array_equal(rows, wanted)
    assert extractor.check(video) is None
    fidelity = extractor.check(on_cpu(video))
    assert fidelity is not None
    assert fidelity.cosine > 0.999999


def test_frames_that_differ_are_noticed_by_the_check(make_clip: Callable[..., Path], stand_in: type[StandIn]) -> None:
    def inverted(batch: dict[str, Any]) -> None:
        batch["data"] = 255 - batch["data"]

    stand_in.change = staticmethod(inverted)
    module, record = load_weights("regnety_002", None, "none")
    settings = resolve_settings(ExtractOptions(size=SIZE), record, backbone_spec("regnety_002"), None)
    extractor = Extractor(module, settings, kind="torch", device="cpu")
    with pytest.raises(InputError, match="or the decoder with this video") as error:
        extractor.check(on_cpu(extractor.open(make_clip("a.mp4"))))
    assert "--decoder pyav" in error.value.cure


def _late(batch: dict[str, Any]) -> None:
    batch["pts_seconds"] = batch["pts_seconds"] + 0.04


def _cropped(batch: dict[str, Any]) -> None:
    batch["data"] = batch["data"][:, 8:]


def _fails(_: dict[str, Any]) -> None:
    raise RuntimeError("Could not decode")


@pytest.mark.parametrize(
    ("change", "got"), [(_late, "frame 0 comes at 0.04 s"), (_cropped, "(88, 160, 3)"), (_fails, "Could not decode")]
)
def test_frames_that_are_not_those_of_the_table_end_the_match(
    make_clip: Callable[..., Path], stand_in: type[StandIn], change: Changed, got: str
) -> None:
    stand_in.change = staticmethod(change)
    with pytest.raises(InputError, match="not for NVDEC") as error:
        list(on_cpu(opened(make_clip("a.mp4"))).frames())
    assert got in str(error.value.got)
    assert error.value.cure == "--decoder pyav"


def test_a_decoder_that_falls_back_to_the_cpu_is_refused(
    make_clip: Callable[..., Path], stand_in: type[StandIn]
) -> None:
    stand_in.cpu_fallback = "Video not supported"
    with pytest.raises(InputError, match="not for NVDEC"):
        list(on_cpu(opened(make_clip("a.mp4"))).frames())


def test_without_torchcodec(make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(InputError, match="needs torchcodec") as error:
        on_cpu(opened(make_clip("a.mp4")))
    assert "pip install torchcodec" in error.value.cure


@pytest.mark.usefixtures("stand_in")
def test_packets_without_times_are_refused(make_clip: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="not for NVDEC"):
        on_cpu(opened(make_clip("a.avi", codec="mpeg4")))


GPU: Any = SimpleNamespace(name="torch-fp16-cuda")


def on_gpu(**changes: Any) -> FeatureSettings:
    _, record = load_weights("regnety_002", None, "none")
    options = ExtractOptions(size=(398, 224), scaler="torch-bilinear", **changes)
    return resolve_settings(options, record, backbone_spec("regnety_002"), None)


def test_what_nvdec_is_for(make_clip: Callable[..., Path]) -> None:
    path = make_clip("a.mp4", size=(1280, 720), num_frames=2)
    info, settings = replace(probe_video(path), has_colour=True), on_gpu()
    require_nvdec(path, info, settings, engine=GPU)
    small = replace(info, coded_height=224, coded_width=398, display_height=224, display_width=398)
    turned = replace(info, display_width=720, display_height=1280, rotation_degrees=90)
    for got, seen, asked, engine, wanted in (
        ("torch-f32-cpu", info, settings, SimpleNamespace(name="torch-f32-cpu"), "PyTorch on the GPU that decodes"),
        ("swscale-bicubic", info, replace(settings, scaler="swscale-bicubic"), GPU, "a scaler on the GPU"),
        ("224 lines", small, settings, GPU, "720 lines or more"),
        ("none", replace(info, has_colour=False), settings, GPU, "a colour matrix that the file states"),
        ("1280x720 pixels for 2274x1280", turned, settings, GPU, "frames as they are shown, without bars"),
    ):
        with pytest.raises(InputError, match="--decoder nvdec cannot be used") as error:
            require_nvdec(path, seen, asked, engine=engine)
        assert (error.value.got, error.value.wanted) == (got, wanted)
        assert "--decoder pyav" in error.value.cure


def test_the_command_refuses_nvdec_where_there_is_no_gpu(
    make_clip: Callable[..., Path], tmp_path: Path, bas: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    call = (
        "extract",
        make_clip("a.mp4"),
        "--out",
        tmp_path / "s.zarr",
        "--backbone",
        "regnety_002",
        "--weights",
        "none",
    )
    assert bas(*call, "--decoder", "nvdec", "--device", "cpu", "--engine", "torch") == 2
    assert "PyTorch on the GPU that decodes" in "".join(capsys.readouterr())
    assert bas(*call, "--decoder", "gpu") == 2
    assert "--decoder" in capsys.readouterr().err
