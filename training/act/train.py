"""Trains the policy of model.py on demonstrations of `touch` and single pictures of scenes, within a budget of minutes, on one thread.

    python act/train.py OUT DATA/touch DATA/stills --minutes 18

OUT gets model.pt (averaged weights), numbers.json (what normalises) and train.csv. Rows after the press are not learned from: without a memory
the arm over a button looks the same before and after it.
"""

import argparse
import copy
import csv
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from model import HORIZON, JOINTS, ActTouch, tokens_of  # noqa: E402
from premotor_training.dataset import load_actions, load_episodes, load_pictures, load_states  # noqa: E402
from premotor_training.episodes import COLOURS, tip_height  # noqa: E402

CAMERA = "cam_front"
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
DEMONSTRATION_BATCH, STILL_BATCH = 96, 64
ROWS_AFTER_PRESS = 2
STATE_NOISE_RAD = 0.01
LATER_WEIGHT = 0.3  # of the actions that are not executed
EXECUTED = 16
GOAL_WEIGHT = 1.0
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-3
WARMUP = 0.03
AVERAGE_DECAY = 0.995
LOG_STEPS = 50
VALIDATION_EPISODES = 40


@dataclass
class Demonstrations:
    pictures: list[np.ndarray]  # of each episode [rows, 96, 96, 3]
    states: list[np.ndarray]
    actions: list[np.ndarray]
    tokens: list[list[int]]
    goals: np.ndarray  # [episodes, colours, JOINTS]
    target: np.ndarray  # [episodes]: the colour that is named
    rows: np.ndarray  # [n, 2]: episode and row that a chunk may begin at


def read_goals(episodes) -> np.ndarray:
    return np.array([[episode.fields["goals"][colour] for colour in COLOURS] for episode in episodes], dtype=np.float32)


def colour_of(instruction: str) -> int:
    return next(index for index, colour in enumerate(COLOURS) if colour in instruction.split())


def read_demonstrations(root: Path) -> Demonstrations:
    episodes, actions = load_episodes(root), load_actions(root)
    rows = []
    for episode, poses in enumerate(actions):
        pressed = int(tip_height(torch.from_numpy(poses)).argmin())
        rows += [(episode, row) for row in range(min(pressed + ROWS_AFTER_PRESS, len(poses) - 1))]
    texts = [episode.tasks[0] for episode in episodes]
    target = np.array([colour_of(text) for text in texts])
    tokens = [tokens_of(text) for text in texts]
    return Demonstrations(load_pictures(root, CAMERA), load_states(root), actions, tokens, read_goals(episodes), target, np.array(rows))


@dataclass
class Stills:
    pictures: np.ndarray  # [n, 96, 96, 3]
    goals: np.ndarray  # [n, colours, JOINTS]


def read_stills(root: Path) -> Stills:
    pictures = load_pictures(root, CAMERA)
    return Stills(np.stack([clip[0] for clip in pictures]), read_goals(load_episodes(root)))


@dataclass
class Numbers:
    """Mean and deviation of joints and of targets, [JOINTS]."""

    state_mean: Tensor
    state_std: Tensor
    action_mean: Tensor
    action_std: Tensor

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({name: [round(v, 6) for v in value.tolist()] for name, value in vars(self).items()}, indent=2) + "\n")


def measure(data: Demonstrations) -> Numbers:
    states, actions = np.concatenate(data.states), np.concatenate(data.actions)
    numbers = [states.mean(0), states.std(0), actions.mean(0), actions.std(0)]
    return Numbers(*(torch.from_numpy(np.round(one.astype(np.float32), 6)) for one in numbers))


