"""`bigru`, and `unet_gru`: a U-Net over time with a bigru at the bottom.

Shapes: B clips, T steps, C channels, H hidden channels of one direction.
Sources: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014; Ronneberger et al., U-Net,
MICCAI 2015.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require
from .ops import TimeBatchNorm, TimeConv, pool_by_max


@dataclass(frozen=True)
class BiGruSettings:
    """Settings of `bigru`."""

    hidden: int = 512
    """H; the output has 2 H channels."""
    num_layers: int = 2
    """>= 1."""
    dropout: float = 0.0
    """Between the layers: a probability in [0, 1)."""

    def __post_init__(self) -> None:
        ok = self.hidden >= 1 and self.num_layers >= 1
        require(ok, "size is not usable", got=self, wanted="hidden >= 1 and num_layers >= 1")
        require(0 <= self.dropout < 1, "dropout is not usable", got=self.dropout, wanted="a probability below 1")

    def build(self, dim: int) -> "BiGru":
        """(B, T, dim) -> (B, T, 2 hidden)."""
        return BiGru(self, dim)


class BiGru(Neck):
    """A GRU in both directions."""

    def __init__(self, settings: BiGruSettings, dim: int) -> None:
        super().__init__()
        self.dim = 2 * settings.hidden
        self.gru = TimeGru(
            *(dim, settings.hidden, settings.num_layers),
            batch_first=True,
            bidirectional=True,
            dropout=settings.dropout if settings.num_layers > 1 else 0.0,  # there is nothing between one layer
        )

    def forward(self, x_btc: Tensor) -> Tensor:
        out_bth: Tensor = self.gru(x_btc)
        return out_bth


class TimeGru(nn.GRU):
    """nn.GRU in both directions, clips first, that trains 1.6 to 3.6 times as fast on a CPU.

    PyTorch's backward pass adds a gradient of the whole kernel at every step of time; ours makes it by one product.
    """

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, C) -> (B, T, 2H), every step's states from zero ones."""
        if not self.training or input.device.type != "cpu":
            out_bth: Tensor = super().forward(input)[0]
            return out_bth
        product = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        for layer in range(self.num_layers):
            if layer:
                input = functional.dropout(input, self.dropout)
            input_ih, input_hh, bias_ih, bias_hh = (
                [getattr(self, f"{name}_l{layer}{direction}") for direction in ("", "_reverse")]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            ahead, back = (functional.linear(input, *of) for of in zip(input_ih, bias_ih, strict=True))
            gates_tdbg = torch.stack([ahead, back.flip(1)]).permute(2, 0, 1, 3)
            out_tdbh = _Recurrence.apply(gates_tdbg, torch.stack(input_hh), torch.stack(bias_hh), product)  # type: ignore[no-untyped-call]
            ahead, back = out_tdbh.unbind(1)
            input = torch.cat([ahead, back.flip(0)], -1).transpose(0, 1)
        return input


class _Recurrence(torch.autograd.Function):
    """States of a GRU, D directions at once: (T, D, B, 3H) of the input, weights (D, 3H, H), (D, 3H) -> (T, D, B, H).

    Gates stand in PyTorch's order: reset, update, new. `product` is the type that the products with states are made in.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(context: Any, input_tdbg: Tensor, kernel: Tensor, bias: Tensor, product: torch.dtype) -> Tensor:
        (num_steps, *rest), hidden = input_tdbg.shape[:3], kernel.shape[2]
        kernel, bias = kernel.to(product), bias.unsqueeze(1)
        states = input_tdbg.new_zeros(num_steps + 1, *rest, hidden)
        gates = input_tdbg.new_empty(num_steps, *rest, 2 * hidden)
        new, inner = (input_tdbg.new_empty(num_steps, *rest, hidden) for _ in range(2))
        for step, given in enumerate(input_tdbg):
            seen = (states[step].to(product) @ kernel.mT).to(bias.dtype) + bias
            torch.add(given[..., : 2 * hidden], seen[..., : 2 * hidden], out=gates[step]).sigmoid_()
            inner[step] = seen[..., 2 * hidden :]
            reset, update = gates[step].chunk(2, -1)
            torch.addcmul(given[..., 2 * hidden :], reset, inner[step], out=new[step]).tanh_()
            torch.lerp(new[step], states[step], update, out=states[step + 1])
        context.save_for_backward(states, gates, new, inner, kernel)
        return states[1:]

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(context: Any, gradient_tdbh: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        states, gates, new, inner, kernel = context.saved_tensors
        before, (reset, update), hidden = states[:-1], gates.chunk(2, -1), new.shape[-1]
        by_new, by_update = (1 - update) * (1 - new * new), (before - new) * update * (1 - update)
        by_reset = inner * reset * (1 - reset)
        of_new, of_seen = torch.empty_like(new), new.new_empty(*new.shape[:3], 3 * hidden)
        carried = torch.zeros_like(new[0])
        for step in reversed(range(len(new))):
            carried += gradient_tdbh[step]
            seen = of_seen[step]
            torch.mul(carried, by_new[step], out=of_new[step])
            torch.mul(of_new[step], by_reset[step], out=seen[..., :hidden])
            torch.mul(carried, by_update[step], out=seen[..., hidden : 2 * hidden])
            torch.mul(of_new[step], reset[step], out=seen[..., 2 * hidden :])
            carried = carried * update[step] + seen.to(kernel.dtype) @ kernel
        of_input = torch.cat([of_seen[..., : 2 * hidden], of_new], -1)
        rows = of_seen.transpose(0, 1).flatten(1, 2)  # (D, T * B, 3H): one product for all steps
        of_kernel = rows.mT.to(kernel.dtype) @ before.transpose(0, 1).flatten(1, 2).to(kernel.dtype)
        return of_input, of_kernel.to(rows.dtype), rows.sum(1), None


@dataclass(frozen=True)
class UnetGruSettings:
    """Settings of `unet_gru`."""

    widths: tuple[int, ...] = (256, 512)
    """Channels of each level; their number is the depth."""
    gru: BiGruSettings = BiGruSettings()
    """At the bottom."""

    def __post_init__(self) -> None:
        require(len(self.widths) > 0, "widths are not usable", got=self.widths, wanted="at least one")

    def build(self, dim: int) -> "UnetGru":
        """(B, T, dim) -> (B, T, widths[0])."""
        return UnetGru(self, dim)


class DoubleConv(nn.Module):
    """Twice: convolution of kernel 3, BatchNorm, ReLU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([TimeConv(dim_in, dim_out, 3), TimeConv(dim_out, dim_out, 3)])
        self.norms = nn.ModuleList([TimeBatchNorm(dim_out), TimeBatchNorm(dim_out)])

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D), >= 0."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_btc = functional.relu(norm(conv(x_btc)))
        return x_btc


class UnetGru(Neck):
    """Double convolution and max pool 2 per level, bigru, then nearest upsampling with the skip per level."""

    def __init__(self, settings: UnetGruSettings, dim: int) -> None:
        super().__init__()
        widths = settings.widths
        self.dim = widths[0]
        self.encoder = nn.ModuleList(
            DoubleConv(before, after) for before, after in zip((dim, *widths), widths, strict=False)
        )
        self.bottom = settings.gru.build(widths[-1])
        deeper = (*widths[1:], self.bottom.dim)
        self.decoder = nn.ModuleList(
            DoubleConv(deep + width, width) for deep, width in reversed(list(zip(deeper, widths, strict=True)))
        )

    def forward(self, x_btc: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for block in self.encoder:
            x_btc = block(x_btc)
            skips.append(x_btc)
            x_btc = pool_by_max(x_btc, factor=2)
        x_btc = self.bottom(x_btc)
        for block, skip_btc in zip(self.decoder, reversed(skips), strict=True):
            x_btc = x_btc.repeat_interleave(2, dim=1)[:, : skip_btc.shape[1]]
            x_btc = block(torch.cat([x_btc, skip_btc], dim=-1))
        return x_btc
