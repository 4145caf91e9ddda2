/**
 * Ten thousand cycles with a full cache: whether a cycle takes longer in the end than at the beginning, and whether memory grows. Grounded
 * asynchronous steps with the shipped checkpoint on pictures of noise, so that every pass of a real cycle runs and nothing can be reused. Usage:
 *   npx tsx bench/long-run.ts [--cycles 10000] [--video-steps 1] [--action-steps 2] [--imagine-steps 1] [--threads 1] [--size 32]
 *     [--json] [--out FILE.md]
 */
import { writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { percentile } from '../src/evaluation/statistics.js';
import { loadPolicy } from '../src/index.js';
import { readJob } from '../src/policy/job.js';
import { noise } from './noise.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
/** Windows that are compared: a tenth of the cycles each. */
const WINDOWS = 10;

export interface LongRunOptions {
  readonly cycles: number;
  readonly videoSteps: number;
  readonly actionSteps: number;
  readonly imagineSteps: number;
  readonly threads: number;
  /** Side of the pictures, pixels; the shipped job's are larger, and encoding them is most of a cycle. */
  readonly size: number;
}

export interface Window {
  readonly fromCycle: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuP99Ms: number;
  readonly rssMiB: number;
}

export interface LongRun {
  readonly options: LongRunOptions;
  /** Cycles until the cache was full. They are in no window. */
  readonly filledAfter: number;
  readonly capacity: number;
  readonly windows: readonly Window[];
  /** Of the last window to the first. */
  readonly p99Ratio: number;
  readonly cpuP99Ratio: number;
  readonly rssGrowthMiB: number;
  readonly checksum: string;
  readonly backend: string;
}

export async function benchLongRun(checkpoint: string, options: LongRunOptions, onCycle: (done: number) => void = () => undefined): Promise<LongRun> {
  const { cycles, videoSteps, actionSteps, imagineSteps, threads, size } = options;
  const job = { ...(await readJob(join(checkpoint, 'job.json'))).job, height: size, width: size };
  const policy = await loadPolicy({ checkpoint, job, threads });
  try {
    const [used, frames, perFrame] = policy.info.actionShape;
    const momentAt = noise(policy.job);
    const actions = (count: number): Float32Array => Float32Array.from({ length: used * count * perFrame }, (_, at) => 0.3 * Math.sin(at));
    await policy.reset({ prompt: 'press the red button 3 times' });
    await policy.predict({ obs: momentAt(0), videoSteps, actionSteps });
    const step = { executing: actions(frames), videoSteps, actionSteps, imagineSteps };
    await policy.predictNext({ ...step, obs: [], executed: actions(1), executing: actions(1) });
    const times: { wallMs: number; cpuMs: number; rssMiB: number }[] = [];
    let filledAfter = 0;
    const executed = actions(frames);
    for (let cycle = 0; times.length < cycles; cycle++) {
      const obs = Array.from({ length: 4 * frames }, (_, index) => momentAt(cycle * 5 + index));
      const [begun, cpu] = [performance.now(), process.cpuUsage()];
      const { committed } = await policy.predictNext({ ...step, obs, executed, seed: cycle });
      const used = process.cpuUsage(cpu);
      if (!committed) throw new Error('a cycle committed nothing');
      if (filledAfter === 0 && policy.cache.valid < policy.cache.capacity) continue;
      if (filledAfter === 0) filledAfter = cycle + 1;
      times.push({
        wallMs: performance.now() - begun,
        cpuMs: (used.user + used.system) / 1000,
        rssMiB: times.length % 100 === 0 ? process.memoryUsage.rss() / 2 ** 20 : (times.at(-1)?.rssMiB ?? 0),
      });
      onCycle(times.length);
    }
    const length = Math.floor(cycles / WINDOWS);
    const windows = Array.from({ length: WINDOWS }, (_, index): Window => {
      const part = times.slice(index * length, (index + 1) * length);
      const of = (values: readonly number[], share: number): number => percentile(values, share) ?? Number.NaN;
      return {
        fromCycle: index * length,
        p50Ms: of(
          part.map(({ wallMs }) => wallMs),
          0.5,
        ),
        p99Ms: of(
          part.map(({ wallMs }) => wallMs),
          0.99,
        ),
        cpuP99Ms: of(
          part.map(({ cpuMs }) => cpuMs),
          0.99,
        ),
        rssMiB: part.at(-1)?.rssMiB ?? Number.NaN,
      };
    });
    const [first, last] = [windows[0] as Window, windows.at(-1) as Window];
    return {
      options,
      filledAfter,
      capacity: policy.cache.capacity,
      windows,
      p99Ratio: last.p99Ms / first.p99Ms,
      cpuP99Ratio: last.cpuP99Ms / first.cpuP99Ms,
      rssGrowthMiB: last.rssMiB - first.rssMiB,
      checksum: policy.cache.checksum,
      backend: policy.info.backend,
    };
  } finally {
    await policy.close();
  }
}

export function longRunMarkdown(run: LongRun): string {
  const { options, filledAfter, capacity, windows, p99Ratio, cpuP99Ratio, rssGrowthMiB, checksum, backend } = run;
  const { cycles, videoSteps, actionSteps, imagineSteps, threads, size } = options;
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)} at the end`;
  const steps = `${videoSteps} video, ${actionSteps} action, ${imagineSteps} imagining steps`;
  const growth = `${rssGrowthMiB >= 0 ? '+' : ''}${rssGrowthMiB.toFixed(1)} MiB`;
  return [
    `${cycles} grounded cycles on a full cache (${capacity} entries, full after ${filledAfter} cycles); ${steps},`,
    `pictures of ${size} x ${size}, ${threads} thread, ${backend}; ${machine}; cache checksum ${checksum}.`,
    '',
    '| from cycle | p50 ms | p99 ms | CPU p99 ms | RSS MiB |',
    '|---:|---:|---:|---:|---:|',
    ...windows.map(
      ({ fromCycle, p50Ms, p99Ms, cpuP99Ms, rssMiB }) =>
        `| ${fromCycle} | ${p50Ms.toFixed(2)} | ${p99Ms.toFixed(2)} | ${cpuP99Ms.toFixed(2)} | ${rssMiB.toFixed(1)} |`,
    ),
    '',
    `Last tenth to first: p99 ${p99Ratio.toFixed(3)}, CPU p99 ${cpuP99Ratio.toFixed(3)}; RSS ${growth}.`,
    '',
  ].join('\n');
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({
    options: {
      checkpoint: { type: 'string', default: join(root, 'models', 'tabletop') },
      cycles: { type: 'string', default: '10000' },
      'video-steps': { type: 'string', default: '1' },
      'action-steps': { type: 'string', default: '2' },
      'imagine-steps': { type: 'string', default: '1' },
      threads: { type: 'string', default: '1' },
      size: { type: 'string', default: '32' },
      json: { type: 'boolean', default: false },
      out: { type: 'string' },
    },
  });
  const options: LongRunOptions = {
    cycles: Number(values.cycles),
    videoSteps: Number(values['video-steps']),
    actionSteps: Number(values['action-steps']),
    imagineSteps: Number(values['imagine-steps']),
    threads: Number(values.threads),
    size: Number(values.size),
  };
  const run = await benchLongRun(values.checkpoint, options, (done) => {
    if (done % 500 === 0) process.stderr.write(`${done} cycles\n`);
  });
  const text = longRunMarkdown(run);
  if (values.out !== undefined) writeFileSync(values.out, `# Long run, ${new Date().toISOString().slice(0, 10)}\n\n${text}`);
  process.stdout.write(values.json ? `${JSON.stringify(run, null, 2)}\n` : text);
}
