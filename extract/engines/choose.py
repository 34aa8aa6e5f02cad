"""Engines: what turns clips of pictures into feature rows, and the check that they agree with plain PyTorch."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...errors import InputError
from ..backbones.registry import Rgb
from ..options import Device, EngineKind
from .openvino import NotConvertedError, OpenvinoEngine, openvino_installed
from .pytorch import Feed, TorchEngine

REFERENCE_ENGINE = "torch-f32-cpu"
"""Name of the engine that the others are held against."""
MIN_COSINE = 0.9999
"""Every row of an engine is at least this close to plain fp32 PyTorch."""
MIN_QUANTISED_COSINE = 0.95
"""The same of a network in 8 bits, which is asked for by name: below, its head would see something else."""


class Engine(Protocol):
    """Frames in, rows of clips out. A row never depends on how many clips are passed together, nor on which."""

    name: str
    """Such as `openvino-f32-cpu`."""
    mean: Rgb
    std: Rgb
    clip_shape: tuple[int, int, int]
    """Steps, height, width."""
    preferred_clips: int
    """Pass a multiple of so many clips to keep the device busy."""
    note: str
    """Why it is not the engine that is chosen otherwise; empty where it is."""

    def feed(self) -> Feed:
        """A function that takes the frames of one video and gives rows of clips of them; made anew for each video.

        Its arguments, call by call:
            images: (H, W, 3) uint8 each, the frames that follow those of the call before; most in the first call.
            frames_bt: (B, T) int64, the frames of each clip, counted from the first that was handed over; none before
                the first frame of the call before.
            views: in each of which every clip goes through the backbone.

        It may come back before the work is done; what it returns waits for the rows, view -> (B, T, C) float32. For
        one thread at a time; of two or three calls the rows may be outstanding.
        """

    def describe(self) -> dict[str, Any]:
        """Engine, versions, device: what the provenance record keeps."""


@dataclass(frozen=True)
class Fidelity:
    """How close an engine's rows are to plain fp32 PyTorch, the worst row of those compared."""

    cosine: float
    """Of the rows as they are; near 1 for any two rows of the same backbone, so it must be nearly exact."""
    standardised_cosine: float
    """After each channel is shifted and scaled to mean 0 and deviation 1 over the rows; NaN for fewer than two rows."""

    def __str__(self) -> str:
        standardised = f"; standardised {self.standardised_cosine:.6f}"
        return f"engine against plain fp32: worst row's cosine {self.cosine:.6f}{standardised}"


def clip_rows(engine: Engine, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Rows (B, T, C) float32 of clips that lie in memory: (B >= 1, T, H, W, 3) uint8. ValueError on other ones."""
    wanted = (*engine.clip_shape, 3)
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[1:] != wanted or len(clips) < 1:
        raise ValueError(f"clips must be uint8 (B, {', '.join(map(str, wanted))}), got {clips.dtype} {clips.shape}")
    frames_bt = np.arange(clips.shape[0] * clips.shape[1]).reshape(clips.shape[:2])
    return engine.feed()(list(clips.reshape(-1, *clips.shape[2:])), frames_bt, ("identity",))()["identity"]


def make_engine(
    module: nn.Module,
    *,
    mean: Rgb,
    std: Rgb,
    clip_shape: tuple[int, int, int],
    kind: EngineKind = "auto",
    device: Device = "auto",
    resize_to: tuple[int, int] | None = None,
) -> Engine:
    """Build an engine around a backbone.

    Args:
        module: from `build_backbone` or `load_weights`; it is never changed.
        mean, std: as in `Normalised`.
        clip_shape: steps, height and width of every clip that will be passed.
        kind: auto: PyTorch on a GPU; on a CPU OpenVINO where it is installed and converts the module, else
            PyTorch.
        device: auto: a GPU where there is one.
        resize_to: (width, height) to resize to on the device (bilinear, antialiased); PyTorch only.

    Raises:
        InputError: the device or OpenVINO is not there, or the choices exclude each other.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise InputError("no CUDA device", got="--device cuda", cure="--device cpu, or install torch for CUDA")
    place: Literal["cpu", "cuda"] = "cuda" if device != "cpu" and has_cuda and kind != "openvino" else "cpu"
    if kind == "openvino" and (device == "cuda" or resize_to is not None):
        what = "--device cuda" if device == "cuda" else "a resize on the device"
        raise InputError(f"OpenVINO runs here on the CPU and does not do {what}", cure="--engine torch")
    note = ""
    wants_openvino = kind == "openvino" or (kind == "auto" and place == "cpu" and resize_to is None)
    if wants_openvino and (kind == "openvino" or openvino_installed()):
        try:
            return OpenvinoEngine(module, mean=mean, std=std, clip_shape=clip_shape)
        except NotConvertedError as error:
            if kind == "openvino":
                raise
            note = f"{error.what}: {error.got}"
    return TorchEngine(module, mean=mean, std=std, device=place, clip_shape=clip_shape, resize_to=resize_to, note=note)


def check_fidelity(
    engine: Engine,
    module: nn.Module,
    clips: npt.NDArray[np.uint8],
    *,
    seen: npt.NDArray[np.uint8] | None = None,
    least: float = MIN_COSINE,
) -> Fidelity:
    """Compare an engine with plain fp32 PyTorch on the CPU.

    Args:
        engine: made from `module`.
        module: the backbone, on the CPU.
        clips: uint8 (B, T, H, W, 3), real pictures if possible; a few are enough.
        seen: the same ones as another decoder shows them, which the engine is given.
        least: cosine of the worst row.

    Raises:
        InputError: it is lower.
    """
    resize_to = getattr(engine, "resize_to", None)
    plain = TorchEngine(
        module, mean=engine.mean, std=engine.std, device="cpu", clip_shape=engine.clip_shape, resize_to=resize_to
    )
    both = clip_rows(plain, clips), clip_rows(engine, clips if seen is None else seen)
    wanted, got = (rows.reshape(-1, rows.shape[-1]).astype(np.float64) for rows in both)
    fidelity = Fidelity(_worst_cosine(wanted, got), _worst_standardised_cosine(wanted, got))
    if not fidelity.cosine >= least:
        cure = "--engine torch" if "torch" not in engine.name else "--device cpu"
        raise InputError(
            f"the engine {engine.name} is not exact with this backbone"
            + (", or the decoder with this video" if seen is not None else ""),
            got=f"cosine {fidelity.cosine:.6f}",
            wanted=f"at least {least} against plain PyTorch",
            cure=cure if seen is None else f"--decoder pyav, or {cure}",
        )
    return fidelity


def _worst_cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Smallest cosine of row pairs (N, C); two zero rows are equal."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    cosines = np.divide(products, norms, out=np.where((a == b).all(axis=1), 1.0, 0.0), where=norms > 0)
    return float(np.min(cosines))  # NaN if there is one


def _worst_standardised_cosine(wanted: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> float:
    if len(wanted) < 2:
        return float("nan")
    mean, deviation = wanted.mean(axis=0), wanted.std(axis=0)
    alive = deviation > 1e-6 * np.abs(wanted).max()
    if not alive.any():
        return float("nan")
    centred = ((rows[:, alive] - mean[alive]) / deviation[alive] for rows in (wanted, got))
    return _worst_cosine(*centred)
