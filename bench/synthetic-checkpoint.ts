/**
 * Writes a checkpoint at the released size with random weights: what the memory and speed figures at 5.09 B parameters are measured on:
 *   npx tsx bench/synthetic-checkpoint.ts DIR [--text-encoder tiny|xxl] [--vae f32|bf16] [--seed N] [--size released|small|tiny] [--force]
 * The transformer is bf16 in 3 shards (10.2 GB), the autoencoder at released size in f32 (2.8 GB) or bf16, the text encoder one narrow layer
 * unless xxl (11 GB more). The folder is not removed afterwards; the disk's free space is checked first.
 */
import { mkdir, readdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command, Option } from 'commander';
import { releasedTextEncoder } from '../src/checkpoint/sizes.js';
import { planUntrained, type UntrainedOptions, writeUntrainedCheckpoint } from '../src/checkpoint/untrained.js';
import { formatBytes, formatCount, printError, type Sink } from '../src/cli/context.js';
import { whole } from '../src/cli/numbers.js';
import { ProgressBar } from '../src/cli/progress.js';
import { PremotorError } from '../src/errors.js';

interface BenchOptions {
  readonly textEncoder: 'tiny' | 'xxl';
  readonly vae: 'f32' | 'bf16';
  readonly seed: number;
  readonly size: 'released' | 'small' | 'tiny';
  readonly force: boolean;
}

/** The options of writeUntrainedCheckpoint for a command line. */
export function checkpointOptions({ textEncoder, vae, seed, size }: BenchOptions): UntrainedOptions {
  return {
    size,
    seed,
    dtype: { transformer: 'bf16', vae, text_encoder: 'bf16' },
    shards: 3,
    vestigial: true,
    ...(textEncoder === 'xxl' ? { overrides: { textEncoder: releasedTextEncoder, transformer: { text_dim: releasedTextEncoder.d_model } } } : {}),
  };
}

async function run(dir: string, options: BenchOptions, out: Sink, err: Sink): Promise<void> {
  const folder = resolve(dir);
  await mkdir(folder, { recursive: true });
  const names = await readdir(folder);
  if (names.length > 0 && !options.force) {
    const message = `${folder} is not empty (${names.slice(0, 3).join(', ')}). Choose another folder or add --force.`;
    throw new PremotorError('OUT_NOT_EMPTY', message, { file: folder });
  }
  const settings = checkpointOptions(options);
  const plan = planUntrained(settings);
  const parameters = plan.tensors.transformer.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
  err.write(`writing ${formatBytes(plan.totalBytes)} to ${folder}: transformer of ${formatCount(parameters)} parameters\n`);
  const bar = new ProgressBar(err, { show: formatBytes });
  const started = performance.now();
  await writeUntrainedCheckpoint(folder, { ...settings, onProgress: ({ bytes, totalBytes }) => bar.update('random weights', bytes, totalBytes) });
  bar.clear();
  const seconds = (performance.now() - started) / 1000;
  const rate = `${(plan.totalBytes / 1e6 / seconds).toFixed(0)} MB/s`;
  out.write(`${folder}: ${formatBytes(plan.totalBytes)} in ${seconds.toFixed(1)} s (${rate}, without waiting for the disk to be flushed)\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const program = new Command('synthetic-checkpoint')
    .description('write a checkpoint at the released size with random weights')
    .argument('<dir>', 'folder to write, empty or new')
    .addOption(new Option('--text-encoder <size>', 'tiny: one narrow layer; xxl: UMT5-XXL, 11 GB more').choices(['tiny', 'xxl']).default('tiny'))
    .addOption(new Option('--vae <dtype>', "the autoencoder's stored type").choices(['f32', 'bf16']).default('f32'))
    .option('--seed <n>', 'seed of the weights', whole(0, 2 ** 31 - 1), 0)
    .addOption(new Option('--size <name>', 'other sizes are for trying this script out').choices(['released', 'small', 'tiny']).default('released'))
    .option('--force', 'write into a folder that is not empty', false);
  try {
    await program.action((dir: string, options: BenchOptions) => run(dir, options, process.stdout, process.stderr)).parseAsync(process.argv);
  } catch (error) {
    printError(error, { out: process.stdout, err: process.stderr }, false);
    process.exitCode = 1;
  }
}
