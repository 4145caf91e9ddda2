/** The untrained checkpoint: names and shapes equal the golden checkpoints', the released size counts what is published, values are reproducible. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import t from 'tap';
import { bytesOf, elementsOf, type StoredDtype } from '../../src/checkpoint/dtypes.js';
import type { TextEncoderConfig, TransformerConfig, VaeConfig } from '../../src/checkpoint/layout.js';
import { textEncoderTensors, transformerTensors, vaeTensors } from '../../src/checkpoint/layout.js';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { planUntrained, UNTRAINED_MARKER, writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { scanValues } from '../../src/checkpoint/values.js';
import { type TensorPlan, writeSafetensors } from '../../src/checkpoint/writer.js';

const goldens = process.env['PREMOTOR_GOLDENS'] ?? 'test/goldens';
const readJson = <T>(path: string): T => JSON.parse(readFileSync(path, 'utf8')) as T;

/** Names and shapes of all safetensors files of a folder. */
function storedShapes(folder: string): Record<string, readonly number[]> {
  const shapes: Record<string, readonly number[]> = {};
  for (const name of readdirSync(folder).filter((name) => name.endsWith('.safetensors'))) {
    const file = SafetensorsFile.open(join(folder, name));
    for (const [tensor, { shape }] of file.tensors) shapes[tensor] = shape;
    file.close();
  }
  return shapes;
}

const plannedShapes = (tensors: readonly { name: string; shape: readonly number[] }[]): Record<string, readonly number[]> =>
  Object.fromEntries(tensors.map(({ name, shape }) => [name, shape]));

t.test('the layout is that of the golden checkpoints', async (t) => {
  for (const golden of ['franka_tiny', 'robotwin_tiny', 'nocfg_partial', 'bf16', 'i2va_tiny']) {
    const folder = join(goldens, golden, 'checkpoint');
    const transformer = readJson<TransformerConfig>(join(folder, 'transformer', 'config.json'));
    t.same(plannedShapes(transformerTensors(transformer, 'F32')), storedShapes(join(folder, 'transformer')), `${golden} transformer`);
    const vae = readJson<VaeConfig>(join(folder, 'vae', 'config.json'));
    t.same(plannedShapes(vaeTensors(vae, 'F32')), storedShapes(join(folder, 'vae')), `${golden} vae`);
    const text = readJson<TextEncoderConfig>(join(folder, 'text_encoder', 'config.json'));
    t.same(plannedShapes(textEncoderTensors(text, 'F32')), storedShapes(join(folder, 'text_encoder')), `${golden} text encoder`);
  }
  const vae = readJson<VaeConfig>(join(goldens, 'units', 'vae', 'checkpoint', 'config.json'));
  t.same(plannedShapes(vaeTensors(vae, 'F32')), storedShapes(join(goldens, 'units', 'vae', 'checkpoint')), 'unit vae');
});

t.test('the released size has the published count of tensors and parameters', async (t) => {
  const { tensors } = planUntrained({ size: 'released', dtype: 'bf16' });
  t.equal(tensors.transformer.length, 841);
  t.equal(
    tensors.transformer.reduce((sum, tensor) => sum + elementsOf(tensor.shape), 0),
    5_089_465_566,
  );
});

t.test('a folder is written whole, twice the same, and another seed differs', async (t) => {
  const dir = t.testdir();
  const write = (name: string, seed: number): Promise<void> => writeUntrainedCheckpoint(join(dir, name), { seed });
  await Promise.all([write('a', 7), write('b', 7), write('c', 8)]);
  const files = readdirSync(join(dir, 'a'), { recursive: true, encoding: 'utf8' }).sort();
  t.same(files, [
    UNTRAINED_MARKER,
    'text_encoder',
    'text_encoder/config.json',
    'text_encoder/model.safetensors',
    'tokenizer',
    'tokenizer/special_tokens_map.json',
    'tokenizer/tokenizer.json',
    'tokenizer/tokenizer_config.json',
    'transformer',
    'transformer/config.json',
    'transformer/diffusion_pytorch_model.safetensors',
    'vae',
    'vae/config.json',
    'vae/diffusion_pytorch_model.safetensors',
  ]);
  const weights = (name: string): Buffer => readFileSync(join(dir, name, 'transformer', 'diffusion_pytorch_model.safetensors'));
  t.ok(weights('a').equals(weights('b')), 'same seed, same bytes');
  t.notOk(weights('a').equals(weights('c')), 'another seed, other bytes');
  t.match(readJson(join(dir, 'a', UNTRAINED_MARKER)), { seed: 7, size: 'tiny' });
});

