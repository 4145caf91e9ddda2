"""The video-action transformer in PyTorch, as training needs it: all tokens of whole episodes in one pass.

Names of parameters are those of the released file. The runtime's forward is docs/MODEL.md, section 3; here the two
modalities of several streams go through the blocks together, and a mask says who attends whom (teacher_forcing.py).

Token tensors are [batch, tokens, width]. Tokens of one kind that share a latent frame share a timestep, so modulation is
kept per frame: a Layout says how the token axis divides into runs of frames.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

ROPE_BASE = 10_000.0
TIMESTEP_PERIOD = 10_000.0


@dataclass
class TransformerConfig:
    """The structure, by the names in the released config.json."""

    num_attention_heads: int = 4
    attention_head_dim: int = 48
    in_channels: int = 16
    out_channels: int = 16
    action_dim: int = 30
    text_dim: int = 64
    freq_dim: int = 256
    ffn_dim: int = 768
    num_layers: int = 6
    eps: float = 1e-6
    cross_attn_norm: bool = True

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True)
class Layout:
    """How the token axis divides into runs; each run is so many latent frames of so many tokens."""

    runs: tuple[tuple[int, int], ...]  # (frames, tokens of a frame)

    @property
    def lengths(self) -> list[int]:
        return [frames * tokens for frames, tokens in self.runs]

    def split(self, x: Tensor) -> list[Tensor]:
        """[B, tokens, d] -> of each run a view [B, frames, tokens of a frame, d]."""
        return [part.unflatten(1, run) for part, run in zip(x.split(self.lengths, dim=1), self.runs, strict=True)]


def join(runs: list[Tensor]) -> Tensor:
    """The inverse of Layout.split."""
    return torch.cat([run.flatten(1, 2) for run in runs], dim=1)


def timestep_sinusoid(timesteps: Tensor, dim: int) -> Tensor:
    """[...] -> [..., dim]; cosines first."""
    half = dim // 2
    frequencies = torch.exp(-math.log(TIMESTEP_PERIOD) * torch.arange(half, device=timesteps.device) / half)
    angles = timesteps[..., None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rope_table(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Positions (frame, row, column) [tokens, 3] -> cosines and sines [tokens, head_dim / 2]."""
    third = head_dim // 3
    angles = []
    for axis, dim in enumerate((head_dim - 2 * third, third, third)):
        frequencies = 1.0 / ROPE_BASE ** (torch.arange(0, dim, 2).double() / dim)
        angles.append(positions[:, axis, None].double() * frequencies)
    joined = torch.cat(angles, dim=-1)
    return joined.cos().float(), joined.sin().float()


