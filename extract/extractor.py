"""A backbone with its weights and settings: what opens a video at the right size and turns its pictures into rows."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import nn

from ..cache.match import WeightsOrigin
from ..cache.settings import FeatureSettings
from ..errors import InputError
from .backbones.weights import load_weights, weights_origin
from .engines.choose import REFERENCE_ENGINE, Device, Engine, EngineKind, Fidelity, check_fidelity, make_engine
from .options import ExtractOptions, choose_weights
from .stream import RowBlock, Waits, stream_rows
from .video.picture import MAX_ASPECT_ERROR, PictureFormat
from .video.reader import Video, VideoInfo, open_video, probe_video
from .views import View
from .windows import WindowPlan


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
        name, depth, weights = choose_weights(ExtractOptions(weights=weights), settings)
        module, record = load_weights(name, depth, weights)
        if record.weights_sha256 != settings.weights_sha256:
            raise InputError(
                "other weights than these features were made with",
                got=f"{record.weights}, tensors SHA-256 {record.weights_sha256[:12]}...",
                wanted=f"{settings.weights}, {settings.weights_sha256[:12]}...",
                cure="--weights FILE",
            )
        return cls(module, settings, kind, device, weights_origin(weights, record))

    def open(self, path: Path, *, threads: int = 0) -> Video:
        """The video on the settings' grid, its pictures as the engine takes them. Raises as `open_video`."""
        settings = self.settings
        size, scaler = (settings.width, settings.height), settings.scaler
        if scaler == "torch-bilinear":
            size, scaler = unscaled_size(probe_video(path), settings), "swscale-bicubic"
        picture = PictureFormat(width=size[0], height=size[1], fit=settings.fit, scaler=scaler)
        return open_video(path, fps=settings.fps_fraction, picture=picture, threads=threads)

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
        """Hold the engine against plain fp32 PyTorch on the video's first clips; None where it is just that.

        Raises:
            InputError: the engine is not exact with this backbone.
        """
        engine, plan = self.engine(video.picture_size), self.plan(video)
        if engine.name == REFERENCE_ENGINE:
            return None
        frames = [frame.image for frame in video.frames(0, plan.group_span(0)[1])]
        clips = np.stack([np.stack([frames[index] for index in phase]) for phase in plan.group_frames(0)])
        return check_fidelity(engine, self.module, clips[:1])


def unscaled_size(info: VideoInfo, settings: FeatureSettings) -> tuple[int, int]:
    """Width and height to decode at so that the device does all the resizing: the display size, or, where the aspect
    must be kept and differs, the smallest box of the settings' aspect around it."""
    width, height = info.display_width, info.display_height
    wanted = Fraction(settings.width, settings.height)
    if settings.fit == "stretch" or abs(Fraction(width, height) / wanted - 1) <= MAX_ASPECT_ERROR:
        return width, height
    return max(width, round(height * wanted)), max(height, round(width / wanted))
