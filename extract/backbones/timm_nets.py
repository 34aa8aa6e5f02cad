"""2-D backbones from timm."""

from torch import nn

from ...errors import InputError
from .torchvision_compat import import_with_torchvision


def build_timm(name: str, *, pretrained: bool = False) -> nn.Module:
    """A timm model without its classifier; `pretrained` loads through timm's own hub loader.

    Args:
        name: timm's name, with a weights tag where one is meant, e.g. `regnety_008.pycls_in1k`.
        pretrained: fetch the tag's weights (timm's own cache and errors).

    Raises:
        InputError: timm has no such model.
    """
    timm = import_with_torchvision("timm")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8]
        raise InputError(
            f"timm has no model {name!r}", wanted=f"such as {', '.join(near) or 'resnet18'}", cure="timm.list_models()"
        )
    options = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    try:  # vision transformers otherwise refuse any picture but their own square
        model: nn.Module = timm.create_model(name, **options, dynamic_img_size=True)
    except TypeError:
        model = timm.create_model(name, **options)
    return model
