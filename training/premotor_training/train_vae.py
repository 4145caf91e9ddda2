"""Trains the video autoencoder on datasets of `premotor sim collect` and writes it in the released layout.

    python -m premotor_training.train_vae OUT DATASET... --minutes 22

OUT/vae is the result. OUT/vae_training.pt continues an interrupted run: the same command again goes on from there.
OUT/vae_log.csv, vae_curves.png and vae_pictures.png show how it went.

The loss is weighted L1 + 0.5 L2 of the pixels (clips.py has the weights) and a small pull of the latents towards a
normal distribution. The learning rate falls over the budget in a cosine.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from premotor_training.checkpoint import save_vae
from premotor_training.clips import ClipSampler, open_sources
from premotor_training.curves import plot_curves
from premotor_training.device import add_device_option, pick_device
from premotor_training.vae import CausalVae, VaeConfig
from premotor_training.vae_report import measure_statistics, report_errors

SQUARE_WEIGHT = 0.5
KL_WEIGHT = 1e-4
LOGVAR_RANGE = (-20.0, 10.0)
GRADIENT_NORM_MAX = 1.0
WARM_UP_STEPS = 50
LAST_RATE = 0.03  # of the peak learning rate, at the end of the budget
LOG_EVERY = 25  # steps
SAVE_EVERY_S = 60
FULL_PICTURE_SHARE = 0.25
# (share, video frames, cut-outs in a batch, whole pictures in a batch). Long clips are few, but without them the
# network would never see what most of a stream looks like: frames whose past is not the padding in front of frame 0.
# Single pictures are many scenes for little time, and the first frame is the one that must show a scene.
CLIP_KINDS = ((0.15, 1, 40, 10), (0.40, 5, 12, 3), (0.30, 9, 8, 2), (0.15, 17, 4, 1))
LOG_FIELDS = ("step", "minutes", "learning_rate", "weighted_l1", "l1", "kl")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("datasets", nargs="+", help="folders of LeRobot datasets")
    parser.add_argument("--cameras", nargs="+", default=["cam_front"], help="default: cam_front")
    parser.add_argument("--minutes", type=float, default=22, help="of training, all parts of a resumed run together")
    parser.add_argument("--steps", type=int, default=10**9, help="also ends the training; whichever comes first")
    parser.add_argument("--threads", type=int, default=1)
    add_device_option(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--side", type=int, default=48, help="of a cut-out, in pixels")
    parser.add_argument("--base-dim", type=int, default=16)
    parser.add_argument("--decoder-base-dim", type=int, default=16)
    parser.add_argument("--z-dim", type=int, default=16)
    parser.add_argument("--dim-mult", type=int, nargs="+", default=[1, 2, 4, 4])
    parser.add_argument("--num-res-blocks", type=int, default=1)
    return parser.parse_args(arguments)


def make_vae(options: argparse.Namespace) -> CausalVae:
    config = VaeConfig(
        base_dim=options.base_dim,
        decoder_base_dim=options.decoder_base_dim,
        z_dim=options.z_dim,
        dim_mult=options.dim_mult,
        num_res_blocks=options.num_res_blocks,
    )
    return CausalVae(config)


def loss_of(vae: CausalVae, pixels: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The loss and the parts of it that are logged. pixels [B, 3, T, H, W], weights [B, 1, T, H, W]."""
    with torch.autocast(pixels.device.type, dtype=torch.bfloat16):
        mean, logvar = (part.float() for part in vae.encode(pixels))
        logvar = logvar.clamp(*LOGVAR_RANGE)
        sample = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        decoded = vae.decode(sample).float()
    difference = decoded - pixels
    weights = weights / (weights.sum() * pixels.shape[1])
    absolute = (weights * difference.abs()).sum()
    square = (weights * difference.square()).sum()
    kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1).mean()
    parts = {"weighted_l1": absolute.item(), "l1": difference.detach().abs().mean().item(), "kl": kl.item()}
    return absolute + SQUARE_WEIGHT * square + KL_WEIGHT * kl, parts


