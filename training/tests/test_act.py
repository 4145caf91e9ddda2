"""The small exported policy: words, batches, loss, one step of training, and what export writes of it where ONNX is installed."""

import importlib.util
import io
import json
import math
import sys
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "act")]

import model as act  # noqa: E402
import train as training  # noqa: E402

ROWS, EPISODES = 40, training.VALIDATION_EPISODES + 3
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def demonstrations(random: np.random.Generator) -> training.Demonstrations:
    """Random pictures; joint 0 counts the rows, so that a target tells where it is from."""
    actions = [np.stack([np.array([row, 0, 0, 0]) for row in range(ROWS)]).astype(np.float32) + 100 * e for e in range(EPISODES)]
    pictures = [random.integers(0, 256, (ROWS, 96, 96, 3)).astype(np.uint8) for _ in range(EPISODES)]
    goals = random.normal(size=(EPISODES, 3, 4)).astype(np.float32)
    target = np.arange(EPISODES) % 3
    rows = np.array([(episode, row) for episode in range(EPISODES) for row in range(ROWS - 1)])
    tokens = [training.COLOUR_TOKENS[colour] for colour in target]
    return training.Demonstrations(pictures, [poses - 0.5 for poses in actions], actions, tokens, goals, target, rows)


class ActTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.random = np.random.default_rng(0)

    def batches(self) -> training.Batches:
        data = demonstrations(self.random)
        stills = training.Stills(data.pictures[0], self.random.normal(size=(ROWS, 3, 4)).astype(np.float32))
        return training.Batches(data, stills, training.measure(data), seed=0)

    def test_words(self):
        self.assertEqual(act.tokens_of("Touch the green button"), [1, 2, 4, 6, 0, 0])
        self.assertEqual(len({tuple(one) for one in training.COLOUR_TOKENS}), 3)
        with self.assertRaises(KeyError):
            act.tokens_of("push the block")

    def test_a_chunk_holds_its_end(self):
        poses = np.arange(10, dtype=np.float32)[:, None]
        chunk = training.chunk_at(poses, 7)
        self.assertEqual(chunk[:4, 0].tolist(), [7, 8, 9, 9])
        self.assertEqual(chunk.shape, (act.HORIZON, 1))

    def test_loss_weighs_what_is_executed(self):
        wanted = torch.zeros(1, act.HORIZON, act.JOINTS)
        early, late = wanted.clone(), wanted.clone()
        early[:, 0], late[:, -1] = 1, 1
        ratio = training.chunk_loss(late, wanted) / training.chunk_loss(early, wanted)
        self.assertAlmostEqual(ratio.item(), training.LATER_WEIGHT, places=5)
        self.assertAlmostEqual(training.chunk_loss(wanted + 1, wanted).item(), 1, places=5)

    def test_the_rate_rises_and_falls_to_nothing(self):
        self.assertEqual(training.rate_at(0), 0)
        self.assertAlmostEqual(training.rate_at(training.WARMUP), 1)
        self.assertAlmostEqual(training.rate_at(1), 0)

    def test_rows_keep_their_targets_and_joints_lie_between_measured_and_sent(self):
        batches = self.batches()
        rows = np.array([[1, 5], [2, 7]])
        _, state, _, targets, goals = batches.demonstrations(rows, augment=False)
        first = targets * batches.numbers.action_std + batches.numbers.action_mean
        self.assertTrue(torch.allclose(first[:, 0, 0], torch.tensor([105.0, 207.0]), atol=1e-2))
        self.assertTrue(torch.allclose(goals[0], batches.normal(batches.data.goals[1, 1:2])[0]))
        pose = state * batches.numbers.state_std + batches.numbers.state_mean
        self.assertTrue(torch.allclose(pose[:, 0], torch.tensor([104.5, 206.5]), atol=1e-2))
        for _ in range(20):
            state = batches.demonstrations(rows, augment=True)[1]
            pose = (state * batches.numbers.state_std + batches.numbers.state_mean)[0, 0].item()
            self.assertTrue(104.0 - 0.1 < pose < 104.5 + 0.1, pose)

    def test_held_out_episodes_are_not_learned_from(self):
        batches = self.batches()
        self.assertFalse(set(batches.known[:, 0]) & set(batches.held_out[:, 0]))

    def test_words_choose_what_is_seen_and_a_step_learns(self):
        batches = self.batches()
        model = act.ActTouch()
        pictures, tokens, goals, state, targets = batches.next()
        self.assertEqual(pictures.shape, (training.DEMONSTRATION_BATCH + training.STILL_BATCH, 3, 96, 96))
        red = torch.tensor([training.COLOUR_TOKENS[0]] * 2)
        blue = torch.tensor([training.COLOUR_TOKENS[2]] * 2)
        with torch.no_grad():
            seen, goal = model.look(pictures[:2], red)
            self.assertGreater((seen - model.look(pictures[:2], blue)[0]).abs().max().item(), 1e-4)
            close = (model.look(pictures[:2], red, half=True)[0] - seen).abs().max().item()
            self.assertLess(close, 0.05, "bf16 convolutions move a keypoint by little")
            self.assertTrue((seen[:, : 2 * act.KEYPOINTS].abs() <= 1).all())
            self.assertEqual(model.act(seen, goal, state[:2]).shape, (2, act.HORIZON, act.JOINTS))
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(3):
            _, goal = model.look(pictures[:16], tokens[:16])
            loss = (goal - goals[:16]).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        self.assertLess(losses[-1], losses[0])
        self.assertTrue(all(math.isfinite(one) for one in training.validate(model, batches)))

    @unittest.skipUnless(HAS_ONNX, "EXPORT IS NOT TESTED: onnx, onnxscript or onnxruntime is not installed")
    def test_export(self):
        import export as exporting

        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            run, out = Path(folder) / "run", Path(folder) / "out"
            run.mkdir()
            torch.save(act.ActTouch().state_dict(), run / "model.pt")
            self.batches().numbers.write(run / "numbers.json")
            exporting.export(run, out)
            job = json.loads((out / "job.json").read_text())
            self.assertEqual(sorted(path.name for path in out.iterdir()), ["job.json", "model.onnx"])
        self.assertEqual(job["inputs"]["tokens"]["words"], act.WORDS)
        self.assertEqual([len(job["output"][name]) for name in ("mean", "std", "channels")], [4, 4, 4])


if __name__ == "__main__":
    unittest.main()
