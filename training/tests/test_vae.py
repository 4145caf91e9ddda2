"""The autoencoder against the reference's recorded streams (test/goldens), and its checkpoint folder against itself."""

import sys
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from premotor_training.checkpoint import load_vae, save_vae  # noqa: E402
from premotor_training.vae import CausalVae, VaeConfig, fold_patches, unfold_patches  # noqa: E402

GOLDENS = Path(__file__).parents[2] / "test" / "goldens"
# Mistakes in the structure give 7e-3 and more (test/goldens/README.md); rounding gives 1e-6.
LIMIT = 1e-4


def relative_rms(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).square().mean() / expected.square().mean()).sqrt().item()


class VaeTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def check(self, found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        self.assertEqual(found.shape, expected.shape, what)
        self.assertLess(relative_rms(found, expected), LIMIT, what)

    @torch.no_grad()
    def test_unit_goldens(self):
        vae = load_vae(GOLDENS / "units" / "vae" / "checkpoint")
        units = load_file(GOLDENS / "units" / "vae" / "vae.safetensors")
        pixels = units["frames"].permute(0, 4, 1, 2, 3).float() / 255 * 2 - 1  # [2, 3, 21, 32, 48]
        streamed = [units[f"enc.chunk{i}.moments"] for i in range(4)]
        mean, logvar = vae.encode(pixels)
        found = torch.cat([mean, logvar], dim=1)  # [2, 2 z, 6, 2, 3]
        expected = torch.cat(streamed, dim=2)
        self.check(found, expected, "moments")
        self.check(vae.normalise(mean[:, :, 1:2]), units["enc.chunk1.normalized"], "normalised latents")
        latents = vae.denormalise(units["dec.normalized_latent"])
        self.check(latents, units["dec.latent"], "de-normalised latents")
        self.check(vae.decode(latents).clamp(-1, 1), units["dec.video"], "decoded video")

    @torch.no_grad()
    def test_other_structures(self):
        folders = sorted((GOLDENS / "structures").glob("vae_*"))
        self.assertEqual(len(folders), 4)
        for folder in folders:
            with self.subTest(folder.name):
                vae = load_vae(folder)
                io = load_file(folder / "io.safetensors")
                expected = torch.cat([io[f"moments{i}"] for i in range(len(io["chunks"]))], dim=2)
                self.check(torch.cat(vae.encode(io["pixels"]), dim=1), expected, "moments")
                self.check(vae.decode(io["latents"]).clamp(-1, 1), io["video"], "decoded video")

    @torch.no_grad()
    def test_save_and_load(self):
        vae = CausalVae(VaeConfig(base_dim=4, decoder_base_dim=4, z_dim=3, latents_mean=[0.5, 0, -1],
                                  latents_std=[1.0, 2.0, 0.5])).eval()
        pixels = torch.rand(2, 3, 5, 16, 32) * 2 - 1
        with tempfile.TemporaryDirectory() as folder:
            save_vae(folder, vae)
            again = load_vae(folder)
            save_vae(folder, vae, torch.bfloat16)
            half = load_vae(folder)
        self.assertEqual(again.config, vae.config)
        mean = vae.encode(pixels)[0]
        self.assertEqual(mean.shape, (2, 3, 2, 1, 2))
        self.assertLess(relative_rms(again.encode(pixels)[0], mean), 1e-6)
        self.assertLess(relative_rms(half.encode(pixels)[0], mean), 3e-2)

    def test_patches(self):
        pixels = torch.rand(2, 3, 4, 6, 8)
        folded = fold_patches(pixels, 2)
        self.assertTrue(torch.equal(unfold_patches(folded, 2), pixels))
        # Channel (c * 2 + column offset) * 2 + row offset.
        self.assertTrue(torch.equal(folded[:, 6, :, 1, 2], pixels[:, 1, :, 2, 5]))

    def test_refuses_a_clip_of_a_wrong_length(self):
        with self.assertRaisesRegex(ValueError, "1 \\+ n \\* 4 frames, not 4"):
            CausalVae(VaeConfig()).encode(torch.zeros(1, 3, 4, 16, 16))


if __name__ == "__main__":
    unittest.main()
