"""Clips for training the autoencoder: random cut-outs of the datasets' videos, and how much each pixel counts.

Scenes are mostly still table. What a policy needs is small: buttons, blocks, the arm. So half of the cut-outs are
placed around something that differs from the background, and such pixels weigh more in the loss; so does the first
frame, which alone shows a scene in one latent frame.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from premotor_training.dataset import ROWS_PER_FRAME, cameras_of, load_pictures

BACKGROUND_PICTURES = 256  # whose median is the background
FOREGROUND_DIFFERENCE = 0.15  # of any colour channel, on the scale -1 .. 1
FOREGROUND_WEIGHT = 5.0
FIRST_FRAME_WEIGHT = 2.5
EPISODE_START_SHARE = 0.2  # of clips that start with their episode
HELD_OUT_EVERY = 20  # one episode in this many is kept for the report
UINT8_PER_UNIT = 127.5


@dataclass
class Source:
    """One camera of one dataset."""

    name: str
    train: list[np.ndarray]  # of each episode [rows, height, width, 3] uint8
    held_out: list[np.ndarray]
    background: np.ndarray  # [height, width, 3] uint8

    @property
    def is_stills(self) -> bool:
        """Scenes without a rollout: every episode is one picture."""
        return all(len(episode) == 1 for episode in self.train)


def open_sources(roots: list[str], cameras: list[str]) -> list[Source]:
    """All cameras of all datasets; a camera that a dataset lacks is left out."""
    sources = []
    for root in roots:
        known = {name.rsplit(".", 1)[1] for name in cameras_of(root)}
        for camera in cameras:
            if camera not in known:
                print(f"{root} has no camera {camera}")
                continue
            episodes = load_pictures(root, camera)
            train = [e for i, e in enumerate(episodes) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
            held_out = episodes[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] or episodes[-1:]
            sources.append(Source(f"{Path(root).name}/{camera}", train, held_out, background_of(episodes)))
            print(f"{sources[-1].name}: {len(episodes)} episodes, {sum(map(len, episodes))} pictures", flush=True)
    if not sources:
        raise SystemExit(f"none of the datasets has one of the cameras {cameras}")
    return sources


def background_of(episodes: list[np.ndarray]) -> np.ndarray:
    """The median of pictures drawn from all episodes, [height, width, 3] uint8."""
    random = np.random.default_rng(0)
    drawn = [episodes[random.integers(len(episodes))] for _ in range(BACKGROUND_PICTURES)]
    pictures = np.stack([episode[random.integers(len(episode))] for episode in drawn])
    return np.median(pictures, axis=0).astype(np.uint8)


def to_pixels(pictures: np.ndarray) -> torch.Tensor:
    """[B, T, H, W, 3] uint8 -> [B, 3, T, H, W] float32 in [-1, 1], as the runtime scales camera pictures."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 4, 1, 2, 3).float() / UINT8_PER_UNIT - 1


def foreground(pixels: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """pixels [B, 3, T, H, W], background [B, 3, 1, H, W] -> bool [B, 1, T, H, W]: what differs from the background."""
    return (pixels - background).abs().amax(dim=1, keepdim=True) > FOREGROUND_DIFFERENCE


class ClipSampler:
    """Draws batches. Each source is equally likely, however many episodes it has; clips of several frames come from
    videos and single pictures from stills, where the datasets have both."""

    def __init__(self, sources: list[Source], seed: int):
        self.sources = sources
        self.videos = [source for source in sources if not source.is_stills] or sources
        self.stills = [source for source in sources if source.is_stills] or sources
        self.random = np.random.default_rng(seed)

    def draw(self, batch: int, frames: int, side: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels [batch, 3, frames, side, side] (side None: whole pictures) and their weights [batch, 1, ...]."""
        clips, backgrounds = [], []
        for _ in range(batch):
            clip, background = self._draw_clip(frames)
            if side is not None:
                top, left = self._place(clip, background, side)
                clip = clip[:, top : top + side, left : left + side]
                background = background[top : top + side, left : left + side]
            clips.append(clip)
            backgrounds.append(background[None])
        pixels, background = to_pixels(np.stack(clips)), to_pixels(np.stack(backgrounds))
        weights = 1 + (FOREGROUND_WEIGHT - 1) * foreground(pixels, background).float()
        weights[:, :, 0] *= FIRST_FRAME_WEIGHT
        return pixels, weights

    def _draw_clip(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        sources = self.stills if frames == 1 else self.videos
        source = sources[self.random.integers(len(sources))]
        episode = source.train[self.random.integers(len(source.train))]
        at_start = self.random.random() < EPISODE_START_SHARE
        last_start = max(0, len(episode) - 1 - ROWS_PER_FRAME * (frames - 1))
        first = 0 if at_start else self.random.integers(last_start + 1)
        # A short episode stands still at its end.
        rows = np.minimum(first + ROWS_PER_FRAME * np.arange(frames), len(episode) - 1)
        return episode[rows], source.background

    def _place(self, clip: np.ndarray, background: np.ndarray, side: int) -> tuple[int, int]:
        """The top left corner of a cut-out: anywhere, or around a foreground pixel of one of the frames."""
        height, width = background.shape[:2]
        top, left = self.random.integers(height - side + 1), self.random.integers(width - side + 1)
        if self.random.random() < 0.5:
            return top, left
        frame = clip[self.random.integers(len(clip))].astype(np.int16)
        differs = np.abs(frame - background).max(axis=2) > FOREGROUND_DIFFERENCE * UINT8_PER_UNIT
        things = np.argwhere(differs)
        if len(things) == 0:
            return top, left
        row, column = things[self.random.integers(len(things))] - self.random.integers(side, size=2)
        return int(np.clip(row, 0, height - side)), int(np.clip(column, 0, width - side))
