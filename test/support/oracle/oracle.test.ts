/**
 * The oracle is worth something only where it is known to be right: it replays the recorded episodes of the reference and must meet every recorded
 * tensor of them within 1e-5 relative RMS. What the recordings cannot check is the mixture of transformers: it adds to the oracle only which
 * weights a token meets.
 */
import t from 'tap';
import type { Trace, TraceTensor } from '../../../src/policy/contract.js';
import { Comparison, compareCache, type Golden, readGolden, recorded } from '../golden.js';
import { OracleEpisode, type OracleJob, scheduleOf } from './episode.js';
import { OracleTransformer } from './transformer.js';
import { readWeights } from './weights.js';

const LIMIT = 1e-5;

function compareRecorded(comparison: Comparison, prefix: string, found: Trace, expected: Trace): number {
  let compared = 0;
  const layers = new Set<string>();
  for (const [name, tensor] of found) {
    const layer = /^kv\.(L\d+)\./.exec(name)?.[1];
    if (layer !== undefined) layers.add(layer);
    else if (expected.has(name)) comparison.tensor(`${prefix}.${name}`, tensor, expected.get(name) as TraceTensor);
    if (expected.has(name)) compared++;
  }
  for (const layer of layers) compareCache(comparison, prefix, layer, found, expected);
  return compared;
}

/** Runs a recorded case through the oracle. Returns how many recorded tensors were met. */
function replay(golden: Golden, comparison: Comparison): number {
  const transformer = new OracleTransformer(readWeights(golden.checkpoint));
  const job = golden.job as unknown as OracleJob;
  let episode: OracleEpisode | undefined;
  let prompts: ArrayLike<number>[] = [];
  let compared = 0;
  for (const call of golden.calls) {
    const expected = recorded(golden, call);
    const values = (name: string): ArrayLike<number> => (expected.get(name) as TraceTensor).data;
    if (call.kind === 'reset') {
      prompts = ['prompt_embeds_pos', 'prompt_embeds_neg'].filter((name) => expected.has(name)).map(values);
      episode = undefined;
    } else if (call.kind === 'infer') {
      const [, , , rows = 0, columns = 0] = expected.get('noise.video')?.shape ?? [];
      episode ??= new OracleEpisode(transformer, job, [rows, columns], prompts);
      const observed = expected.has('obs_latent') ? { obsLatent: values('obs_latent') } : {};
      const trace = episode.predict({ ...observed, noiseVideo: values('noise.video'), noiseAction: values('noise.action') });
      compared += compareRecorded(comparison, call.prefix, trace, expected);
    } else if (call.kind === 'kv') {
      if (episode === undefined) throw new Error('a commit is recorded before any prediction');
      const trace = episode.commit({ obsLatent: values('obs_latent'), state: values('state') });
      compared += compareRecorded(comparison, call.prefix, trace, expected);
    }
  }
  return compared;
}

for (const name of ['franka_tiny', 'nocfg_partial', 'robotwin_tiny', 'i2va_tiny']) {
  t.test(`the oracle meets the recording ${name}`, async (t) => {
    const golden = readGolden(name);
    const comparison = new Comparison(LIMIT);
    const compared = replay(golden, comparison);
    for (const line of comparison.report()) t.comment(line);
    for (const failure of comparison.failures.slice(0, 10)) t.fail(failure);
    t.equal(comparison.failures.length, 0, `${compared} recorded tensors, relative RMS <= ${LIMIT}`);
    const outputs = [...golden.tensors.keys()].filter((tensor) => /\.(video|action)\.s\d+\.|\.latents$|\.kv\.L\d+\.[kv]$/.test(tensor));
    t.ok(compared >= outputs.length, `none of the ${outputs.length} recorded outputs was passed over`);
    for (const [modality, steps, shift] of [
      ['video', golden.job['num_inference_steps'], golden.job['snr_shift']],
      ['action', golden.job['action_num_inference_steps'], golden.job['action_snr_shift']],
    ] as const) {
      const found = scheduleOf(steps as number, shift as number);
      const off = (key: 'sigmas' | 'timesteps'): number => {
        const expected = golden.tensors.get(`sched.${modality}.${key}`)?.data as Float32Array;
        return Math.max(...found[key].map((value, i) => Math.abs(value - expected[i]!)), Math.abs(found[key].length - expected.length));
      };
      t.ok(off('sigmas') <= 2 ** -23, `${modality} sigmas: off by ${off('sigmas')}`);
      t.ok(off('timesteps') <= 2 ** -13, `${modality} timesteps: off by ${off('timesteps')}`);
    }
  });
}

t.test('a wrong oracle is noticed', async (t) => {
  const golden = readGolden('nocfg_partial');
  const wrong = { ...golden, job: { ...golden.job, attn_window: 2 } };
  const comparison = new Comparison(LIMIT);
  replay(wrong, comparison);
  t.ok(
    comparison.failures.some((failure) => failure.includes('relative RMS')),
    'a cache of one chunk forgets what the recording attends',
  );
});
