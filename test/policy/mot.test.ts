/**
 * The mixture-of-transformers form (docs/MOT.md) through the public contract, against the float64 oracle: two parameter sets of different widths
 * that meet in self-attention. No weights of this form were ever released, so the weights are random, and the oracle (proved on the recordings of
 * the shared form) is the only witness.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { TransformerConfig } from '../../src/checkpoint/layout.js';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { planUntrained } from '../../src/checkpoint/untrained.js';
import { writeSafetensors } from '../../src/checkpoint/writer.js';
import { loadPolicy } from '../../src/index.js';
import { errorOf } from '../support/fixtures.js';
import { Comparison } from '../support/golden.js';
import { jobFor, runAgainst, skipReason, withCheckpoint } from '../support/oracle/against.js';

const skip = skipReason();
/** Rounding alone gives a few 1e-6 in float32; bfloat16 rounds weights and cache by 2^-9 per value. */
const F32_LIMIT = 1e-5;
const BF16_LIMIT = 2e-2;

/** Video width 48, action width 20: no multiple of a head or of a vector register. */
const mot = {
  architecture: 'mot',
  action_inner_dim: 20,
  action_ffn_dim: 34,
  num_attention_heads: 2,
  attention_head_dim: 24,
  num_layers: 2,
  ffn_dim: 72,
  text_dim: 16,
  freq_dim: 32,
  action_dim: 7,
  in_channels: 8,
} as const;

interface Form {
  readonly title: string;
  readonly transformer?: Partial<TransformerConfig>;
  readonly job?: Record<string, unknown>;
  readonly precision?: 'f32' | 'bf16';
  readonly rounds?: number;
  readonly evicts?: boolean;
}

/** Rewrites the transformer's file with other shapes, or with zeros in the tensors that `zero` names. */
async function rewrite(checkpoint: string, change: { readonly shapes?: Record<string, number[]>; readonly zero?: RegExp }): Promise<void> {
  const path = join(checkpoint, 'transformer', 'diffusion_pytorch_model.safetensors');
  const file = SafetensorsFile.open(path);
  const plans = [...file.tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape: change.shapes?.[name] ?? shape }));
  const values = new Map(plans.map(({ name }) => [name, file.bytes(name)]));
  file.close();
  await writeSafetensors(path, plans, ({ name }, first, target) => {
    if (change.zero?.test(name)) target.fill(0);
    // A tensor that has grown is filled from its start again; what it holds does not matter, it is never read.
    else for (let i = 0; i < target.length; i++) target[i] = values.get(name)?.at((4 * first + i) % (values.get(name)?.length ?? 1)) ?? 0;
  });
}

const forms: readonly Form[] = [
  { title: 'guided, action width below the video width' },
  {
    title: 'not guided, partial denoising, no norm before cross-attention',
    transformer: { cross_attn_norm: false },
    job: { guidance_scale: 1, video_exec_step: 2 },
  },
  {
    title: 'one layer, actions guided too, action width above the video width',
    transformer: { num_layers: 1, action_inner_dim: 52 },
    job: { action_guidance_scale: 2 },
  },
  { title: 'a cache that evicts', job: { guidance_scale: 1, attn_window: 4 }, rounds: 3, evicts: true },
  { title: 'bfloat16 weights and cache', precision: 'bf16' },
];

for (const [index, { title, transformer, job, precision = 'f32', rounds = 2, evicts = false }] of forms.entries()) {
  t.test(title, { skip }, async (t) => {
    const seed = 41 + index;
    const limit = precision === 'f32' ? F32_LIMIT : BF16_LIMIT;
    t.comment(`seed ${seed}`);
    const comparison = new Comparison(limit);
    const { compared, evicted } = await withCheckpoint({ seed, overrides: { transformer: { ...mot, ...transformer } } }, (checkpoint) =>
      runAgainst({ checkpoint, job: jobFor(mot.action_dim, job), precision, seed, rounds, comparison }),
    );
    for (const line of comparison.report()) t.comment(line);
    for (const failure of comparison.failures.slice(0, 10)) t.fail(failure);
    t.equal(comparison.failures.length, 0, `${compared} comparisons, relative RMS <= ${limit}`);
    t.equal(evicted, evicts, 'eviction as meant');
  });
}

t.test('both parameter sets are read and their sizes counted', { skip }, async (t) => {
  const overrides = { transformer: mot };
  const planned = planUntrained({ overrides }).tensors.transformer;
  const shapes = new Map(planned.map(({ name, shape }) => [name, shape.join()]));
  t.equal(shapes.get('action_blocks.1.attn1.to_q.weight'), '48,20', 'queries of actions have the video width');
  t.equal(shapes.get('action_blocks.1.attn1.to_out.0.weight'), '20,48', 'and come back');
  await withCheckpoint({ overrides }, async (checkpoint) => {
    const policy = await loadPolicy({ checkpoint, job: jobFor(mot.action_dim), promptCache: false });
    t.equal(
      policy.info.parameters,
      planned.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
    );
    const unused = policy.info.unusedTensors.filter((name) => name.startsWith('transformer/')).sort();
    const text = ['linear_1.bias', 'linear_1.weight', 'linear_2.bias', 'linear_2.weight'];
    t.same(
      unused,
      text.map((name) => `transformer/condition_embedder_action.text_embedder.${name}`),
      'only what the shared form does not use either is unused',
    );
    await policy.close();
  });
});

