"""Labels of demonstrations, targets of stills, the tokenizer and the fixed prompts."""

import json
import math
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from premotor_training import auxiliary, episodes  # noqa: E402
from premotor_training.text import Prompts, make_encoder, write_tokenizer  # noqa: E402

PARKED, DOWN, HALF = 0.15, 0.030, 0.0358  # heights: far up, pressed, between the two thresholds
HOME = [0.0, 0.0911, 2.1062, 0.9442]
GOALS = {"red": [0.1, 0.2, 0.3, 0.4], "green": [-0.5, 0.6, 0.7, 0.8], "blue": [0.9, 1.0, 1.1, 1.2]}
IDENTITY = episodes.Normalisation(torch.full((4,), -1.0), torch.full((4,), 1 - 1e-6))


def pose_at(height: float) -> list[float]:
    """A joint pose with the tip's centre at a height: the upper arm level, forearm and hand in one line."""
    fore = math.acos((height - 0.14) / (0.22 + 0.10))
    return [0.0, math.pi / 2, fore - math.pi / 2, 0.0]


class LabelsTest(unittest.TestCase):
    def test_height(self):
        straight_up = episodes.tip_height(torch.tensor([[0.3, 0.0, 0.0, 0.0]]))
        self.assertAlmostEqual(straight_up.item(), 0.14 + 0.24 + 0.22 + 0.10, places=6)
        self.assertAlmostEqual(episodes.tip_height(torch.tensor(pose_at(0.07))).item(), 0.07, places=5)
        # An episode begins 0.15 m above the table with the hand down (docs/SIM.md).
        self.assertAlmostEqual(episodes.tip_height(torch.tensor(HOME)).item(), 0.15, places=3)

    def test_presses_are_counted_once_each(self):
        heights = [PARKED, HALF, DOWN, DOWN, HALF, DOWN, HALF, PARKED, DOWN, PARKED]
        found = episodes.count_presses(torch.tensor([heights, [PARKED] * len(heights)]))
        self.assertEqual(found.tolist(), [[0, 0, 1, 1, 1, 1, 1, 1, 2, 2], [0] * len(heights)])

    def test_named_goals(self):
        named = episodes.named_goals
        self.assertEqual(named("sequence", "press blue, then red; last green"), ["blue", "red", "green"])
        self.assertEqual(named("touch", "touch the green button"), ["green"] * 3)
        self.assertEqual(named("press-n", "press the red button four times"), ["red"] * 3)
        self.assertEqual(named("push", "push the block into the zone"), ["block", "zone", "zone"])

    def test_current_goal(self):
        home, goals = torch.tensor([9.0, 9, 9, 9]), torch.arange(24.0).reshape(2, 3, 4)
        presses = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])
        texts = ["press the red button three times", "press the red button two times"]
        current, known = episodes.labels_of("press-n", texts, goals, home, presses)
        self.assertTrue(torch.equal(current[0], torch.stack([goals[0, 0]] * 3 + [home])))
        self.assertTrue(torch.equal(current[1], torch.stack([goals[1, 0]] * 3 + [home])))
        self.assertTrue(known.all())
        # A sequence ends over its last button.
        current, _ = episodes.labels_of("sequence", ["", ""], goals, home, presses)
        self.assertTrue(torch.equal(current[0], goals[0, [0, 1, 2, 2]]))
        current, known = episodes.labels_of("push", ["", ""], goals, home, presses)
        self.assertTrue(torch.equal(current[1], goals[1, [0, 0, 0, 0]]))
        self.assertEqual(known[0].tolist(), [True, True, True, False])

    def test_load(self):
        """Two starts of an episode of three latent frames, with a press in its last part."""
        rows = torch.tensor([pose_at(PARKED)] * 12 + [pose_at(DOWN)] * 2 + [pose_at(PARKED)] * 3)  # [17, 4]
        rows[:, 0] = torch.arange(17) / 17  # tells the rows apart
        latents = torch.randn(5, 3, 2, 2).half()
        data = {
            "latents": [[latents, latents[:, :2]]],
            "windows": [torch.stack([latents[:, :2], latents[:, 1:]])],
            "window_rows": [torch.tensor([3, 9])],
            "actions": [rows],
            "states": [torch.tensor([HOME] * 17)],
            "text": ["press the blue button two times"],
            "fields": [{"task_name": "press-n", "goals": GOALS}],
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "press-n.pt"
            torch.save(data, file)
            even, odd = episodes.load(file, IDENTITY)
            windows = episodes.load_windows(file, IDENTITY)
            measured = episodes.measure_normalisation([file])
            data |= {"windows": [torch.empty(0)], "window_rows": [torch.tensor([], dtype=torch.long)]}
            torch.save(data, file)
            self.assertIsNone(episodes.load_windows(file, IDENTITY))
        self.assertEqual([one.actions.shape for one in (even, odd)], [(1, 3, 8, 4), (1, 2, 8, 4)])
        for first, one in enumerate((even, odd)):
            self.assertEqual(one.actions[:, 0].abs().max().item(), 0)
            for frame in range(1, one.actions.shape[1]):
                # Frame f shows row first + 8 f; its actions lead there from the frame before.
                begin = first + 8 * (frame - 1)
                torch.testing.assert_close(one.actions[0, frame], rows[begin : begin + 8])
        self.assertEqual(even.stage.tolist(), [[0, 0, 1]])
        self.assertEqual(odd.stage.tolist(), [[0, 0]])
        self.assertEqual(windows.actions.shape, (2, 2, 8, 4))
        for window, first in enumerate((3, 9)):
            self.assertEqual(windows.actions[window, 0].abs().max().item(), 0)
            torch.testing.assert_close(windows.actions[window, 1, :8], rows[first : first + 8])
        self.assertTrue(torch.equal(windows.latents[1], latents[:, 1:]))
        self.assertTrue((windows.stage == episodes.UNKNOWN_STAGE).all() and not windows.current_known.any())
        torch.testing.assert_close(even.goals[0], torch.tensor([GOALS["blue"]] * 3))
        torch.testing.assert_close(even.current[0], torch.tensor([GOALS["blue"]] * 3))
        moved = [0, 2]  # the other joints stand still
        for end in (rows.min(0).values, rows.max(0).values):
            torch.testing.assert_close(measured(end)[moved].abs(), torch.full((2,), 1 / 1.02), rtol=1e-3, atol=0)

    def test_what_windows_do_not_know_costs_nothing(self):
        torch.manual_seed(0)
        heads, tokens = auxiliary.Heads(8, 4), torch.randn(2, 3, 5, 8)
        current, known = torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
        stage = torch.full((2, 3), episodes.UNKNOWN_STAGE)
        losses = auxiliary.progress_loss(heads, tokens, current, known, stage)
        self.assertEqual([loss.item() for loss in losses], [0, 0])
        stage[1, 2], known[1, 2] = 3, True
        alone = auxiliary.progress_loss(heads, tokens[1:, 2:], current[1:, 2:], known[1:, 2:], stage[1:, 2:])
        for loss, expected in zip(auxiliary.progress_loss(heads, tokens, current, known, stage), alone, strict=True):
            torch.testing.assert_close(loss, expected)

    def test_normalisation(self):
        normalise = episodes.Normalisation(torch.tensor([-2.0]), torch.tensor([4.0]))
        found = normalise(torch.tensor([[-2.0], [1.0], [4.0]])).flatten()
        torch.testing.assert_close(found, torch.tensor([-1.0, 0, 1]))


class StillsTest(unittest.TestCase):
    def test_targets(self):
        goals = {name: torch.tensor([value, value]) for name, value in GOALS.items()}
        goals["red"][1] += 5
        instructions = [["green"] * 3, ["blue", "red", "green"]]
        found = auxiliary.still_targets(goals, torch.tensor([1, 1]), instructions)
        expected = torch.tensor([[GOALS["blue"], GOALS["red"], GOALS["green"]]] * 2)
        expected[1, 1] += 5
        torch.testing.assert_close(found, expected)
        found = auxiliary.still_targets(goals, torch.tensor([0, 1]), instructions)
        torch.testing.assert_close(found[0], torch.tensor([GOALS["green"]] * 3))

    def test_every_instruction_names_goals(self):
        instructions = auxiliary.all_instructions()
        self.assertEqual(len(set(instructions)), 3 + 9 + 6 + 1)
        for task, text in instructions:
            self.assertEqual(len(episodes.named_goals(task, text)), episodes.GOALS)


class TextTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        write_tokenizer(self.folder, ["touch the red button", "press red, then blue"])
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def test_words_are_tokens(self):
        tokens = self.tokenizer.encode("touch red, then touch").tokens
        self.assertEqual(tokens, ["\u2581touch", "\u2581red,", "\u2581then", "\u2581touch", "</s>"])
        self.assertEqual(self.tokenizer.encode("").ids, [1])
        spelt = self.tokenizer.encode("redder").tokens
        self.assertEqual("".join(spelt), "\u2581redder</s>")
        self.assertEqual(json.loads((self.folder / "tokenizer_config.json").read_text())["pad_token"], "<pad>")

    @torch.no_grad()
    def test_prompts(self):
        prompts = Prompts(self.tokenizer, ["touch the red button", "press red", "touch the red button"], rows=12)
        self.assertEqual(prompts.texts, ["touch the red button", "press red", ""])
        encoder = make_encoder(self.tokenizer.get_vocab_size(), 16).eval()
        rows = prompts.encode(encoder)
        self.assertEqual(rows.shape, (3, 6, 16))
        # A prompt beside longer ones is as if encoded alone; behind it are zeros, hidden but for the last row.
        ids = torch.tensor([self.tokenizer.encode("press red").ids])
        alone = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        torch.testing.assert_close(rows[1, : len(alone)], alone)
        self.assertEqual(rows[1, len(alone) :].abs().max().item(), 0)
        self.assertEqual(prompts.bias[1].exp().round(decimals=4).tolist(), [1, 1, 1, 0, 0, 9])
        with self.assertRaisesRegex(ValueError, "shorter than max_sequence_length 5, found 5 tokens"):
            Prompts(self.tokenizer, ["touch the red button"], rows=5)


if __name__ == "__main__":
    unittest.main()
