"""Training on whole episodes at once: which token may attend which, noise and timesteps, and the pass through the network.

Tokens of an episode of F latent frames, in this order: clean video, clean actions, noisy video, noisy actions
(docs/MODEL.md, section 9, with the clean ones first). Chunk c, K frames long, has video id 2c and action id 2c + 1.
Clean tokens attend clean ones with an id that is not greater; they compute what the runtime's commits put into the
cache. Noisy tokens attend clean ones with a smaller id, and noisy ones with their own; they compute the runtime's
denoising passes. The forward-dynamics form swaps the last step: noisy actions are given clean and see only the past,
and the noisy video of their chunk sees them (docs/MODEL.md, section 7).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from premotor_training.transformer import (
    Context,
    Group,
    Layout,
    VideoActionTransformer,
    action_positions,
    output_order,
    patchify,
    rope_table,
    video_positions,
)

HIDDEN = -1e9
FULL_TIME = 1000.0  # the timestep of pure noise


def allowed_pairs(frames: int, chunk: int, video_tokens: int, action_tokens: int, forward_dynamics: bool) -> Tensor:
    """Who attends whom: bool [tokens, tokens], queries first, in the order clean video, clean actions, noisy video, noisy
    actions."""
    video_id = 2 * (torch.arange(frames) // chunk).repeat_interleave(video_tokens)
    action_id = 2 * (torch.arange(frames) // chunk).repeat_interleave(action_tokens) + 1
    half = torch.cat([video_id, action_id])
    ids = torch.cat([half, half])
    noisy = torch.arange(len(ids)) >= len(half)
    q_id, k_id, q_noisy, k_noisy = ids[:, None], ids[None], noisy[:, None], noisy[None]
    clean_from_clean = ~q_noisy & ~k_noisy & (k_id <= q_id)
    noisy_from_clean = q_noisy & ~k_noisy & (k_id < q_id)
    noisy_from_noisy = q_noisy & k_noisy & (k_id == q_id)
    if forward_dynamics:
        same_chunk = k_id // 2 == q_id // 2
        noisy_from_clean &= ~same_chunk
        noisy_from_noisy |= q_noisy & k_noisy & same_chunk & (q_id % 2 == 0) & (k_id % 2 == 1)
    return clean_from_clean | noisy_from_clean | noisy_from_noisy


@dataclass(frozen=True)
class Shape:
    """What a pass looks like: latent frames, chunk length, tokens of a frame."""

    frames: int
    chunk: int
    rows: int  # of patches
    columns: int
    per_frame: int  # actions of a latent frame
    forward_dynamics: bool = False


@lru_cache(maxsize=256)
def plan(shape: Shape, head_dim: int, device: torch.device) -> tuple[Layout, list[Group], tuple[Tensor, Tensor]]:
    """Layout, attention groups and rotary table; computed once for each shape."""
    patches = shape.rows * shape.columns
    layout = Layout(((shape.frames, patches), (shape.frames, shape.per_frame)) * 2)
    pairs = allowed_pairs(shape.frames, shape.chunk, patches, shape.per_frame, shape.forward_dynamics)
    bias = torch.zeros(pairs.shape, dtype=torch.bfloat16).masked_fill(~pairs, HIDDEN).to(device)
    half = len(bias) // 2
    # Clean tokens never attend noisy ones, so their keys end in the middle.
    clean = Group(slice(0, half), slice(0, half), bias[:half, :half])
    noisy = Group(slice(half, None), slice(None), bias[half:])
    frames = torch.arange(shape.frames)
    once = torch.cat([video_positions(frames, shape.rows, shape.columns), action_positions(frames, shape.per_frame)])
    cosine, sine = rope_table(torch.cat([once, once]), head_dim)
    return layout, [clean, noisy], (cosine.to(device), sine.to(device))


def shifted(u: Tensor, shift: float) -> Tensor:
    """The noise level of a uniform number, as the sampler's schedule bends it (docs/MODEL.md, section 4)."""
    return shift * u / (1 + (shift - 1) * u)


@dataclass
class Levels:
    """Noise levels of 0 .. 1, of each latent frame [B, F]: of the clean stream's video, and of the noisy stream."""

    history: Tensor
    video: Tensor
    action: Tensor

    def to(self, device: torch.device) -> "Levels":
        return Levels(self.history.to(device), self.video.to(device), self.action.to(device))


def draw_levels(batch: int, frames: int, chunk: int, forward_dynamics: bool, options: "NoiseOptions") -> Levels:
    """One level for all frames of a chunk, as in the runtime's passes; frame 0 of an episode is always given, never noised."""
    chunks = (frames + chunk - 1) // chunk

    def of_chunks(values: Tensor) -> Tensor:
        level = values.repeat_interleave(chunk, 1)[:, :frames].clone()
        level[:, 0] = 0
        return level

    video = of_chunks(shifted(torch.rand(batch, chunks), options.video_shift))
    plain = torch.rand(batch, chunks)
    bent = torch.rand(batch, chunks) < options.bent_share
    action = of_chunks(torch.where(bent, shifted(plain, options.video_shift), plain))
    noised = torch.rand(batch, chunks) < options.history_share
    history = of_chunks(noised * torch.rand(batch, chunks) * options.history_max)
    return Levels(history, video, torch.zeros_like(action) if forward_dynamics else action)


@dataclass(frozen=True)
class NoiseOptions:
    video_shift: float = 5.0
    bent_share: float = 0.5  # of the chunks whose action noise is drawn with the video's shift
    history_share: float = 0.5  # of the chunks whose clean video is noised
    history_max: float = 0.6  # the highest level of that


