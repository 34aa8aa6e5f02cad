"""OpenVINO as the engine: the fastest way to exact fp32 features on a CPU."""

import logging
import os
import sys
import warnings
from collections import deque
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...errors import InputError
from ...files import num_cores
from ..backbones.registry import Rgb
from ..options import VIEWS, View
from ..video.picture import Pixels
from .pytorch import Feed, Normalised, PendingRows, computing, in_eval_mode, inner_steps

_MAX_STREAMS = 4
"""One stream per core was fastest on 2 cores; each holds its own activations (1 GB for I3D), so no more than these."""


class NotConvertedError(InputError):
    """OpenVINO cannot convert a module."""


class OpenvinoEngine:
    """See `engines.Engine`. One clip (2-D: one frame) per request, so that no result depends on its neighbours.

    Args:
        module: a backbone; it is never changed.
        mean, std: as in `Normalised`.
        clip_shape: steps, height and width of every clip.
        num_streams: requests worked on at once, each on its share of the cores; None: one per core, 4 at most. No row
            depends on it, nor on `OMP_NUM_THREADS`, which limits the cores where it is set.

    Raises:
        InputError: OpenVINO is not installed, or (`NotConvertedError`) cannot convert the module.
    """

    note = ""

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Rgb,
        std: Rgb,
        clip_shape: tuple[int, int, int],
        num_streams: int | None = None,
    ) -> None:
        self.name = "openvino-f32-cpu"
        self.mean, self.std, self.clip_shape = mean, std, clip_shape
        self._steps = inner_steps(module, clip_shape)
        num_threads = _threads()
        num_streams = num_streams or min(num_threads, _MAX_STREAMS)
        self.preferred_clips = max(2 * num_streams * self._steps // clip_shape[0], 1)
        net = Normalised(in_eval_mode(module), mean=mean, std=std).eval()
        openvino = _openvino()
        self._options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": num_streams,
            "INFERENCE_NUM_THREADS": num_threads,
            "ENABLE_CPU_PINNING": False,  # every process would begin with the first core: two together half as fast
        }
        self._version = openvino.get_version()
        self._compile(_graph(net, (1, self._steps, *clip_shape[1:], 3)))

    def _compile(self, graph: Any) -> None:
        openvino = _openvino()
        with computing(self.name):
            compiled = openvino.Core().compile_model(graph, "CPU", self._options)
            self._queue = openvino.AsyncInferQueue(compiled, self._options["NUM_STREAMS"])
        self._graph, self._dim = graph, int(compiled.output(0).shape[-1])

    def quantise(self, clips: npt.NDArray[np.uint8]) -> None:
        """Go on in 8 bits: nearly twice as fast on processors with VNNI, and no longer exact.

        Args:
            clips: (B, T, H, W, 3), of the videos to come: the range of every layer is taken from them.

        Raises:
            InputError: NNCF is not installed.
        """
        _openvino()  # without its telemetry, which NNCF uses too
        try:
            import nncf
        except ImportError:
            raise InputError("NNCF is not installed", cure='pip install "ball-action-spotting[openvino]"') from None
        items = clips.reshape(-1, 1, self._steps, *clips.shape[2:])
        nncf.set_log_level(logging.ERROR)
        with computing(self.name), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # noqa: PTH123
            # biases corrected layer after layer: twice the time, and a third less of the error
            quantised = nncf.quantize(
                self._graph, nncf.Dataset(items), subset_size=len(items), fast_bias_correction=False
            )
        self.name = "openvino-int8-cpu"
        self._compile(quantised)

    def feed(self) -> Feed:
        """See `engines.Engine`."""
        kept: deque[Pixels] = deque()  # what clips still need, from frame `first` on
        first = 0

        def begin(images: Sequence[Pixels], frames_bt: npt.NDArray[np.int64], views: Sequence[View]) -> PendingRows:
            nonlocal first
            kept.extend(images)
            while first < frames_bt.min():
                kept.popleft()
                first += 1
            with computing(self.name):
                rows = {view: self._rows(kept, frames_bt - first, VIEWS[view]) for view in views}
            return lambda: rows

        return begin

    def _rows(
        self, images: Sequence[Pixels], frames_bt: npt.NDArray[np.int64], mirrored: tuple[int, ...]
    ) -> npt.NDArray[np.float32]:
        frames_ni = frames_bt.reshape(-1, self._steps)
        rows = np.empty((*frames_ni.shape, self._dim), dtype=np.float32)

        def keep(request: Any, sent: tuple[int, Pixels]) -> None:
            rows[sent[0]] = request.get_output_tensor(0).data[0]

        self._queue.set_callback(keep)
        for item, frames in enumerate(frames_ni.tolist()):
            clip = np.ascontiguousarray(np.flip(np.stack([images[frame] for frame in frames]), mirrored))
            self._queue.start_async({0: clip[None]}, (item, clip), share_inputs=True)  # holds the clip while it is read
        self._queue.wait_all()
        return rows.reshape(*frames_bt.shape, self._dim)

    def describe(self) -> dict[str, Any]:
        """Engine, versions and settings, for the provenance record."""
        return {"engine": self.name, "openvino": self._version, "torch": torch.__version__, "device": "cpu"}


def openvino_installed() -> bool:
    """Whether `import openvino` works."""
    try:
        _openvino()
    except InputError:
        return False
    return True


def _openvino() -> Any:
    """OpenVINO without its telemetry, which reports each conversion to Google and forks a process for each report: with
    our open locks, from among our threads, and `bas` waits for it at the end (a second without a network)."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be imported
    try:
        import openvino

        return openvino
    except ImportError:
        raise InputError(
            "OpenVINO is not installed", cure='pip install "ball-action-spotting[openvino]", or --engine torch'
        ) from None


def _threads() -> int:
    """Cores of this process, or fewer where `OMP_NUM_THREADS` says so, as for PyTorch: workers share a machine so."""
    cores = num_cores()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdigit() and int(asked) else cores


def _graph(net: nn.Module, shape: tuple[int, ...]) -> Any:
    """The module as an OpenVINO graph of one static shape. Tracing's own check would take 4 x as long."""
    example = torch.zeros(shape, dtype=torch.uint8)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # traced shapes are constants, as they should be: the shape is static
            traced = torch.jit.trace(net, example, check_trace=False)  # type: ignore[no-untyped-call]
            return _openvino().convert_model(traced, example_input=example, input=[shape])
    except Exception as error:  # whatever tracing and conversion raise about a module from anywhere
        raise NotConvertedError(
            "OpenVINO cannot convert this backbone",
            got=f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:200],
            cure="--engine torch; where memory is short, a smaller --window or --size",
        ) from error
