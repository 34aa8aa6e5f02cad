"""Video transformers: their rows are the library's own, one per frame, and what cannot be used is refused by name.

No hub is asked: the models are small, random, and saved as the library saves them.
"""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bas.cache.settings import Pool
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.extract.backbones.registry import backbone_spec, build_backbone
from bas.extract.backbones.torchvision_compat import import_with_torchvision
from bas.extract.backbones.weights import load_weights, save_backbone_checkpoint
from bas.extract.engines.choose import check_fidelity, make_engine
from bas.extract.extractor import resolve_settings
from bas.extract.options import ExtractOptions

pytest.importorskip("transformers")
module = importlib.import_module("bas.extract.backbones.video_transformers")

Cli = Callable[..., int]
DIM, SIDE, FRAMES, TUBELET = 36, 32, 8, 2
KINDS = ["vjepa2", "videomae"]


def library_model(kind: str, side: int = SIDE) -> Any:
    """As the library builds it; VideoMAE with the decoder that public files hold."""
    library = import_with_torchvision("transformers")
    torch.manual_seed(3)
    shared: dict[str, Any] = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
    shared["initializer_range"] = 0.2
    if kind == "vjepa2":
        config = library.VJEPA2Config(
            **shared,
            crop_size=side,
            frames_per_clip=FRAMES,
            pred_hidden_size=24,
            pred_num_hidden_layers=1,
            pred_num_attention_heads=2,
        )
        return library.VJEPA2Model(config).eval()
    decoder = {f"decoder_{name}": 24 for name in ("hidden_size", "intermediate_size")}
    config = library.VideoMAEConfig(
        **shared,
        **decoder,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        intermediate_size=48,
        image_size=side,
        num_frames=FRAMES,
    )
    return library.VideoMAEForPreTraining(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of each kind; for reading only."""
    root = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        library_model(kind).save_pretrained(root / kind)
    (root / "vjepa2" / "video_preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.3, 0.2, 0.1]})
    )
    return {kind: root / kind for kind in KINDS}


def loaded(folder: Path, pool: Pool = "mean") -> nn.Module:
    return load_weights(f"hf:{folder}", None, "hub", pool)[0]


@torch.no_grad()
def own_rows(model: Any, clips: Tensor) -> Tensor:
    """One row per tubelet, from the library's own forward pass."""
    frames = clips.transpose(1, 2)
    is_vjepa2 = hasattr(model, "predictor")
    tokens = model(frames, skip_predictor=True) if is_vjepa2 else model.videomae(frames)
    rows: Tensor = tokens.last_hidden_state.reshape(len(clips), clips.shape[2] // TUBELET, -1, DIM).mean(2)
    return rows


def clip(num_steps: int, height: int = SIDE, width: int = SIDE, num_clips: int = 2) -> Tensor:
    return torch.randn(num_clips, 3, num_steps, height, width, generator=torch.Generator().manual_seed(1))


def assert_close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_are_the_librarys_own(folders: dict[str, Path], kind: str) -> None:
    x, model = clip(FRAMES), library_model(kind)
    assert_close(loaded(folders[kind])(x), own_rows(model, x).repeat_interleave(TUBELET, 1))
    later = torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)  # the same clip, a frame on
    tubelets = torch.stack([own_rows(model, x), own_rows(model, later)], 2).flatten(1, 2)  # row j: frames (j, j + 1)
    wanted = (tubelets + torch.cat([tubelets[:, :1], tubelets[:, :-1]], 1)) / 2
    assert_close(loaded(folders[kind], "twice")(x), wanted)


@torch.no_grad()
def test_vjepa2_numbers_the_positions_of_the_picture_that_there_is(folders: dict[str, Path]) -> None:
    """The library's own numbers are those of its configuration's square, also for other pictures."""
    ours, larger = loaded(folders["vjepa2"]), library_model("vjepa2", side=2 * SIDE)
    larger.load_state_dict(library_model("vjepa2").state_dict())
    x = clip(4, 2 * SIDE, 2 * SIDE)
    assert_close(ours(x), own_rows(larger, x).repeat_interleave(TUBELET, 1))
    halves, native = clip(4, SIDE, 2 * SIDE), library_model("vjepa2")
    assert (ours(halves) - own_rows(native, halves).repeat_interleave(TUBELET, 1)).abs().max() > 1e-3


@pytest.mark.parametrize("pool", ["mean", "twice"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_as_many_rows_as_steps_each_centred_on_its_own(folders: dict[str, Path], kind: str, pool: Pool) -> None:
    ours = loaded(folders[kind], pool)
    for num_steps in (1, 2, 3, 5, 7, 8):
        assert ours(clip(num_steps)).shape == (2, num_steps, DIM)
    for part in ours.modules():  # without attention a row sees its own tubelet only
        for name, child in list(part.named_children()):
            if name == "attention" and hasattr(child, "forward"):
                setattr(part, name, WithoutAttention())
    x = clip(FRAMES, num_clips=1)
    for step in range(2, 6):
        changed = x.clone()
        changed[:, :, step] += 1
        moved = (ours(changed) - ours(x)).abs().amax((0, 2)).nonzero().flatten() - step
        wanted = [-1, 0, 1] if pool == "twice" else ([0, 1] if step % 2 == 0 else [-1, 0])
        assert moved.tolist() == wanted


class WithoutAttention(nn.Module):
    def forward(self, tokens: Tensor, *_: Any, position_mask: Tensor | None = None) -> Any:
        zeros = torch.zeros_like(tokens)
        return zeros if position_mask is None else (zeros, None)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_shift_by_a_tubelet_shifts_the_rows(folders: dict[str, Path], kind: str) -> None:
    ours, x = loaded(folders[kind]), clip(FRAMES + TUBELET, num_clips=1)
    early, late = ours(x[:, :, :FRAMES])[0, TUBELET:], ours(x[:, :, TUBELET:])[0, :-TUBELET]
    nearest = torch.cdist(late[::TUBELET], early[::TUBELET]).argmin(1)
    assert nearest.tolist() == list(range(FRAMES // TUBELET - 1))


def test_openvino_agrees_with_pytorch(folders: dict[str, Path]) -> None:
    pytest.importorskip("openvino")
    pixels = np.random.default_rng(0).integers(0, 256, (2, FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    for kind in KINDS:
        ours, record = load_weights(f"hf:{folders[kind]}", None, "hub")
        engine = make_engine(
            ours, mean=record.mean, std=record.std, clip_shape=(FRAMES, SIDE, SIDE), kind="openvino", device="cpu"
        )
        assert check_fidelity(engine, ours, pixels).cosine > 0.99999


def test_defaults_are_the_models_own(folders: dict[str, Path], tmp_path: Path) -> None:
    spec, other = (backbone_spec(f"hf:{folders[kind]}") for kind in KINDS)
    assert (spec.mean, spec.std) == ((0.5, 0.4, 0.3), (0.3, 0.2, 0.1))
    assert other.mean == (0.485, 0.456, 0.406)
    assert (spec.window, spec.size, spec.patch, spec.stride, spec.hop(FRAMES)) == (8, (32, 32), 8, 1, 3)
    for name, stride in (("vjepa2-vitl", 6), ("videomae-base", 4)):
        shutil.copytree(folders[name.split("-")[0]], tmp_path / name)
        assert backbone_spec(f"hf:{tmp_path / name}").stride == stride


def test_weights_are_hashed_saved_and_bound(folders: dict[str, Path], tmp_path: Path) -> None:
    name = f"hf:{folders['vjepa2']}"
    ours, record = load_weights(name, None, "hub", "twice")
    assert (record.weights, record.pool, record.dim) == ("hub", "twice", DIM)
    assert load_weights(name, None, "none")[1].weights_sha256 != record.weights_sha256
    by_file = load_weights(name, None, str(folders["vjepa2"] / "model.safetensors"))[1]
    assert by_file.weights_sha256 == record.weights_sha256
    settings = resolve_settings(ExtractOptions(), record, backbone_spec(name), None)
    assert (settings.window, settings.hop, settings.width, settings.pool) == (FRAMES, 3, SIDE, "twice")
    file = tmp_path / "backbone.safetensors"
    bound = {"stride": 1, "window": FRAMES, "width": SIDE, "height": SIDE}
    save_backbone_checkpoint(file, ours, type(record)(**vars(record) | bound))
    assert load_weights(name, None, str(file), "twice")[1].weights_sha256 == record.weights_sha256
    with pytest.raises(InputError, match="--pool twice"):
        load_weights(name, None, str(file))


@pytest.mark.parametrize("options", [ExtractOptions(window=FRAMES // 2), ExtractOptions(size=(64, 64))])
def test_fixed_positions_refuse_other_clips_and_pictures(folders: dict[str, Path], options: ExtractOptions) -> None:
    name = f"hf:{folders['videomae']}"
    record = load_weights(name, None, "none")[1]
    with pytest.raises(InputError, match="does not fit the weights"):
        resolve_settings(options, record, backbone_spec(name), None)
    with pytest.raises(InputError, match="longer"):
        build_backbone(name)(clip(FRAMES + 1))


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[next(name for name in sorted(tensors) if name.startswith("encoder.layer.1."))]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown": (lambda folder: edit_config(folder, model_type="vivit"), "no architecture that is known here"),
    "remote code": (lambda folder: edit_config(folder, model_type="VideoMAEv2_Base"), "vjepa2 or videomae"),
    "no type": (lambda folder: (folder / "config.json").write_text("[]"), "no architecture"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "wrong type": (lambda folder: edit_config(folder, hidden_size="wide"), "config.json is damaged"),
    "tubelet of 3": (lambda folder: edit_config(folder, tubelet_size=3), "tubelet_size 3"),
    "heads": (lambda folder: edit_config(folder, num_attention_heads=5), "cannot build"),
    "other shapes": (lambda folder: edit_config(folder, hidden_size=2 * DIM), "weights"),
    "colours": (lambda folder: (folder / "preprocessor_config.json").write_text('{"image_mean": [1]}'), "damaged"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "its weights cannot be loaded"),
    "pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "its weights cannot be loaded",
    ),
    "cut short": (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "its weights cannot be loaded"),
    "tensor missing": (drop_tensor, "1 tensors missing"),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_folder(folders: dict[str, Path], tmp_path: Path, fault: str) -> None:
    shutil.copytree(folders["vjepa2"], tmp_path / "model")
    (tmp_path / "model" / "video_preprocessor_config.json").unlink()
    damage, told = DAMAGE[fault]
    damage(tmp_path / "model")
    with pytest.raises(InputError) as caught:
        load_weights(f"hf:{tmp_path / 'model'}", None, "hub")
    assert told in str(caught.value)


def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="no such folder"):
        backbone_spec("hf:/nowhere/model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="hf download not-there/model"):
        backbone_spec("hf:not-there/model")
    monkeypatch.setattr(module, "import_with_torchvision", lambda name: importlib.import_module(f"no_{name}"))
    with pytest.raises(InputError, match=r"pip install .*\[transformers\]"):
        backbone_spec(f"hf:{folders['vjepa2']}")


def test_a_repository_that_the_hubs_client_has_kept(
    monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept, commit = tmp_path / "models--org--vjepa2-tiny", "0" * 40
    shutil.copytree(folders["vjepa2"], kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    record = load_weights("hf:org/vjepa2-tiny", None, "hub")[1]
    assert record.weights_sha256 == load_weights(f"hf:{folders['vjepa2']}", None, "hub")[1].weights_sha256
    assert backbone_spec("hf:org/vjepa2-tiny").stride == 6


def test_names_of_older_files(folders: dict[str, Path], tmp_path: Path) -> None:
    """The hub's VideoMAE files name their biases as the library did when they were written."""
    shutil.copytree(folders["videomae"], tmp_path / "old")
    file = tmp_path / "old" / "model.safetensors"
    old = {"attention.query.bias": "attention.q_bias", "attention.value.bias": "attention.v_bias"}
    tensors = {}
    for name, tensor in load_file(file).items():
        end = next((each for each in old if name.endswith(each)), "")
        tensors[name.removesuffix(end) + old.get(end, "")] = tensor
    assert sum(name.endswith("q_bias") for name in tensors) == 3  # two layers, and the decoder's
    save_file(tensors, file, metadata={"format": "pt"})
    records = [load_weights(f"hf:{folder}", None, "hub")[1] for folder in (tmp_path / "old", folders["videomae"])]
    assert records[0].weights_sha256 == records[1].weights_sha256


def test_a_configuration_cannot_name_code(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["vjepa2"], tmp_path / "model")
    named = {"attn_implementation": "someone/kernel", "quantization_config": {"quant_method": "bitsandbytes"}}
    edit_config(tmp_path / "model", auto_map={"AutoModel": "code.Model"}, dtype="float16", **named)
    ours, record = load_weights(f"hf:{tmp_path / 'model'}", None, "hub")
    assert record.weights_sha256 == load_weights(f"hf:{folders['vjepa2']}", None, "hub")[1].weights_sha256
    assert ours.get_submodule("trunk").config._attn_implementation == "sdpa"  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_command_line_to_the_store(bas: Cli, folders: dict[str, Path], games: Path, kind: str) -> None:
    video, out = next(games.rglob("*.mp4")), folders[kind].parent / f"{kind}.zarr"
    call = ("extract", video, "--out", out, "--engine", "torch")
    assert bas(*call, "--backbone", f"hf:{folders[kind]}", "--fps", 5, "--pool", "twice") == 0
    assert bas("extract", video, "--out", out) == 0  # what is left out follows the store
    store = FeatureStore.open(out)
    assert (store.settings.window, store.settings.hop, store.settings.pool) == (FRAMES, 3, "twice")
    assert bas("cache", "verify", out, "--videos", video.parent) == 0
