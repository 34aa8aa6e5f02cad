"""OpenVINO as the engine: the fastest way to exact fp32 features on a CPU."""

import os
import sys
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...errors import InputError
from ...files import num_cores
from ..backbones.registry import Rgb
from .pytorch import Normalised, check_clips, computing, inner_steps

_MAX_STREAMS = 4
"""One stream per core was fastest on 2 cores; each holds its own activations (1 GB for I3D), so no more than these."""


class NotConvertedError(InputError):
    """OpenVINO cannot convert a module."""


class OpenvinoEngine:
    """See `engines.Engine`. One clip (2-D: one frame) per request, so that no result depends on its neighbours.

    Args:
        module: a backbone in eval mode.
        mean: as in `Normalised`.
        std: as in `Normalised`.
        clip_shape: steps, height and width of every clip.
        num_streams: requests worked on at once, each on its share of the cores; None: one per core, 4 at most. No row
            depends on it, nor on `OMP_NUM_THREADS`, which limits the cores where it is set.

    Raises:
        InputError: OpenVINO is not installed, or (`NotConvertedError`) cannot convert the module.
    """

    name = "openvino-f32-cpu"
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
        self.mean, self.std, self.clip_shape = mean, std, clip_shape
        self._steps = inner_steps(module, clip_shape)
        num_threads = _threads()
        num_streams = num_streams or min(num_threads, _MAX_STREAMS)
        self.preferred_clips = max(2 * num_streams * self._steps // clip_shape[0], 1)
        net = Normalised(module, mean=mean, std=std).eval()
        openvino = _openvino()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": num_streams,
            "INFERENCE_NUM_THREADS": num_threads,
            "ENABLE_CPU_PINNING": False,  # every process would begin with the first core: two together half as fast
        }
        graph = _graph(net, (1, self._steps, *clip_shape[1:], 3))
        with computing(self.name):
            compiled = openvino.Core().compile_model(graph, "CPU", options)
            self._queue = openvino.AsyncInferQueue(compiled, num_streams)
        self._version = openvino.get_version()
        self._dim = int(compiled.output(0).shape[-1])

    def __call__(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_clips(clips, self.clip_shape)
        items = np.ascontiguousarray(clips).reshape(-1, self._steps, *clips.shape[2:])
        rows = np.empty((len(items), self._steps, self._dim), dtype=np.float32)

        def keep(request: Any, item: int) -> None:
            rows[item] = request.get_output_tensor(0).data[0]

        with computing(self.name):
            self._queue.set_callback(keep)
            for item in range(len(items)):
                self._queue.start_async({0: items[item : item + 1]}, item, share_inputs=True)
            self._queue.wait_all()
        return rows.reshape(*clips.shape[:2], self._dim)

    def describe(self) -> dict[str, Any]:
        """Engine, versions and settings, for the provenance record."""
        return {
            "engine": self.name,
            "openvino": self._version,
            "torch": torch.__version__,
            "device": "cpu",
        }


def openvino_installed() -> bool:
    """Whether `import openvino` works."""
    try:
        _import()
    except ImportError:
        return False
    return True


def _import() -> Any:
    """OpenVINO without its telemetry, which reports each conversion to Google and forks a process for each report: with
    our open locks, from among our threads, and `bas` waits for it at the end (a second without a network)."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be imported
    import openvino

    return openvino


def _openvino() -> Any:
    try:
        return _import()
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
