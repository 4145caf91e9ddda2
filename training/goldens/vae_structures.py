"""Makes test/goldens/structures: tiny random autoencoders whose structure differs from the released one, and what diffusers computes with them.

Development only; needs torch, safetensors and diffusers >= 0.36. Usage: python training/goldens/vae_structures.py test/goldens/structures
"""
import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

# Name -> (config, picture height and width). Each keeps is_residual true: only the Wan2.2 form exists in premotor.
STRUCTURES = {
    "vae_three_stages": (
        dict(base_dim=4, decoder_base_dim=4, z_dim=6, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[True, False], patch_size=1),
        (16, 20),
    ),
    "vae_early_time": (
        dict(base_dim=3, decoder_base_dim=6, z_dim=8, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[True, True, False], patch_size=2),
        (32, 48),
    ),
    "vae_one_time": (
        dict(base_dim=8, decoder_base_dim=4, z_dim=5, dim_mult=[1, 2, 1], num_res_blocks=3, temperal_downsample=[False, True], patch_size=2),
        (24, 16),
    ),
}


def build(config: dict, seed: int) -> AutoencoderKLWan:
    """A model in float32 whose activations stay of order one."""
    torch.manual_seed(seed)
    channels = 3 * config["patch_size"] ** 2
    z = config["z_dim"]
    model = AutoencoderKLWan(
        **{**config, "patch_size": None if config["patch_size"] == 1 else config["patch_size"]},
        in_channels=channels, out_channels=channels, is_residual=True, attn_scales=[],
        latents_mean=torch.linspace(-0.3, 0.3, z).tolist(), latents_std=torch.linspace(0.5, 1.5, z).tolist(),
        scale_factor_temporal=2 ** sum(config["temperal_downsample"]),
        scale_factor_spatial=config["patch_size"] * 2 ** (len(config["dim_mult"]) - 1),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.1 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    return model.eval()


def patchify(x: torch.Tensor, p: int) -> torch.Tensor:
    """[1, C, T, H, W] -> [1, C * p * p, T, H / p, W / p] in (channel, column offset, row offset) order."""
    b, c, t, h, w = x.shape
    return x.reshape(b, c, t, h // p, p, w // p, p).permute(0, 1, 6, 4, 2, 3, 5).reshape(b, c * p * p, t, h // p, w // p)


def record(model: AutoencoderKLWan, config: dict, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Streams 1, then one and two temporal factors of pictures; decodes three latent frames."""
    factor = 2 ** sum(config["temperal_downsample"])
    causal = sum(type(module).__name__ == "WanCausalConv3d" for module in model.encoder.modules())
    cache = [None] * causal
    tensors = {}
    for index, frames in enumerate((1, factor, 2 * factor)):
        pixels = torch.rand(1, 3, frames, *size) * 2 - 1
        # The encoder is fed one temporal factor at a time, as diffusers does.
        moments = [model.encoder(patchify(part, config["patch_size"]), feat_cache=cache, feat_idx=[0]) for part in pixels.split(max(1, min(frames, factor)), 2)]
        tensors[f"chunk{index}.pixels"] = pixels
        tensors[f"chunk{index}.moments"] = model.quant_conv(torch.cat(moments, 2))
    latents = torch.randn(1, config["z_dim"], 3, 2, 3)
    model.clear_cache()
    hidden = model.post_quant_conv(latents)
    parts = []
    for i in range(latents.shape[2]):
        parts.append(model.decoder(hidden[:, :, i : i + 1], feat_cache=model._feat_map, feat_idx=[0], first_chunk=i == 0))
    video = torch.cat(parts, 2)
    p = config["patch_size"]
    b, c, t, h, w = video.shape
    video = video.reshape(b, c // p**2, p, p, t, h, w).permute(0, 1, 4, 5, 3, 6, 2).reshape(b, c // p**2, t, h * p, w * p)
    tensors["latents"] = latents
    tensors["video"] = video.clamp(-1, 1)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def main() -> None:
    for seed, (name, (config, size)) in enumerate(STRUCTURES.items()):
        folder = pathlib.Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        model = build(config, seed)
        with torch.no_grad():
            tensors = record(model, config, size)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        save_file(tensors, folder / "io.safetensors", {"format": "pt"})
        kept = {key: value for key, value in dict(model.config).items() if not key.startswith("_")}
        (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan", **kept}, indent=1) + "\n")
        print(name, {key: tuple(value.shape) for key, value in tensors.items()})


if __name__ == "__main__":
    main()
