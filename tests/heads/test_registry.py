"""Names, sizes and refusals."""

from pathlib import Path

import pytest
import torch

from bas.errors import InputError
from bas.heads.registry import HEADS, build_head
from bas.heads.training.settings import default_targets


def num_weights(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def neck(name: str, *, dim: int) -> torch.nn.Module:
    with torch.device("meta"):
        head = build_head(name, dim=dim, num_classes=12, proj=0)
    return head.get_submodule("trunk")


NUM_WEIGHTS_AT_192 = {
    "fc": 0,
    "tcn": 2 * (3 * 192 * 192 + 192),
    "tcn_dilated": (3 * 192 * 256 + 256) + 2 * (3 * 256 * 256 + 256) + 3 * 512 + 257 * 192,
    "sgp": (193 * 96 + 97 * 192) + 3 * (3 * 192 * 192 + 192) + (577 * 192),
    "sgp_block": 8 * 192**2 + 75 * 192,
    "ed": 68 * 192**2 + 663 * 192,
    "ed_conv": (960 * 128 + 128) + (640 * 64 + 64) + (320 * 32 + 32) + 2 * 224 + 33 * 192,
    "tpn": 3 * (576 * 192 + 192 + 384) + (577 * 192 + 384),
    "transformer": 193 * 512 + 2 * (4 * 513 * 512 + 2 * 513 * 512 + 4 * 512),
    "unet": (9 * 192 + 1) * 32
    + 2 * sum(6 * w * w + 4 * w for w in (32, 48, 72, 96, 96, 96))
    - (6 * 96 * 96 + 4 * 96)
    + sum(5 * a * b + b + (a + b) * a + a for a, b in ((32, 48), (48, 72), (72, 96), (96, 96), (96, 96))),
    "bigru": 2 * 3 * 512 * (192 + 512 + 2) + 2 * 3 * 512 * (1024 + 512 + 2),
}


@pytest.mark.parametrize(("name", "wanted"), NUM_WEIGHTS_AT_192.items())
def test_number_of_weights_is_that_of_the_definition(name: str, wanted: int) -> None:
    assert num_weights(neck(name, dim=192)) == wanted


def test_the_sgp_mixer_has_the_published_size() -> None:
    assert round(num_weights(neck("ed", dim=192)) / 1e6, 2) == 2.63
    assert round(num_weights(neck("ed", dim=1280)) / 1e6) == 112


def test_projection_is_off_up_to_256_channels() -> None:
    def widths(dim: int, proj: int | None = None) -> tuple[int, int]:
        classifier = build_head("tcn", dim=dim, num_classes=12, proj=proj).get_submodule("classifier")
        assert isinstance(classifier, torch.nn.Linear)
        return classifier.in_features, classifier.out_features

    assert widths(256) == (256, 13)
    assert widths(257) == (256, 13)
    assert widths(440, 0) == (440, 13)
    assert widths(64, 16) == (16, 13)


def test_compositions_and_displacement() -> None:
    head = build_head("tcn+sgp", dim=8, num_classes=2)
    assert [type(each).__name__ for each in head.get_submodule("trunk.necks").children()] == ["Tcn", "Sgp"]
    assert default_targets("ed").dilation_steps == 0
    assert default_targets("tcn+ed+disp").dilation_steps == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tnc", "no such head"),
        ("", "no such head"),
        ("disp", "no such head"),
        ("tcn+", "no such head"),
        ("tcn+disp+sgp", "no such head"),
        ("anchor+tcn", "must come last"),
        ("anchor+disp", "regresses an offset already"),
        ("actionformer+disp", "regresses an offset already"),
    ],
)
def test_a_name_that_makes_no_sense_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_head(name, dim=8, num_classes=2)


def test_sizes_and_losses_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="size of the head"):
        build_head("tcn", dim=0, num_classes=2)
    with pytest.raises(InputError, match="size of the head"):
        build_head("tcn", dim=8, num_classes=2, proj=-1)
    with pytest.raises(InputError, match="no such loss"):
        build_head("tcn", dim=8, num_classes=2, loss="mse")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="presence outputs"):
        build_head("anchor", dim=8, num_classes=2, loss="ce")
    assert build_head("anchor", dim=8, num_classes=2, loss="focal")


def test_every_head_is_named_in_the_legend_of_its_file() -> None:
    folder = Path(__file__).resolve().parents[2] / "heads"
    legends = [path.read_text().split('"""')[1] for path in folder.glob("*.py")]
    for name in HEADS:
        assert any(f"`{name}`" in legend for legend in legends), name
