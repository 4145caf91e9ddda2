"""The video autoencoder in the form that training needs: whole clips in one pass, differentiable, in PyTorch.

It is the residual AutoencoderKLWan (the form of Wan2.2), and the names of its parameters are those of the released
file. The runtime streams: the first frame alone, then a few frames at a time, with the past of every convolution kept
between calls. Here the past is simply the frames in front of a frame in the clip, which gives the same result, with two
exceptions that the streamed form makes for the first frame and that Downsample and Upsample repeat.

Tensors are [batch, channel, frame, row, column] unless a comment says otherwise. Clips have 1 + n * (temporal factor)
frames; rows and columns are multiples of the spatial factor.
"""

from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class VaeConfig:
    """The structure, by the names in the released config.json."""

    base_dim: int = 16
    decoder_base_dim: int | None = 16  # None: as wide as the encoder
    z_dim: int = 16
    dim_mult: list[int] = field(default_factory=lambda: [1, 2, 4, 4])
    num_res_blocks: int = 1
    temperal_downsample: list[bool] = field(default_factory=lambda: [False, True, True])
    patch_size: int | None = 2  # None: no folding of pixels into channels
    latents_mean: list[float] | None = None  # [z_dim]; None: zeros
    latents_std: list[float] | None = None  # [z_dim]; None: ones

    @property
    def patch(self) -> int:
        return self.patch_size or 1

    @property
    def picture_channels(self) -> int:
        """Channels of a folded picture: what the network reads and writes."""
        return 3 * self.patch**2

    @property
    def scale_factor_temporal(self) -> int:
        return 2 ** sum(self.temperal_downsample)

    @property
    def scale_factor_spatial(self) -> int:
        return self.patch * 2 ** (len(self.dim_mult) - 1)


