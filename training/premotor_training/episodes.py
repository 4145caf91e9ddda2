"""Encoded demonstrations as batches: latents and normalised actions by latent frame, with labels of what the expert was at.

Reads the files of encode_latents.py. An episode can start at its first or its second row: the same demonstration with
its video half a frame later. Windows start in the middle of one, as an episode does whose memory was lost: without them
the network would never have seen a first picture with the arm away from its start.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ACTIONS_PER_FRAME = 8  # of a latent frame
GOALS = 3  # things that an instruction can name
PRESSED_Z_M = 0.0350  # height of the tip's centre below which a button counts as pressed, and above which as released
RELEASED_Z_M = 0.0365
COLOURS = ("red", "green", "blue")
COUNTS = {"two": 2, "three": 3, "four": 4}
STAGES = 5  # presses done, 0 .. 4
UNKNOWN_STAGE = -100
# The arm, metres: src/sim/arm.ts.
SHOULDER_Z, UPPER, FORE, HAND = 0.14, 0.24, 0.22, 0.10


def tip_height(joints: Tensor) -> Tensor:
    """Joint poses [..., 4] in radians -> height of the tip's centre [...] in metres."""
    shoulder, elbow, wrist = joints[..., 1], joints[..., 2], joints[..., 3]
    upper, fore = shoulder, shoulder + elbow
    return SHOULDER_Z + UPPER * upper.cos() + FORE * fore.cos() + HAND * (fore + wrist).cos()


@dataclass(frozen=True)
class Normalisation:
    """Actions to -1 .. 1 by quantiles, as the job's norm_stat does."""

    q01: Tensor  # [joints]
    q99: Tensor

    def __call__(self, joints: Tensor) -> Tensor:
        return 2 * (joints - self.q01) / (self.q99 - self.q01 + 1e-6) - 1


@dataclass
class Episodes:
    """Demonstrations of one task and one starting row, or windows of them; all have the same number of latent frames F."""

    task: str
    latents: Tensor  # [N, C, F, h, w] float16
    actions: Tensor  # [N, F, ACTIONS_PER_FRAME, joints], normalised; zero in frame 0
    prompts: list[str]
    goals: Tensor  # [N, GOALS, joints], normalised: where the named things are, in the instruction's order
    current: Tensor  # [N, F, joints], normalised: where the tip has to go next, after the actions of the frame
    current_known: Tensor  # [N, F] bool
    stage: Tensor  # [N, F]: presses done after the actions of the frame, or UNKNOWN_STAGE
    goals_known: bool = True

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass
class Stills:
    """First pictures of scenes without a demonstration."""

    kind: str  # buttons or block
    latents: Tensor  # [N, C, h, w] float16
    goals: dict[str, Tensor]  # name -> [N, joints], normalised


def named_goals(task: str, text: str) -> list[str]:
    """What the instruction names, in order, made up to GOALS by repeating the last."""
    if task == "push":
        names = ["block", "zone"]
    else:
        words = [word.rstrip(",;") for word in text.split()]
        names = [word for word in words if word in COLOURS]
    return (names + [names[-1]] * GOALS)[:GOALS]


def count_presses(heights: Tensor) -> Tensor:
    """Heights of the tip's centre [N, rows] -> presses done after each row [N, rows]."""
    down = torch.zeros(len(heights), dtype=torch.bool)
    done = torch.zeros(len(heights), dtype=torch.long)
    counts = []
    for height in heights.unbind(1):
        starts = ~down & (height < PRESSED_Z_M)
        done = done + starts
        down = (down | starts) & ~(height > RELEASED_Z_M)
        counts.append(done.clone())
    return torch.stack(counts, dim=1)


def labels_of(task: str, prompts: list[str], goals: Tensor, home: Tensor, presses: Tensor) -> tuple[Tensor, Tensor]:
    """What the tip has to reach next, [N, F, joints], and where that is known, [N, F]. presses [N, F]."""
    episodes, frames = presses.shape
    known = torch.ones(episodes, frames, dtype=torch.bool)
    if task == "sequence":
        step = presses.clamp(max=GOALS - 1)
        return goals.gather(1, step[..., None].expand(-1, -1, goals.shape[-1])), known
    current = goals[:, :1].expand(-1, frames, -1).clone()
    if task == "press-n":
        wanted = torch.tensor([COUNTS[next(word for word in text.split() if word in COUNTS)] for text in prompts])
        current[presses >= wanted[:, None]] = home
    if task == "push":
        known[:, 3:] = False  # from about then on the paddle is behind the block and follows it
    return current, known


