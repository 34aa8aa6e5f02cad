"""E2E-Spot's and T-DEED's own code, imported from trees of theirs, for `systems.py`.

Changed in their code while it runs, nothing in its files: random weights in place of timm's downloads; `wandb` and
`moviepy` (the length of a broken video) are stand-ins; the JPEGs have the size of the comparison. Where torchvision's
own reader of JPEGs does not load, OpenCV reads them. E2E-Spot: stride 2, which its scripts leave at 1;
`torch.cuda.FloatTensor`, `np.int` and `timm.models.layers`, which a CPU or today's libraries lack, get their
successors. T-DEED: the configuration SoccerNetBall_challenge1 without its second data set. Both: `device="cpu"`, where
their mixed precision does nothing, and validation without 8 processes.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from bas.data.sources import find_sources
from bas.eval.files import PREDICTIONS_NAME
from bas.events import Event, write_predictions
from bas.extract.backbones.torchvision_compat import import_with_torchvision

WIDTH, HEIGHT, CLIP_LEN, STRIDE, FPS = 112, 64, 100, 2, 25
DATA = {"e2e-spot": "data/soccernet_ball", "t-deed": "data/soccernetball"}
"""Where their code looks for labels, below the folder that it works in."""
NEW = "new"
"""Label file of the first test match alone."""
JSON_OF = {"train": "train", "valid": "val", "test": "test"}
NMS_SECONDS = 1.0
"""Of E2E-Spot's predictions: its README's 25 frames for this task."""


@dataclass(frozen=True)
class Theirs:
    """Their objects, made by their own code."""

    model: Any
    train_data: Any
    schedule: Callable[..., Any]
    """Optimizer and updates of an epoch -> their learning-rate schedule."""
    validate: Callable[[], float]
    """mAP of the validation match, as they choose the epoch."""
    predict: Callable[[str, Path], list[dict[str, Any]]]
    """Name of a label file, where to write -> spots: their list of videos, with events at half the frame rate."""


def import_theirs(arguments: argparse.Namespace, system: str, name: str) -> Any:
    """A module of their tree, after what today's libraries no longer have."""
    tree = str(getattr(arguments, system.replace("-", "_")))
    if tree not in sys.path:
        sys.path.insert(0, tree)
        timm: Any = import_with_torchvision("timm")
        timm.models.layers = timm.layers
        timm.create_model = partial(without_pretrained, timm.create_model)
        for missing in ("wandb", "moviepy", "moviepy.editor"):
            sys.modules[missing] = ModuleType(missing)
        sys.modules["moviepy"].editor = sys.modules["moviepy.editor"]  # type: ignore[attr-defined]
        torch.cuda.FloatTensor = torch.empty  # type: ignore[attr-defined]
        np.int = int  # type: ignore[attr-defined]
        readable(import_with_torchvision("torchvision"))
    return import_module(name)


def without_pretrained(create: Callable[..., Any], name: str, *, pretrained: bool) -> Any:
    """timm's `create_model` with random weights."""
    del pretrained
    return create(name, pretrained=False)


def readable(torchvision: ModuleType) -> None:
    """OpenCV in place of torchvision's reader of JPEGs, where that one does not load."""
    if not hasattr(torch.ops.image, "decode_jpeg"):
        torchvision.io.read_image = read_by_opencv


def read_by_opencv(path: str) -> torch.Tensor:
    """(3, H, W) RGB uint8; raises RuntimeError where there is no file, as torchvision's does."""
    cv2 = import_module("cv2")
    picture = cv2.imread(path, cv2.IMREAD_COLOR_RGB) if Path(path).exists() else None
    if picture is None:
        raise RuntimeError(path)
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def in_process(data: Any, *, batch_size: int, **_: Any) -> Any:
    """Their loader of validation clips, without processes."""
    return DataLoader(data, batch_size=batch_size)


def e2e_spot(arguments: argparse.Namespace, *, frames_per_epoch: int) -> Theirs:
    """By the functions of their `train_e2e.py`."""
    code = import_theirs(arguments, "e2e-spot", "train_e2e")
    code.EPOCH_NUM_FRAMES, code.DataLoader = frames_per_epoch, in_process
    code.ActionSpotDataset = partial(code.ActionSpotDataset, stride=STRIDE)
    code.ActionSpotVideoDataset = partial(code.ActionSpotVideoDataset, stride=STRIDE)
    asked = argparse.Namespace(dataset="soccernet_ball", frame_dir="frames", modality="rgb", clip_len=CLIP_LEN)
    vars(asked).update(crop_dim=None, dilate_len=0, mixup=True, fg_upsample=None, criterion="map")
    vars(asked).update(num_epochs=arguments.epochs, warm_up_epochs=1)
    classes, train_data, _, valid_data = code.get_datasets(asked)
    model = code.E2EModel(len(classes) + 1, "rny002_gsm", "gru", clip_len=CLIP_LEN, modality="rgb", device="cpu")

    def predict(name: str, out: Path) -> list[dict[str, Any]]:
        labels = f"{DATA['e2e-spot']}/{name}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        data = code.ActionSpotVideoDataset(classes, labels, "frames", "rgb", CLIP_LEN, overlap_len=CLIP_LEN // 2)
        code.evaluate(model, data, "TEST", classes, str(out), calc_stats=False, save_scores=False)
        with gzip.open(f"{out}.recall.json.gz", "rt") as file:
            found = json.load(file)
        spots: list[dict[str, Any]] = import_theirs(arguments, "e2e-spot", "util.eval").non_maximum_supression(
            found, round(NMS_SECONDS * FPS / STRIDE)
        )
        return spots

    def validate() -> float:
        return float(code.evaluate(model, valid_data, "VAL", classes, None))

    def schedule(optimizer: Any, steps: int) -> Any:
        return code.get_lr_scheduler(asked, optimizer, steps)[1]

    return Theirs(model, train_data, schedule, validate, predict)


