"""Rows of an extraction against the module that a finetuned run trained, on the same frames."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bas.cache.store import FeatureStore
from bas.data.sources import find_sources
from bas.extract.backbones.registry import backbone_spec
from bas.extract.backbones.weights import WeightsRecord, load_weights, save_backbone_checkpoint
from bas.extract.engines.pytorch import Normalised
from bas.extract.extractor import Extractor, resolve_settings
from bas.extract.options import EngineKind, ExtractOptions, ExtractRunOptions
from bas.extract.run import extract_matches

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOW, SIZE, NUM_FRAMES = 8, (64, 48), 50
MEAN = (0.5, 0.4, 0.3)


def trained(name: str, stride: int) -> tuple[torch.nn.Module, WeightsRecord]:
    """A module whose batch statistics have moved, as after training."""
    module, record = load_weights(name, None, "none")
    module.train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            module(torch.rand(2, 3, WINDOW, SIZE[1], SIZE[0], generator=generator))
    record = replace(record, stride=stride, window=WINDOW, width=SIZE[0], height=SIZE[1], mean=MEAN)
    return module.eval(), record


@pytest.mark.parametrize("name", ["x3d_xs", "regnety_002"])
@pytest.mark.parametrize(("engine", "stride"), [("torch", 1), ("openvino", 2)])
def test_rows_are_those_of_the_module_that_was_trained(
    make_clip: Callable[..., Path], tmp_path: Path, name: str, stride: int, engine: EngineKind
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="OPENVINO NOT TESTED: pip install openvino")
    module, record = trained(name, stride)
    save_backbone_checkpoint(tmp_path / "backbone.safetensors", module, record)
    loaded, held = load_weights(name, None, str(tmp_path / "backbone.safetensors"))
    spec = backbone_spec(name)
    options = ExtractOptions(hop=WINDOW if spec.kind == "3d" else None)  # clips side by side, none blended
    extractor = Extractor(loaded, resolve_settings(options, held, spec, None), kind=engine)
    assert extractor.settings.stride == (stride if spec.kind == "3d" else 1)
    assert engine in extractor.engine().name

    data_set, path = find_sources([make_clip("game.mp4", num_frames=NUM_FRAMES)]), tmp_path / "s.zarr"
    assert extract_matches(extractor, data_set, data_set.matches, path, ExtractRunOptions()).complete
    stored = np.asarray(FeatureStore.open(path).rows("game")[:], np.float32)
    video = extractor.open(data_set.matches[0].require_video())
    frames = np.stack([frame.image for frame in video.frames(0, NUM_FRAMES)])
    rows = np.concatenate([block.rows["identity"] for block in extractor.rows(video)])
    inside = Normalised(module, mean=MEAN, std=record.std)
    for start in [clip * WINDOW * stride + phase for clip in range(2) for phase in range(stride)]:
        taken = np.arange(start, start + WINDOW * stride, stride)
        with torch.no_grad():
            wanted = inside(torch.from_numpy(frames[taken])[None])[0].numpy()
        assert np.abs(wanted - wanted[0]).max() > 0.01  # the frames are not all alike to it
        assert np.abs(rows[taken] - wanted).max() <= 1e-5
        assert (np.abs(stored[taken] - wanted) <= 1e-5 + 2**-11 * np.abs(wanted)).all()
