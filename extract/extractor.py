"""A backbone with its weights and settings: what opens a video at the right size and turns its pictures into rows."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..cache.match import WeightsOrigin
from ..cache.settings import REDUCED_CURE, Depth, FeatureSettings, Pool, depth_text
from ..errors import InputError
from .backbones.registry import BackboneSpec, backbone_spec
from .backbones.weights import BACKBONE, KNOWN_NAMES, WeightsRecord, finetuned_run, load_weights, weights_origin
from .engines.choose import REFERENCE_ENGINE, Engine, Fidelity, check_fidelity, make_engine
from .options import Device, EngineKind, ExtractOptions, VideoDecoder, View
from .stream import RowBlock, Waits, stream_rows
from .video.nvdec import MAX_SESSIONS, MIN_LINES, nvdec_decoders
from .video.picture import MAX_ASPECT_ERROR, PictureFormat
from .video.reader import Video, VideoInfo, open_video, probe_video
from .windows import WindowPlan

V = TypeVar("V")
DEFAULT_BACKBONE = "x3d_s"
DEFAULT_SIZE = (398, 224)
DEFAULT_WINDOW = 50


def follow_run(options: ExtractOptions) -> ExtractOptions:
    """The options, and, where the weights are a finetuned run, all that the run was trained with.

    Raises:
        InputError: an option contradicts the run (names each), or the folder is no finished run with a backbone.
    """
    run = finetuned_run(options.weights)
    if run is None:
        return options
    features = run.features
    held: dict[str, Any] = {
        "backbone": features.backbone,
        "depth": features.depth,
        "pool": features.pool,
        "size": (features.width, features.height),
        "fit": features.fit,
        "scaler": features.scaler,
        "fps": features.fps,
        "window": features.window,
        "hop": features.hop,
        "blend": features.blend,
        "stride": features.stride,
    }
    asked = {name: getattr(options, name) for name in held}
    wrong = [name for name, value in asked.items() if value is not None and value != held[name]]
    if wrong:
        raise InputError(
            f"{run.folder}: the run was trained with other settings: {', '.join(f'--{name}' for name in wrong)}",
            got=", ".join(f"{name}={_option(asked[name])}" for name in wrong),
            wanted=", ".join(f"{name}={_option(held[name])}" for name in wrong),
            cure=f"leave these options out to follow the run; its head fits no other rows "
            f"(--weights {run.backbone} takes the backbone alone, and binds less)",
        )
    return replace(options, **held)


def _option(value: object) -> str:
    """As it is typed."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def choose_weights(options: ExtractOptions, stored: FeatureSettings | None) -> tuple[str, Depth, str, Pool]:
    """Backbone, depth, weights and pool, as `load_weights` takes them: options first, then the store, then defaults.

    Raises:
        InputError: the store was made with a weights file and none is named now, or its rows were imported or reduced.
    """
    if stored is not None and stored.reduction is not None:
        raise InputError(
            "the store holds reduced rows: no backbone makes more of them by itself",
            got=f"{stored.dim} channels, {stored.reduction[:40]}...",
            cure=REDUCED_CURE,
        )
    if stored is not None and stored.is_imported:
        raise InputError(
            "the store holds imported rows: no backbone of ours makes more of them",
            got=stored.backbone,
            cure="extract into another --out; verify it without --videos",
        )
    backbone = options.backbone or (stored.backbone if stored else DEFAULT_BACKBONE)
    depth, pool = options.depth, options.pool
    assert not isinstance(depth, str)  # the options have read it
    if stored is not None and stored.backbone == backbone:
        depth, pool = depth or stored.depth, pool or stored.pool
    pool = pool or "mean"
    if options.weights is not None:
        return backbone, depth, options.weights, pool
    if stored is not None:
        if stored.weights not in KNOWN_NAMES:
            raise InputError(
                "these features were made with a weights file, and none is named",
                wanted=f"the file {stored.weights}, tensors SHA-256 {stored.weights_sha256[:12]}...",
                cure="--weights FILE" + (", or the folder of the finetuned run" if stored.weights == BACKBONE else ""),
            )
        return backbone, depth, stored.weights, pool
    return backbone, depth, next(iter(backbone_spec(backbone, pool).urls)), pool