def fold_patches(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """[B, C, T, H, W] -> [B, C * patch * patch, T, H / patch, W / patch]; channel order (C, column, row offset)."""
    b, c, t, h, w = pixels.shape
    parts = pixels.reshape(b, c, t, h // patch, patch, w // patch, patch)
    return parts.permute(0, 1, 6, 4, 2, 3, 5).reshape(b, c * patch * patch, t, h // patch, w // patch)


def unfold_patches(folded: torch.Tensor, patch: int) -> torch.Tensor:
    """The inverse of fold_patches."""
    b, c, t, h, w = folded.shape
    parts = folded.reshape(b, c // patch**2, patch, patch, t, h, w)
    return parts.permute(0, 1, 4, 5, 3, 6, 2).reshape(b, c // patch**2, t, h * patch, w * patch)


def frames_as_batch(x: torch.Tensor) -> torch.Tensor:
    """[B, C, T, H, W] -> [B * T, C, H, W]. Free when the memory is channels-last."""
    return x.transpose(1, 2).flatten(0, 1)


def batch_as_frames(x: torch.Tensor, batch: int) -> torch.Tensor:
    """[B * T, C, H, W] -> [B, C, T, H, W]."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


class CausalConv3d(nn.Conv3d):
    """A convolution over time and space that sees no later frame: the time axis is padded with zeros in front only."""

    def __init__(self, channels_in: int, channels_out: int, kernel: tuple[int, int, int]):
        super().__init__(channels_in, channels_out, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))
        self.past = kernel[0] - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.past > 0:
            x = F.pad(x, (0, 0, 0, 0, self.past, 0))
        return super().forward(x)


class ChannelNorm(nn.Module):
    """x / rms(x over the channels) * gamma. image: the input is [B, C, H, W] and gamma lacks the time axis."""

    def __init__(self, channels: int, image: bool = False):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1) if image else torch.ones(channels, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).clamp_min(1e-12)
        scale = (x.shape[1] ** 0.5 / norm).to(x.dtype)
        return x * scale * self.gamma.to(x.dtype)


class ResidualBlock(nn.Module):
    """conv2(silu(norm2(conv1(silu(norm1(x)))))) + shortcut(x)."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = ChannelNorm(channels_in)
        self.conv1 = CausalConv3d(channels_in, channels_out, (3, 3, 3))
        self.norm2 = ChannelNorm(channels_out)
        self.conv2 = CausalConv3d(channels_out, channels_out, (3, 3, 3))
        same = channels_in == channels_out
        self.conv_shortcut = nn.Identity() if same else CausalConv3d(channels_in, channels_out, (1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + self.conv_shortcut(x)


class FrameAttention(nn.Module):
    """x + proj(attention(q, k, v)), one head over the pixels of each frame."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = ChannelNorm(channels, image=True)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = frames_as_batch(x)  # [B * T, C, H, W]
        qkv = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)  # [B * T, H * W, 3 C]
        q, k, v = qkv.unsqueeze(1).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1)  # [B * T, H * W, C]
        attended = attended.transpose(1, 2).reshape(frames.shape)
        return x + batch_as_frames(self.proj(attended), x.shape[0])


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int):
        super().__init__()
        self.attentions = nn.ModuleList([FrameAttention(channels)])
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Downsample(nn.Module):
    """Half the rows and columns, and with `time` half the frames.

    Frame 0 skips the time convolution; each later output frame reads two frames and the one before them.
    """

    def __init__(self, channels: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if time else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = batch_as_frames(self.resample(frames_as_batch(x)), x.shape[0])
        if self.time_conv is None or x.shape[2] == 1:
            return x
        return torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


class Upsample(nn.Module):
    """Twice the rows and columns, and with `time` two frames from each but the first.

    Frame 0 skips the time convolution and also is not part of its past: for frame 1 the past is zero.
    """

    def __init__(self, channels: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(channels, channels, 3, padding=1))
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if time else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.time_conv is not None and x.shape[2] > 1:
            first, second = self.time_conv(x[:, :, 1:]).chunk(2, dim=1)
            later = torch.stack([first, second], dim=3).flatten(2, 3)  # [B, C, 2 (T - 1), H, W], interleaved
            x = torch.cat([x[:, :, :1], later], dim=2)
        return batch_as_frames(self.resample(frames_as_batch(x)), x.shape[0])


def average_down(x: torch.Tensor, channels_out: int, factor_t: int, factor_s: int) -> torch.Tensor:
    """Shortcut around a down stage: bricks of factor_t x factor_s x factor_s pixels become channels, in the order
    (channel, frame, row, column), and runs of neighbours are averaged down to channels_out. Zero frames in front
    complete the first brick."""
    b, c, t, h, w = x.shape
    missing = -t % factor_t
    if missing > 0:
        x = F.pad(x, (0, 0, 0, 0, missing, 0))
    x = x.reshape(b, c, (t + missing) // factor_t, factor_t, h // factor_s, factor_s, w // factor_s, factor_s)
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6)  # [B, C, factor_t, factor_s, factor_s, T', H', W']
    return x.reshape(b, channels_out, -1, *x.shape[5:]).mean(dim=2)


def repeat_up(x: torch.Tensor, channels_out: int, factor_t: int) -> torch.Tensor:
    """Shortcut around an up stage: channels are repeated and spread over bricks of factor_t x 2 x 2 pixels, in the
    order (channel, frame, row, column). Frame 0 gives one frame only, the last of its brick."""
    b, c, t, h, w = x.shape
    repeats = channels_out * factor_t * 4 // c
    x = x.repeat_interleave(repeats, dim=1).reshape(b, channels_out, factor_t, 2, 2, t, h, w)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, channels_out, t * factor_t, h * 2, w * 2)
    return x[:, :, factor_t - 1 :]


class DownStage(nn.Module):
    """Residual blocks and a Downsample (none in the last stage), with average_down as the shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, halve: bool, time: bool):
        super().__init__()
        self.resnets = nn.ModuleList(
            [ResidualBlock(channels_in if i == 0 else channels_out, channels_out) for i in range(blocks)]
        )
        self.downsampler = Downsample(channels_out, time) if halve else None
        self.channels_out = channels_out
        self.factor_t = 2 if halve and time else 1
        self.factor_s = 2 if halve else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = average_down(x, self.channels_out, self.factor_t, self.factor_s)
        for block in self.resnets:
            x = block(x)
        if self.downsampler is not None:
            x = self.downsampler(x)
        return x + shortcut


class UpStage(nn.Module):
    """Residual blocks and an Upsample with repeat_up as the shortcut; the last stage has neither."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, double: bool, time: bool):
        super().__init__()
        self.resnets = nn.ModuleList(
            [ResidualBlock(channels_in if i == 0 else channels_out, channels_out) for i in range(blocks)]
        )
        self.upsampler = Upsample(channels_out, time) if double else None
        self.channels_out = channels_out
        self.factor_t = 2 if time else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for block in self.resnets:
            y = block(y)
        if self.upsampler is None:
            return y
        return self.upsampler(y) + repeat_up(x, self.channels_out, self.factor_t)


class Encoder(nn.Module):
    """Folded pictures to 2 * z_dim channels at the latent resolution."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        widths = [config.base_dim] + [config.base_dim * m for m in config.dim_mult]
        last = len(config.dim_mult) - 1
        self.conv_in = CausalConv3d(config.picture_channels, widths[0], (3, 3, 3))
        self.down_blocks = nn.ModuleList()
        for i in range(last + 1):
            time = i < last and config.temperal_downsample[i]
            self.down_blocks.append(DownStage(widths[i], widths[i + 1], config.num_res_blocks, i < last, time))
        self.mid_block = MidBlock(widths[-1])
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], 2 * config.z_dim, (3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """z_dim channels at the latent resolution to folded pictures. It undoes the encoder's stages from last to first."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        base = config.decoder_base_dim or config.base_dim
        widths = [base * m for m in [config.dim_mult[-1], *reversed(config.dim_mult)]]
        last = len(config.dim_mult) - 1
        times = [*reversed(config.temperal_downsample), False]
        self.conv_in = CausalConv3d(config.z_dim, widths[0], (3, 3, 3))
        self.mid_block = MidBlock(widths[0])
        self.up_blocks = nn.ModuleList()
        for i in range(last + 1):
            self.up_blocks.append(UpStage(widths[i], widths[i + 1], config.num_res_blocks + 1, i < last, times[i]))
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], config.picture_channels, (3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mid_block(self.conv_in(x))
        for stage in self.up_blocks:
            x = stage(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class CausalVae(nn.Module):
    """Pixels in [-1, 1] to latents and back."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1))
        self.post_quant_conv = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = Decoder(config)

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """pixels [B, 3, T, H, W] -> mean and log variance, each [B, z, F, h, w] with F = 1 + (T - 1) / factor."""
        if (pixels.shape[2] - 1) % self.config.scale_factor_temporal != 0:
            raise ValueError(f"a clip has 1 + n * {self.config.scale_factor_temporal} frames, not {pixels.shape[2]}")
        folded = fold_patches(pixels, self.config.patch)
        folded = folded.contiguous(memory_format=torch.channels_last_3d)
        mean, logvar = self.quant_conv(self.encoder(folded)).chunk(2, dim=1)
        return mean, logvar

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """latents [B, z, F, h, w], not normalised -> pixels [B, 3, T, H, W], not clamped to [-1, 1]."""
        latents = latents.contiguous(memory_format=torch.channels_last_3d)
        return unfold_patches(self.decoder(self.post_quant_conv(latents)), self.config.patch)

    def normalise(self, mean: torch.Tensor) -> torch.Tensor:
        """What the transformer sees: zero mean and unit deviation in each channel, over the training data."""
        centre, deviation = self._statistics(mean)
        return (mean - centre) / deviation

    def denormalise(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of normalise."""
        centre, deviation = self._statistics(latents)
        return latents * deviation + centre

    def _statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        centre = self.config.latents_mean or [0.0] * self.config.z_dim
        deviation = self.config.latents_std or [1.0] * self.config.z_dim
        return like.new_tensor(centre).view(1, -1, 1, 1, 1), like.new_tensor(deviation).view(1, -1, 1, 1, 1)
