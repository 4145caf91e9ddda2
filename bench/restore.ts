/**
 * How fast an episode is rebuilt (Policy.restore), and what packing several past commits into one pass could gain at most: the same frames are
 * restored as commits of 1, 2, 4 and 8 latent frames, which is the batch that packing would make, without its masks. On a checkpoint of the released
 * width with few layers, written to a temporary folder and removed. Usage:
 *   npx tsx bench/restore.ts [--layers 2] [--frames 16] [--threads N] [--tiny]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { writeUntrainedCheckpoint } from '../src/checkpoint/untrained.js';
import { loadPolicy, type PastCommit, type Policy } from '../src/index.js';
import { ROBOTWIN_JOB } from './robotwin-job.js';

/** Latent frames of one commit. */
const SIZES = [1, 2, 4, 8];
const RELEASED_WIDTH = { num_attention_heads: 24, attention_head_dim: 128, ffn_dim: 14336 };

const jobOf = (tiny: boolean): typeof ROBOTWIN_JOB => (tiny ? { ...ROBOTWIN_JOB, height: 64, width: 64 } : ROBOTWIN_JOB);

/** Values of a sine: finite, of no meaning, the same in every run. */
const wave = (count: number): Float32Array => Float32Array.from({ length: count }, (_, at) => Math.sin(at));

/** An encoder state, which restore wants: that of an episode with one commit of one frame. */
async function stateOf(policy: Policy): Promise<Parameters<Policy['restore']>[0]['encoder']> {
  const { job, info } = policy;
  await policy.reset({ prompt: 'open the drawer' });
  const data = new Uint8Array(320 * 240 * 3).fill(100);
  await policy.predict({ obs: job.obs_cam_keys.map((camera) => ({ camera, width: 320, height: 240, data, capturedAtNs: 0n })) });
  await policy.commit({ obs: [], actions: wave(info.actionShape[0] * info.actionShape[2]) });
  return policy.encoderState();
}

interface Figures {
  readonly framesPerCommit: number;
  readonly p50Ms: number;
  readonly maxMs: number;
  readonly tokensPerSecond: number;
  /** Processor time, all threads: what counts on a machine that others use too. */
  readonly cpuMsPerToken: number;
  readonly checksum: string;
}

/** Times each commit of a restored episode but the first, which pays for the reset. */
async function measure(policy: Policy, encoder: Parameters<Policy['restore']>[0]['encoder'], frames: number, size: number): Promise<Figures> {
  const [used, , perFrame] = policy.info.actionShape;
  const [channels, , height, width] = policy.info.latentShape;
  const commit: PastCommit = { latents: wave(channels * size * height * width), actions: wave(used * size * perFrame) };
  const marks: number[] = [];
  const cpuMarks: number[] = [];
  const mark = (): void => {
    marks.push(performance.now());
    const { user, system } = process.cpuUsage();
    cpuMarks.push((user + system) / 1000);
  };
  const commits = Array.from({ length: frames / size + 1 }, () => commit);
  await policy.restore({ prompt: 'open the drawer', commits, encoder, onProgress: mark });
  const durations = marks.slice(1).map((at, index) => at - (marks[index] as number));
  durations.sort((a, b) => a - b);
  const p50Ms = durations[Math.floor(durations.length / 2)] as number;
  const tokens = size * ((height * width) / 4 + perFrame);
  const maxMs = durations.at(-1) as number;
  const cpuMsPerToken = ((cpuMarks.at(-1) as number) - (cpuMarks[0] as number)) / (tokens * durations.length);
  return { framesPerCommit: size, p50Ms, maxMs, tokensPerSecond: (1000 * tokens) / p50Ms, cpuMsPerToken, checksum: policy.cache.checksum };
}

/** Writes the checkpoint, measures, removes it. */
export async function benchRestore(options: { layers: number; frames: number; threads: number; tiny: boolean }): Promise<Figures[]> {
  const folder = mkdtempSync(join(tmpdir(), 'premotor-restore-'));
  try {
    const transformer = options.tiny ? {} : { ...RELEASED_WIDTH, num_layers: options.layers };
    const dtype = { transformer: 'bf16', vae: 'f32', text_encoder: 'bf16' } as const;
    await writeUntrainedCheckpoint(folder, { size: 'tiny', seed: 0, dtype, overrides: { transformer } });
    const policy = await loadPolicy({
      checkpoint: folder,
      job: jobOf(options.tiny),
      precision: 'bf16',
      threads: options.threads,
      promptCache: false,
    });
    try {
      const encoder = await stateOf(policy);
      await measure(policy, encoder, options.frames, SIZES[0] as number); // warms up
      const figures: Figures[] = [];
      for (const size of SIZES) figures.push(await measure(policy, encoder, options.frames, size));
      return figures;
    } finally {
      await policy.close();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({
    options: {
      layers: { type: 'string', default: '2' },
      frames: { type: 'string', default: '16' },
      threads: { type: 'string', default: String(availableParallelism()) },
      tiny: { type: 'boolean', default: false },
    },
  });
  const settings = { layers: Number(values.layers), frames: Number(values.frames), threads: Number(values.threads), tiny: values.tiny };
  const figures = await benchRestore(settings);
  console.log(
    `${cpus()[0]?.model ?? 'unknown'}, ${settings.threads} threads; ${settings.tiny ? 'tiny' : `released width, ${settings.layers} layers`}`,
  );
  console.log('| frames a commit | p50 ms | max ms | tokens/s | CPU ms a token | checksum |\n|---|---|---|---|---|---|');
  for (const { framesPerCommit, p50Ms, maxMs, tokensPerSecond, cpuMsPerToken, checksum } of figures) {
    const times = [p50Ms, maxMs, tokensPerSecond].map((value) => value.toFixed(1)).join(' | ');
    console.log(`| ${framesPerCommit} | ${times} | ${cpuMsPerToken.toFixed(2)} | ${checksum} |`);
  }
}