def load(file: Path, normalise: Normalisation) -> list[Episodes]:
    """Both starting rows of one file."""
    data = torch.load(file, weights_only=True)
    task = data["fields"][0]["task_name"]
    prompts = data["text"]
    named = [named_goals(task, text) for text in prompts]
    goals = torch.tensor([[fields["goals"][name] for name in names] for fields, names in zip(data["fields"], named)])
    goals = normalise(goals)
    rows = torch.stack(data["actions"])  # [N, rows, joints]
    home = normalise(data["states"][0][0])
    presses = count_presses(tip_height(rows)) if task != "push" else torch.zeros(rows.shape[:2], dtype=torch.long)
    results = []
    for first in range(2):
        latents = torch.stack([clips[first] for clips in data["latents"]])
        frames = latents.shape[2]
        executed = rows[:, first : first + (frames - 1) * ACTIONS_PER_FRAME].unflatten(1, (frames - 1, -1))
        zeros = torch.zeros_like(executed[:, :1])
        actions = torch.cat([zeros, normalise(executed)], dim=1)
        ends = first - 1 + ACTIONS_PER_FRAME * torch.arange(frames)
        stage = presses[:, ends.clamp(min=0)]
        stage[:, 0] = 0
        current, known = labels_of(task, prompts, goals, home, stage)
        results.append(Episodes(task, latents, actions, prompts, goals, current, known, stage))
    return results


def load_windows(file: Path, normalise: Normalisation) -> Episodes | None:
    """All windows of one file; None when there are none. What is next and what is done cannot be told without the past."""
    data = torch.load(file, weights_only=True)
    task = data["fields"][0]["task_name"]
    counts = [len(rows) for rows in data["window_rows"]]
    if sum(counts) == 0:
        return None
    owners = [episode for episode, count in enumerate(counts) for _ in range(count)]
    latents = torch.cat([clips for clips in data["windows"] if len(clips)])
    frames = latents.shape[2]
    executed = torch.stack(
        [
            data["actions"][owner][first : first + (frames - 1) * ACTIONS_PER_FRAME]
            for owner, first in zip(owners, torch.cat(data["window_rows"]).tolist(), strict=True)
        ]
    ).unflatten(1, (frames - 1, -1))
    actions = torch.cat([torch.zeros_like(executed[:, :1]), normalise(executed)], dim=1)
    prompts = [data["text"][owner] for owner in owners]
    named = [[data["fields"][owner]["goals"][name] for name in named_goals(task, data["text"][owner])] for owner in owners]
    goals = normalise(torch.tensor(named))
    known = torch.zeros(len(owners), frames, dtype=torch.bool)
    current = torch.zeros(len(owners), frames, goals.shape[-1])
    stage = torch.full((len(owners), frames), UNKNOWN_STAGE)
    # A block that was pushed is no longer where the episode's goals say.
    return Episodes(task, latents, actions, prompts, goals, current, known, stage, goals_known=task != "push")


def load_stills(file: Path, normalise: Normalisation) -> Stills:
    data = torch.load(file, weights_only=True)
    latents = torch.stack([clips[0][:, 0] for clips in data["latents"]])
    names = list(data["fields"][0]["goals"])
    goals = {name: normalise(torch.tensor([fields["goals"][name] for fields in data["fields"]])) for name in names}
    return Stills("block" if "block" in names else "buttons", latents, goals)


def is_stills(file: Path) -> bool:
    return file.stem.startswith("stills")


def measure_normalisation(files: list[Path]) -> Normalisation:
    """The range of all actions, a hundredth wider. Quantiles proper would cut off the ends of reach."""
    actions = torch.cat([rows for file in files for rows in torch.load(file, weights_only=True)["actions"]])
    low, high = actions.min(0).values, actions.max(0).values
    margin = 0.01 * (high - low)
    return Normalisation(low - margin, high + margin)
