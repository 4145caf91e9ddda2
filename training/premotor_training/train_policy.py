"""Trains the transformer, its text encoder and the auxiliary heads on encoded demonstrations, in three stages.

    python -m premotor_training.train_policy OUT LATENTS... --stage ground   --minutes 6
    python -m premotor_training.train_policy OUT LATENTS... --stage pretrain --minutes 50
    python -m premotor_training.train_policy OUT POST_LATENTS... --stage post --minutes 3

ground learns to see what an instruction names, from single pictures; pretrain learns video and actions of all tasks by
teacher forcing, with some pictures in every step; post goes on with few, clean demonstrations of every task. Each stage
starts from the one before (OUT/<stage>.pt) and goes on from where it stopped when the command is repeated. LATENTS are
files of encode_latents.py; those named stills* hold single pictures. OUT/<stage>.csv and <stage>_curves.png show how it went.
"""

import argparse
import csv
import json
import math
import random
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from premotor_training import auxiliary, episodes, teacher_forcing
from premotor_training.checkpoint import DIFFUSERS_FILE
from premotor_training.curves import plot_curves
from premotor_training.device import add_device_option, pick_device
from premotor_training.text import Prompts, make_encoder, write_tokenizer
from premotor_training.transformer import TransformerConfig, VideoActionTransformer

STAGES = ("ground", "pretrain", "post")
FIRST_CHANNEL = 14  # joints of the left arm
JOINTS = 4
TEXT_ROWS = 32  # max_sequence_length of the job
TAP_BLOCKS = 4  # the middle of the network, where the auxiliary heads listen
GRADIENT_NORM_MAX = 1.0
WARM_UP_STEPS = 80
# Few steps at a high rate would only unsettle what pretrain has settled.
LEARNING_RATE = {"ground": 1.5e-3, "pretrain": 1.5e-3, "post": 1.5e-4}
LAST_RATE = 0.02
EMA_DECAY = 0.998
LOG_EVERY = 25
SAVE_EVERY_S = 90
TEXT_DROPOUT = 0.1
STILL_WEIGHT = 2.0
# Chunk lengths and how often each is drawn; the job runs 2.
CHUNKS = {1: 0.1, 2: 0.7, 3: 0.1, 4: 0.1}
# How often a batch is of a task: long ones need more steps.
TASK_SHARES = {"touch": 0.2, "press-n": 0.3, "push": 0.15, "sequence": 0.35}
WINDOW_SHARE = 0.15  # of the batches, which start in the middle of episodes


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("latents", nargs="+", type=Path)
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of training, all parts of a resumed stage together")
    parser.add_argument("--steps", type=int, default=10**9, help="also ends the stage; whichever comes first")
    parser.add_argument("--threads", type=int, default=2)
    add_device_option(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, help="highest; default: 1.5e-3, post 1.5e-4")
    parser.add_argument("--batch-frames", type=int, default=144, help="latent frames in a batch, over all its episodes")
    parser.add_argument("--stills", type=int, default=32, help="pictures in a step; ground uses four times as many")
    parser.add_argument("--forward-dynamics", type=float, default=0.15, help="share of the batches that train it")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--from-checkpoint", type=Path, help="start from the weights of a checkpoint folder with job.json")
    parser.add_argument("--ffn", type=int, default=768)
    options = parser.parse_args(arguments)
    if options.learning_rate is None:
        options.learning_rate = LEARNING_RATE[options.stage]
    return options