@dataclass
class Streams:
    """One batch ready for the network."""

    runs: list[Tensor]  # clean video [B, F, patches, C * 4], clean actions [B, F, per_frame, channels], noisy ones
    timesteps: list[Tensor]  # of each run [B, F], 0 .. 1000
    video_target: Tensor  # noise - data in the output head's order, [B, F, patches, C * 4]
    action_target: Tensor  # [B, F, per_frame, channels]


def make_streams(latents: Tensor, actions: Tensor, used: Tensor, levels: Levels) -> Streams:
    """latents [B, C, F, h, w]; actions [B, F, per_frame, channels], zero in unused channels and in frame 0; used: bool
    [channels]. Only used channels carry noise, as in the runtime."""

    def noised(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        return clean + level * (noise - clean)

    over_latents = lambda level: level[:, None, :, None, None]  # noqa: E731
    noise = torch.randn_like(latents)
    clean_video = noised(latents, torch.randn_like(latents), over_latents(levels.history))
    noisy_video = noised(latents, noise, over_latents(levels.video))
    action_noise = torch.randn_like(actions) * used
    noisy_actions = noised(actions, action_noise, levels.action[..., None, None])
    zeros = torch.zeros_like(levels.history)
    return Streams(
        runs=[patchify(clean_video), actions, patchify(noisy_video), noisy_actions],
        timesteps=[FULL_TIME * level for level in (levels.history, zeros, levels.video, levels.action)],
        video_target=output_order(patchify(noise - latents)),
        action_target=action_noise - actions,
    )


@dataclass
class Output:
    video: Tensor  # of the noisy video tokens [B, F, patches, C * 4], the output head's order
    action: Tensor  # of the noisy action tokens [B, F, per_frame, channels]
    middle: list[Tensor]  # hidden tokens after `tap` blocks, of each run [B, F, tokens, d]


@dataclass
class Text:
    """What the cross-attention of a batch reads."""

    rows: Tensor  # [B, rows, text_dim], from the encoder
    bias: Tensor  # [B, rows]


@dataclass
class Hidden:
    runs: list[Tensor]  # of each run [B, F, tokens, d]
    embeddings: list[Tensor]  # of each run's timesteps [B, F, d]
    middle: list[Tensor]  # `runs` after `tap` blocks


def run_blocks(
    model: VideoActionTransformer,
    runs: list[Tensor],
    timesteps: list[Tensor],
    planned: tuple[Layout, list[Group], tuple[Tensor, Tensor]],
    text: Text,
    tap: int,
) -> Hidden:
    """All blocks over runs that alternate between video and actions."""
    layout, groups, rope = planned
    pairs = len(runs) // 2
    embedders = (model.patch_embedding_mlp, model.action_embedder) * pairs
    conditions = (model.condition_embedder, model.condition_embedder_action) * pairs
    x = torch.cat([layer(run).flatten(1, 2) for layer, run in zip(embedders, runs, strict=True)], dim=1)
    embedded = [condition(steps) for condition, steps in zip(conditions, timesteps, strict=True)]
    bias = text.bias.repeat_interleave(model.config.num_attention_heads, 0)[:, None]
    modulation = [part for _, part in embedded]
    context = Context(layout, rope, modulation, groups, model.embed_text(text.rows), bias)
    middle: list[Tensor] = []
    for index, block in enumerate(model.blocks):
        x = block(x, context)
        if index + 1 == tap:
            middle = layout.split(x)
    return Hidden(layout.split(x), [embedding for embedding, _ in embedded], middle)


def forward(model: VideoActionTransformer, streams: Streams, shape: Shape, text: Text, tap: int) -> Output:
    """The pass of a whole batch. tap: the number of blocks after which `middle` is taken."""
    planned = plan(shape, model.config.attention_head_dim, streams.runs[0].device)
    hidden = run_blocks(model, streams.runs, streams.timesteps, planned, text, tap)
    video = model.head(hidden.runs[2], hidden.embeddings[2], model.proj_out)
    return Output(video, model.head(hidden.runs[3], hidden.embeddings[3], model.action_proj_out), hidden.middle)


@lru_cache(maxsize=8)
def plan_still(rows: int, columns: int, per_frame: int, head_dim: int, device: torch.device) -> tuple:
    """One latent frame and its actions, as the first chunk of an episode sees its given part."""
    patches = rows * columns
    layout = Layout(((1, patches), (1, per_frame)))
    bias = torch.zeros(patches + per_frame, patches + per_frame, dtype=torch.bfloat16)
    bias[:patches, patches:] = HIDDEN
    zero = torch.zeros(1, dtype=torch.long)
    positions = torch.cat([video_positions(zero, rows, columns), action_positions(zero, per_frame)])
    cosine, sine = rope_table(positions, head_dim)
    return layout, [Group(slice(None), slice(None), bias.to(device))], (cosine.to(device), sine.to(device))


def forward_stills(model: VideoActionTransformer, latents: Tensor, per_frame: int, text: Text, tap: int) -> list[Tensor]:
    """latents [B, C, h, w] of single pictures -> `middle` of the two runs, [B, 1, tokens, d]."""
    batch, _, height, width = latents.shape
    planned = plan_still(height // 2, width // 2, per_frame, model.config.attention_head_dim, latents.device)
    runs = [patchify(latents[:, :, None]), latents.new_zeros(batch, 1, per_frame, model.config.action_dim)]
    zeros = latents.new_zeros(batch, 1)
    return run_blocks(model, runs, [zeros, zeros], planned, text, tap).middle