def resolve_settings(
    options: ExtractOptions, record: WeightsRecord, spec: BackboneSpec, stored: FeatureSettings | None
) -> FeatureSettings:
    """The full settings key: each value from the options, else the store, else the weights' record, else the default.

    Args:
        options: what the user asked for.
        record: of the loaded weights; what it says of stride, window and size was trained in and cannot be overruled.
        spec: of the backbone.
        stored: settings of the store, where it exists.

    Raises:
        InputError: the weights' record or the store says otherwise; names the fields.
    """
    two_d = spec.kind == "2d"
    trained_size, trained_window = _trained(record, spec)
    default = spec.size or spec.nearest_size(DEFAULT_SIZE)
    size = _agreed("size", options.size, trained_size, (stored.width, stored.height) if stored else None, default)
    if size != spec.nearest_size(size):
        raise InputError(
            f"--size does not fit {record.backbone}, which cuts pictures into patches",
            got="{}x{}".format(*size),
            wanted=f"multiples of {spec.patch}",
            cure="--size {}x{}".format(*spec.nearest_size(size)),
        )
    window = stride = 1
    if not two_d:
        stored_window, stored_stride = (stored.window, stored.stride) if stored else (None, None)
        default_window = spec.window or DEFAULT_WINDOW
        window = _agreed("window", options.window, trained_window, stored_window, default_window)
        stride = _agreed("stride", options.stride, record.stride, stored_stride, spec.stride)
    stored_hop = stored.hop if stored and stored.window == window else None
    settings = FeatureSettings(
        backbone=record.backbone,
        depth=record.depth,
        depth_dims=spec.depth_dims(record.depth),
        weights=record.weights,
        weights_sha256=record.weights_sha256,
        dim=record.dim,
        width=size[0],
        height=size[1],
        fit=options.fit or (stored.fit if stored else "pad"),
        scaler=options.scaler or (stored.scaler if stored else "swscale-bicubic"),
        fps=options.fps or (stored.fps if stored else "25"),
        window=window,
        hop=1 if two_d else options.hop or stored_hop or spec.hop(window),
        blend="mean" if two_d else options.blend or (stored.blend if stored else spec.blend),
        stride=stride,
        mean=record.mean,
        std=record.std,
        pool=record.pool,
    )
    if two_d and any(value not in (None, 1) for value in (options.window, options.hop, options.stride)):
        raise InputError(
            f"{record.backbone} sees single frames, so it has no window plan",
            got="--window, --hop or --stride",
            cure="leave these options out",
        )
    return settings


def _trained(record: WeightsRecord, spec: BackboneSpec) -> tuple[tuple[int, int] | None, int | None]:
    """Size and window that cannot be overruled; None where they can."""
    if spec.is_fixed:
        return spec.size, spec.window
    return (record.width, record.height) if record.width and record.height else None, record.window


def _agreed(name: str, asked: V | None, trained: V | None, stored: V | None, default: V) -> V:
    """The asked value, unless the weights were trained with another."""
    if asked is not None and trained is not None and asked != trained:
        raise InputError(
            f"--{name} does not fit the weights: a network fed in another way than it was trained gives nonsense",
            got=asked,
            wanted=f"{trained}, as in the weights' record",
            cure=f"leave --{name} out",
        )
    for value in (asked, trained, stored):
        if value is not None:
            return value
    return default