t.test('values have the planned mean and spread, in both dtypes', async (t) => {
  const dir = t.testdir();
  for (const dtype of ['f32', 'bf16'] as const) {
    await writeUntrainedCheckpoint(join(dir, dtype), { size: 'small', dtype, seed: 3 });
    const plan = planUntrained({ size: 'small', dtype });
    const file = SafetensorsFile.open(join(dir, dtype, 'transformer', 'diffusion_pytorch_model.safetensors'));
    for (const tensor of plan.tensors.transformer) {
      const values = file.float32(tensor.name);
      if (values.length < 30_000) continue;
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const std = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
      // 30 000 samples: the mean's standard error is 0.006 std, the spread's 0.4 %; five of each is the limit.
      if (Math.abs(mean - tensor.mean) > 0.03 * tensor.std || Math.abs(std / tensor.std - 1) > 0.02) {
        t.fail(`${dtype} ${tensor.name}: mean ${mean}, std ${std}, planned ${tensor.mean}, ${tensor.std}`);
      }
    }
    const first = file.float32('blocks.0.attn1.to_q.weight');
    const other = file.float32('blocks.1.attn1.to_q.weight');
    const product = first.reduce((sum, value, index) => sum + value * (other[index] ?? 0), 0);
    const size = first.reduce((sum, value) => sum + value * value, 0);
    t.ok(Math.abs(product / size) < 0.03, `${dtype}: tensors are unrelated`);
    t.ok(new Set(first).size > first.length / 40, `${dtype}: values vary`);
    file.close();
  }
});

t.test('the tokenizer knows the words of the texts', async (t) => {
  const dir = t.testdir();
  const texts = ['Press the red button.', 'Drücke den Knopf'];
  await writeUntrainedCheckpoint(dir, { texts });
  const read = (name: string): object => readJson(join(dir, 'tokenizer', name));
  const tokenizer = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'));
  const ids = (text: string): number[] => tokenizer.encode(text).ids;
  const vocabulary = planUntrained({ texts }).vocabulary.map(([token]) => token);
  t.same(
    ids('Press the red button.').map((id) => vocabulary[id]),
    ['\u2581Press', '\u2581the', '\u2581red', '\u2581button', '.', '</s>'],
  );
  t.same(
    ids('Drücke Zebra').map((id) => vocabulary[id]),
    ['\u2581Drücke', '\u2581', 'Z', 'e', 'b', 'r', 'a', '</s>'],
    'unknown words are spelt',
  );
  t.same(ids(''), [1], 'the empty prompt is the end token alone');
  t.equal(ids('\u4e16')[1], 2, 'a character outside is unknown');
  t.same(vocabulary.slice(0, 3), ['<pad>', '</s>', '<unk>']);
  t.equal((read('../text_encoder/config.json') as { vocab_size: number }).vocab_size, vocabulary.length);
});

