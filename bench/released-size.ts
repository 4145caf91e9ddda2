/**
 * Opens a checkpoint of the released size (bench/synthetic-checkpoint.ts writes one) with the RoboTwin job, runs one video pass and one action
 * pass, and reports times and resident memory against weights + KV cache + 10 %. Usage: npx tsx bench/released-size.ts CHECKPOINT [--precision
 * bf16|f32] [--guidance 5] [--threads N]
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { loadPolicy } from '../src/index.js';
import { ROBOTWIN_JOB } from './robotwin-job.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { precision: { type: 'string', default: 'bf16' }, guidance: { type: 'string', default: '1' }, threads: { type: 'string' } },
});
const checkpoint = positionals[0];
if (checkpoint === undefined) throw new Error('give the checkpoint folder: npx tsx bench/released-size.ts CHECKPOINT');

/** A line of /proc/self/status, in bytes. */
function memoryBytes(key: string): number {
  return Number(new RegExp(`^${key}:\\s+(\\d+) kB$`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
}
const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

const job = { ...ROBOTWIN_JOB, guidance_scale: Number(values.guidance) };
const cameras = job.obs_cam_keys;

const started = performance.now();
const threads = values.threads === undefined ? availableParallelism() : Number(values.threads);
const precision = values.precision === 'f32' ? 'f32' : 'bf16';
const policy = await loadPolicy({ checkpoint, job, precision, threads, promptCache: false });
const opened = performance.now();
await policy.reset({ prompt: 'open the drawer' });
const reset = performance.now();
const obs = cameras.map((camera, i) => {
  const data = new Uint8Array(320 * 240 * 3).map((_, at) => (at * (i + 3)) & 255);
  return { camera, width: 320, height: 240, data, capturedAtNs: 0n };
});
const chunk = await policy.predict({ obs, seed: 1 });
const peak = memoryBytes('VmHWM');
const budget = (policy.info.weightBytes + policy.info.cacheBytes) * 1.1;
const rows: [string, string][] = [
  ['processor', `${cpus()[0]?.model ?? 'unknown'}, ${threads} threads, ${policy.info.backend}`],
  ['precision, guidance', `${precision}, ${values.guidance}`],
  ['parameters', `${policy.info.parameters}`],
  ['weights', gib(policy.info.weightBytes)],
  ['KV cache, full', gib(policy.info.cacheBytes)],
  ['open', seconds(opened - started)],
  ['reset (text keys and values)', seconds(reset - opened)],
  ['encode three pictures', seconds(chunk.timing.encodeMs)],
  [`video: ${chunk.timing.videoPasses} pass`, seconds(chunk.timing.videoMs)],
  [`actions: ${chunk.timing.actionPasses} pass`, seconds(chunk.timing.actionMs)],
  ['peak resident memory', gib(peak)],
  ['weights + full KV cache + 10 %', gib(budget)],
];
for (const [name, value] of rows) console.log(`${name.padEnd(32)}${value}`);
const finite = chunk.actions.every(Number.isFinite);
console.log(finite && peak <= budget ? 'ok: within the budget, actions finite' : 'FAILED: over the budget or actions not finite');
await policy.close();
process.exitCode = finite && peak <= budget ? 0 : 1;
