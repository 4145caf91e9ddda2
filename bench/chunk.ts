/**
 * How long a whole chunk takes with a full cache: predicting it, and committing what was seen and executed. Several step counts and precisions side
 * by side in one run, turn by turn, on pictures of noise. Usage:
 *   npx tsx bench/chunk.ts [--checkpoint DIR] [--steps 5/10,1/5] [--precision f32,bf16] [--chunks 100] [--threads 2] [--json] [--out FILE.md]
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { percentile } from '../src/evaluation/statistics.js';
import { type Frame, loadPolicy, type Policy } from '../src/index.js';
import { readJob } from '../src/policy/job.js';
import type { CpuPrecision } from '../src/policy/precision.js';
import { noise } from './noise.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const WARM_UP = 3;

export interface ChunkBenchOptions {
  readonly checkpoint: string;
  readonly steps: readonly (readonly [video: number, action: number])[];
  readonly precisions: readonly CpuPrecision[];
  readonly chunks: number;
  readonly threads: number;
}

/** Milliseconds over the chunks. */
export interface Spread {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface ChunkRow {
  readonly precision: string;
  readonly videoSteps: number;
  readonly actionSteps: number;
  readonly predictMs: Spread;
  readonly encodeMs: Spread;
  readonly commitMs: Spread;
  readonly chunkMs: Spread;
  /** Of all actions, bit by bit: equal on equal machines. */
  readonly hash: string;
}

export interface ChunkBench {
  readonly backend: string;
  readonly threads: number;
  readonly chunks: number;
  readonly motionMs: number;
  readonly rows: readonly ChunkRow[];
}

/** One configuration under measurement: a policy with a full cache. */
class Subject {
  readonly policy: Policy;
  readonly precision: string;
  readonly #steps: readonly [number, number];
  readonly #momentAt: (index: number) => Frame[];
  readonly #times: { predict: number; encode: number; commit: number }[] = [];
  readonly #hash = createHash('sha256');
  #turn = 0;

  private constructor(policy: Policy, precision: string, steps: readonly [number, number], momentAt: (index: number) => Frame[]) {
    this.policy = policy;
    this.precision = precision;
    this.#steps = steps;
    this.#momentAt = momentAt;
  }

  static async open({ checkpoint, threads }: ChunkBenchOptions, precision: CpuPrecision, steps: readonly [number, number]): Promise<Subject> {
    const { job } = await readJob(join(checkpoint, 'job.json'));
    const policy = await loadPolicy({ checkpoint, job, threads, precision, allowUncertified: true });
    const momentAt = noise(job);
    const subject = new Subject(policy, precision, steps, momentAt);
    await policy.reset({ prompt: job.prompt ?? 'press the red button 3 times' });
    await policy.predict({ obs: momentAt(0), videoSteps: 1, actionSteps: 1 });
    await policy.commit({ obs: [], actions: new Float32Array(policy.info.actionShape[0] * policy.info.actionShape[2]) });
    await policy.occupy();
    return subject;
  }

  async run(isMeasured: boolean): Promise<void> {
    const [, frames] = this.policy.info.actionShape;
    const [videoSteps, actionSteps] = this.#steps;
    const obs = Array.from({ length: 4 * frames }, (_, index) => this.#momentAt(this.#turn * 5 + index));
    const begun = performance.now();
    const { actions } = await this.policy.predict({ videoSteps, actionSteps, seed: this.#turn++ });
    const predicted = performance.now();
    const { timing } = await this.policy.commit({ obs, actions });
    const committed = performance.now();
    if (!isMeasured) return;
    this.#hash.update(new Uint8Array(actions.buffer, actions.byteOffset, actions.byteLength));
    this.#times.push({ predict: predicted - begun, encode: timing.encodeMs, commit: committed - predicted });
  }

  row(): ChunkRow {
    const spread = (of: (time: { predict: number; encode: number; commit: number }) => number): Spread => {
      const values = this.#times.map(of);
      const at = (share: number): number => percentile(values, share) ?? Number.NaN;
      return { p50: at(0.5), p99: at(0.99), max: at(1) };
    };
    return {
      precision: this.precision,
      videoSteps: this.#steps[0],
      actionSteps: this.#steps[1],
      predictMs: spread(({ predict }) => predict),
      encodeMs: spread(({ encode }) => encode),
      commitMs: spread(({ commit }) => commit),
      chunkMs: spread(({ predict, commit }) => predict + commit),
      hash: this.#hash.copy().digest('hex').slice(0, 12),
    };
  }
}

export async function benchChunk(options: ChunkBenchOptions, onRound: (done: number) => void = () => undefined): Promise<ChunkBench> {
  const subjects: Subject[] = [];
  try {
    for (const precision of options.precisions) for (const steps of options.steps) subjects.push(await Subject.open(options, precision, steps));
    // Turn by turn, so that what else happens on the machine meets all of them.
    for (let round = -WARM_UP; round < options.chunks; round++) {
      for (const subject of subjects) await subject.run(round >= 0);
      onRound(round + 1);
    }
    const { policy } = subjects[0] as Subject;
    const { frame_chunk_size, action_per_frame } = policy.job;
    return {
      backend: policy.info.backend,
      threads: options.threads,
      chunks: options.chunks,
      motionMs: frame_chunk_size * action_per_frame * 40,
      rows: subjects.map((subject) => subject.row()),
    };
  } finally {
    for (const { policy } of subjects) await policy.close();
  }
}

export function chunkMarkdown({ backend, threads, chunks, motionMs, rows }: ChunkBench): string {
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)} at the end`;
  const shown = ({ p50, p99, max }: Spread): string => `${p50.toFixed(1)} / ${p99.toFixed(1)} / ${max.toFixed(1)}`;
  return [
    `${chunks} chunks of ${motionMs} ms of motion at 25 actions per second, full cache, ${threads} threads, ${backend}; ${machine}. ` +
      'Milliseconds: p50 / p99 / max.',
    '',
    '| precision | video/action steps | predict | encode | commit, encoding included | chunk | hash of the actions |',
    '|---|---|---:|---:|---:|---:|---|',
    ...rows.map(
      (row) =>
        `| ${row.precision} | ${row.videoSteps}/${row.actionSteps} | ${shown(row.predictMs)} | ${shown(row.encodeMs)} | ${shown(row.commitMs)} ` +
        `| ${shown(row.chunkMs)} | ${row.hash} |`,
    ),
    '',
  ].join('\n');
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({
    options: {
      checkpoint: { type: 'string', default: join(root, 'models', 'tabletop') },
      steps: { type: 'string', default: '5/10,1/5' },
      precision: { type: 'string', default: 'f32,bf16' },
      chunks: { type: 'string', default: '100' },
      threads: { type: 'string', default: String(cpus().length) },
      json: { type: 'boolean', default: false },
      out: { type: 'string' },
    },
  });
  const bench = await benchChunk(
    {
      checkpoint: values.checkpoint,
      steps: values.steps.split(',').map((pair) => pair.split('/').map(Number) as [number, number]),
      precisions: values.precision.split(',') as CpuPrecision[],
      chunks: Number(values.chunks),
      threads: Number(values.threads),
    },
    (done) => {
      if (done > 0 && done % 20 === 0) process.stderr.write(`${done} chunks\n`);
    },
  );
  const text = chunkMarkdown(bench);
  if (values.out !== undefined) writeFileSync(values.out, `# Whole chunks, ${new Date().toISOString().slice(0, 10)}\n\n${text}`);
  process.stdout.write(values.json ? `${JSON.stringify(bench, null, 2)}\n` : text);
}
