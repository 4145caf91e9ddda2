"""The training pass: masks against a slow definition and by gradients, noise levels, channel orders, devices."""

import sys
import unittest
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from premotor_training.teacher_forcing import (  # noqa: E402
    FULL_TIME,
    NoiseOptions,
    Shape,
    Text,
    allowed_pairs,
    draw_levels,
    forward,
    forward_stills,
    make_streams,
    shifted,
)
from premotor_training.transformer import (  # noqa: E402
    TransformerConfig,
    VideoActionTransformer,
    output_order,
    patchify,
)

CONFIG = TransformerConfig(2, 24, 4, 4, 30, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2)
ROWS, COLUMNS, PER_FRAME = 1, 2, 3
SHAPES = [(frames, chunk, dynamics) for frames, chunk in ((5, 2), (4, 1), (4, 4), (7, 3)) for dynamics in (False, True)]


def tokens_of(frames: int) -> list[tuple[bool, bool, int]]:
    """(noisy, action, frame) of every token, in the order of the pass."""
    kinds = [(noisy, action) for noisy in (False, True) for action in (False, True)]
    counts = {False: ROWS * COLUMNS, True: PER_FRAME}
    return [(n, a, frame) for n, a in kinds for frame in range(frames) for _ in range(counts[a])]


def sees(query: tuple, key: tuple, chunk: int, dynamics: bool) -> bool:
    """docs/MODEL.md, section 9, and for the forward-dynamics form section 7, token by token."""
    (q_noisy, q_action, q_frame), (k_noisy, k_action, k_frame) = query, key
    q_chunk, k_chunk = q_frame // chunk, k_frame // chunk
    q_id, k_id = 2 * q_chunk + q_action, 2 * k_chunk + k_action
    if not q_noisy:
        return not k_noisy and k_id <= q_id
    if dynamics:
        # The past really happened; of the chunk itself the actions are known, and the video that they cause is not.
        if not k_noisy:
            return k_chunk < q_chunk
        return k_chunk == q_chunk and (k_action == q_action or (k_action and not q_action))
    return k_id == q_id if k_noisy else k_id < q_id


