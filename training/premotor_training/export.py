"""Writes a trained policy as a checkpoint folder in the released layout, with the job that runs it.

    python -m premotor_training.export RUN VAE OUT [--stage post] [--dtype bf16]

RUN is the folder of train_policy.py, VAE a folder with vae/. OUT gets transformer/, vae/, text_encoder/, tokenizer/ and
job.json. The averaged weights are written unless --last is given; the auxiliary heads stay behind.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from premotor_training.checkpoint import DIFFUSERS_FILE, load_vae, save_vae, write_component
from premotor_training.episodes import ACTIONS_PER_FRAME
from premotor_training.text import make_encoder
from premotor_training.train_policy import FIRST_CHANNEL, STAGES, TEXT_ROWS
from premotor_training.transformer import TransformerConfig, VideoActionTransformer

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
PICTURE_SIDE = 96


def transformer_fields(config: TransformerConfig) -> dict:
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": [1, 2, 2],
        "num_attention_heads": config.num_attention_heads,
        "attention_head_dim": config.attention_head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "action_dim": config.action_dim,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
        "cross_attn_norm": config.cross_attn_norm,
        "eps": config.eps,
        "attn_mode": "torch",
        "pos_embed_seq_len": None,
        "rope_max_seq_len": 1024,
    }


def write_transformer(folder: Path, config: TransformerConfig, tensors: dict, dtype: torch.dtype) -> None:
    # The strict load finds a missing or misspelt tensor here rather than on the robot.
    VideoActionTransformer(config).load_state_dict(tensors)
    write_component(folder / "transformer", DIFFUSERS_FILE, transformer_fields(config), tensors, dtype)


def write_text_encoder(folder: Path, tensors: dict) -> None:
    """In float32: it is small, and runs once for each instruction."""
    encoder = make_encoder(tensors["shared.weight"].shape[0], tensors["shared.weight"].shape[1])
    fields = encoder.config.to_dict()
    kept = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets")
    fields = {name: fields[name] for name in (*kept, "relative_attention_max_distance", "layer_norm_epsilon")}
    fields = {"architectures": ["UMT5EncoderModel"], "model_type": "umt5", **fields}
    fields |= {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True, "dtype": "float32"}
    fields |= {"pad_token_id": 0, "eos_token_id": 1}
    target = folder / "text_encoder"
    target.mkdir(parents=True, exist_ok=True)
    stored = {n: t.float().contiguous() for n, t in tensors.items() if n != "encoder.embed_tokens.weight"}
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


def job_of(q01: torch.Tensor, q99: torch.Tensor, action_dim: int) -> dict:
    """The job of the simulated arm (src/sim/job.ts) with the data's quantiles; channels without a joint get -1 .. 1."""
    low, high = [-1.0] * action_dim, [1.0] * action_dim
    joints = len(q01)
    low[FIRST_CHANNEL : FIRST_CHANNEL + joints] = [round(value, 6) for value in q01.tolist()]
    high[FIRST_CHANNEL : FIRST_CHANNEL + joints] = [round(value, 6) for value in q99.tolist()]
    return {
        "param_dtype": "float32",
        "patch_size": [1, 2, 2],
        "infer_mode": "server",
        "env_type": "none",
        "action_dim": action_dim,
        "obs_cam_keys": ["observation.images.cam_front"],
        "guidance_scale": 1,
        "action_guidance_scale": 1,
        "num_inference_steps": 5,
        "video_exec_step": -1,
        "action_num_inference_steps": 10,
        "snr_shift": 5,
        "action_snr_shift": 1,
        "used_action_channel_ids": list(range(FIRST_CHANNEL, FIRST_CHANNEL + joints)),
        "action_norm_method": "quantiles",
        "norm_stat": {"q01": low, "q99": high},
        "attn_window": 30,
        "height": PICTURE_SIDE,
        "width": PICTURE_SIDE,
        "frame_chunk_size": 2,
        "action_per_frame": ACTIONS_PER_FRAME,
        "max_sequence_length": TEXT_ROWS,
        "bf16_input_cast": True,
        "prompt": "touch the red button",
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("vae", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", choices=STAGES, default="post")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16", help="of transformer and autoencoder")
    parser.add_argument("--last", action="store_true", help="the last weights instead of their average")
    options = parser.parse_args(arguments)
    file = options.run / f"{options.stage}.pt"
    if not file.exists():
        raise SystemExit(f"expected {file}, the result of stage {options.stage}; run it, or name another one with --stage")
    state = torch.load(file, weights_only=True, map_location="cpu")
    config = TransformerConfig(**state["config"])
    tensors = {name: dict(state[name]) for name in ("model", "encoder")}
    if not options.last:
        for key, value in state["ema"].items():
            part, name = key.split(".", 1)
            tensors[part][name] = value
    dtype = DTYPES[options.dtype]
    options.out.mkdir(parents=True, exist_ok=True)
    write_transformer(options.out, config, tensors["model"], dtype)
    write_text_encoder(options.out, tensors["encoder"])
    save_vae(options.out, load_vae(options.vae), dtype)
    shutil.copytree(options.run / "tokenizer", options.out / "tokenizer", dirs_exist_ok=True)
    job = job_of(state["q01"], state["q99"], config.action_dim)
    (options.out / "job.json").write_text(json.dumps(job, indent=2) + "\n")
    print(f"{options.out}: {state['stage']} after {state['step']} steps")


if __name__ == "__main__":
    main()
