/** The bench script at tiny size, so that it cannot rot: what it writes, what it refuses, and that xxl is UMT5-XXL. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { checkpointOptions } from '../../bench/synthetic-checkpoint.js';
import { elementsOf } from '../../src/checkpoint/dtypes.js';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { planUntrained } from '../../src/checkpoint/untrained.js';

const script = (args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'bench/synthetic-checkpoint.ts', ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
};

t.test('the script writes shards in bf16 and refuses a folder in use', async (t) => {
  const dir = join(t.testdir(), 'ckpt');
  const written = script([dir, '--size', 'tiny', '--seed', '5']);
  t.equal(written.status, 0, written.stderr);
  t.match(written.stdout, /ckpt: .* in .* s \(\d+ MB\/s/);
  const shards = readdirSync(join(dir, 'transformer')).filter((name) => name.endsWith('.safetensors'));
  t.equal(shards.length, 3);
  const index = JSON.parse(readFileSync(join(dir, 'transformer', 'diffusion_pytorch_model.safetensors.index.json'), 'utf8')) as {
    weight_map: Record<string, string>;
  };
  t.ok(index.weight_map['patch_embedding.weight'], 'the vestigial tensors are there, as in the released files');
  const file = SafetensorsFile.open(join(dir, 'transformer', shards[0] ?? ''));
  t.ok([...file.tensors.values()].every(({ dtype }) => dtype === 'BF16'));
  file.close();
  t.match(script([dir, '--size', 'tiny']), { status: 1, stderr: /error OUT_NOT_EMPTY/ });
});

t.test('the whole text encoder is UMT5-XXL', async (t) => {
  const plan = planUntrained(checkpointOptions({ textEncoder: 'xxl', vae: 'bf16', seed: 0, size: 'released', force: false }));
  const count = plan.tensors.text_encoder.reduce((sum, { shape }) => sum + elementsOf(shape), 0);
  // 5.68 B parameters: 1.05 B embeddings, 24 layers of 4 x 4096^2 attention and 3 x 4096 x 10240 feed-forward weights.
  t.ok(Math.abs(count / 5.68e9 - 1) < 0.002, `${count}`);
  t.equal(plan.configs.textEncoder.vocab_size, 256384);
  t.equal(plan.configs.transformer.text_dim, 4096);
});