def make_model() -> VideoActionTransformer:
    model = VideoActionTransformer(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():  # zeros would hide the text
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def make_batch(frames: int, chunk: int, dynamics: bool, batch: int = 2) -> tuple:
    latents = torch.randn(batch, 4, frames, 2 * ROWS, 2 * COLUMNS)
    used = torch.zeros(30)
    used[14:18] = 1
    actions = torch.randn(batch, frames, PER_FRAME, 30) * used
    actions[:, 0] = 0
    levels = draw_levels(batch, frames, chunk, dynamics, NoiseOptions())
    text = Text(torch.randn(batch, 5, 16), torch.zeros(batch, 5))
    return make_streams(latents, actions, used, levels), Shape(frames, chunk, ROWS, COLUMNS, PER_FRAME, dynamics), text


class MaskTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        torch.set_num_threads(1)

    def test_against_the_definition(self):
        for frames, chunk, dynamics in SHAPES:
            tokens = tokens_of(frames)
            expected = torch.tensor([[sees(q, k, chunk, dynamics) for k in tokens] for q in tokens])
            found = allowed_pairs(frames, chunk, ROWS * COLUMNS, PER_FRAME, dynamics)
            self.assertTrue(torch.equal(found, expected), (frames, chunk, dynamics))

    def test_nothing_flows_from_what_is_hidden(self):
        """Two blocks: what a token depends on is what it sees, and what that saw."""
        for frames, chunk, dynamics in ((3, 2, False), (5, 2, True)):
            model = make_model()
            streams, shape, text = make_batch(frames, chunk, dynamics, batch=1)
            runs = [run.requires_grad_() for run in streams.runs]
            output = forward(model, streams, shape, text, tap=1)
            once = allowed_pairs(frames, chunk, ROWS * COLUMNS, PER_FRAME, dynamics).float()
            reached = (once @ once) > 0
            outputs = torch.cat([output.video.flatten(1, 2).sum(-1), output.action.flatten(1, 2).sum(-1)], dim=1)[0]
            first = len(once) // 2
            for at, value in enumerate(outputs):
                gradients = torch.autograd.grad(value, runs, retain_graph=True, allow_unused=True)
                joined = [torch.zeros_like(r) if g is None else g for g, r in zip(gradients, runs, strict=True)]
                moved = torch.cat([g.flatten(1, 2).abs().sum(-1) for g in joined], dim=1)[0] > 0
                self.assertTrue(torch.equal(moved, reached[first + at]), (frames, chunk, dynamics, at))

    def test_stills_are_an_episode_s_given_frame(self):
        model = make_model()
        streams, _, text = make_batch(1, 1, False)
        latents = torch.randn(2, 4, 2 * ROWS, 2 * COLUMNS)
        streams.runs[0], streams.runs[1] = patchify(latents[:, :, None]), torch.zeros_like(streams.runs[1])
        output = forward(model, streams, Shape(1, 1, ROWS, COLUMNS, PER_FRAME), text, tap=2)
        middle = forward_stills(model, latents, PER_FRAME, text, tap=2)
        for found, expected in zip(middle, output.middle[:2], strict=True):
            torch.testing.assert_close(found, expected)

    def test_padded_rows_count_as_many(self):
        """One zero row with the bias log(n) is n zero rows."""
        model = make_model()
        streams, shape, _ = make_batch(3, 2, False)
        rows = torch.randn(2, 3, 16)
        many = Text(torch.cat([rows, torch.zeros(2, 7, 16)], dim=1), torch.zeros(2, 10))
        bias = torch.cat([torch.zeros(2, 3), torch.full((2, 1), 7.0).log()], dim=1)
        once = Text(torch.cat([rows, torch.zeros(2, 1, 16)], dim=1), bias)
        expected, found = (forward(model, streams, shape, text, tap=1) for text in (many, once))
        torch.testing.assert_close(found.video, expected.video, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.action, expected.action, rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_bfloat16_is_near(self):
        """Autocast, as trainings run: the mask is as good there, the rest is rounding."""
        model = make_model()
        streams, shape, text = make_batch(6, 2, False)
        exact = forward(model, streams, shape, text, tap=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = forward(model, streams, shape, text, tap=1)
        for found, expected in ((rounded.video, exact.video), (rounded.action, exact.action)):
            error = (found.float() - expected).square().mean() / expected.square().mean()
            self.assertLess(error.sqrt().item(), 2e-2)

    def test_all_tensors_are_on_the_device_of_the_inputs(self):
        """On the device that computes nothing: a tensor made elsewhere would be an error there as on a GPU."""
        with torch.device("meta"):
            model = VideoActionTransformer(CONFIG)
        latents, used = torch.empty(2, 4, 3, 2, 4, device="meta"), torch.empty(30, device="meta")
        actions = torch.empty(2, 3, PER_FRAME, 30, device="meta")
        levels = draw_levels(2, 3, 2, False, NoiseOptions()).to(torch.device("meta"))
        text = Text(torch.empty(2, 5, 16, device="meta"), torch.empty(2, 5, device="meta"))
        streams = make_streams(latents, actions, used, levels)
        output = forward(model, streams, Shape(3, 2, ROWS, COLUMNS, PER_FRAME), text, tap=1)
        still = forward_stills(model, latents[:, :, 0], PER_FRAME, text, tap=1)
        for tensor in (output.video, output.action, *output.middle, *still, streams.video_target):
            self.assertEqual(tensor.device.type, "meta")


class LevelsTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_one_level_per_chunk_and_none_for_frame_0(self):
        for chunk in (1, 2, 3, 4):
            options = NoiseOptions()
            levels = draw_levels(2000, 7, chunk, False, options)
            for stream in (levels.history, levels.video, levels.action):
                self.assertTrue((stream[:, 0] == 0).all())
                for frame in range(1, 7):
                    same = stream[:, frame] == stream[:, frame - 1]
                    if frame % chunk != 0 and frame > 1:
                        self.assertTrue(same.all())
                    elif frame % chunk == 0 and stream is not levels.history:
                        self.assertFalse(same.any())
            self.assertAlmostEqual((levels.history[:, -1] > 0).float().mean().item(), options.history_share, delta=0.05)
            self.assertLessEqual(levels.history.max().item(), options.history_max)
            self.assertLess(levels.video.max().item(), 1)

    def test_forward_dynamics_gives_the_actions_clean(self):
        self.assertEqual(draw_levels(4, 5, 2, True, NoiseOptions()).action.abs().max().item(), 0)

    def test_shift(self):
        """The sampler's levels for 5 steps at shift 5, docs/MODEL.md section 4."""
        levels = shifted(torch.tensor([1, 0.8, 0.6, 0.4, 0.2, 0]), 5)
        torch.testing.assert_close(levels, torch.tensor([1, 0.9524, 0.8824, 0.7692, 0.5556, 0]), rtol=0, atol=5e-5)
        u = torch.rand(9)
        torch.testing.assert_close(shifted(u, 1.0), u)

    def test_streams(self):
        latents, used = torch.randn(2, 4, 5, 2, 4), (torch.arange(30) % 3 == 0).float()
        actions = torch.randn(2, 5, PER_FRAME, 30) * used
        levels = draw_levels(2, 5, 2, False, NoiseOptions())
        levels.history[0] = 0
        streams = make_streams(latents, actions, used, levels)
        clean, given, noisy_video, noisy_actions = streams.runs
        self.assertTrue(torch.equal(clean[0], patchify(latents)[0]))
        self.assertTrue(torch.equal(given, actions))
        self.assertTrue(torch.equal(noisy_video[:, 0], patchify(latents)[:, 0]))
        # noisy - level * (noise - data) is the data again; the target is in the output's order.
        level = levels.video[..., None, None]
        found = output_order(noisy_video) - level * streams.video_target
        torch.testing.assert_close(found, output_order(patchify(latents)), rtol=1e-4, atol=1e-5)
        found = noisy_actions - levels.action[..., None, None] * streams.action_target
        torch.testing.assert_close(found, actions, rtol=1e-4, atol=1e-5)
        self.assertEqual(noisy_actions[..., used == 0].abs().max().item(), 0)
        torch.testing.assert_close(streams.timesteps[2], FULL_TIME * levels.video)
        self.assertEqual(streams.timesteps[1].abs().max().item(), 0)


class OrderTest(unittest.TestCase):
    def test_channels(self):
        """Slow definitions of docs/MODEL.md section 3: in (c p1 p2), out (p1 p2 c)."""
        latents = torch.arange(2 * 3 * 2 * 4 * 6).float().reshape(2, 3, 2, 4, 6)
        into, out = patchify(latents), output_order(patchify(latents))
        self.assertEqual(into.shape, (2, 2, 6, 12))
        for b, c, f, y, x in torch.cartesian_prod(*map(torch.arange, latents.shape)).tolist():
            token, row, column = y // 2 * 3 + x // 2, y % 2, x % 2
            self.assertEqual(into[b, f, token, (c * 2 + row) * 2 + column], latents[b, c, f, y, x])
            self.assertEqual(out[b, f, token, (row * 2 + column) * 3 + c], latents[b, c, f, y, x])


if __name__ == "__main__":
    unittest.main()
