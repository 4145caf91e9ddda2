"""A small chunking policy in the manner of ACT: one picture, the measured joints and the instruction in, a chunk of absolute joint targets out.

What it takes from ACT (Zhao et al., arXiv 2304.13705): a whole chunk in one pass, an L1 loss on it, absolute targets, joint angles beside the
pictures. What it leaves out: the CVAE (its latent is zero when a policy runs, and scripted demonstrations have little style to encode) and the
transformer; the decoder is an MLP behind spatial soft-argmax keypoints, which need far fewer pictures. ACT knows no language; here words choose the
features of every convolution, because the task names a button.

Pictures come as RGB in 0 .. 1, normalised by the job's mean and deviation; joints and targets are normalised by the job's numbers as well, so that the
exported network holds no units.
"""

import torch
from torch import Tensor, nn

WORDS = {"touch": 1, "the": 2, "red": 3, "green": 4, "blue": 5, "button": 6}  # 0 is padding
TEXT_LENGTH = 6
JOINTS = 4
HORIZON = 32  # actions of a pass, of which 16 are executed
TEXT_WIDTH = 32
KEYPOINTS = 32
WIDTH = 256
GROUPS = 4


class TextBlock(nn.Module):
    """A convolution whose channels the instruction scales and shifts (FiLM, Perez et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, outputs)
        self.film = nn.Linear(TEXT_WIDTH, 2 * outputs)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        scale, shift = self.film(text)[:, :, None, None].chunk(2, dim=1)
        return torch.relu(self.norm(self.conv(x)) * (1 + scale) + shift)


class Eyes(nn.Module):
    """A picture [N, 3, 96, 96] and a text [N, TEXT_WIDTH] -> where KEYPOINTS features are, [N, 2 * KEYPOINTS] in -1 .. 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList([TextBlock(16, 32, 2), TextBlock(32, 32, 1), TextBlock(32, 32, 1)])
        self.maps = nn.Conv2d(32, KEYPOINTS, 1)
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        axis = torch.linspace(-1, 1, 24)
        self.register_buffer("grid", torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).flatten(0, 1))

    def features(self, picture: Tensor, text: Tensor) -> Tensor:
        x = torch.relu(self.stem(picture))
        for block in self.blocks:
            x = block(x, text)
        return x

    def forward(self, picture: Tensor, text: Tensor, half: bool = False) -> Tensor:
        """`half`: the convolutions in bf16, for training; places need more digits."""
        if half:
            with torch.autocast("cpu", torch.bfloat16):
                x = self.features(picture, text).float()
        else:
            x = self.features(picture, text)
        heat = (self.maps(x) * self.sharpness).flatten(2).softmax(dim=-1)
        return (heat @ self.grid).flatten(1)


class ActTouch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS) + 1, TEXT_WIDTH, padding_idx=0)
        self.eyes = Eyes()
        self.goal = nn.Sequential(nn.Linear(2 * KEYPOINTS + TEXT_WIDTH, 128), nn.ReLU(), nn.Linear(128, JOINTS))
        self.decoder = nn.Sequential(
            nn.Linear(2 * KEYPOINTS + TEXT_WIDTH + 2 * JOINTS, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, HORIZON * JOINTS),
        )

    def look(self, picture: Tensor, tokens: Tensor, half: bool = False) -> tuple[Tensor, Tensor]:
        """What is seen of the thing that the words name, and its joint pose [N, JOINTS], normalised: what training also teaches."""
        text = self.words(tokens).sum(dim=1)
        seen = torch.cat([self.eyes(picture, text, half), text], dim=1)
        return seen, self.goal(seen)

    def act(self, seen: Tensor, goal: Tensor, joints: Tensor) -> Tensor:
        return self.decoder(torch.cat([seen, goal, joints], dim=1)).unflatten(1, (HORIZON, JOINTS))

    def forward(self, image: Tensor, joints: Tensor, tokens: Tensor) -> Tensor:
        """image [1, 3, 96, 96], joints [1, JOINTS], tokens [1, TEXT_LENGTH] -> actions [1, HORIZON, JOINTS]."""
        seen, goal = self.look(image, tokens)
        return self.act(seen, goal, joints)


def tokens_of(instruction: str) -> list[int]:
    """Word numbers, padded to TEXT_LENGTH; the runtime does the same from job.json."""
    ids = [WORDS[word] for word in instruction.lower().split()]
    return (ids + [0] * TEXT_LENGTH)[:TEXT_LENGTH]