t.test('overrides reach the files, and what contradicts itself is refused', async (t) => {
  const dir = t.testdir();
  const overrides = {
    transformer: { num_attention_heads: 3, attention_head_dim: 26, num_layers: 1, ffn_dim: 50, text_dim: 40, freq_dim: 32, action_dim: 9 },
    vae: { z_dim: 6, base_dim: 3, dim_mult: [1, 2], temperal_downsample: [true] },
    textEncoder: { d_kv: 5, num_heads: 3, d_ff: 17, num_layers: 1 },
  };
  await writeUntrainedCheckpoint(dir, { overrides, dtype: { transformer: 'bf16' }, shards: 2, vestigial: true });
  const shapes = storedShapes(join(dir, 'transformer'));
  t.same(shapes['patch_embedding.weight'], [78, 6, 1, 2, 2]);
  t.same(shapes['patch_embedding_mlp.weight'], [78, 24]);
  t.same(shapes['action_proj_out.weight'], [9, 78]);
  t.same(shapes['condition_embedder.text_embedder.linear_1.weight'], [78, 40]);
  t.equal(readdirSync(join(dir, 'transformer')).filter((name) => name.endsWith('.safetensors')).length, 2);
  t.same(storedShapes(join(dir, 'vae'))['encoder.conv_out.weight'], [12, 6, 3, 3, 3]);
  t.same(storedShapes(join(dir, 'text_encoder'))['encoder.block.0.layer.0.SelfAttention.q.weight'], [15, 40]);
  t.match(readJson(join(dir, 'vae', 'config.json')), { z_dim: 6, scale_factor_spatial: 4, scale_factor_temporal: 2 });
  const refused = (changes: Parameters<typeof planUntrained>[0]) => t.throws(() => planUntrained(changes), { code: 'CHECKPOINT_CONFIG' });
  refused({ overrides: { transformer: { attention_head_dim: 22 } } });
  refused({ overrides: { transformer: { text_dim: 16 }, textEncoder: { d_model: 32 } } });
  refused({ overrides: { transformer: { in_channels: 16 }, vae: { z_dim: 32 } } });
  refused({ overrides: { vae: { latents_mean: [0] } } });
  refused({ overrides: { vae: { patch_size: 1 } } });
});

t.test('a scan finds values that are no numbers and matrices of zeros', async (t) => {
  const dir = t.testdir();
  const bits: Record<string, [StoredDtype, number[]]> = {
    fine: ['F32', [0x3f800000, 0, 0xff7fffff, 1]],
    'fine.zero_bias': ['F32', [0, 0, 0, 0]],
    'zero.weight': ['BF16', [0, 0x8000, 0, 0]],
    'bf16.weight': ['BF16', [0x7f80, 0xff81, 0x7f7f, 0]],
    'f16.weight': ['F16', [0x7c00, 0x7bff, 0xfe00, 0xfc00]],
    'f32.weight': ['F32', [0x7fc00000, 1, 2, 3]],
    integers: ['I32', [0, 0, 0, 0]],
  };
  const plans = Object.entries(bits).map(([name, [dtype]]): TensorPlan => ({ name, dtype, shape: name.endsWith('.weight') ? [2, 2] : [4] }));
  const path = join(dir, 'a.safetensors');
  await writeSafetensors(path, plans, (plan, first, target) => {
    const values = bits[plan.name]?.[1].slice(first) ?? [];
    const array = bytesOf(plan.dtype) === 4 ? Uint32Array.from(values) : Uint16Array.from(values);
    target.set(new Uint8Array(array.buffer, 0, target.length));
  });
  let bytes = 0;
  const odd = await scanValues(path, { pieceBytes: 8, onBytes: (count) => (bytes += count) });
  t.same(odd.map(({ name, notFinite, allZero }) => [name, notFinite, allZero]).sort(), [
    ['bf16.weight', 2, false],
    ['f16.weight', 3, false],
    ['f32.weight', 1, false],
    ['zero.weight', 0, true],
  ]);
  t.equal(bytes, 4 * 16 + 3 * 8, 'every byte was read');
  const controller = new AbortController();
  await t.rejects(scanValues(path, { pieceBytes: 8, signal: controller.signal, onBytes: () => controller.abort(new Error('stop')) }), {
    message: 'stop',
  });
  await writeUntrainedCheckpoint(join(dir, 'ckpt'), {});
  t.same(await scanValues(join(dir, 'ckpt', 'vae', 'diffusion_pytorch_model.safetensors')), []);
});
