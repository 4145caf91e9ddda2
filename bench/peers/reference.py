"""The video-action transformer in plain PyTorch as the reference computes it (docs/MODEL.md, sections 3 to 5), for timing.

Nothing is clever here: text keys and values are projected in every pass, the time embedding is computed for every
token, guidance is a batch of two, every layer gathers its cache entries through a boolean mask, actions are denoised at
batch two although one row is read, the last action pass runs, and a commit is two passes. `keeps_text` removes the first
of these.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

MODALITIES = ("video", "action")
ROPE_BASE = 10_000.0
TIMESTEP_PERIOD = 10_000.0
VIDEO_SHIFT, ACTION_SHIFT = 5.0, 1.0


@dataclass
class Size:
    """A chunk, by the names of size.json."""

    frames: int
    grid_h: int
    grid_w: int
    action_per_frame: int
    text_rows: int
    capacity: int
    history: int
    guidance_scale: float

    def tokens_per_frame(self, modality: str) -> int:
        return self.grid_h * self.grid_w if modality == "video" else self.action_per_frame

    @property
    def frame_start(self) -> int:
        per_chunk = self.frames * (self.tokens_per_frame("video") + self.tokens_per_frame("action"))
        return self.history // per_chunk * self.frames


class Cache:
    """Keys and values of all layers, [batch, slot, head, dim], and which slots are valid."""

    def __init__(self, layers: int, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        self.keys = [torch.zeros(shape, dtype=dtype) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype) for _ in range(layers)]
        self.valid = torch.zeros(shape[1], dtype=torch.bool)

    def take(self, count: int) -> Tensor:
        slots = (~self.valid).nonzero()[:count, 0]
        assert len(slots) == count, "the history leaves room for one chunk"
        self.valid[slots] = True
        return slots

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores [batch, tokens, head, dim]; returns all valid entries, gathered."""
        batch = len(k)
        self.keys[layer][:batch, slots] = k
        self.values[layer][:batch, slots] = v
        return self.keys[layer][:batch, self.valid], self.values[layer][:batch, self.valid]


