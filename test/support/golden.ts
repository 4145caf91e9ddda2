/**
 * Golden traces: reads a recorded case, runs its calls through a policy and compares every recorded tensor with what the policy traced. The rules of
 * comparison are those of test/goldens/README.md. Used by the golden tests, and tested itself by golden-harness.test.ts.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Frame, Policy, Tensor, Trace, TraceTensor } from '../../src/policy/contract.js';
import { joinLatents, toTensor } from '../../src/policy/tensor.js';
import { goldens, jobOf } from './fixtures.js';
import { readSafetensors } from './safetensors.js';

export interface GoldenCall {
  readonly index: number;
  readonly kind: 'reset' | 'infer' | 'kv' | 'decode';
  readonly prefix: string;
  readonly tensors: readonly string[];
  readonly prompt?: string;
  readonly cleaned_prompt_pos?: string;
  readonly n_tokens_pos?: number;
  readonly images?: Readonly<Record<string, string>>;
  readonly obs_ignored?: boolean;
  readonly frame_st_id?: number;
  readonly frame_st_id_after?: number;
  readonly kv_valid?: number;
  readonly kv_pred_valid?: number;
  readonly kv_capacity?: number;
}

export interface Golden {
  readonly name: string;
  readonly checkpoint: string;
  readonly job: Record<string, unknown>;
  readonly calls: readonly GoldenCall[];
  readonly tensors: ReadonlyMap<string, TraceTensor>;
}

/** Reads test/goldens/`name`/`trace`.{json,safetensors}. */
export function readGolden(name: string, trace = 'trace'): Golden {
  const folder = join(goldens, name);
  const { calls } = JSON.parse(readFileSync(join(folder, `${trace}.json`), 'utf8')) as { calls: GoldenCall[] };
  return { name, checkpoint: join(folder, 'checkpoint'), job: jobOf(name), calls, tensors: readSafetensors(join(folder, `${trace}.safetensors`)) };
}

/** Name of a tensor without what counts calls and steps: all tensors of a kind share one line in the report. */
export function kindOf(name: string): string {
  return name
    .replace(/^c\d+\./, '')
    .replace(/\.s\d+\./, '.s*.')
    .replace(/\.L\d+\./, '.L*.');
}

/** Square root of the mean squared error over that of the expected values; over 1 where these are all zero. */
export function relativeRms(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  let error = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    const value = expected[i] as number;
    error += ((found[i] as number) - value) ** 2;
    scale += value ** 2;
  }
  return Math.sqrt(error / (scale > 0 ? scale : expected.length));
}