async function changeConfig(checkpoint: string, changes: Record<string, unknown>): Promise<void> {
  const path = join(checkpoint, 'transformer', 'config.json');
  const config = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  await writeFile(path, JSON.stringify({ ...config, ...changes }));
}

const job = jobFor(mot.action_dim);
const openingFails = (checkpoint: string) => errorOf(loadPolicy({ checkpoint, job, promptCache: false }));

t.test('tokens of each kind meet the others in self-attention', { skip }, async (t) => {
  const run = (zero?: RegExp) =>
    withCheckpoint({ overrides: { transformer: mot } }, async (checkpoint) => {
      if (zero !== undefined) await rewrite(checkpoint, { zero });
      const policy = await loadPolicy({ checkpoint, job, threads: 2, promptCache: false });
      const frame = (camera: string) => ({ camera, width: 8, height: 8, data: new Uint8Array(192).fill(camera.length * 30), capturedAtNs: 0n });
      const obs = ['front', 'wrist'].map(frame);
      await policy.reset({ prompt: 'Press the red button.' });
      const first = await policy.predict({ obs, seed: 3 });
      await policy.commit({ obs: Array.from({ length: 4 }, () => obs), actions: new Float32Array(first.actions.length).fill(0.5) });
      const second = await policy.predict({ seed: 4 });
      await policy.close();
      return { first, second };
    });
  const whole = await run();
  t.same((await run(/^no tensor$/)).second.actions, whole.second.actions, 'rewriting alone changes nothing');
  const videoValues = await run(/^blocks\.\d+\.attn1\.to_v\./);
  t.notSame(videoValues.first.actions, whole.first.actions, 'actions attend video tokens');
  const actionValues = await run(/^action_blocks\.\d+\.attn1\.to_v\./);
  t.same(actionValues.first.latents, whole.first.latents, 'the first video sees no actions: its parameters are its own');
  t.notSame(actionValues.second.latents, whole.second.latents, 'later video attends the actions that were executed');
});

t.test('tensors of the action set with a wrong shape', { skip }, async (t) => {
  const wrong: [string, number[], string][] = [
    ['action_blocks.0.attn1.to_k.weight', [20, 20], '[48, 20]'],
    ['action_blocks.1.attn1.to_out.0.weight', [48, 20], '[20, 48]'],
    ['action_blocks.1.attn1.norm_q.weight', [20], '[48]'],
    ['action_blocks.0.attn2.to_v.weight', [48, 20], '[48, 48]'],
    ['action_blocks.0.norm2.bias', [48], '[20]'],
    ['action_blocks.0.ffn.net.0.proj.weight', [72, 20], '[34, 20]'],
    ['action_blocks.1.scale_shift_table', [1, 6, 48], '[1, 6, 20]'],
    ['action_scale_shift_table', [1, 2, 48], '[1, 2, 20]'],
    ['action_embedder.weight', [48, 7], '[20, 7]'],
    ['action_proj_out.weight', [7, 48], '[7, 20]'],
    ['condition_embedder_action.time_proj.weight', [288, 48], '[120, 20]'],
  ];
  await withCheckpoint({ overrides: { transformer: mot } }, async (checkpoint) => {
    const path = join(checkpoint, 'transformer', 'diffusion_pytorch_model.safetensors');
    const right = await readFile(path);
    for (const [tensor, shape, expected] of wrong) {
      await rewrite(checkpoint, { shapes: { [tensor]: shape } });
      const error = await openingFails(checkpoint);
      t.match(error, { code: 'CHECKPOINT_SHAPE', tensor }, tensor);
      t.ok(error.expected?.includes(expected), `${tensor}: expected ${error.expected}, found ${error.found}`);
      await writeFile(path, right);
    }
    // Invalid becomes valid: the untouched file opens again.
    await (await loadPolicy({ checkpoint, job, promptCache: false })).close();
  });
});

t.test('a config.json that does not fit', { skip }, async (t) => {
  const cases: [Record<string, unknown>, string][] = [
    [{ action_inner_dim: 24 }, 'CHECKPOINT_SHAPE'],
    [{ action_ffn_dim: 35 }, 'CHECKPOINT_SHAPE'],
    [{ architecture: 'shared' }, 'CHECKPOINT_SHAPE'],
    [{ num_layers: 3 }, 'CHECKPOINT_MISSING_TENSOR'],
    [{ architecture: 'twin' }, 'CHECKPOINT_CONFIG'],
    [{ action_inner_dim: null }, 'CHECKPOINT_CONFIG'],
    [{ action_ffn_dim: 0 }, 'CHECKPOINT_CONFIG'],
  ];
  for (const [changes, code] of cases) {
    await withCheckpoint({ overrides: { transformer: mot } }, async (checkpoint) => {
      await changeConfig(checkpoint, changes);
      t.equal((await openingFails(checkpoint)).code, code, JSON.stringify(changes));
    });
  }
  await withCheckpoint({ overrides: { transformer: { ...mot, architecture: 'shared' } } }, async (checkpoint) => {
    await changeConfig(checkpoint, { architecture: 'mot', action_inner_dim: 48, action_ffn_dim: 72 });
    const error = await openingFails(checkpoint);
    t.match(error, { code: 'CHECKPOINT_MISSING_TENSOR' }, 'a shared checkpoint is no mixture');
    t.match(error.tensor, /^action_/);
  });
});