def sinusoid(timesteps: Tensor, dim: int) -> Tensor:
    """[...] -> [..., dim], cosines first."""
    half = dim // 2
    frequencies = torch.exp(-math.log(TIMESTEP_PERIOD) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rope_angles(positions: Tensor, head_dim: int) -> Tensor:
    """Positions [tokens, 3] (frame, height, width) -> complex unit factors [tokens, head_dim / 2]."""
    space = head_dim // 3
    parts = []
    for axis, dim in enumerate((head_dim - 2 * space, space, space)):
        base = (1.0 / ROPE_BASE ** (torch.arange(0, dim // 2 * 2, 2, dtype=torch.float64) / dim)).float()
        parts.append(positions[:, axis, None].float() * base)
    angles = torch.cat(parts, dim=1).double()
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, factors: Tensor) -> Tensor:
    """[batch, tokens, head, dim], interleaved pairs."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * factors[:, None]).flatten(-2).to(x.dtype)


def layer_norm(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[batch, tokens, head, dim] each -> [batch, tokens, width]."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)


class Transformer:
    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.heads = self.config["num_attention_heads"]
        self.head_dim = self.config["attention_head_dim"]
        self.layers = self.config["num_layers"]
        self.eps = self.config["eps"]
        self.dtype = dtype
        self.weights: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            for name, tensor in load_file(file).items():
                self.weights[name] = tensor.to(dtype)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def rms_norm(self, name: str, x: Tensor) -> Tensor:
        """Over the whole inner width, statistics in float32."""
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (x * scale).to(self.dtype) * self.weights[name]

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_dim))

    def time_embedding(self, modality: str, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps [batch, tokens] -> temb [batch, tokens, width] and its projection [batch, tokens, 6, width]."""
        prefix = "condition_embedder" if modality == "video" else "condition_embedder_action"
        values = sinusoid(timesteps, self.config["freq_dim"]).to(self.dtype)
        hidden = F.silu(self.linear(f"{prefix}.time_embedder.linear_1", values))
        temb = self.linear(f"{prefix}.time_embedder.linear_2", hidden)
        return temb, self.linear(f"{prefix}.time_proj", F.silu(temb)).unflatten(-1, (6, -1))

    def embed_text(self, text: Tensor) -> Tensor:
        hidden = F.gelu(self.linear("condition_embedder.text_embedder.linear_1", text), approximate="tanh")
        return self.linear("condition_embedder.text_embedder.linear_2", hidden)

    def text_keys_values(self, layer: int, text: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded text [batch, rows, width] -> [batch, rows, head, dim] twice."""
        name = f"blocks.{layer}.attn2"
        k = self.rms_norm(f"{name}.norm_k.weight", self.linear(f"{name}.to_k", text))
        return self.split(k), self.split(self.linear(f"{name}.to_v", text))

    def block(self, layer: int, h: Tensor, projection: Tensor, rope: Tensor, text: tuple, cache: Cache, slots: Tensor) -> Tensor:
        name = f"blocks.{layer}"
        modulation = self.weights[f"{name}.scale_shift_table"].float() + projection.float()
        shift, scale, gate, c_shift, c_scale, c_gate = modulation.unbind(dim=-2)

        x = (layer_norm(h, self.eps) * (1 + scale) + shift).to(self.dtype)
        q = self.split(self.rms_norm(f"{name}.attn1.norm_q.weight", self.linear(f"{name}.attn1.to_q", x)))
        k = self.split(self.rms_norm(f"{name}.attn1.norm_k.weight", self.linear(f"{name}.attn1.to_k", x)))
        v = self.split(self.linear(f"{name}.attn1.to_v", x))
        keys, values = cache.write(layer, slots, rotate(k, rope), v)
        out = self.linear(f"{name}.attn1.to_out.0", attend(rotate(q, rope), keys, values))
        h = (h.float() + out * gate).to(self.dtype)

        x = h
        if self.config.get("cross_attn_norm", True):
            norm, bias = self.weights[f"{name}.norm2.weight"].float(), self.weights[f"{name}.norm2.bias"].float()
            x = F.layer_norm(h.float(), h.shape[-1:], norm, bias, self.eps).to(self.dtype)
        q = self.split(self.rms_norm(f"{name}.attn2.norm_q.weight", self.linear(f"{name}.attn2.to_q", x)))
        h = h + self.linear(f"{name}.attn2.to_out.0", attend(q, *text))

        x = (layer_norm(h, self.eps) * (1 + c_scale) + c_shift).to(self.dtype)
        up = F.gelu(self.linear(f"{name}.ffn.net.0.proj", x), approximate="tanh")
        return (h.float() + self.linear(f"{name}.ffn.net.2", up).float() * c_gate).to(self.dtype)

    def forward(self, modality: str, x: Tensor, timesteps: Tensor, rope: Tensor, text: Tensor | list, cache: Cache, slots: Tensor) -> Tensor:
        """x [batch, tokens, features]; text: [batch, rows, text_dim], or what text_keys_values made of it per layer."""
        is_video = modality == "video"
        h = self.linear("patch_embedding_mlp" if is_video else "action_embedder", x)
        temb, projection = self.time_embedding(modality, timesteps)
        embedded = None if isinstance(text, list) else self.embed_text(text)
        for layer in range(self.layers):
            keys_values = text[layer] if embedded is None else self.text_keys_values(layer, embedded)
            keys_values = tuple(part[: len(x)] for part in keys_values)
            h = self.block(layer, h, projection, rope, keys_values, cache, slots)
        shift, scale = (self.weights["scale_shift_table"] + temb[..., None, :]).unbind(dim=-2)
        h = (layer_norm(h, self.eps) * (1 + scale) + shift).to(self.dtype)
        return self.linear("proj_out" if is_video else "action_proj_out", h)


def schedule(steps: int, shift: float) -> tuple[list[float], list[float]]:
    """Timesteps and step sizes, in float32."""
    u = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float32)[:-1]
    sigmas = shift * u / (1 + (shift - 1) * u)
    sizes = torch.cat([sigmas[1:], torch.zeros(1)]) - sigmas
    return (sigmas * 1000).tolist(), sizes.tolist()


class Bench:
    """The passes of a chunk on a cache that is full but for it. Each leaves the state as it was."""

    def __init__(self, transformer: Path, folder: Path, dtype: torch.dtype) -> None:
        self.model = Transformer(transformer, dtype)
        self.size = Size(**json.loads((folder / "size.json").read_text()))
        inputs = load_file(folder / "inputs.safetensors")
        self.x = {modality: inputs[f"{modality}.x"].to(dtype) for modality in MODALITIES}
        self.text = self._text(inputs, dtype)
        self.rope = {modality: rope_angles(self._positions(modality), self.model.head_dim) for modality in MODALITIES}
        model = self.model
        self.cache = Cache(model.layers, (2, self.size.capacity, model.heads, model.head_dim), dtype)
        slots = self.cache.take(self.size.history)
        for layer in range(model.layers):
            for row in range(2):
                self.cache.keys[layer][row, slots] = inputs[f"history.{layer}.{row}.k"].to(dtype)
                self.cache.values[layer][row, slots] = inputs[f"history.{layer}.{row}.v"].to(dtype)
        embedded = model.embed_text(self.text)
        self.kept = [model.text_keys_values(layer, embedded) for layer in range(model.layers)]

    def _text(self, inputs: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """[2, text rows, text_dim], zeros behind the real ones."""
        text = torch.zeros(2, self.size.text_rows, self.model.config["text_dim"], dtype=dtype)
        for row, name in enumerate(("text.positive", "text.negative")):
            text[row, : len(inputs[name])] = inputs[name].to(dtype)
        return text

    def _positions(self, modality: str) -> Tensor:
        start, size = self.size.frame_start, self.size
        if modality == "video":
            grid = (torch.arange(start, start + size.frames), torch.arange(size.grid_h), torch.arange(size.grid_w))
            return torch.cartesian_prod(*grid).float()
        per_frame = size.action_per_frame
        offsets = torch.arange(1, per_frame + 1, dtype=torch.float32) / (per_frame + 1)
        frames = (torch.arange(start, start + size.frames, dtype=torch.float32)[:, None] + offsets).flatten()
        frames = frames.to(self.model.dtype).float()
        return torch.stack([frames, torch.full_like(frames, -1), torch.full_like(frames, -1)], dim=1)

    def _pass(self, modality: str, x: Tensor, timestep: float, batch: int, keeps_text: bool, stays: bool = False) -> Tensor:
        """x [tokens, features]: the same for every guidance row."""
        slots = self.cache.take(len(x))
        timesteps = torch.full((batch, len(x)), timestep, dtype=torch.float32).to(self.model.dtype)
        text = self.kept if keeps_text else self.text[:batch]
        out = self.model.forward(modality, x.expand(batch, -1, -1), timesteps, self.rope[modality], text, self.cache, slots)
        if not stays:
            self.cache.valid[slots] = False
        return out

    def denoise(self, modality: str, batch: int, keeps_text: bool) -> Tensor:
        return self._pass(modality, self.x[modality], 500.0, batch, keeps_text)

    def commit(self, video: Tensor, action: Tensor, keeps_text: bool) -> Tensor:
        """Returns the last layer's entries of it, [guidance row, k / v, token, head, dim]."""
        before = self.cache.valid.clone()
        self._pass("video", video, 0.0, 2, keeps_text, stays=True)
        self._pass("action", action, 0.0, 2, keeps_text, stays=True)
        written = self.cache.valid & ~before
        self.cache.valid = before
        last = self.model.layers - 1
        return torch.stack([self.cache.keys[last][:, written], self.cache.values[last][:, written]], dim=1)

    def guide(self, out: Tensor) -> Tensor:
        """[2, tokens, features in (patch, channel) order] -> [tokens, features in (channel, patch) order]."""
        guided = out[1] + self.size.guidance_scale * (out[0] - out[1])
        return guided.unflatten(-1, (-1, self.model.config["out_channels"])).transpose(-1, -2).flatten(-2)

    def chunk(self, video_steps: int, action_steps: int, keeps_text: bool) -> Tensor:
        before = self.cache.valid.clone()
        video, action = self.x["video"], self.x["action"]
        for timestep, step in zip(*schedule(video_steps, VIDEO_SHIFT), strict=True):
            video = video + self.guide(self._pass("video", video, timestep, 2, keeps_text)) * step
        self._pass("video", video, 0.0, 2, keeps_text, stays=True)
        for timestep, step in zip(*schedule(action_steps, ACTION_SHIFT), strict=True):
            action = action + self._pass("action", action, timestep, 2, keeps_text)[0] * step
        self._pass("action", action, 0.0, 2, keeps_text, stays=True)
        self.cache.valid = before.clone()  # what was predicted is dropped
        self.commit(video, action, keeps_text)
        self.cache.valid = before
        return torch.cat([video.flatten(), action.flatten()])
