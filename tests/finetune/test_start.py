"""What a run begins with: weights of a finetuned run, and heads that cannot be lent."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.extract.backbones.weights import BACKBONE
from bas.extract.options import ExtractOptions
from bas.finetune.start import Start, model_of
from bas.heads.ensemble import LoadedRun
from bas.heads.training.checkpoint import RunRecord
from bas.heads.training.loop import train
from bas.heads.training.settings import FinetuneSettings, TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
Tiny = Callable[..., FinetuneSettings]
Begin = Callable[..., Start]


@pytest.fixture(scope="module")
def tuned(train: Callable[..., RunRecord], tiny: Tiny, start: Begin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a 3-D network."""
    settings = tiny(epochs=1, frames_per_epoch=32, head="tcn", dilate=1)
    folder = tmp_path_factory.mktemp("tuned") / "run"
    train(folder, settings, start(settings, "x3d_xs", depth=4))
    return folder


def test_a_run_as_weights_lends_its_backbone_and_pictures_and_binds_no_clip(tuned: Path, tiny: Tiny) -> None:
    lent = RunRecord.read(tuned).features
    for changes in ({}, {"clip_len": 12, "stride": 1}):
        settings = tiny(**changes)
        begun = Start.of(settings, ExtractOptions(weights=str(tuned)), None)
        found = begun.features
        assert (found.backbone, found.depth, found.weights_sha256) == ("x3d_xs", 4, lent.weights_sha256)
        assert (found.width, found.height, found.fit, found.fps) == (lent.width, lent.height, lent.fit, lent.fps)
        assert (found.window, found.stride) == (settings.clip_len, settings.stride)
        bound = begun.record
        assert (bound.window, bound.stride, bound.width, bound.height) == (*(found.window, found.stride), 48, 32)
    larger = Start.of(tiny(), ExtractOptions(weights=str(tuned), size=(96, 64)), None)
    assert (larger.features.width, larger.features.height) == (96, 64)
    file = Start.of(tiny(), ExtractOptions(backbone="x3d_xs", depth=4, weights=str(tuned / BACKBONE)), None)
    assert file.features == Start.of(tiny(), ExtractOptions(weights=str(tuned)), None).features
    with pytest.raises(InputError, match="a checkpoint of another backbone"):
        Start.of(tiny(), ExtractOptions(backbone="x3d_s", weights=str(tuned)), None)


def test_a_head_says_what_its_network_is(tuned: Path, tiny: Tiny) -> None:
    member = LoadedRun.load(tuned, CPU)
    settings = FinetuneSettings.of(tiny(), **model_of(member))
    assert (settings.head, settings.dilate, settings.clip_len) == ("tcn", 1, 8)
    assert Start.of(settings, ExtractOptions(), member).features == member.record.features
    longer = replace(settings, clip_len=12)
    assert Start.of(longer, ExtractOptions(), member).features.window == 12


def test_what_has_no_head(tmp_path: Path, tuned: Path) -> None:
    with pytest.raises(InputError, match="not a run\n  got:    no such folder"):
        LoadedRun.load(tmp_path / "none", CPU)
    (tmp_path / "run.json").write_bytes((tuned / "run.json").read_bytes())
    with pytest.raises(InputError, match=r"best\.safetensors: no such file"):
        LoadedRun.load(tmp_path, CPU)


def test_a_head_on_imported_rows_has_no_backbone(pulse_store: Callable[..., Path], tiny: Tiny, tmp_path: Path) -> None:
    store = FeatureStore.open(pulse_store(tmp_path / "s.zarr"))
    settings = TrainSettings(head="fc", proj=0, clip_len=8, epochs=1, frames_per_epoch=64, batch=4)
    train(store, tmp_path / "head", settings, device="cpu")
    member = LoadedRun.load(tmp_path / "head", torch.device("cpu"))
    imported: Any = FeatureSettings.imported(kind="pulses", model="none", dim=4, fps="25")
    member = replace(member, record=replace(member.record, features=imported))
    with pytest.raises(InputError, match="trained on imported rows: it has no backbone to go on with"):
        Start.of(tiny(), ExtractOptions(), member)
    resized = replace(lender_features(member), scaler="torch-bilinear")
    member = replace(member, record=replace(member.record, features=resized))
    with pytest.raises(InputError, match="pictures that the device resizes"):
        Start.of(tiny(), ExtractOptions(), member)


def lender_features(member: LoadedRun) -> FeatureSettings:
    """Of a backbone of ours."""
    asked = ExtractOptions(backbone="timm:test_resnet.r160_in1k", weights="none", size=(48, 32))
    return Start.of(FinetuneSettings.of(member.record.settings), asked, None).features