def t_deed(arguments: argparse.Namespace, *, frames_per_epoch: int, store_mode: str = "load") -> Theirs:
    """By the functions of their `train_tdeed.py`."""
    code = import_theirs(arguments, "t-deed", "train_tdeed")
    evaluation = import_theirs(arguments, "t-deed", "util.eval")
    evaluation.DataLoader = in_process
    file = arguments.t_deed / "config/SoccerNetBall/SoccerNetBall_challenge1.json"
    config = json.loads(file.read_text())
    del config["pretrain"]
    config.update(frame_dir="frames", store_dir="clips", save_dir="runs", store_mode=store_mode, warm_up_epochs=1)
    config.update(epoch_num_frames=frames_per_epoch, num_epochs=arguments.epochs, clip_len=CLIP_LEN)
    asked = code.update_args(argparse.Namespace(model="SoccerNetBall_small"), config)
    asked.crop_dim = None
    classes, _, train_data, _, valid_data = code.get_datasets(asked)
    model = import_theirs(arguments, "t-deed", "model.model").TDEEDModel(device="cpu", args=asked)

    def predict(name: str, out: Path) -> list[dict[str, Any]]:
        data = code.ActionSpotVideoDataset(
            *(classes, f"{DATA['t-deed']}/{name}.json", "frames", "rgb", CLIP_LEN),
            overlap_len=CLIP_LEN // 4 * 3,
            stride=STRIDE,
            dataset="soccernetball",
        )
        evaluation.evaluate(model, data, "TEST", classes, str(out), test=True, printed=False)
        spots: list[dict[str, Any]] = json.loads(Path(f"{out}.json").read_text())
        return spots

    def validate() -> float:
        return float(code.evaluate(model, valid_data, "VAL", classes, printed=False, test=False))

    def schedule(optimizer: Any, steps: int) -> Any:
        return code.get_lr_scheduler(asked, optimizer, steps)[1]

    return Theirs(model, train_data, schedule, validate, predict)


MAKERS: Mapping[str, Callable[..., Theirs]] = {"e2e-spot": e2e_spot, "t-deed": t_deed}


def extract_frames(arguments: argparse.Namespace, system: str, video: Path, out: Path) -> None:
    """One video's frames by their own script."""
    name = {"e2e-spot": "frames_as_jpg_soccernet_ball", "t-deed": "extract_frames_snb"}[system]
    script = import_theirs(arguments, system, name)
    script.TARGET_WIDTH, script.TARGET_HEIGHT = WIDTH, HEIGHT
    script.get_duration = lambda _: 0.0
    script.worker((out.name, str(video), str(out), FPS))


def write_their_labels(arguments: argparse.Namespace, system: str) -> None:
    """`class.txt` and a JSON list of each split, in the working folder."""
    data_set, data = find_sources([arguments.matches]), Path(DATA[system])
    data.mkdir(parents=True, exist_ok=True)
    (data / "class.txt").write_text("\n".join(data_set.classes))
    Path("data/soccernet").mkdir(exist_ok=True)
    for place in (data, Path("data/soccernet")):
        (place / "labels_path.txt").write_text(str(arguments.matches))
    for split, name in JSON_OF.items():
        entries = []
        for match in data_set.matches:
            if match.split != split:
                continue
            num_frames = len(list((Path("frames") / split / match.id).glob("*.jpg")))
            events = [
                {"frame": event.position_ms * FPS // 1000, "label": event.label, "comment": ""}
                for event in data_set.events(match) or ()
            ]
            about = {"num_frames": num_frames, "fps": FPS, "width": WIDTH, "height": HEIGHT}
            entries.append({"video": f"{split}/{match.id}", "events": events, "num_events": len(events), **about})
        (data / f"{name}.json").write_text(json.dumps(entries))
        (data / NEW).with_suffix(".json").write_text(json.dumps(entries[:1]))  # the test split's is written last


def write_spots(videos: list[dict[str, Any]], out: Path) -> None:
    """Their list of videos as the folder that `bas eval` reads."""
    for video in videos:
        game = video["video"].split("/", maxsplit=1)[1]
        events = [
            Event(round(each["frame"] * STRIDE * 1000 / FPS), each["label"], confidence=min(1.0, each["score"]))
            for each in video["events"]
        ]
        write_predictions(out / game / PREDICTIONS_NAME, events, url_local=game)
