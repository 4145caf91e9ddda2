"""All stages of the policy's training for a few steps on random latents, and what export writes of them."""

import argparse
import contextlib
import csv
import io
import json
import math
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from premotor_training import export, train_policy  # noqa: E402
from premotor_training.checkpoint import DIFFUSERS_FILE, save_vae  # noqa: E402
from premotor_training.device import pick_device  # noqa: E402
from premotor_training.transformer import TransformerConfig, VideoActionTransformer  # noqa: E402
from premotor_training.vae import CausalVae, VaeConfig  # noqa: E402

CHANNELS, SIDE, FRAMES, EPISODES = 4, 4, 4, 5
TEXTS = {
    "touch": "touch the red button",
    "press-n": "press the blue button two times",
    "push": "push the block into the zone",
    "sequence": "press red, then green; last blue",
}


def write_latents(file: Path, task: str, frames: int) -> None:
    """A file as encode_latents writes it: rows for so many latent frames, the second start one frame shorter."""
    rows = 1 + 8 * (frames - 1)
    names = ("block", "zone") if task == "push" else ("red", "green", "blue")
    goals = [{name: torch.randn(4).tolist() for name in names} for _ in range(EPISODES)]
    clip = lambda count: torch.randn(CHANNELS, count, SIDE, SIDE).half()  # noqa: E731
    window_rows = torch.arange(1, 3) if frames > 1 else torch.arange(0)
    data = {
        "windows": [torch.randn(len(window_rows), CHANNELS, 3, SIDE, SIDE).half() for _ in range(EPISODES)],
        "window_rows": [window_rows] * EPISODES,
        "latents": [[clip(frames), clip(frames - 1)] if frames > 1 else [clip(1)] for _ in range(EPISODES)],
        "actions": [0.5 * torch.randn(rows, 4) for _ in range(EPISODES)],
        "states": [0.5 * torch.randn(rows, 4) for _ in range(EPISODES)],
        "text": [TEXTS[task]] * EPISODES,
        "fields": [{"task_name": task, "goals": one} for one in goals],
    }
    torch.save(data, file)


class TrainPolicyTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.out = Path(folder.name), Path(folder.name) / "out"
        self.files = [self.folder / f"{task}.pt" for task in TEXTS]
        for file in self.files:
            write_latents(file, file.stem, FRAMES)
        for name, task in (("stills-buttons", "touch"), ("stills-block", "push")):
            self.files.append(self.folder / f"{name}.pt")
            write_latents(self.files[-1], task, 1)

    def train(self, stage: str, steps: int, *more: str) -> dict:
        sizes = "--layers 4 --heads 1 --ffn 32 --batch-frames 8 --stills 4 --threads 1".split()
        budget = ["--stage", stage, "--minutes", "5", "--steps", str(steps)]
        with contextlib.redirect_stdout(io.StringIO()):
            train_policy.main([str(self.out), *map(str, self.files), *sizes, *budget, *more])
        return torch.load(self.out / f"{stage}.pt", map_location="cpu", weights_only=True)

    def test_all_stages_and_export(self):
        with self.assertRaisesRegex(SystemExit, "ground.pt, the result of the stage before"):
            self.train("pretrain", 1)
        ground = self.train("ground", 2)
        self.assertEqual((ground["stage"], ground["step"]), ("ground", 2))
        for name, tensor in ground["ema"].items():
            self.assertTrue(torch.isfinite(tensor).all(), name)
        # Goes on where it stopped: the same command does nothing more, one with a larger budget the next step.
        self.assertEqual(self.train("ground", 2)["seconds"], ground["seconds"])
        resumed = self.train("ground", 3)
        self.assertEqual(resumed["step"], 3)
        self.assertGreater(resumed["seconds"], ground["seconds"])
        weight = "blocks.0.attn1.to_q.weight"
        self.assertFalse(torch.equal(resumed["model"][weight], ground["model"][weight]))

        with mock.patch.multiple(train_policy, LOG_EVERY=6, WINDOW_SHARE=0.4):
            pretrain = self.train("pretrain", 6, "--forward-dynamics", "0.3")
        rows = list(csv.DictReader((self.out / "pretrain.csv").read_text().splitlines()))
        self.assertEqual([row["step"] for row in rows], ["6"])
        for name in ("stills", "video", "action", "goals", "next", "stage", "gradient"):
            self.assertTrue(math.isfinite(float(rows[0][name])), name)
        torch.testing.assert_close(pretrain["q01"], ground["q01"], rtol=0, atol=0)
        # Weights move slowly from the average of the stage before.
        self.assertLess((pretrain["model"][weight] - resumed["ema"][f"model.{weight}"]).abs().max().item(), 0.02)
        post = self.train("post", 1)
        self.check_export(post)

    def check_export(self, post: dict) -> None:
        vae, checkpoint = self.folder / "vae", self.folder / "checkpoint"
        save_vae(vae, CausalVae(VaeConfig(base_dim=4, decoder_base_dim=4, z_dim=CHANNELS)))
        for more in ((), ("--last",)):
            with contextlib.redirect_stdout(io.StringIO()):
                export.main([str(self.out), str(vae), str(checkpoint), "--dtype", "f32", *more])
            config = json.loads((checkpoint / "transformer" / "config.json").read_text())
            known = TransformerConfig.__dataclass_fields__
            model = VideoActionTransformer(TransformerConfig(**{n: v for n, v in config.items() if n in known}))
            tensors = load_file(checkpoint / "transformer" / DIFFUSERS_FILE)
            model.load_state_dict(tensors)
            for name, tensor in tensors.items():
                expected = post["model"][name] if more else post["ema"][f"model.{name}"]
                self.assertTrue(torch.equal(tensor, expected), name)
            encoder = load_file(checkpoint / "text_encoder" / "model.safetensors")
            self.assertTrue(all(f"encoder.{name}" in post["ema"] for name in encoder))
        job = json.loads((checkpoint / "job.json").read_text())
        self.assertEqual(job["used_action_channel_ids"], [14, 15, 16, 17])
        torch.testing.assert_close(torch.tensor(job["norm_stat"]["q01"][14:18]), post["q01"], rtol=0, atol=1e-6)
        self.assertTrue((checkpoint / "tokenizer" / "tokenizer.json").exists())

    def test_rate(self):
        """The larger share of the two budgets counts; the rate rises, then falls over it."""
        run = train_policy.Run.__new__(train_policy.Run)
        run.options = argparse.Namespace(minutes=10, steps=200, learning_rate=1.0)
        run.step, run.seconds = 50, 60.0
        self.assertEqual(run._budget_used(), 0.25)
        run.seconds = 480.0
        self.assertEqual(run._budget_used(), 0.8)
        self.assertAlmostEqual(run._rate(0.0), 51 / 80)
        run.step = 150
        self.assertAlmostEqual(run._rate(1.0), train_policy.LAST_RATE)

    def test_device(self):
        self.assertEqual(pick_device("cpu").type, "cpu")
        if torch.cuda.is_available():
            self.assertEqual(pick_device("auto").type, "cuda")
        else:
            self.assertEqual(pick_device("auto").type, "cpu")
            with self.assertRaisesRegex(SystemExit, "expected a GPU that PyTorch can use, found none"):
                pick_device("cuda")


if __name__ == "__main__":
    unittest.main()
