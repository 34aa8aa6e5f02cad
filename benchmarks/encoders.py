"""What video transformers cost, and how a row per frame is best made of their tubelets of two frames.

    python benchmarks/encoders.py [VIDEO]

The cost is counted on models without weights. With a video: how close the rows of one and of two passes come, at
several hops, to a clip around each frame, on small random models.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bas.extract.backbones.torchvision_compat import import_with_torchvision
from bas.extract.backbones.video_transformers import _FAMILIES, TubeletBackbone
from bas.extract.video.picture import PictureFormat
from bas.extract.video.reader import open_video
from bas.extract.windows import Blender, WindowPlan

WINDOW, SIDE, NUM_SEEDS = 16, 64, 3
Setting = dict[str, Any]
PUBLIC: list[tuple[str, str, Setting, int, tuple[int, int]]] = [
    ("V-JEPA 2 ViT-L", "vjepa2", {}, 64, (256, 256)),
    ("V-JEPA 2 ViT-L", "vjepa2", {}, 16, (256, 256)),
    ("V-JEPA 2 ViT-L", "vjepa2", {}, 16, (256, 448)),
    ("V-JEPA 2 ViT-H", "vjepa2", {"hidden_size": 1280, "num_hidden_layers": 32}, 64, (256, 256)),
    *(
        (
            "V-JEPA 2 ViT-g",
            "vjepa2",
            {"hidden_size": 1408, "num_hidden_layers": 40, "num_attention_heads": 22, "mlp_ratio": 48 / 11},
            64,
            (side, side),
        )
        for side in (256, 384)
    ),
    (
        "VideoMAE small",
        "videomae",
        {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
        16,
        (224, 224),
    ),
    ("VideoMAE base", "videomae", {}, 16, (224, 224)),
    (
        "VideoMAE large",
        "videomae",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        16,
        (224, 224),
    ),
]
"""Name, architecture, what its configuration changes, frames of a clip, height and width."""


def build(kind: str, values: Setting) -> TubeletBackbone:
    library, family = import_with_torchvision("transformers"), _FAMILIES[kind]
    config = getattr(library, f"{family.name}Config")(**values)
    trunk: nn.Module = getattr(library, f"{family.name}Model")(config).eval().get_submodule(family.trunk)
    return TubeletBackbone(trunk, family.tokens, num_frames=None, passes=1)


def cost(name: str, kind: str, values: Setting, num_frames: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        module = build(kind, values)
    if kind == "videomae":  # its positions are no buffer
        embeddings: Any = module.get_submodule("trunk.embeddings")
        embeddings.position_embeddings = embeddings.position_embeddings.to("meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(torch.empty(1, 3, num_frames, *size, device="meta"))
    gflop = counter.get_total_flops() / 1e9
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    clip = f"{num_frames} frames of {size[1]}x{size[0]}"
    hop = num_frames // 2 - 1
    print(f"{name:<16}{num_parameters / 1e6:6.0f} M  {clip:<24}GFLOP a frame {gflop / num_frames:6.0f}, ", end="")
    print(f"as extracted at hop {hop} {gflop / hop:6.0f}")


def closeness(kind: str, pictures: Tensor, deviation: float, patch_scale: float) -> None:
    """Mean, least and most over random models of the rows' closeness to those of clips around each frame."""
    print(f"\n{kind}, initial deviation {deviation}, patches scaled by {patch_scale}: closeness, {NUM_SEEDS} models")
    plans = [(1, hop) for hop in (8, 7, 5, 4, 3)] + [(2, hop) for hop in (16, 8)]
    found = [closeness_of(seeded(kind, seed, deviation, patch_scale), pictures, plans) for seed in range(NUM_SEEDS)]
    for (passes, hop), values in zip(plans, zip(*found, strict=True), strict=True):
        spread = f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        print(f"  passes {passes}  hop {hop:>2}  cost {passes * WINDOW / hop:3.1f}  cosine {spread}")


def seeded(kind: str, seed: int, deviation: float, patch_scale: float) -> TubeletBackbone:
    torch.manual_seed(seed)
    shape = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "patch_size": 16}
    size = {"crop_size": SIDE, "frames_per_clip": WINDOW}
    if kind == "videomae":
        size = {"image_size": SIDE, "num_frames": WINDOW, "intermediate_size": 768}
    module = build(kind, {**shape, **size, "initializer_range": deviation})
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            part.weight.data.mul_(patch_scale)
    return module


def closeness_of(once: TubeletBackbone, pictures: Tensor, plans: list[tuple[int, int]]) -> list[float]:
    middle = range(WINDOW, pictures.shape[1] - WINDOW)
    centred = (middle_tubelets(once, pictures, middle, 0) + middle_tubelets(once, pictures, middle, 1)) / 2
    close = []
    for passes, hop in plans:
        module = TubeletBackbone(once.trunk, once.tokens, num_frames=None, passes=passes)
        rows = extracted(module, pictures, hop)[WINDOW:-WINDOW]
        a, b = ((each - each.mean(0)) / each.std(0) for each in (centred, rows))
        close.append(float(torch.cosine_similarity(a, b, dim=1).mean()))
    return close


def pictures_of(video: Path) -> Tensor:
    """(3, T, SIDE, SIDE), normalised; T at most 160."""
    picture = PictureFormat(width=SIDE, height=SIDE, fit="stretch", scaler="swscale-bicubic")
    opened = open_video(video, fps=None, picture=picture)
    images = np.stack([frame.image for frame in opened.frames(0, min(opened.num_steps, 160))])
    pixels = torch.from_numpy(images).permute(3, 0, 1, 2).float() / 255
    mean, deviation = (torch.tensor(rgb).view(3, 1, 1, 1) for rgb in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels - mean) / deviation


@torch.inference_mode()
def middle_tubelets(module: TubeletBackbone, pictures: Tensor, frames: range, earlier: int) -> Tensor:
    """Of the clips around some frames, the tubelet that begins with the frame, or one step earlier."""
    starts = [frame - earlier - WINDOW // 2 for frame in frames]
    clips = (pictures[None, :, start : start + WINDOW] for start in starts)
    return torch.cat([module(clip)[:, WINDOW // 2] for clip in clips])


@torch.inference_mode()
def extracted(module: TubeletBackbone, pictures: Tensor, hop: int) -> Tensor:
    plan = WindowPlan(pictures.shape[1], WINDOW, hop, 1, "hann")
    blender = Blender(plan)
    clips = (pictures[None, :, plan.group_frames(group)[0]] for group in range(plan.num_groups))
    return torch.from_numpy(np.concatenate([blender.add(module(clip).numpy()) for clip in clips]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?")
    video = parser.parse_args().video
    for model in PUBLIC:
        cost(*model)
    if video is not None:
        pictures = pictures_of(video)
        for deviation in (0.02, 0.06, 0.1):
            closeness("vjepa2", pictures, deviation, 1.0)
        for patch_scale in (10.0, 40.0):
            closeness("videomae", pictures, 0.06, patch_scale)


if __name__ == "__main__":
    main()
