"""Encodes all episodes of datasets with a trained autoencoder, once, for the training of the transformer.

    python -m premotor_training.encode_latents CHECKPOINT OUT DATASET...

OUT/<dataset>.pt is a dictionary that torch.load(..., weights_only=True) reads; each value is a list with one entry for
each episode:

  latents  [clip of the even rows, clip of the odd rows], each [z, F, h, w] float16, normalised means. F is the most
           that the rows give: 1 + (frames - 1) // temporal factor. Clip p has frame i at row p + 2 i. With several
           cameras the latents stand side by side, in the order of --cameras.
  windows  [windows, z, WINDOW_FRAMES, h, w] float16: clips that start in the middle of the episode, one for every
           ROWS_PER_WINDOW rows and from random ones; none of an episode that is too short
  window_rows  [windows] the rows they start at
  actions  [rows, channels] float32
  states   [rows, joints] float32
  text     the episode's first task
  fields   the episode's line of meta/episodes.jsonl

It also holds `cameras` and `fps`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from premotor_training.checkpoint import load_vae
from premotor_training.clips import to_pixels
from premotor_training.dataset import (
    ROWS_PER_FRAME,
    load_actions,
    load_episodes,
    load_info,
    load_pictures,
    load_states,
    video_rows,
)
from premotor_training.device import add_device_option, pick_device
from premotor_training.vae import CausalVae

PROGRESS_EVERY_S = 10
WINDOW_FRAMES = 3  # latent ones
ROWS_PER_WINDOW = 16


@torch.inference_mode()
def encode_clips(vae: CausalVae, clips: list[tuple[np.ndarray, np.ndarray]], frames_at_once: int, bf16: bool) -> list:
    """clips: (pictures of an episode [rows, H, W, 3] uint8, rows of the frames) -> of each [z, F, h, w] float16.

    Clips of like length go together; a shorter one is lengthened by its last frame, which changes nothing before it.
    """
    order = sorted(range(len(clips)), key=lambda i: -len(clips[i][1]))
    latents: list = [None] * len(clips)
    done, began_s, told_s = 0, time.monotonic(), time.monotonic()
    while done < len(order):
        longest = len(clips[order[done]][1])
        batch = order[done : done + max(1, frames_at_once // longest)]
        padded = [np.pad(clips[i][1], (0, longest - len(clips[i][1])), mode="edge") for i in batch]
        pixels = to_pixels(np.stack([clips[i][0][rows] for i, rows in zip(batch, padded, strict=True)]))
        device = next(vae.parameters()).device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            mean = vae.encode(pixels.to(device))[0]
        normalised = vae.normalise(mean.float()).half().cpu()
        for i, latent in zip(batch, normalised, strict=True):
            frames = 1 + (len(clips[i][1]) - 1) // vae.config.scale_factor_temporal
            latents[i] = latent[:, :frames].clone()
        done += len(batch)
        if time.monotonic() - told_s > PROGRESS_EVERY_S or done == len(order):
            told_s = time.monotonic()
            print(f"  {done} of {len(order)} clips, {told_s - began_s:.0f} s", flush=True)
    return latents


def draw_window_rows(lengths: list[int], frames: int) -> list[np.ndarray]:
    """First rows of the windows of episodes with so many rows; frames: pictures of a window. The same ones every time."""
    generator = np.random.default_rng(0)
    last = [length - 1 - (frames - 1) * ROWS_PER_FRAME for length in lengths]
    return [
        np.sort(generator.integers(1, end + 1, length // ROWS_PER_WINDOW)) if end >= 1 else np.empty(0, np.int64)
        for length, end in zip(lengths, last, strict=True)
    ]


def encode_dataset(vae: CausalVae, root: str, options: argparse.Namespace) -> dict:
    """What OUT/<dataset>.pt holds."""
    episodes = load_episodes(root)
    factor = vae.config.scale_factor_temporal
    # A scene's only row has no second way to start.
    starts = min(ROWS_PER_FRAME, min(episode.length for episode in episodes))
    window_frames = 1 + (WINDOW_FRAMES - 1) * factor
    window_rows = draw_window_rows([episode.length for episode in episodes], window_frames)
    whole, windows = [], []
    for camera in options.cameras:
        recorded = load_pictures(root, camera)
        clips = [
            (pictures, video_rows(len(pictures), first, factor)) for pictures in recorded for first in range(starts)
        ]
        whole.append(encode_clips(vae, clips, options.frames_at_once, options.bf16))
        clips = [
            (pictures, first + ROWS_PER_FRAME * np.arange(window_frames))
            for pictures, rows in zip(recorded, window_rows, strict=True)
            for first in rows
        ]
        windows.append(encode_clips(vae, clips, options.frames_at_once, options.bf16))
    joined = [torch.cat(views, dim=-1) for views in zip(*whole, strict=True)]
    joined_windows = iter([torch.cat(views, dim=-1) for views in zip(*windows, strict=True)])
    return {
        "latents": [joined[i : i + starts] for i in range(0, len(joined), starts)],
        "windows": [torch.stack([next(joined_windows) for _ in rows]) if len(rows) else torch.empty(0) for rows in window_rows],
        "window_rows": [torch.from_numpy(rows) for rows in window_rows],
        "actions": [torch.from_numpy(actions) for actions in load_actions(root)],
        "states": [torch.from_numpy(states) for states in load_states(root)],
        "text": [episode.tasks[0] for episode in episodes],
        "fields": [episode.fields for episode in episodes],
        "cameras": options.cameras,
        "fps": load_info(root)["fps"],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder with vae/")
    parser.add_argument("out", type=Path)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--cameras", nargs="+", default=["cam_front"], help="default: cam_front")
    parser.add_argument("--threads", type=int, default=1)
    add_device_option(parser)
    parser.add_argument("--frames-at-once", type=int, default=128, help="bounds the memory")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16; the runtime's float32 is the default")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    vae = load_vae(options.checkpoint).to(pick_device(options.device))
    for root in options.datasets:
        print(root, flush=True)
        encoded = encode_dataset(vae, root, options)
        file = options.out / f"{Path(root).name}.pt"
        torch.save(encoded, file)
        everything = torch.cat([clip.flatten(1) for clips in encoded["latents"] for clip in clips], dim=1).float()
        print(f"  {file}: mean {everything.mean():.3f}, deviation {everything.std():.3f}", flush=True)


if __name__ == "__main__":
    main()
