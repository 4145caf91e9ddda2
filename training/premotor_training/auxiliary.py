"""Heads that exist only while training: they make the network's middle say what it must know anyway.

From the hidden action tokens of a latent frame, in the middle of the network: where the things that the instruction names
are (as joint poses that reach them), which of them comes next, and how many presses are done. Without them a small
network hardly learns which button is meant (docs/TRAINING.md). They are not part of the checkpoint.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from premotor_training.episodes import GOALS, STAGES, UNKNOWN_STAGE

STAGE_WEIGHT = 0.1


class Heads(nn.Module):
    def __init__(self, width: int, joints: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.goals = nn.Linear(width, GOALS * joints)
        self.current = nn.Linear(width, joints)
        self.stage = nn.Linear(width, STAGES)
        self.joints = joints

    def pool(self, tokens: Tensor) -> Tensor:
        """[B, F, tokens, d] -> [B, F, d]."""
        return self.norm(tokens.mean(2))

    def named(self, pooled: Tensor) -> Tensor:
        """[B, F, d] -> [B, F, GOALS, joints]."""
        return self.goals(pooled).unflatten(-1, (GOALS, self.joints))


def goal_loss(heads: Heads, action_tokens: Tensor, goals: Tensor) -> Tensor:
    """Mean square error over all frames; action_tokens [B, F, tokens, d], goals [B, GOALS, joints]."""
    return (heads.named(heads.pool(action_tokens)).float() - goals[:, None]).square().mean()


def progress_loss(heads: Heads, action_tokens: Tensor, current: Tensor, known: Tensor, stage: Tensor) -> tuple[Tensor, Tensor]:
    """The next goal's mean square error and the cross entropy of the presses done, where they are known."""
    pooled = heads.pool(action_tokens)
    error = (heads.current(pooled).float() - current).square().mean(-1)
    labels = stage.flatten()
    told = heads.stage(pooled).float().flatten(0, 1)
    counted = F.cross_entropy(told, labels, ignore_index=UNKNOWN_STAGE, reduction="sum")
    counted = counted / (labels != UNKNOWN_STAGE).sum().clamp(min=1)
    return (error * known).sum() / known.sum().clamp(min=1), STAGE_WEIGHT * counted


def all_instructions() -> list[tuple[str, str]]:
    """Every (task, instruction) of the simulated tasks: src/sim/tasks."""
    from itertools import permutations

    from premotor_training.episodes import COLOURS, COUNTS

    touch = [("touch", f"touch the {colour} button") for colour in COLOURS]
    press = [("press-n", f"press the {colour} button {count} times") for colour in COLOURS for count in COUNTS]
    sequence = [("sequence", f"press {a}, then {b}; last {c}") for a, b, c in permutations(COLOURS)]
    return [*touch, *press, *sequence, ("push", "push the block into the zone")]


def still_targets(goals: dict[str, Tensor], picks: Tensor, instructions: list[list[str]]) -> Tensor:
    """Goals of stills for picked instructions: goals name -> [B, joints], instructions: the names each one names; gives
    [B, GOALS, joints]."""
    names = list(goals)
    stacked = torch.stack([goals[name] for name in names], dim=1)  # [B, names, joints]
    order = torch.tensor([[names.index(name) for name in instruction] for instruction in instructions])  # [instructions, GOALS]
    return stacked.gather(1, order[picks][..., None].expand(-1, -1, stacked.shape[-1]))
