"""`transformer`: attention over the whole clip.

Shapes: B clips, T steps, C channels, W width, H attention heads. Time and memory grow with T squared: a whole match
goes through in windows. Published recipe: learning rate 1e-4, weight decay 0.01.
Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require


@dataclass(frozen=True)
class TransformerSettings:
    """Settings of `transformer`."""

    width: int = 512
    """W, a multiple of `num_heads`."""
    num_layers: int = 2
    """Encoder layers, >= 1."""
    num_heads: int = 8
    """H."""
    feed_forward: int = 512
    """Hidden channels of the feed-forward part."""
    dropout: float = 0.1
    """Probability, in [0, 1)."""

    def __post_init__(self) -> None:
        require(self.num_layers >= 1, "number of layers is not usable", got=self.num_layers, wanted=">= 1")
        fits = self.num_heads >= 1 and self.width % self.num_heads == 0
        require(fits, "width does not divide into heads", got=self, wanted="width a multiple of num_heads")
        require(0 <= self.dropout < 1, "dropout is not usable", got=self.dropout, wanted="a probability below 1")

    def build(self, dim: int) -> "Transformer":
        """(B, T, dim) -> (B, T, width)."""
        return Transformer(self, dim)


class EncoderLayer(nn.Module):
    """Post-norm: LayerNorm(x + attention), LayerNorm(x + feed-forward)."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        width = settings.width
        self.num_heads = settings.num_heads
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, settings.feed_forward), nn.Linear(settings.feed_forward, width)
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_btw: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        x_btw = self.norm_attention(x_btw + self.dropout(self._attend(x_btw)))
        feed_btw = self.down(self.dropout(functional.relu(self.up(x_btw))))
        out_btw: Tensor = self.norm_feed(x_btw + self.dropout(feed_btw))
        return out_btw

    def _attend(self, x_btw: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x_btw).chunk(3, -1))
        dropout_p = self.dropout.p if self.training else 0.0
        out_bhtd = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
        merged_btw: Tensor = self.merge(out_bhtd.transpose(1, 2).flatten(2))
        return merged_btw


class Transformer(Neck):
    """Linear C -> W, sinusoidal positions from the start of the clip, encoder layers."""

    classifier_dropout = 0.0

    def __init__(self, settings: TransformerSettings, dim: int) -> None:
        super().__init__()
        self.dim = settings.width
        self.embed = nn.Linear(dim, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = nn.ModuleList(EncoderLayer(settings) for _ in range(settings.num_layers))

    def forward(self, x_btc: Tensor) -> Tensor:
        num_steps = x_btc.shape[1]
        x_btw: Tensor = self.embed(x_btc)
        x_btw = self.dropout(x_btw + sinusoids(num_steps, self.dim).to(x_btw))
        for layer in self.layers:
            x_btw = layer(x_btw)
        return x_btw


def sinusoids(num_steps: int, dim: int) -> Tensor:
    """(T, dim) positions: sine and cosine in turn, wavelengths from 2 pi to 10000 * 2 pi steps."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angles = torch.arange(num_steps).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]
