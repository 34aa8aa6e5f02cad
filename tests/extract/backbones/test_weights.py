"""Loading weights: from files, over HTTP, and everything that can be wrong with them."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bas.errors import InputError
from bas.extract.backbones import nets as timm_nets
from bas.extract.backbones.registry import BACKBONES, build_backbone
from bas.extract.backbones.tensor_files import used_tensors
from bas.extract.backbones.torchvision_compat import import_with_torchvision
from bas.extract.backbones.weights import WeightsRecord, load_weights, save_backbone_checkpoint, tensors_sha256

NAME, DEPTH = "x3d_xs", 4  # the smallest


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


class CutShort(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


Serve = Callable[[Callable[..., BaseHTTPRequestHandler]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(handler: Callable[..., BaseHTTPRequestHandler]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def zoo_tensors() -> dict[str, Tensor]:
    """As in the zoo's file: the whole network, with its head, under the public names."""
    torch.manual_seed(5)
    tensors = dict(build_backbone(NAME, 5).get_submodule("trunk").state_dict())
    return {**tensors, "blocks.5.proj.weight": torch.zeros(4, 4)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def point_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(BACKBONES, NAME, replace(BACKBONES[NAME], urls={"kinetics": url}))


def assert_loaded(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    used = used_tensors(module)
    assert used
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in used.items())
    assert not module.training


def test_zoo_file_over_http(
    serve: Serve, zoo_tensors: dict[str, Tensor], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo").mkdir()
    torch.save({"model_state": zoo_tensors}, tmp_path / "zoo" / "X3D_XS.pyth")
    url = serve(partial(QuietFiles, directory=str(tmp_path / "zoo"))) + "/X3D_XS.pyth"
    point_to(monkeypatch, url)
    module, record = load_weights(NAME, DEPTH, "kinetics")
    assert_loaded(module, zoo_tensors)
    assert (record.weights, record.source, record.depth, record.dim) == ("kinetics", url, 4, 96)
    assert record.file_sha256 is not None
    assert [file.name for file in cache.iterdir()] == ["X3D_XS.pyth"]
    (tmp_path / "zoo" / "X3D_XS.pyth").unlink()  # the second time it comes from the cache
    assert load_weights(NAME, DEPTH, "kinetics")[1] == record


def test_an_unreachable_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/X3D_XS.pyth"
    point_to(monkeypatch, url)
    with pytest.raises(InputError, match="--weights FILE") as caught:
        load_weights(NAME, DEPTH, "kinetics")
    assert url in caught.value.cure
    assert list(cache.iterdir()) == []


def test_a_missing_file_on_the_hub(serve: Serve, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, serve(partial(QuietFiles, directory=str(tmp_path))) + "/X3D_XS.pyth")
    with pytest.raises(InputError, match="404"):
        load_weights(NAME, DEPTH, "kinetics")
    assert list(cache.iterdir()) == []


def test_a_transfer_cut_short(serve: Serve, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, serve(CutShort) + "/X3D_XS.pyth")
    with pytest.raises(InputError, match=r"10 of 1000|IncompleteRead"):
        load_weights(NAME, DEPTH, "kinetics")
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_names_itself(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, "http://127.0.0.1:9/X3D_XS.pyth")
    cache.mkdir(parents=True)
    (cache / "X3D_XS.pyth").write_bytes(b"<html>sorry</html>")
    with pytest.raises(InputError, match=r"delete .*X3D_XS\.pyth"):
        load_weights(NAME, DEPTH, "kinetics")


@pytest.mark.parametrize("key", ["model_state", "state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.trunk."])
def test_files_by_path(zoo_tensors: dict[str, Tensor], tmp_path: Path, key: str | None, prefix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in zoo_tensors.items()}
    if prefix:
        tensors["another_part.weight"] = torch.zeros(1)
    file = tmp_path / "mine.pth"
    torch.save({key: tensors, "epoch": 3} if key else tensors, file)
    module, record = load_weights(NAME, DEPTH, str(file))
    assert_loaded(module, zoo_tensors)
    assert (record.weights, record.source, record.stride) == ("mine.pth", str(file), None)


def test_the_hash_is_of_the_tensors_not_of_the_file(zoo_tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(zoo_tensors, tmp_path / "a.pth")
    save_file(
        {n: t.contiguous() for n, t in zoo_tensors.items() if not n.startswith("blocks.5.")}, tmp_path / "b.safetensors"
    )
    first, second = (load_weights(NAME, DEPTH, str(tmp_path / name))[1] for name in ("a.pth", "b.safetensors"))
    assert first.weights_sha256 == second.weights_sha256
    assert first.file_sha256 != second.file_sha256
    module, _ = load_weights(NAME, DEPTH, str(tmp_path / "a.pth"))
    next(module.parameters()).data.view(-1)[0] += 1
    assert tensors_sha256(module) != first.weights_sha256


def test_tensors_that_do_not_fit(zoo_tensors: dict[str, Tensor], tmp_path: Path) -> None:
    names = list(used_tensors(build_backbone(NAME, DEPTH)))
    del zoo_tensors[names[3]], zoo_tensors[names[4]]
    zoo_tensors[names[0]] = torch.zeros(7)
    zoo_tensors["strange"] = torch.zeros(1)
    torch.save(zoo_tensors, tmp_path / "bad.pth")
    with pytest.raises(InputError) as caught:
        load_weights(NAME, DEPTH, str(tmp_path / "bad.pth"))
    text = str(caught.value)
    assert f"2 missing ({names[3]}, {names[4]})" in text
    assert "1 unexpected (strange)" in text
    assert f"1 of another shape ({names[0]} (7,) for" in text


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_files(zoo_tensors: dict[str, Tensor], tmp_path: Path, suffix: str, share: float) -> None:
    file = tmp_path / f"cut{suffix}"
    save_file(zoo_tensors, file) if suffix == ".safetensors" else torch.save(zoo_tensors, file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(InputError, match="damaged"):
        load_weights(NAME, DEPTH, str(file))


def test_not_a_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="no tensors"):
        load_weights(NAME, DEPTH, str(tmp_path / "list.pth"))


def test_a_name_that_is_neither_known_nor_a_file() -> None:
    with pytest.raises(InputError, match="kinetics, none"):
        load_weights(NAME, DEPTH, "imagenet")


def test_random_weights_are_seeded_and_leave_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = load_weights(NAME, DEPTH, "none"), load_weights(NAME, DEPTH, "none")
    assert torch.equal(torch.get_rng_state(), state)
    assert first[1] == second[1]
    assert first[1].source == "seed 0"
    assert_loaded(first[0], used_tensors(second[0]))


def finetuned() -> tuple[nn.Module, WeightsRecord]:
    module, record = load_weights(NAME, None, "none")
    return module, replace(record, stride=2, window=50, width=398, height=224, mean=(0.5, 0.4, 0.3))


def test_our_own_checkpoint_round_trips_and_binds(tmp_path: Path) -> None:
    module, record = finetuned()
    save_backbone_checkpoint(tmp_path / "mine.safetensors", module, record)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]
    loaded, held = load_weights(NAME, None, str(tmp_path / "mine.safetensors"))
    assert_loaded(loaded, used_tensors(module))
    assert replace(held, weights="none", source="seed 0", file_sha256=None) == record
    assert WeightsRecord.from_json(json.loads(json.dumps(held.to_json()))) == held


@pytest.mark.parametrize(("name", "depth", "told"), [("x3d_s", 5, "--backbone x3d_xs"), (NAME, 4, "--depth 5")])
def test_a_checkpoint_of_another_backbone(tmp_path: Path, name: str, depth: int, told: str) -> None:
    save_backbone_checkpoint(tmp_path / "mine.safetensors", *finetuned())
    with pytest.raises(InputError, match=told):
        load_weights(name, depth, str(tmp_path / "mine.safetensors"))


def test_a_checkpoint_must_bind(tmp_path: Path) -> None:
    module, record = finetuned()
    with pytest.raises(InputError, match="no window"):
        save_backbone_checkpoint(tmp_path / "mine.safetensors", module, replace(record, window=None))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_with_a_strange_record(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"bas": '{"colour": 3}'})
    with pytest.raises(InputError, match="does not fit this version"):
        load_weights(NAME, DEPTH, str(tmp_path / "odd.safetensors"))


def test_timm_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    build = timm_nets.build_timm
    torch.manual_seed(3)
    trained = build("tf_efficientnet_lite0.in1k")
    monkeypatch.setattr(
        timm_nets, "build_timm", lambda name, *, pretrained=False: trained if pretrained else build(name)
    )
    module, record = load_weights("tf_efficientnet_lite0", None, "imagenet")
    assert_loaded(module, trained.state_dict())
    assert (record.weights, record.source) == ("imagenet", "timm:tf_efficientnet_lite0.in1k")


def test_timm_hub_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    build = timm_nets.build_timm

    def offline(name: str, *, pretrained: bool = False) -> nn.Module:
        if pretrained:
            raise ConnectionError("no route to host")
        return build(name)

    monkeypatch.setattr(timm_nets, "build_timm", offline)
    with pytest.raises(InputError, match=r"tf_efficientnet_lite0\.in1k(.|\n)*--weights FILE"):
        load_weights("tf_efficientnet_lite0", None, "imagenet")


@pytest.mark.weights
@torch.no_grad()
def test_real_lite0_is_timms_own(weights_dir: Path) -> None:
    file = weights_dir / "tf_efficientnet_lite0_in1k.safetensors"
    module, _ = load_weights("tf_efficientnet_lite0", None, str(file))
    timm = import_with_torchvision("timm")
    plain = timm.create_model("tf_efficientnet_lite0").eval()
    plain.load_state_dict(load_file(file))
    x = torch.rand(1, 3, 2, 224, 224) * 2 - 1
    wanted = plain.forward_head(plain.forward_features(x[0].transpose(0, 1)), pre_logits=True)
    assert (module(x)[0] - wanted).abs().max() <= 1e-5 * wanted.abs().max()
