"""What a trained autoencoder does with episodes it has not seen: errors of still and moving pixels, and pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from premotor_training.clips import UINT8_PER_UNIT, Source, foreground, to_pixels
from premotor_training.dataset import video_rows
from premotor_training.vae import CausalVae

EPISODES_PER_SOURCE = 6
STILLS_PER_SOURCE = 60
FRAMES_MAX = 41  # of one episode; the runtime's streams are that long and longer, training clips are not
SHOWN_FRAMES = 4
SHOWN_EPISODES = 2  # of one source
STATISTICS_EPISODES = 48  # of one source
MSE_MIN = 1e-10


class ErrorSum:
    """L1 and peak signal-to-noise ratio of a set of pixels, colours on the scale -1 .. 1, so that the peak is 2."""

    def __init__(self):
        self.count, self.absolute, self.square = 0, 0.0, 0.0

    def add(self, difference: torch.Tensor, chosen: torch.Tensor) -> None:
        """difference [B, 3, T, H, W]; chosen bool [B, 1, T, H, W]."""
        picked = difference.masked_select(chosen)
        self.count += picked.numel()
        self.absolute += picked.abs().sum().item()
        self.square += picked.square().sum().item()

    def __str__(self) -> str:
        psnr = -10 * np.log10(max(self.square / self.count / 4, MSE_MIN))
        return f"L1 {self.absolute / self.count:.4f}, PSNR {psnr:.2f} dB, {self.count // 3} pixels"


def clip_of(episode: np.ndarray, temporal_factor: int) -> torch.Tensor:
    """The episode's video from its start, [1, 3, T, H, W], at most FRAMES_MAX frames."""
    rows = video_rows(len(episode), temporal_factor=temporal_factor)
    frames_max = FRAMES_MAX - (FRAMES_MAX - 1) % temporal_factor
    return to_pixels(episode[rows[:frames_max]][None])


@torch.no_grad()
def measure_statistics(vae: CausalVae, sources: list[Source]) -> None:
    """Sets latents_mean and latents_std: of the mean latents, over the training episodes, for each channel."""
    latents = []
    for source in sources:
        step = max(1, len(source.train) // STATISTICS_EPISODES)
        for episode in source.train[::step]:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mean = vae.encode(clip_of(episode, vae.config.scale_factor_temporal))[0]
            latents.append(mean[0].flatten(1).float())  # [z, F * h * w]
    everything = torch.cat(latents, dim=1)
    vae.config.latents_mean = [round(value, 6) for value in everything.mean(dim=1).tolist()]
    vae.config.latents_std = [round(max(value, 1e-3), 6) for value in everything.std(dim=1).tolist()]


@torch.no_grad()
def report_errors(vae: CausalVae, sources: list[Source], picture: Path) -> str:
    """Encodes and decodes held-out episodes in float32 as the runtime does, one stream each, and returns a table of the
    errors. The picture shows pairs of lines: frames as they are, and reconstructed."""
    lines, strips = [], []
    for source in sources:
        sums = {name: ErrorSum() for name in ("all", "background", "moving", "moving, frame 0", "moving, frames 9 on")}
        background = to_pixels(source.background[None, None])
        shown = source.held_out[: STILLS_PER_SOURCE if source.is_stills else EPISODES_PER_SOURCE]
        for i, episode in enumerate(shown):
            pixels = clip_of(episode, vae.config.scale_factor_temporal)
            decoded = vae.decode(vae.encode(pixels)[0]).clamp(-1, 1)
            difference, moving = decoded - pixels, foreground(pixels, background)
            sums["all"].add(difference, torch.ones_like(moving))
            sums["background"].add(difference, ~moving)
            sums["moving"].add(difference, moving)
            sums["moving, frame 0"].add(difference[:, :, :1], moving[:, :, :1])
            sums["moving, frames 9 on"].add(difference[:, :, 9:], moving[:, :, 9:])
            if i < SHOWN_EPISODES:
                strips.append(_strip(pixels, decoded))
        lines += [f"{source.name}: {name}: {total}" for name, total in sums.items() if total.count > 0]
    Image.fromarray(np.concatenate(strips)).save(picture)
    return "\n".join(lines)


def _strip(pixels: torch.Tensor, decoded: torch.Tensor) -> np.ndarray:
    """Two lines of SHOWN_FRAMES pictures at twice their size, [2 * H * 2, SHOWN_FRAMES * W * 2, 3] uint8."""
    frames = torch.linspace(0, pixels.shape[2] - 1, SHOWN_FRAMES).long()
    lines = []
    for clip in (pixels, decoded):
        shown = ((clip[0, :, frames] + 1) * UINT8_PER_UNIT).round().byte()  # [3, SHOWN_FRAMES, H, W]
        lines.append(shown.permute(2, 1, 3, 0).flatten(1, 2))  # [H, SHOWN_FRAMES * W, 3]
    return torch.cat(lines).repeat_interleave(2, dim=0).repeat_interleave(2, dim=1).numpy()
