"""Makes the fixture test/goldens/training: what the training's own pass computes for an episode.

    python training/goldens/teacher_forcing.py OUT

For development only: test/policy/training.test.ts reads the committed result and replays the episode through the
runtime. All numbers come from the code that trains (teacher_forcing.forward, CausalVae.encode, Prompts.encode), in
float32 without autocast; test/goldens/README.md says what the files hold. The same bytes again on the same machine.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from premotor_training.auxiliary import all_instructions  # noqa: E402
from premotor_training.checkpoint import load_vae, save_vae  # noqa: E402
from premotor_training.clips import to_pixels  # noqa: E402
from premotor_training.episodes import Normalisation  # noqa: E402
from premotor_training.export import job_of, write_text_encoder, write_transformer  # noqa: E402
from premotor_training.teacher_forcing import FULL_TIME, Shape, Streams, Text, forward, shifted  # noqa: E402
from premotor_training.text import Prompts, make_encoder, write_tokenizer  # noqa: E402
from premotor_training.train_policy import FIRST_CHANNEL, TEXT_ROWS  # noqa: E402
from premotor_training.transformer import TransformerConfig, VideoActionTransformer, patchify  # noqa: E402
from premotor_training.vae import CausalVae, VaeConfig  # noqa: E402

SEED = 4
FRAMES = 8  # latent ones
HEIGHT, WIDTH = 64, 96  # of a picture
PER_FRAME = 4  # actions of a latent frame
JOINTS = 4
PROMPTS = ("press the green button three times", "press Blue, then teal!")
# Further texts whose tokens are recorded: all instructions, and words and characters that the tokenizer does not know.
TOKENISED = (*(text for _, text in all_instructions()), "Touch the RED button", "touch", "{x} #9 caf\u00e9 \u8d64 end")
WEIGHTS = torch.bfloat16  # as stored: the runtime computes in float32 from these
CONFIG = TransformerConfig(
    num_attention_heads=2,
    attention_head_dim=24,
    in_channels=4,
    out_channels=4,
    text_dim=16,
    freq_dim=16,
    ffn_dim=32,
    num_layers=2,
)
VAE = VaeConfig(
    base_dim=2,
    decoder_base_dim=2,
    z_dim=4,
    dim_mult=[1, 2, 2, 2],
    latents_mean=[0.05, -0.1, 0.0, 0.1],
    latents_std=[0.4, 0.5, 0.3, 0.6],
)


@dataclass(frozen=True)
class Case:
    """An episode with one chunk length, and the sampler's steps."""

    chunk: int
    chunks: int
    video_steps: int
    action_steps: int


# Actions are denoised at levels that float32 holds exactly: a rounded level is another timestep, 2e-5 in the output.
CASES = (Case(1, 4, 1, 1), Case(2, 3, 1, 1), Case(2, 4, 2, 2), Case(4, 2, 1, 1))


def randomise(module: nn.Module, gain: float) -> None:
    """No weight stays at what it is initialised to, zeros and ones included; all can be stored as WEIGHTS exactly."""
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape)
            if name.endswith((".bias", "scale_shift_table")):
                value = 0.2 * noise
            elif parameter.dim() == 1 or name.endswith("gamma"):
                value = 1 + 0.2 * noise
            else:
                value = gain * noise / parameter[0].numel() ** 0.5
            parameter.copy_(value.to(WEIGHTS))


def make_pictures() -> np.ndarray:
    """Flat rectangles that move, [1 + 4 * (FRAMES - 1), HEIGHT, WIDTH, 3] uint8: they compress well."""
    random = np.random.default_rng(SEED)
    pictures = np.full((1 + 4 * (FRAMES - 1), HEIGHT, WIDTH, 3), (90, 120, 150), dtype=np.uint8)
    for _ in range(6):
        place, speed = random.uniform(0, (HEIGHT, WIDTH)), random.uniform(-3, 3, 2)
        size, colour = random.integers(12, 32, 2), random.integers(0, 256, 3)
        for i, picture in enumerate(pictures):
            row, column = ((place + i * speed) % (HEIGHT, WIDTH)).astype(int)
            picture[row : row + size[0], column : column + size[1]] = colour
    return pictures