/** Collects what differs, and the largest relative RMS of each kind of tensor. */
export class Comparison {
  readonly failures: string[] = [];
  readonly worst = new Map<string, { readonly rms: number; readonly name: string }>();
  compared = 0;
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  equal(name: string, found: unknown, expected: unknown): void {
    this.compared++;
    if (JSON.stringify(found) !== JSON.stringify(expected))
      this.failures.push(`${name}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
  }

  /** Floats within the limit, integers exactly. */
  tensor(name: string, found: TraceTensor | undefined, expected: TraceTensor): void {
    this.compared++;
    if (found === undefined) {
      this.failures.push(`${name}: not traced`);
      return;
    }
    if (found.dtype !== expected.dtype || found.shape.join() !== expected.shape.join() || found.data.length !== expected.data.length) {
      const form = (tensor: TraceTensor) => `${tensor.dtype} [${tensor.shape.join(', ')}] with ${tensor.data.length} values`;
      this.failures.push(`${name}: expected ${form(expected)}, found ${form(found)}`);
    } else if (expected.dtype === 'float32') {
      this.floats(name, found.data, expected.data);
    } else {
      const at = expected.data.findIndex((value, index) => found.data[index] !== value);
      if (at >= 0) this.failures.push(`${name}[${at}]: expected ${expected.data[at]}, found ${found.data[at]}`);
    }
  }

  floats(name: string, found: ArrayLike<number>, expected: ArrayLike<number>): void {
    const rms = found.length === expected.length ? relativeRms(found, expected) : Number.NaN;
    const kind = kindOf(name);
    const worst = this.worst.get(kind)?.rms ?? -1;
    if (!(rms <= worst) && !Number.isNaN(worst)) this.worst.set(kind, { rms, name });
    if (!(rms <= this.#limit)) this.failures.push(`${name}: relative RMS ${rms} is above ${this.#limit}`);
  }

  /** One line per kind. */
  report(): string[] {
    const lines = [...this.worst].sort(([, a], [, b]) => b.rms - a.rms);
    return lines.map(([kind, { rms, name }]) => `${rms.toExponential(2)}  ${kind}  (worst: ${name})`);
  }
}

/** Compares the KV cache of one layer as sets keyed by id: where entries lie in the pool means nothing. */
export function compareCache(comparison: Comparison, prefix: string, layer: string, found: Trace, expected: Trace): void {
  const name = `${prefix}.kv.${layer}`;
  const parts = ['mask', 'id', 'is_pred', 'slots', 'k', 'v'].map((part) => `kv.${layer}.${part}`);
  const missing = parts.find((part) => !found.has(part));
  if (missing !== undefined) {
    comparison.failures.push(`${prefix}.${missing}: not traced`);
    return;
  }
  const entries = (trace: Trace): string[] => {
    const [mask, id, predicted] = parts.slice(0, 3).map((part) => trace.get(part)?.data ?? []);
    const valid = [...(mask ?? [])].flatMap((one, slot) => (one === 1 ? [`${id?.[slot]}${predicted?.[slot] === 1 ? 'p' : ''}`] : []));
    return valid.sort();
  };
  comparison.equal(`${name} pool`, found.get(`kv.${layer}.mask`)?.data.length, expected.get(`kv.${layer}.mask`)?.data.length);
  comparison.equal(`${name} valid (id, is_pred)`, entries(found), entries(expected));
  for (const part of ['k', 'v']) {
    const [rows, wanted] = [rowsById(found, layer, part), rowsById(expected, layer, part)];
    comparison.equal(`${name}.${part} rows per id`, rows.counts, wanted.counts);
    comparison.compared++;
    comparison.floats(`${name}.${part}`, rows.values, wanted.values);
  }
}

/** k or v [batch, slots, heads, head_dim] of the slots just written, ordered by id, within an id by slot. */
function rowsById(trace: Trace, layer: string, part: string): { readonly counts: [number, number][]; readonly values: Float32Array } {
  const tensor = trace.get(`kv.${layer}.${part}`) as TraceTensor;
  const ids = trace.get(`kv.${layer}.id`)?.data ?? new Int32Array();
  const slots = [...(trace.get(`kv.${layer}.slots`)?.data ?? [])];
  const order = slots.map((slot, at) => ({ slot, at, id: ids[slot] ?? -1 })).sort((a, b) => a.id - b.id || a.slot - b.slot);
  const counts = new Map<number, number>();
  for (const { id } of order) counts.set(id, (counts.get(id) ?? 0) + 1);
  const [batch = 0, rows = 0, heads = 0, width = 0] = tensor.shape;
  const size = heads * width;
  const values = new Float32Array(batch * order.length * size);
  for (let b = 0; b < batch; b++) {
    for (const [to, { at }] of order.entries()) {
      values.set(tensor.data.subarray((b * rows + at) * size, (b * rows + at + 1) * size), (b * order.length + to) * size);
    }
  }
  return { counts: [...counts], values };
}

/** The recorded tensors of one call without their prefix. */
export function recorded(golden: Golden, call: GoldenCall): Trace {
  const tensors: Trace = new Map();
  for (const name of call.tensors) {
    const tensor = golden.tensors.get(name);
    if (tensor === undefined) throw new Error(`${golden.name}: ${name} is listed but not recorded`);
    tensors.set(name.slice(call.prefix.length + 1), tensor);
  }
  return tensors;
}

/** The observations of a call, one Frame[] per moment. */
export function momentsOf(golden: Golden, call: GoldenCall): Frame[][] {
  const moments: Frame[][] = [];
  for (const [camera, name] of Object.entries(call.images ?? {})) {
    const { shape, data } = golden.tensors.get(name) as TraceTensor;
    const [count = 0, height = 0, width = 0] = shape;
    const size = height * width * 3;
    for (let moment = 0; moment < count; moment++) {
      const picture = (data as Uint8Array).subarray(moment * size, (moment + 1) * size);
      (moments[moment] ??= []).push({ camera, width, height, data: picture, capturedAtNs: BigInt(moment) });
    }
  }
  return moments;
}

/** Compares a call's trace with the recording. Pictures are inputs; the KV cache has rules of its own. */
function compareTrace(comparison: Comparison, golden: Golden, call: GoldenCall, found: Trace | undefined): void {
  const expected = recorded(golden, call);
  if (found === undefined) {
    comparison.failures.push(`${call.prefix}: no trace`);
    return;
  }
  const layers = new Set<string>();
  for (const [name, tensor] of expected) {
    const layer = /^kv\.(L\d+)\./.exec(name)?.[1];
    if (layer !== undefined) layers.add(layer);
    else if (!/^img\d+$/.test(name)) comparison.tensor(`${call.prefix}.${name}`, found.get(name), tensor);
  }
  for (const layer of layers) compareCache(comparison, call.prefix, layer, found, expected);
}

function compareState(comparison: Comparison, call: GoldenCall, policy: Policy): void {
  const [valid = 0, predicted = 0] = [call.kv_valid, call.kv_pred_valid];
  const { checksum: _, ...counts } = policy.cache;
  comparison.equal(`${call.prefix} cache`, counts, { capacity: call.kv_capacity, valid, committed: valid - predicted, predicted });
}

/** Runs all calls of a case through a policy. Returns what it traced, by the calls' prefixes. */
export async function runGolden(policy: Policy, golden: Golden, comparison: Comparison): Promise<Map<string, Trace>> {
  const traces = new Map<string, Trace>();
  const chunks: Tensor[] = [];
  for (const call of golden.calls) {
    const expected = recorded(golden, call);
    const get = (name: string): Float32Array => expected.get(name)?.data as Float32Array;
    if (call.kind === 'reset') {
      const result = await policy.reset({ prompt: call.prompt as string, trace: true });
      comparison.equal(`${call.prefix} cleaned prompt`, result.cleanedPrompt, call.cleaned_prompt_pos);
      comparison.equal(`${call.prefix} tokens`, result.tokens, call.n_tokens_pos);
      comparison.equal(`${call.prefix} negative`, result.trace?.has('token_ids_neg'), expected.has('token_ids_neg'));
      compareTrace(comparison, golden, call, result.trace);
      traces.set(call.prefix, result.trace ?? new Map());
    } else if (call.kind === 'infer') {
      const noise = { video: get('noise.video'), action: get('noise.action') };
      const obs = call.obs_ignored === true ? {} : { obs: momentsOf(golden, call)[0] as Frame[] };
      const chunk = await policy.predict({ ...obs, noise, trace: true });
      compareTrace(comparison, golden, call, chunk.trace);
      compareSchedules(comparison, golden, call, chunk.trace);
      comparison.equal(`${call.prefix} shape`, chunk.shape, expected.get('action')?.shape);
      comparison.floats(`${call.prefix}.chunk.actions`, chunk.actions, get('action'));
      comparison.floats(`${call.prefix}.chunk.latents`, chunk.latents, get('latents'));
      comparison.equal(`${call.prefix} frame index`, chunk.frameIndex, call.frame_st_id);
      compareState(comparison, call, policy);
      chunks.push(chunk.latents);
      traces.set(call.prefix, chunk.trace ?? new Map());
    } else if (call.kind === 'kv') {
      const result = await policy.commit({ obs: momentsOf(golden, call), actions: get('state'), trace: true });
      compareTrace(comparison, golden, call, result.trace);
      comparison.equal(`${call.prefix} frame index`, result.frameIndex, call.frame_st_id_after);
      compareState(comparison, call, policy);
      traces.set(call.prefix, result.trace ?? new Map());
    } else {
      const film = await compareFilm(comparison, golden, call, policy, joinLatents(chunks));
      traces.set(call.prefix, new Map([['video', film]]));
    }
  }
  return traces;
}

function compareSchedules(comparison: Comparison, golden: Golden, call: GoldenCall, found: Trace | undefined): void {
  for (const [name, tensor] of golden.tensors) {
    if (name.startsWith('sched.')) comparison.tensor(`${call.prefix}.${name}`, found?.get(name), tensor);
  }
}

/** The film of the recorded latents; and the joined chunks must be those latents. */
async function compareFilm(comparison: Comparison, golden: Golden, call: GoldenCall, policy: Policy, joined: Tensor): Promise<TraceTensor> {
  const { latents_all: latents, video } = Object.fromEntries(recorded(golden, call)) as Record<string, TraceTensor>;
  if (latents === undefined || video === undefined) throw new Error(`${call.prefix}: latents_all and video are recorded`);
  comparison.tensor(`${call.prefix}.latents_all`, { dtype: 'float32', shape: joined.shape, data: joined }, latents);
  const film = await policy.decode(toTensor(latents.data as Float32Array, latents.shape));
  const found: TraceTensor = { dtype: 'float32', shape: film.video.shape, data: film.video };
  comparison.tensor(`${call.prefix}.video`, found, video);
  comparison.equal(`${call.prefix} pictures`, film.length, video.shape[0]);
  const bytes = film.flatMap(({ data }) => [...data]);
  const off = bytes.findIndex((value, at) => value !== Math.round((film.video[at] as number) * 255));
  comparison.equal(`${call.prefix} 8-bit values`, off, -1);
  return found;
}
