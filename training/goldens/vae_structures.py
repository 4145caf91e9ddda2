"""Makes the fixture test/goldens/structures: tiny random autoencoders whose structure differs from the released one.

    python training/goldens/vae_structures.py OUT

For development only: the tests read the committed result, and nothing at build or run time needs this file. Needs torch
and diffusers (0.36.0 made the committed files). Writes OUT/vae_<name>/: config.json and
diffusion_pytorch_model.safetensors, as diffusers saves a model, and io.safetensors, what the reference computes with it
in float32:

  pixels      [1, 3, frames, height, width] in [-1, 1], the whole stream
  moments{i}  [1, 2 * z_dim, frames_out, h, w], chunk i of the stream through the encoder and quant_conv
  chunks      int32 [chunks], the frames of each chunk, in order
  latents     [1, z_dim, latent frames, h, w], random, as they go into the decoder (not normalised)
  video       [1, 3, frames, height, width], decoded and clamped to [-1, 1]

SPDX-License-Identifier: Apache-2.0
"""

import sys
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify
from safetensors.torch import save_file

# Each differs from the released structure (dim_mult 1 2 4 4, downsample false true true, 2 blocks, patches of 2) in
# several ways at once. Shortcuts regroup channels without remainder, so multiples are powers of two and the last stage
# cannot widen. `chunks` are frames: 1, then multiples of the temporal factor. `side`: of the latent.
STRUCTURES = {
    # Half the width in the last stage, the frame rate halved in the first one only, no patches.
    "three_stages": {
        "config": {"base_dim": 5, "decoder_base_dim": 3, "z_dim": 3, "dim_mult": [2, 4, 2], "num_res_blocks": 1,
                   "temperal_downsample": [True, False], "patch_size": None},
        "chunks": [1, 4, 8, 2], "side": (3, 5),
    },
    # The released depth and factors, but the frame rate halved in the first two stages, three blocks each, and a last
    # stage that shrinks.
    "early_time": {
        "config": {"base_dim": 3, "decoder_base_dim": None, "z_dim": 5, "dim_mult": [1, 2, 4, 2], "num_res_blocks": 3,
                   "temperal_downsample": [True, True, False], "patch_size": 2},
        "chunks": [1, 4, 8], "side": (2, 3),
    },
    # Five stages and a factor of 8 in time, with a stage of constant frame rate between the halving ones.
    "eight_frames": {
        "config": {"base_dim": 4, "decoder_base_dim": 3, "z_dim": 2, "dim_mult": [1, 1, 4, 2, 2], "num_res_blocks": 1,
                   "temperal_downsample": [True, False, True, True], "patch_size": 1},
        "chunks": [1, 8, 16], "side": (2, 1),
    },
    # Patches of 4 and a frame rate that never changes: any number of frames is a chunk.
    "constant_rate": {
        "config": {"base_dim": 5, "decoder_base_dim": 3, "z_dim": 4, "dim_mult": [4, 1], "num_res_blocks": 2,
                   "temperal_downsample": [False], "patch_size": 4},
        "chunks": [1, 4, 8, 3], "side": (3, 2),
    },
}
LATENT_FRAMES = 4


def make_model(config, generator):
    """A model with random weights, the gains of the norms and the biases included: a new model's gains are all 1."""
    patch = config["patch_size"] or 1
    time_factor = 2 ** sum(config["temperal_downsample"])
    space_factor = patch * 2 ** (len(config["dim_mult"]) - 1)
    channels = 3 * patch * patch
    mean = [round(0.1 * i - 0.2, 4) for i in range(config["z_dim"])]
    std = [round(0.5 + 0.25 * i, 4) for i in range(config["z_dim"])]
    model = AutoencoderKLWan(**config, is_residual=True, in_channels=channels, out_channels=channels,
                             latents_mean=mean, latents_std=std, scale_factor_temporal=time_factor,
                             scale_factor_spatial=space_factor).eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(".gamma"):
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith(".bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
        model.decoder.conv_out.weight.mul_(0.6)  # most of the video, but not all, is then within [-1, 1]
    return model


def encode_stream(model, pixels, chunks):
    """The moments of each chunk. The cache of past frames goes on from chunk to chunk."""
    model.clear_cache()
    cache, moments, first = model._enc_feat_map, [], 0
    for count in chunks:
        folded = patchify(pixels[:, :, first:first + count], model.config.patch_size or 1)
        hidden = model.encoder(folded, feat_cache=cache, feat_idx=[0])
        moments.append(model.quant_conv(hidden))
        first += count
    return moments


@torch.no_grad()
def record(folder, structure, seed):
    generator = torch.Generator().manual_seed(seed)
    model = make_model(structure["config"], generator)
    chunks, (rows, columns) = structure["chunks"], structure["side"]
    scale = model.config.scale_factor_spatial
    pixels = torch.rand((1, 3, sum(chunks), rows * scale, columns * scale), generator=generator) * 2 - 1
    latents = torch.randn((1, model.config.z_dim, LATENT_FRAMES, rows, columns), generator=generator)
    video = model.decode(latents).sample
    tensors = {"pixels": pixels, "latents": latents, "video": video, "chunks": torch.tensor(chunks, dtype=torch.int32)}
    for i, moments in enumerate(encode_stream(model, pixels, chunks)):
        tensors[f"moments{i}"] = moments
        print(f"  moments{i} {tuple(moments.shape)}, RMS {moments.square().mean().sqrt():.3g}")
    clamped = (video.abs() == 1).float().mean()
    print(f"  video {tuple(video.shape)}, RMS {video.square().mean().sqrt():.3g}, {clamped:.1%} clamped")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()) or clamped > 0.1:
        raise SystemExit(f"{folder.name}: the values would not test much; change its seed or its scales")
    model.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "io.safetensors")


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: python training/goldens/vae_structures.py OUT")
    torch.set_num_threads(1)  # the committed files do not depend on the machine's number of cores
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}")
    for seed, (name, structure) in enumerate(STRUCTURES.items(), start=1):
        print(f"vae_{name}")
        record(Path(sys.argv[1]) / f"vae_{name}", structure, seed)


if __name__ == "__main__":
    main()