def picture_tensor(pictures: np.ndarray) -> Tensor:
    """[n, 96, 96, 3] bytes -> [n, 3, 96, 96], normalised as the job says."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
    return (x / 255 - PIXEL_MEAN) / PIXEL_STD


def chunk_at(poses: np.ndarray, row: int) -> np.ndarray:
    """HORIZON targets from a row on; the last one is held."""
    return poses[np.minimum(np.arange(row, row + HORIZON), len(poses) - 1)]


COLOUR_TOKENS = [tokens_of(f"touch the {colour} button") for colour in COLOURS]


class Batches:
    def __init__(self, data: Demonstrations, stills: Stills, numbers: Numbers, seed: int) -> None:
        self.data, self.stills, self.numbers = data, stills, numbers
        self.random = np.random.default_rng(seed)
        self.known = data.rows[data.rows[:, 0] >= VALIDATION_EPISODES]
        self.held_out = data.rows[data.rows[:, 0] < VALIDATION_EPISODES]

    def demonstrations(self, rows: np.ndarray, augment: bool):
        """Pictures, joints, tokens, targets and goals of rows."""
        data, numbers, random = self.data, self.numbers, self.random
        pictures = np.stack([data.pictures[episode][row] for episode, row in rows])
        joints = np.stack([data.states[episode][row] for episode, row in rows])
        if augment:
            # At rest between two chunks the arm is where it was sent, in motion it lags behind.
            sent = np.stack([data.actions[episode][max(0, row - 1)] for episode, row in rows])
            joints = joints + random.random((len(rows), 1)) * (sent - joints) + random.normal(0, STATE_NOISE_RAD, joints.shape)
        targets = np.stack([chunk_at(data.actions[episode], row) for episode, row in rows])
        tokens = torch.tensor([data.tokens[episode] for episode, _ in rows])
        goals = np.stack([data.goals[episode, data.target[episode]] for episode, _ in rows])
        state = (torch.from_numpy(joints.astype(np.float32)) - numbers.state_mean) / numbers.state_std
        return picture_tensor(pictures), state, tokens, self.normal(targets), self.normal(goals)

    def normal(self, poses: np.ndarray) -> Tensor:
        return (torch.from_numpy(poses.astype(np.float32)) - self.numbers.action_mean) / self.numbers.action_std

    def next(self):
        rows = self.known[self.random.integers(len(self.known), size=DEMONSTRATION_BATCH)]
        pictures, state, tokens, targets, goals = self.demonstrations(rows, augment=True)
        chosen = self.random.integers(len(self.stills.pictures), size=STILL_BATCH)
        colours = self.random.integers(len(COLOURS), size=STILL_BATCH)
        more = picture_tensor(self.stills.pictures[chosen])
        words = torch.tensor([COLOUR_TOKENS[colour] for colour in colours])
        seen_goals = torch.cat([goals, self.normal(self.stills.goals[chosen, colours])])
        return torch.cat([pictures, more]), torch.cat([tokens, words]), seen_goals, state, targets


def chunk_loss(found: Tensor, wanted: Tensor) -> Tensor:
    weights = torch.ones(HORIZON)
    weights[EXECUTED:] = LATER_WEIGHT
    return ((found - wanted).abs().mean(-1) * weights).sum(-1).mean() / weights.sum()


def validate(model: ActTouch, batches: Batches) -> tuple[float, float]:
    """L1 of the executed actions and of the goals of held-out episodes, rad."""
    rows = batches.held_out[:: max(1, len(batches.held_out) // 256)]
    with torch.no_grad():
        pictures, state, tokens, targets, goals = batches.demonstrations(rows, augment=False)
        seen, goal = model.look(pictures, tokens)
        chunk = model.act(seen, goal, state)
    std = batches.numbers.action_std
    return ((chunk - targets).abs() * std)[:, :EXECUTED].mean().item(), ((goal - goals).abs() * std).mean().item()


def rate_at(share: float) -> float:
    """Of the learning rate: up, then down along a cosine to 0 at the end of the budget."""
    return share / WARMUP if share < WARMUP else 0.5 * (1 + np.cos(np.pi * (share - WARMUP) / (1 - WARMUP)))


def train(out: Path, batches: Batches, minutes: float) -> None:
    model = ActTouch().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    begun, step = time.monotonic(), 0
    with (out / "train.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["step", "minutes", "processor_minutes", "chunk_l1", "goal_l1", "held_out_action_rad", "held_out_goal_rad"])
        while (share := (time.monotonic() - begun) / 60 / minutes) < 1:
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * rate_at(share)
            pictures, tokens, goals, state, targets = batches.next()
            seen, goal = model.look(pictures, tokens, half=True)
            chunk = model.act(seen[:DEMONSTRATION_BATCH], goal[:DEMONSTRATION_BATCH], state)
            losses = chunk_loss(chunk, targets), (goal - goals).abs().mean()
            optimiser.zero_grad()
            (losses[0] + GOAL_WEIGHT * losses[1]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            step += 1
            decay = min(AVERAGE_DECAY, step / (step + 10))
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.data.lerp_(new.data, 1 - decay)
            if step % LOG_STEPS == 0:
                row = [time.monotonic() - begun, time.process_time()]
                held_out = validate(average, batches)
                log.writerow([step, *(f"{t / 60:.2f}" for t in row), *(f"{one.item():.4f}" for one in losses), *(f"{v:.5f}" for v in held_out)])
                file.flush()
                torch.save(average.state_dict(), out / "model.pt")
    torch.save(average.state_dict(), out / "model.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("demonstrations", type=Path)
    parser.add_argument("stills", type=Path)
    parser.add_argument("--minutes", type=float, default=18)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    data = read_demonstrations(options.demonstrations)
    numbers = measure(data)
    numbers.write(options.out / "numbers.json")
    train(options.out, Batches(data, read_stills(options.stills), numbers, options.seed), options.minutes)


if __name__ == "__main__":
    main()