def learning_rate(peak: float, step: int, budget_used: float) -> float:
    """budget_used: 0 .. 1."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, budget_used)))
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * (LAST_RATE + (1 - LAST_RATE) * cosine)


class Run:
    """A training run that can be stored and continued."""

    def __init__(self, options: argparse.Namespace, sampler: ClipSampler):
        self.options = options
        self.sampler = sampler
        self.device = pick_device(options.device)
        self.vae = make_vae(options).to(self.device)
        parameters = self.vae.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)
        self.step = 0
        self.seconds = 0.0  # of training so far
        self.rows: list[dict] = []  # of the log
        self.file = options.out / "vae_training.pt"

    def save(self) -> None:
        state = {
            "vae": self.vae.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "torch_random": torch.get_rng_state(),
            "clip_random": self.sampler.random.bit_generator.state,
        }
        unfinished = self.file.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.rename(self.file)
        with (self.options.out / "vae_log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)

    def resume(self) -> None:
        if not self.file.exists():
            return
        state = torch.load(self.file, weights_only=True, map_location="cpu")
        self.vae.load_state_dict(state["vae"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        torch.set_rng_state(state["torch_random"])
        self.sampler.random.bit_generator.state = state["clip_random"]
        print(f"continues at step {self.step}, {self.seconds / 60:.1f} minutes used")

    def train(self) -> None:
        """Until the budget of minutes or of steps is used."""
        resumed_at_s, began_s = self.seconds, time.monotonic()
        saved_s, recent = began_s, []
        while (used := self._budget_used()) < 1:
            rate = learning_rate(self.options.learning_rate, self.step, used)
            recent.append(self._step(rate))
            self.step += 1
            self.seconds = resumed_at_s + time.monotonic() - began_s
            if self.step % LOG_EVERY == 0:
                self._log(rate, recent)
                recent = []
            if time.monotonic() - saved_s > SAVE_EVERY_S:
                self.save()
                saved_s = time.monotonic()
        self.save()

    def _budget_used(self) -> float:
        return max(self.seconds / 60 / self.options.minutes, self.step / self.options.steps)

    def _step(self, rate: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        random = self.sampler.random
        shares = [kind[0] for kind in CLIP_KINDS]
        _, frames, cut_outs, whole = CLIP_KINDS[random.choice(len(CLIP_KINDS), p=shares)]
        full = random.random() < FULL_PICTURE_SHARE
        pixels, weights = self.sampler.draw(whole if full else cut_outs, frames, None if full else self.options.side)
        loss, parts = loss_of(self.vae, pixels.to(self.device), weights.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), GRADIENT_NORM_MAX)
        self.optimizer.step()
        return parts

    def _log(self, rate: float, recent: list[dict[str, float]]) -> None:
        row = {"step": self.step, "minutes": round(self.seconds / 60, 3), "learning_rate": rate}
        row |= {name: sum(parts[name] for parts in recent) / len(recent) for name in recent[0]}
        self.rows.append(row)
        print(
            f"step {self.step}, {row['minutes']:.1f} min: weighted L1 {row['weighted_l1']:.4f}, L1 {row['l1']:.4f}, "
            f"KL {row['kl']:.2f}, rate {rate:.1e}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    sampler = ClipSampler(open_sources(options.datasets, options.cameras), options.seed)
    run = Run(options, sampler)
    print(f"{sum(p.numel() for p in run.vae.parameters()) / 1e6:.2f} M parameters, seed {options.seed}", flush=True)
    run.resume()
    run.train()
    print(f"{run.step} steps in {run.seconds / 60:.1f} minutes", flush=True)
    vae = run.vae.cpu().eval()
    measure_statistics(vae, sampler.sources)
    save_vae(options.out, vae)
    plot_curves(options.out / "vae_log.csv", options.out / "vae_curves.png")
    report = report_errors(vae, sampler.sources, options.out / "vae_pictures.png")
    (options.out / "vae_report.txt").write_text(report + "\n")
    print(report)


if __name__ == "__main__":
    main()
