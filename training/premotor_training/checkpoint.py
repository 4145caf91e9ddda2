"""Checkpoint folders in the released layout: a sub-folder for each component with config.json and safetensors.

The fields of config.json are those that src/checkpoint/untrained.ts writes and that the runtime reads.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from premotor_training.vae import CausalVae, VaeConfig

DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"  # of the transformer and of the autoencoder


def save_vae(folder: str | Path, vae: CausalVae, dtype: torch.dtype = torch.float32) -> None:
    """Writes folder/vae. Without measured statistics the latents are stored as already normalised."""
    config = vae.config
    fields = {
        "_class_name": "AutoencoderKLWan",
        "z_dim": config.z_dim,
        "dim_mult": config.dim_mult,
        "num_res_blocks": config.num_res_blocks,
        "temperal_downsample": config.temperal_downsample,
        "in_channels": config.picture_channels,
        "out_channels": config.picture_channels,
        "patch_size": config.patch_size,
        "latents_mean": config.latents_mean or [0.0] * config.z_dim,
        "latents_std": config.latents_std or [1.0] * config.z_dim,
        "base_dim": config.base_dim,
        "decoder_base_dim": config.decoder_base_dim,
        "attn_scales": [],
        "dropout": 0,
        "is_residual": True,
        "scale_factor_spatial": config.scale_factor_spatial,
        "scale_factor_temporal": config.scale_factor_temporal,
    }
    write_component(Path(folder) / "vae", DIFFUSERS_FILE, fields, vae.state_dict(), dtype)


def load_vae(folder: str | Path) -> CausalVae:
    """Reads folder/vae, or `folder` itself where that holds the config.json of an autoencoder."""
    folder = Path(folder)
    if (folder / "vae").is_dir():
        folder = folder / "vae"
    fields = json.loads((folder / "config.json").read_text())
    if not fields.get("is_residual", False):
        raise ValueError(f"{folder}: expected the residual form of AutoencoderKLWan (is_residual true)")
    vae = CausalVae(VaeConfig(**{name: fields[name] for name in VaeConfig.__dataclass_fields__}))
    tensors = load_file(folder / DIFFUSERS_FILE)
    vae.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return vae.eval()


def write_component(
    folder: Path, file: str, fields: dict, tensors: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    """Writes one component: its config.json and all its tensors, in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: tensor.detach().to(dtype).contiguous() for name, tensor in tensors.items()}
    save_file(stored, folder / file, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
