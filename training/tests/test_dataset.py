"""The dataset reader, the clips and a very short training on a small dataset that is made here."""

import io
import json
import math
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from premotor_training import encode_latents, train_vae  # noqa: E402
from premotor_training.checkpoint import load_vae  # noqa: E402
from premotor_training.clips import ClipSampler, open_sources  # noqa: E402
from premotor_training.dataset import (  # noqa: E402
    load_actions,
    load_episodes,
    load_pictures,
    load_tasks,
    video_rows,
)

LENGTHS = [20, 13]
SIDE = 32


def picture_of(episode: int, row: int) -> np.ndarray:
    """A grey table with a red square that moves."""
    picture = np.full((SIDE, SIDE, 3), 120, dtype=np.uint8)
    picture[4 + episode : 10 + episode, row : row + 6] = (200, 30, 30)
    return picture


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def write_dataset(root: Path, lengths: list[int]) -> None:
    features = {"observation.images.cam_front": {"dtype": "image", "shape": [SIDE, SIDE, 3]}}
    info = {
        "fps": 25,
        "chunks_size": 1,  # so that the second episode lies in another chunk
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "features": features,
    }
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    (root / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "Press the red button."}\n')
    lines = []
    for episode, length in enumerate(lengths):
        cells = [{"bytes": png(picture_of(episode, row)), "path": None} for row in range(length)]
        vectors = [[episode, row, 0.5, -1.0] for row in range(length)]
        table = pa.table(
            {
                "observation.images.cam_front": pa.array(cells),
                "observation.state": pa.array(vectors, pa.list_(pa.float32(), 4)),
                "action": pa.array(vectors, pa.list_(pa.float32())),
                "task_index": pa.array([0] * length),
            }
        )
        file = root / info["data_path"].format(episode_chunk=episode, episode_index=episode)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)
        task = "Press the red button."
        lines.append(json.dumps({"episode_index": episode, "tasks": [task], "length": length, "presses": 3}))
    (root / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")


class DatasetTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.root = self.folder / "touch"
        write_dataset(self.root, LENGTHS)

    def test_reader(self):
        self.assertEqual(load_tasks(self.root), ["Press the red button."])
        episodes = load_episodes(self.root)
        self.assertEqual([episode.length for episode in episodes], LENGTHS)
        self.assertEqual(episodes[1].fields["presses"], 3)
        actions = load_actions(self.root)
        self.assertEqual([a.shape for a in actions], [(20, 4), (13, 4)])
        self.assertEqual(actions[1][12].tolist(), [1, 12, 0.5, -1])
        self.assertEqual(actions[0].dtype, np.float32)

    def test_pictures_and_their_cache(self):
        cache = self.root / ".cache" / "cam_front.npy"
        for _ in range(2):
            pictures = load_pictures(self.root, "cam_front")
            self.assertEqual([p.shape for p in pictures], [(n, SIDE, SIDE, 3) for n in LENGTHS])
            np.testing.assert_array_equal(pictures[1][12], picture_of(1, 12))
            self.assertTrue(cache.exists())
        with self.assertRaisesRegex(ValueError, "expected one of the cameras .* found cam_wrist"):
            load_pictures(self.root, "cam_wrist")
        write_dataset(self.root, [5, 9])
        cache.touch()
        with self.assertRaisesRegex(ValueError, "expected 14 pictures, found 33"):
            load_pictures(self.root, "cam_front")

    def test_video_rows(self):
        self.assertEqual(video_rows(20).tolist(), [0, 2, 4, 6, 8, 10, 12, 14, 16])
        self.assertEqual(video_rows(17).tolist(), [0, 2, 4, 6, 8, 10, 12, 14, 16])
        self.assertEqual(video_rows(17, first=1).tolist(), [1, 3, 5, 7, 9])
        self.assertEqual(video_rows(1).tolist(), [0])

    def test_windows(self):
        rows = encode_latents.draw_window_rows([137, 57, 17, 1], 9)
        self.assertEqual([len(one) for one in rows], [8, 3, 0, 0])
        self.assertTrue(all(one.min() >= 1 and one.max() + 16 < length for one, length in zip(rows, (137, 57))))
        again = encode_latents.draw_window_rows([137, 57, 17, 1], 9)
        self.assertTrue(all((a == b).all() for a, b in zip(rows, again)))

    def test_clips(self):
        sampler = ClipSampler(open_sources([str(self.root)], ["cam_front"]), seed=0)
        pixels, weights = sampler.draw(6, 5, 16)
        self.assertEqual(pixels.shape, (6, 3, 5, 16, 16))
        self.assertEqual(weights.shape, (6, 1, 5, 16, 16))
        self.assertEqual(sorted(weights[:, :, 0].unique().tolist()), [2.5, 12.5])
        self.assertEqual(sorted(weights[:, :, 1:].unique().tolist()), [1, 5])
        red = pixels[:, :1] > 0.3
        self.assertTrue(torch.equal(weights > 4, red | (weights == 12.5)))
        again = ClipSampler(sampler.sources, seed=0).draw(6, 5, 16)[0]
        self.assertTrue(torch.equal(again, pixels))

    def test_a_short_training_and_what_follows_it(self):
        out, structure = self.folder / "out", ["--base-dim", "4", "--decoder-base-dim", "4", "--z-dim", "3"]
        command = [str(out), str(self.root), "--side", "16", "--steps", "3", *structure]
        train_vae.main(command)
        first = torch.load(out / "vae_training.pt", weights_only=True)
        self.assertEqual(first["step"], 3)
        command[command.index("3")] = "5"
        train_vae.main(command)
        self.assertEqual(torch.load(out / "vae_training.pt", weights_only=True)["step"], 5)
        for name in ("vae/config.json", "vae_log.csv", "vae_pictures.png", "vae_report.txt"):
            self.assertTrue((out / name).exists(), name)

        encode_latents.main([str(out), str(out / "latents"), str(self.root)])
        encoded = torch.load(out / "latents" / "touch.pt", weights_only=True)
        vae = load_vae(out)
        shapes = [[tuple(clip.shape) for clip in clips] for clips in encoded["latents"]]
        self.assertEqual(shapes, [[(3, 3, 2, 2)] * 2, [(3, 2, 2, 2)] * 2])
        # A clip that was encoded beside a longer one is as if encoded alone.
        pixels = torch.from_numpy(load_pictures(self.root, "cam_front")[1][video_rows(13, 1)])
        with torch.no_grad():
            alone = vae.normalise(vae.encode(pixels.permute(3, 0, 1, 2)[None].float() / 127.5 - 1)[0])[0]
        self.assertLess((alone - encoded["latents"][1][1].float()).abs().max().item(), 1e-2)
        # A window is a clip of its own: its first picture knows no earlier one.
        self.assertEqual([len(rows) for rows in encoded["window_rows"]], [1, 0])
        first = encoded["window_rows"][0].item()
        pixels = torch.from_numpy(load_pictures(self.root, "cam_front")[0][first : first + 17 : 2])
        with torch.no_grad():
            alone = vae.normalise(vae.encode(pixels.permute(3, 0, 1, 2)[None].float() / 127.5 - 1)[0])[0]
        self.assertLess((alone - encoded["windows"][0][0].float()).abs().max().item(), 1e-2)
        deviation = torch.cat([clip.flatten() for clips in encoded["latents"] for clip in clips]).float().std().item()
        self.assertLess(abs(math.log(deviation)), 0.4)
        self.assertEqual(encoded["text"], ["Press the red button."] * 2)
        self.assertEqual(encoded["fields"][0]["presses"], 3)


if __name__ == "__main__":
    unittest.main()