def video_positions(frames: Tensor, rows: int, columns: int) -> Tensor:
    """[frames * rows * columns, 3]."""
    grid = torch.meshgrid(frames.float(), torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
    return torch.stack(grid, dim=-1).reshape(-1, 3)


def action_positions(frames: Tensor, per_frame: int) -> Tensor:
    """[frames * per_frame, 3]: action j of frame f is at (f + (j + 1) / (per_frame + 1), -1, -1)."""
    offsets = torch.arange(1, per_frame + 1).float() / (per_frame + 1)
    position = (frames.float()[:, None] + offsets).reshape(-1)
    return torch.stack([position, -torch.ones_like(position), -torch.ones_like(position)], dim=-1)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Interleaved pairs of [B, tokens, heads, head_dim] turned by [tokens, head_dim / 2]."""
    cosine, sine = (part[:, None] for part in table)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention [B, heads, tokens, head_dim] with an additive bias [queries, keys] or [B * heads, queries, keys].

    Written out, because on a CPU two batched products beat the fused kernel with a mask.
    """
    batch, heads, queries, dim = q.shape
    q, k, v = (part.reshape(batch * heads, -1, dim) for part in (q, k, v))
    if bias.dim() == 2:
        bias = bias.expand(batch * heads, -1, -1)
    scores = torch.baddbmm(bias.to(q.dtype), q, k.transpose(1, 2), alpha=dim**-0.5)
    return torch.bmm(scores.softmax(-1), v).unflatten(0, (batch, heads))


class RmsNorm(nn.RMSNorm):
    """Takes its weight in the input's type: under autocast the fused kernel is used only then."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class TimeEmbedder(nn.Module):
    def __init__(self, freq_dim: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(freq_dim, width)
        self.linear_2 = nn.Linear(width, width)
        self.freq_dim = freq_dim

    def forward(self, timesteps: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(timestep_sinusoid(timesteps, self.freq_dim))))


class TextEmbedder(nn.Module):
    def __init__(self, text_dim: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(text_dim, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, text: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(text), approximate="tanh"))


class ConditionEmbedder(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.time_embedder = TimeEmbedder(config.freq_dim, config.width)
        self.time_proj = nn.Linear(config.width, 6 * config.width)
        self.text_embedder = TextEmbedder(config.text_dim, config.width)

    def forward(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """[B, frames] of 0 .. 1000 -> embedding [B, frames, d] and modulation [B, frames, 6, d]."""
        embedding = self.time_embedder(timesteps)
        return embedding, self.time_proj(F.silu(embedding)).unflatten(-1, (6, -1))


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.width
        self.heads = config.num_attention_heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q = RmsNorm(width, config.eps)
        self.norm_k = RmsNorm(width, config.eps)

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, tokens, d] -> [B, tokens, heads, head_dim]."""
        return x.unflatten(-1, (self.heads, -1))

    def output(self, attended: Tensor) -> Tensor:
        """[B, heads, tokens, head_dim] -> [B, tokens, d]."""
        return self.to_out[0](attended.transpose(1, 2).flatten(2))


class GeluLinear(nn.Module):
    """Holds the first feed-forward matrix under its released name, ffn.net.0.proj."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.net = nn.ModuleList([GeluLinear(width, hidden), nn.Identity(), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


@dataclass
class Group:
    """Query tokens that attend the same keys: both are ranges of the token axis."""

    queries: slice
    keys: slice
    bias: Tensor  # [queries, keys], 0 or a large negative number


@dataclass
class Context:
    """What all blocks of one pass share."""

    layout: Layout
    rope: tuple[Tensor, Tensor]
    modulation: list[Tensor]  # of each run [B, frames, 6, d]
    groups: list[Group]  # in the order of their queries, which cover the token axis
    text: Tensor  # [B, rows, d]
    text_bias: Tensor  # [B * heads, 1, rows]


class Block(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.width
        self.attn1 = Attention(config)
        self.attn2 = Attention(config)
        self.norm2 = nn.LayerNorm(width, config.eps)
        self.ffn = FeedForward(width, config.ffn_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width**0.5)
        self.eps = config.eps

    def _modulated(self, x: Tensor, modulation: list[Tensor], layout: Layout, first: int) -> Tensor:
        """LayerNorm(x) * (1 + scale) + shift, with rows first (shift) and first + 1 (scale) of the modulation."""
        normed = layout.split(F.layer_norm(x, x.shape[-1:], eps=self.eps))
        pairs = zip(normed, modulation, strict=True)
        return join([torch.addcmul(m[:, :, first, None], n, 1 + m[:, :, first + 1, None]) for n, m in pairs])

    def _gated(self, x: Tensor, update: Tensor, modulation: list[Tensor], layout: Layout, row: int) -> Tensor:
        pairs = zip(layout.split(update), modulation, strict=True)
        return x + join([u * m[:, :, row, None] for u, m in pairs])

    def _self_attention(self, x: Tensor, context: Context) -> Tensor:
        attn = self.attn1
        weights = torch.cat([attn.to_q.weight, attn.to_k.weight, attn.to_v.weight])
        biases = torch.cat([attn.to_q.bias, attn.to_k.bias, attn.to_v.bias])
        q, k, v = F.linear(x, weights, biases).chunk(3, dim=-1)
        q = rotate(attn.split_heads(attn.norm_q(q)), context.rope).to(v.dtype).transpose(1, 2)
        k = rotate(attn.split_heads(attn.norm_k(k)), context.rope).to(v.dtype).transpose(1, 2)
        v = attn.split_heads(v).transpose(1, 2)
        attended = [attend(q[:, :, g.queries], k[:, :, g.keys], v[:, :, g.keys], g.bias) for g in context.groups]
        return attn.output(torch.cat(attended, dim=2))

    def _cross_attention(self, x: Tensor, context: Context) -> Tensor:
        attn = self.attn2
        q = attn.split_heads(attn.norm_q(attn.to_q(x))).transpose(1, 2)
        k = attn.split_heads(attn.norm_k(attn.to_k(context.text))).transpose(1, 2)
        v = attn.split_heads(attn.to_v(context.text)).transpose(1, 2)
        q, k = q.to(v.dtype), k.to(v.dtype)
        bias = context.text_bias.to(v.dtype).expand(-1, q.shape[2], -1)
        return attn.output(attend(q, k, v, bias))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        layout = context.layout
        modulation = [m + self.scale_shift_table for m in context.modulation]
        attended = self._self_attention(self._modulated(x, modulation, layout, 0), context)
        x = self._gated(x, attended, modulation, layout, 2)
        x = x + self._cross_attention(self.norm2(x), context)
        return self._gated(x, self.ffn(self._modulated(x, modulation, layout, 3)), modulation, layout, 5)


class VideoActionTransformer(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.width
        self.config = config
        self.patch_embedding_mlp = nn.Linear(config.in_channels * 4, width)
        self.action_embedder = nn.Linear(config.action_dim, width)
        self.condition_embedder = ConditionEmbedder(config)
        self.condition_embedder_action = ConditionEmbedder(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.proj_out = nn.Linear(width, config.out_channels * 4)
        self.action_proj_out = nn.Linear(width, config.action_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
        self.initialise()

    def initialise(self) -> None:
        """Action matrices are the video ones, interpolated to the action's size and scaled by sqrt(video / action) inputs
        (docs/MODEL.md, section 8); heads start small; the cross-attention adds nothing at first."""
        with torch.no_grad():
            source = self.patch_embedding_mlp.weight  # [d, video inputs]
            inputs = self.config.action_dim
            resized = F.interpolate(source[None], size=inputs, mode="linear", align_corners=False)[0]
            self.action_embedder.weight.copy_(resized * (source.shape[1] / inputs) ** 0.5)
            self.action_embedder.bias.copy_(self.patch_embedding_mlp.bias)
            nn.init.normal_(self.proj_out.weight, std=0.02)
            head = F.interpolate(self.proj_out.weight.T[None], size=inputs, mode="linear", align_corners=False)[0].T
            self.action_proj_out.weight.copy_(head)
            for layer in (self.proj_out, self.action_proj_out):
                nn.init.zeros_(layer.bias)
            self.condition_embedder_action.load_state_dict(self.condition_embedder.state_dict())
            for block in self.blocks:
                nn.init.zeros_(block.attn2.to_out[0].weight)
                nn.init.zeros_(block.attn2.to_out[0].bias)

    def embed_text(self, text: Tensor) -> Tensor:
        """Rows of the text encoder [B, rows, text_dim] -> [B, rows, d]."""
        return self.condition_embedder.text_embedder(text)

    def head(self, x: Tensor, embedding: Tensor, projection: nn.Linear) -> Tensor:
        """x [B, frames, tokens, d], embedding [B, frames, d] -> [B, frames, tokens, channels]."""
        shift, scale = (self.scale_shift_table + embedding[:, :, None]).unbind(2)
        normed = F.layer_norm(x, x.shape[-1:], eps=self.config.eps)
        return projection(normed * (1 + scale[:, :, None]) + shift[:, :, None])


def patchify(latents: Tensor) -> Tensor:
    """[B, C, F, h, w] -> [B, F, h / 2 * w / 2, C * 4], channel order (c, row, column) as the input layer reads it."""
    b, c, f, h, w = latents.shape
    parts = latents.reshape(b, c, f, h // 2, 2, w // 2, 2).permute(0, 2, 3, 5, 1, 4, 6)
    return parts.reshape(b, f, h // 2 * (w // 2), c * 4)


def output_order(patches: Tensor) -> Tensor:
    """Reorders the last axis from (c, row, column), the input's order, to (row, column, c), the output head's order."""
    channels = patches.shape[-1] // 4
    return patches.unflatten(-1, (channels, 2, 2)).permute(0, 1, 2, 4, 5, 3).flatten(-3)