class Run:
    """One stage of training, which can be stored and continued."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.device = pick_device(options.device)
        self.file = options.out / f"{options.stage}.pt"
        self.step, self.seconds, self.rows = 0, 0.0, []
        earlier = self._earlier_state()
        self.normalise = self._normalisation(earlier)
        self._load_data()
        self.instructions = auxiliary.all_instructions()
        tokenizer_folder = options.out / "tokenizer"
        if earlier is None:
            write_tokenizer(tokenizer_folder, [text for _, text in self.instructions])
        tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
        self.prompts = Prompts(tokenizer, [text for _, text in self.instructions], TEXT_ROWS).to(self.device)
        config = TransformerConfig(
            in_channels=self.channels,
            out_channels=self.channels,
            num_layers=options.layers,
            num_attention_heads=options.heads,
            ffn_dim=options.ffn,
        )
        if earlier is not None:
            config = TransformerConfig(**earlier["config"])
        self.model = VideoActionTransformer(config)
        self.encoder = make_encoder(tokenizer.get_vocab_size(), config.text_dim)
        self.heads = auxiliary.Heads(config.width, len(self.normalise.q01))
        self.parts = {"model": self.model, "encoder": self.encoder, "heads": self.heads}
        if earlier is not None:
            for name, part in self.parts.items():
                part.load_state_dict(earlier[name])
        for part in self.parts.values():
            part.to(self.device)
        self.used = torch.zeros(config.action_dim, device=self.device)
        self.used[FIRST_CHANNEL : FIRST_CHANNEL + len(self.normalise.q01)] = 1
        self.ema = {name: value.detach().clone() for name, value in self._named_tensors()}
        self.optimizers = self._make_optimizers()
        if earlier is not None and earlier["stage"] == options.stage:
            self._resume(earlier)

    def _earlier_state(self) -> dict | None:
        """The interrupted stage, or the result of the stage before."""
        if self.file.exists():
            return torch.load(self.file, weights_only=True, map_location="cpu")
        if self.options.from_checkpoint:
            return self._checkpoint_state(self.options.from_checkpoint)
        before = STAGES.index(self.options.stage) - 1
        file = self.options.out / f"{STAGES[before]}.pt"
        if before < 0:
            return None
        if not file.exists():
            raise SystemExit(f"expected {file}, the result of the stage before, found none: train it first")
        state = torch.load(file, weights_only=True, map_location="cpu")
        # A stage starts from the average of the one before.
        for name in ("model", "encoder"):
            prefix = f"{name}."
            state[name] |= {key[len(prefix) :]: value for key, value in state["ema"].items() if key.startswith(prefix)}
        state["encoder"]["encoder.embed_tokens.weight"] = state["encoder"]["shared.weight"]  # one tensor, two names
        return state

    def _checkpoint_state(self, folder: Path) -> dict:
        """A checkpoint as the result of an earlier stage. It holds no auxiliary heads: they start anew."""
        fields = json.loads((folder / "transformer" / "config.json").read_text())
        config = {name: fields[name] for name in TransformerConfig.__dataclass_fields__}
        stat = json.loads((folder / "job.json").read_text())["norm_stat"]
        joints = slice(FIRST_CHANNEL, FIRST_CHANNEL + JOINTS)
        shutil.copytree(folder / "tokenizer", self.options.out / "tokenizer", dirs_exist_ok=True)
        encoder = load_file(folder / "text_encoder" / "model.safetensors")
        encoder["encoder.embed_tokens.weight"] = encoder["shared.weight"]  # one tensor, two names
        model = {name: tensor.float() for name, tensor in load_file(folder / "transformer" / DIFFUSERS_FILE).items()}
        heads = auxiliary.Heads(TransformerConfig(**config).width, JOINTS).state_dict()
        state = {"stage": "checkpoint", "config": config, "model": model, "encoder": encoder, "heads": heads}
        return state | {name: torch.tensor(stat[name][joints]) for name in ("q01", "q99")}

    def _normalisation(self, earlier: dict | None) -> episodes.Normalisation:
        if earlier is not None:
            return episodes.Normalisation(earlier["q01"], earlier["q99"])
        return episodes.measure_normalisation([file for file in self.options.latents if not episodes.is_stills(file)])

    def _load_data(self) -> None:
        files = self.options.latents
        self.stills = [episodes.load_stills(file, self.normalise) for file in files if episodes.is_stills(file)]
        self.sets: dict[str, list[episodes.Episodes]] = {}
        self.windows: dict[str, list[episodes.Episodes]] = {}
        if self.options.stage != "ground":
            for file in files:
                if episodes.is_stills(file):
                    continue
                for one in episodes.load(file, self.normalise):
                    self.sets.setdefault(one.task, []).append(one)
                windows = episodes.load_windows(file, self.normalise)
                if windows:
                    self.windows.setdefault(windows.task, []).append(windows)
        everything = [still.latents for still in self.stills] + [one.latents for sets in self.sets.values() for one in sets]
        self.channels, self.height, self.width = everything[0].shape[1], *everything[0].shape[-2:]
        for task, sets in self.sets.items():
            shown = sets + self.windows.get(task, [])
            print(f"{task}: {[tuple(one.latents.shape) for one in shown]}", flush=True)

    def _named_tensors(self) -> list[tuple[str, Tensor]]:
        return [(f"{part}.{name}", p) for part in ("model", "encoder") for name, p in self.parts[part].named_parameters()]

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the blocks, AdamW for everything else (docs/TRAINING.md)."""
        everything = [(n, p) for part in self.parts.values() for n, p in part.named_parameters()]
        matrices = [p for n, p in self.model.named_parameters() if n.startswith("blocks") and p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in everything if id(p) not in chosen]
        muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.95), weight_decay=0.01, fused=True)]

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"stage": self.options.stage, "config": asdict(self.model.config), "ema": self.ema}
        state |= {"q01": self.normalise.q01, "q99": self.normalise.q99}
        state |= {"optimizers": [one.state_dict() for one in self.optimizers]}
        state |= {"step": self.step, "seconds": self.seconds, "rows": self.rows, "random": torch.get_rng_state()}
        unfinished = self.file.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.rename(self.file)
        with self.file.with_suffix(".csv").open("w", newline="") as file:
            fields = list(dict.fromkeys(field for row in self.rows for field in row))
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(self.rows)

    def _resume(self, state: dict) -> None:
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.ema = {name: value.to(self.device) for name, value in state["ema"].items()}
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        torch.set_rng_state(state["random"])
        random.seed(self.options.seed + self.step)
        print(f"continues at step {self.step}, {self.seconds / 60:.1f} minutes used", flush=True)

    def train(self) -> None:
        """Until the budget of minutes or of steps is used."""
        resumed_s, began_s = self.seconds, time.monotonic()
        saved_s, recent = began_s, []
        while (used := self._budget_used()) < 1:
            rate = self._rate(used)
            recent.append(self._step(rate))
            self.step += 1
            self.seconds = resumed_s + time.monotonic() - began_s
            if self.step % LOG_EVERY == 0:
                self._log(rate, recent)
                recent = []
            if time.monotonic() - saved_s > SAVE_EVERY_S:
                self.save()
                saved_s = time.monotonic()
        self.save()

    def _budget_used(self) -> float:
        return max(self.seconds / 60 / self.options.minutes, self.step / self.options.steps)

    def _rate(self, used: float) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, used)))
        return self.options.learning_rate * min(1.0, (self.step + 1) / WARM_UP_STEPS) * (LAST_RATE + (1 - LAST_RATE) * cosine)

    def _step(self, rate: float) -> dict[str, float]:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            encoded = self.prompts.encode(self.encoder)
            losses = {}
            if self.stills:
                count = self.options.stills * (4 if self.options.stage == "ground" else 1)
                losses["stills"] = STILL_WEIGHT * self._still_loss(encoded, count)
            if self.sets:
                losses |= self._episode_losses(encoded)
        loss = sum(losses.values())
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        tensors = [p for part in self.parts.values() for p in part.parameters()]
        norm = torch.nn.utils.clip_grad_norm_(tensors, GRADIENT_NORM_MAX)
        for optimizer in self.optimizers:
            optimizer.step()
        self._average()
        return {name: value.item() for name, value in losses.items()} | {"gradient": norm.item()}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        names, tensors = zip(*self._named_tensors(), strict=True)
        torch._foreach_lerp_([self.ema[name] for name in names], [t.detach() for t in tensors], 1 - decay)

    def _text(self, encoded: Tensor, picks: Tensor) -> teacher_forcing.Text:
        return teacher_forcing.Text(encoded[picks], self.prompts.bias[picks])

    def _still_loss(self, encoded: Tensor, count: int) -> Tensor:
        still = random.choices(self.stills, [len(one.latents) for one in self.stills])[0]
        allowed = [(task, text) for task, text in self.instructions if (task == "push") == (still.kind == "block")]
        chosen = torch.randint(len(still.latents), (count,))
        picks = torch.randint(len(allowed), (count,))
        named = [episodes.named_goals(task, text) for task, text in allowed]
        goals = {name: values[chosen] for name, values in still.goals.items()}
        target = auxiliary.still_targets(goals, picks, named).to(self.device)
        prompt = torch.tensor([self.prompts.index(text) for _, text in allowed])[picks]
        latents = still.latents[chosen].to(self.device).float()
        text = self._text(encoded, prompt)
        middle = teacher_forcing.forward_stills(self.model, latents, episodes.ACTIONS_PER_FRAME, text, TAP_BLOCKS)
        return auxiliary.goal_loss(self.heads, middle[1], target)

    def _episode_losses(self, encoded: Tensor) -> dict[str, Tensor]:
        tasks = list(self.sets)
        task = random.choices(tasks, [TASK_SHARES[name] for name in tasks])[0]
        in_windows = task in self.windows and random.random() < WINDOW_SHARE
        one = random.choice(self.windows[task] if in_windows else self.sets[task])
        frames = one.latents.shape[2]
        batch = max(2, round(self.options.batch_frames / frames))
        chosen = torch.randint(len(one), (batch,))
        fdm = random.random() < self.options.forward_dynamics
        chunk = random.choices(list(CHUNKS), list(CHUNKS.values()))[0]
        shape = teacher_forcing.Shape(frames, chunk, self.height // 2, self.width // 2, episodes.ACTIONS_PER_FRAME, fdm)
        levels = teacher_forcing.draw_levels(batch, frames, chunk, fdm, teacher_forcing.NoiseOptions()).to(self.device)
        joints = one.actions[chosen].to(self.device)
        actions = torch.nn.functional.pad(joints, (FIRST_CHANNEL, len(self.used) - FIRST_CHANNEL - joints.shape[-1]))
        streams = teacher_forcing.make_streams(one.latents[chosen].to(self.device).float(), actions, self.used, levels)
        picks = torch.tensor([self.prompts.index(one.prompts[i]) for i in chosen])
        dropped = torch.rand(batch) < TEXT_DROPOUT
        picks[dropped] = len(self.prompts.texts) - 1
        output = teacher_forcing.forward(self.model, streams, shape, self._text(encoded, picks), TAP_BLOCKS)
        losses = {"video": (output.video.float() - streams.video_target)[:, 1:].square().mean()}
        if not fdm:
            error = (output.action.float() - streams.action_target)[:, 1:].square()
            losses["action"] = error[..., self.used.bool()].mean()
        if dropped.all():
            return losses
        kept = ~dropped
        clean, noisy = output.middle[1][kept], output.middle[3][kept, :1]
        picked = chosen[kept]
        if one.goals_known:
            goals = one.goals[picked].to(self.device)
            losses["goals"] = 0.5 * auxiliary.goal_loss(self.heads, clean, goals)
            if not fdm:  # there the actions of frame 0 see no picture
                losses["goals"] = losses["goals"] + auxiliary.goal_loss(self.heads, noisy, goals)
        if in_windows:
            return losses
        labels = [label[picked].to(self.device) for label in (one.current, one.current_known, one.stage)]
        losses["next"], losses["stage"] = auxiliary.progress_loss(self.heads, clean, *labels)
        return losses

    def _log(self, rate: float, recent: list[dict[str, float]]) -> None:
        names = list(dict.fromkeys(name for losses in recent for name in losses))
        row = {"step": self.step, "minutes": round(self.seconds / 60, 3), "learning_rate": rate}
        row |= {name: float(np.mean([losses[name] for losses in recent if name in losses])) for name in names}
        self.rows.append(row)
        shown = ", ".join(f"{name} {row[name]:.4f}" for name in names)
        print(f"step {self.step}, {row['minutes']:.1f} min: {shown}, rate {rate:.1e}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    run = Run(options)
    parameters = sum(p.numel() for p in run.model.parameters())
    print(f"{options.stage}: {parameters / 1e6:.2f} M parameters, seed {options.seed}", flush=True)
    run.train()
    plot_curves(run.file.with_suffix(".csv"), options.out / f"{options.stage}_curves.png")
    print(f"{run.step} steps in {run.seconds / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