@dataclass
class Episode:
    latents: Tensor  # [1, C, FRAMES, h, w], normalised
    actions: Tensor  # [1, FRAMES, PER_FRAME, channels], normalised; zero in frame 0 and in unused channels
    video_noise: Tensor  # [1, C, FRAMES, h, w]
    action_noise: Tensor  # [1, FRAMES, PER_FRAME, channels]; zero in unused channels
    imagined_noise: Tensor  # as video_noise: of the forward-dynamics form

    def first(self, frames: int) -> "Episode":
        """The episode, cut off after so many frames."""
        video = (self.latents[:, :, :frames], self.video_noise[:, :, :frames], self.imagined_noise[:, :, :frames])
        return Episode(video[0], self.actions[:, :frames], video[1], self.action_noise[:, :frames], video[2])


@dataclass
class Pass:
    """One training pass: what stands in for make_streams, which draws its noise."""

    clean: Tensor  # latents
    video: Tensor  # noisy latents
    video_level: Tensor  # [1, F]
    action: Tensor  # noisy actions
    action_level: Tensor
    forward_dynamics: bool = False


def run(model: VideoActionTransformer, given: Pass, actions: Tensor, chunk: int, text: Text) -> tuple[Tensor, Tensor]:
    """The noisy video's and the noisy actions' output, of all frames."""
    frames, height, width = given.clean.shape[-3:]
    zeros = torch.zeros(1, frames)
    runs = [patchify(given.clean), actions, patchify(given.video), given.action]
    timesteps = [zeros, zeros, FULL_TIME * given.video_level, FULL_TIME * given.action_level]
    streams = Streams(runs, timesteps, torch.empty(0), torch.empty(0))
    shape = Shape(frames, chunk, height // 2, width // 2, PER_FRAME, given.forward_dynamics)
    output = forward(model, streams, shape, text, tap=1)
    return output.video, output.action


def in_latent_order(video: Tensor, height: int, width: int) -> Tensor:
    """The output head's order [1, F, patches, 4 C] -> [1, C, F, h, w]."""
    parts = video.unflatten(2, (height // 2, width // 2)).unflatten(-1, (2, 2, -1))  # [1, F, rows, columns, 2, 2, C]
    return parts.permute(0, 6, 1, 2, 4, 3, 5).reshape(1, -1, video.shape[1], height, width)


def sigmas(steps: int, shift: float) -> list[tuple[float, float]]:
    """Each step's noise level and the one after it."""
    levels = [shifted(torch.tensor(1 - i / steps), shift).item() for i in range(steps)]
    return list(zip(levels, [*levels[1:], 0.0], strict=True))


def record(model: VideoActionTransformer, episode: Episode, case: Case, text: Text) -> dict[str, Tensor]:
    """What the runtime computes chunk by chunk, each step a pass over the whole episode."""
    frames, (height, width) = case.chunk * case.chunks, episode.latents.shape[-2:]
    episode = episode.first(frames)
    latents, actions = episode.latents, episode.actions
    free = (torch.arange(frames) > 0)[None].float()  # frame 0 is given and never noised
    no_level = torch.zeros(1, frames)
    used = torch.zeros(actions.shape[-1])
    used[FIRST_CHANNEL : FIRST_CHANNEL + JOINTS] = 1
    found = {}
    for chunk in range(case.chunks):
        now = slice(chunk * case.chunk, (chunk + 1) * case.chunk)
        video = torch.where(free[:, None, :, None, None] > 0, episode.video_noise, latents)
        for step, (sigma, following) in enumerate(sigmas(case.video_steps, 5.0)):
            output, _ = run(model, Pass(latents, video, sigma * free, actions, no_level), actions, case.chunk, text)
            found[f"c{chunk}.video.s{step}.out"] = output[:, now].reshape(1, -1, latents.shape[1])
            moves = (following - sigma) * free[:, None, :, None, None]
            video = video + moves * in_latent_order(output, height, width)
        found[f"c{chunk}.latents"] = video[:, :, now]
        # The actions of the chunk attend the frames just imagined, and all that really happened before.
        clean = latents.clone()
        clean[:, :, now] = video[:, :, now]
        action = episode.action_noise * free[..., None, None]
        for step, (sigma, following) in enumerate(sigmas(case.action_steps, 1.0)):
            _, output = run(model, Pass(clean, latents, no_level, action, sigma * free), actions, case.chunk, text)
            found[f"c{chunk}.action.s{step}.out"] = output[:, now].flatten(1, 2)
            action = action + (following - sigma) * free[..., None, None] * used * output
        found[f"c{chunk}.action.norm"] = action[:, now].flatten(1, 2).mT.unflatten(-1, (case.chunk, -1))[..., None]
        if chunk > 0 and case.video_steps == 1:
            dream = Pass(latents, episode.imagined_noise, torch.ones(1, frames), actions, no_level, True)
            output, _ = run(model, dream, actions, case.chunk, text)
            found[f"c{chunk}.imagined"] = (episode.imagined_noise - in_latent_order(output, height, width))[:, :, now]
    return found


@torch.no_grad()
def main(out: Path) -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    checkpoint = out / "checkpoint"
    write_tokenizer(checkpoint / "tokenizer", [text for _, text in all_instructions()])
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer" / "tokenizer.json"))
    model = VideoActionTransformer(CONFIG)
    encoder = make_encoder(tokenizer.get_vocab_size(), CONFIG.text_dim)
    autoencoder = CausalVae(VAE)
    for module, gain in ((model, 1.0), (encoder, 1.0), (autoencoder, 1.0)):
        randomise(module, gain)
    write_transformer(checkpoint, CONFIG, model.state_dict(), WEIGHTS)
    write_text_encoder(checkpoint, encoder.state_dict())
    save_vae(checkpoint, autoencoder, WEIGHTS)
    autoencoder = load_vae(checkpoint)

    q01, q99 = torch.tensor([-1.2, -0.4, 0.3, 0.1]), torch.tensor([1.1, 0.9, 2.2, 1.7])
    job = job_of(q01, q99, CONFIG.action_dim) | {"height": HEIGHT, "width": WIDTH, "action_per_frame": PER_FRAME}
    (out / "job.json").write_text(json.dumps(job, indent=2) + "\n")

    pictures = make_pictures()
    Image.fromarray(pictures.reshape(-1, WIDTH, 3)).save(out / "pictures.png", optimize=True)
    latents = autoencoder.normalise(autoencoder.encode(to_pixels(pictures[None]))[0])
    physical = q01 + (q99 - q01) * torch.rand(1, FRAMES, PER_FRAME, JOINTS)
    normalise = Normalisation(q01, q99)
    physical[:, 0] = q01 + (q99 - q01 + 1e-6) / 2  # normalised: zero, the padding of the first chunk
    actions = torch.zeros(1, FRAMES, PER_FRAME, CONFIG.action_dim)
    used = slice(FIRST_CHANNEL, FIRST_CHANNEL + JOINTS)
    actions[:, 1:, :, used] = normalise(physical[:, 1:])
    action_noise = torch.randn(actions.shape)
    masked = torch.zeros_like(action_noise)
    masked[..., used] = action_noise[..., used]
    noise, imagined = torch.randn(latents.shape), torch.randn(latents.shape)
    episode = Episode(latents, actions, noise, masked, imagined)

    prompts = Prompts(tokenizer, list(PROMPTS), TEXT_ROWS)
    rows = prompts.encode(encoder)
    tensors = {
        "actions": physical[0].permute(2, 0, 1),  # [joints, FRAMES, PER_FRAME]
        "latents": latents,
        "noise.video": noise,
        "noise.imagined": imagined,
        "noise.action": action_noise.permute(0, 3, 1, 2)[..., None],  # [1, channels, FRAMES, PER_FRAME, 1]
    }
    for i, count in enumerate(prompts.mask.sum(1).tolist()):
        tensors[f"prompt{i}.ids"] = prompts.ids[i, :count].int()
        tensors[f"prompt{i}.rows"] = rows[i, :count]
    for i, case in enumerate(CASES):
        prompt = i % len(PROMPTS)
        text = Text(rows[prompt : prompt + 1], prompts.bias[prompt : prompt + 1])
        tensors |= {f"case{i}.{name}": value for name, value in record(model, episode, case, text).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / "trace.safetensors")
    about = {
        "made_by": "training/goldens/teacher_forcing.py",
        "torch": torch.__version__.split("+")[0],
        "seed": SEED,
        "prompts": prompts.texts,
        "tokens": {text: tokenizer.encode(text).ids for text in (*prompts.texts, *TOKENISED)},
        "cases": [{**vars(case), "prompt": i % len(PROMPTS)} for i, case in enumerate(CASES)],
    }
    (out / "trace.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    for name in ("latents", "case1.c1.video.s0.out", "case1.c1.action.s0.out", "case1.c1.imagined", "prompt0.rows"):
        print(f"{name} {tuple(tensors[name].shape)}: deviation {tensors[name].std():.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