@dataclass
class Extractor:
    """Made once per run; holds one engine per picture size (one, unless the device resizes)."""

    module: nn.Module
    """The backbone, in eval mode, on the CPU."""
    settings: FeatureSettings
    """What the rows are made with."""
    kind: EngineKind = "auto"
    device: Device = "auto"
    origin: WeightsOrigin | None = None
    """Where its weights came from."""
    decoder: VideoDecoder = "auto"
    """What decodes videos."""
    _engines: dict[tuple[int, int], Engine] = field(default_factory=dict, repr=False)

    @classmethod
    def like(
        cls, settings: FeatureSettings, *, weights: str | None, kind: EngineKind = "auto", device: Device = "auto"
    ) -> "Extractor":
        """What makes more rows of these very settings.

        Args:
            settings: of rows that exist.
            weights: the weights file where they were made with one, whatever its name is now, or the folder of the
                finetuned run.
            kind: engine.
            device: where it runs.

        Raises:
            InputError: the rows were imported, no weights file is named where one is needed, or it holds others.
        """
        name, depth, weights, pool = choose_weights(ExtractOptions(weights=weights), settings)
        module, record = load_weights(name, depth, weights, pool)
        if record.weights_sha256 != settings.weights_sha256:
            raise InputError(
                "other weights than these features were made with",
                got=f"{record.weights}, tensors SHA-256 {record.weights_sha256[:12]}...",
                wanted=f"{settings.weights}, {settings.weights_sha256[:12]}...",
                cure="--weights FILE",
            )
        return cls(module, settings, kind, device, weights_origin(weights, record))

    def open(self, path: Path, *, threads: int = 0) -> Video:
        """The video on the settings' grid, its pictures as the engine takes them.

        Raises:
            InputError: as `open_video`; NVDEC is asked for, and cannot decode it.
        """
        settings = self.settings
        size, scaler = (settings.width, settings.height), settings.scaler
        if scaler == "torch-bilinear":
            size, scaler = unscaled_size(probe_video(path), settings), "swscale-bicubic"
        is_nvdec = self.decoder == "nvdec"
        picture = PictureFormat(width=size[0], height=size[1], fit=settings.fit, scaler=scaler)
        threads = threads or (MAX_SESSIONS if is_nvdec else 0)
        video = open_video(path, fps=settings.fps_fraction, picture=picture, threads=threads)
        if not is_nvdec:
            return video
        require_nvdec(path, video.info, settings, engine=self.engine(size))
        return video.decoded_by(partial(nvdec_decoders, device=torch.device("cuda"), size=size))

    def plan(self, video: Video) -> WindowPlan:
        """The window plan of a video."""
        return WindowPlan.of(self.settings, video.num_steps)

    def engine(self, size: tuple[int, int] | None = None) -> Engine:
        """The engine for pictures of a size (width, height), by default the settings'. Raises as `make_engine`."""
        settings = self.settings
        width, height = size or (settings.width, settings.height)
        if (width, height) not in self._engines:
            self._engines[width, height] = make_engine(
                self.module,
                mean=settings.mean,
                std=settings.std,
                clip_shape=(WindowPlan.of(settings, 1).window, height, width),
                kind=self.kind,
                device=self.device,
                resize_to=(settings.width, settings.height) if settings.scaler == "torch-bilinear" else None,
            )
        return self._engines[width, height]

    def rows(
        self,
        video: Video,
        *,
        views: Sequence[View] = ("identity",),
        first_row: int = 0,
        groups_per_call: int | None = None,
        waits: Waits | None = None,
    ) -> Generator[RowBlock]:
        """Rows of a video that `open` gave, in order; see `stream_rows`."""
        engine = self.engine(video.picture_size)
        groups = groups_per_call or -(-engine.preferred_clips // self.settings.stride)
        return stream_rows(
            video,
            self.plan(video),
            engine,
            views=views,
            first_row=first_row,
            groups_per_call=groups,
            waits=waits,
        )

    def check(self, video: Video) -> Fidelity | None:
        """Hold engine and decoder against plain fp32 PyTorch and PyAV on the video's first clip; None where they are
        just that.

        Raises:
            InputError: the engine is not exact with this backbone, or the decoder with this video.
        """
        engine = self.engine(video.picture_size)
        if engine.name == REFERENCE_ENGINE and video.is_by_pyav:
            return None
        seen = None if video.is_by_pyav else self._first_clip(video)
        return check_fidelity(engine, self.module, self._first_clip(video.decoded_by(None)), seen=seen)

    def _first_clip(self, video: Video) -> npt.NDArray[np.uint8]:
        """(1, T, H, W, 3)."""
        plan = self.plan(video)
        frames = [frame.image for frame in video.frames(0, plan.group_span(0)[1])]
        return np.stack([[torch.as_tensor(frames[index]).cpu().numpy() for index in plan.group_frames(0)[0]]])


def unscaled_size(info: VideoInfo, settings: FeatureSettings) -> tuple[int, int]:
    """Width and height to decode at so that the device does all the resizing: the display size, or, where the aspect
    must be kept and differs, the smallest box of the settings' aspect around it."""
    width, height = info.display_width, info.display_height
    wanted = Fraction(settings.width, settings.height)
    if settings.fit == "stretch" or abs(Fraction(width, height) / wanted - 1) <= MAX_ASPECT_ERROR:
        return width, height
    return max(width, round(height * wanted)), max(height, round(width / wanted))


def require_nvdec(path: Path, info: VideoInfo, settings: FeatureSettings, *, engine: Engine) -> None:
    """Refuse what NVDEC cannot hand to the engine as PyAV would, or slower.

    Raises:
        InputError: another engine, a scaler on the CPU; a small video, one whose colours PyAV and torchcodec guess
            differently, or whose pictures need bars, turning or stretching.
    """
    width, height = unscaled_size(info, settings)
    lines, stated = f"{MIN_LINES} lines or more", "a colour matrix that the file states"
    needs = (
        (engine.name == "torch-fp16-cuda", engine.name, "PyTorch on the GPU that decodes", "--device cuda"),
        (settings.scaler == "torch-bilinear", settings.scaler, "a scaler on the GPU", "--scaler torch-bilinear"),
        (info.coded_height >= MIN_LINES, f"{info.coded_height} lines", lines, ""),
        (info.has_colour, "none", stated, ""),
        (
            (info.coded_width, info.coded_height) == (width, height),
            f"{info.coded_width}x{info.coded_height} pixels for {width}x{height}",
            "frames as they are shown, without bars",
            "--fit stretch",
        ),
    )
    for is_met, got, wanted, cure in needs:
        if not is_met:
            cure = f"{cure}, or --decoder pyav" if cure else "--decoder pyav"
            raise InputError(f"{path}: --decoder nvdec cannot be used", got=got, wanted=wanted, cure=cure)


def describe_settings(settings: FeatureSettings) -> str:
    """Settings in one line for people."""
    depth = f" depth {depth_text(settings.depth)}" if settings.depth is not None else ""
    depth += f" pool {settings.pool}" if settings.pool != "mean" else ""
    plan = "each frame by itself"
    if settings.window > 1:
        plan = f"window {settings.window} hop {settings.hop} {settings.blend} stride {settings.stride}"
    return (
        f"{settings.backbone}{depth}, weights {settings.weights}: {settings.dim} channels, "
        f"{settings.width}x{settings.height} at {settings.fps} fps, {plan}"
    )
