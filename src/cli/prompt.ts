/**
 * `premotor prompt`: computes text embeddings on a workstation and writes them to a checkpoint's prompts folder, for a robot that has no text
 * encoder. Owned by the command line. Progress goes to standard error and the result to standard output, so that --json can be piped.
 */
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { PremotorError } from '../errors.js';
import { loadNative, type NativeEngineModule } from '../native.js';
import type { CpuPrecision } from '../policy/precision.js';
import { checkpointHash, textHash } from '../text/checkpoint-hash.js';
import { embedPrompt, type PromptEmbedding } from '../text/embeddings.js';
import { modeName, precomputedFile, promptsFolder, type TextMode, textMode, writePrompt } from '../text/prompt-cache.js';
import { precisionOption } from './precision-option.js';

/** What the command needs from outside; tests give their own. */
export interface PromptCommandDependencies {
  readonly native: () => Pick<NativeEngineModule, 'encodeText'>;
  readonly out: (text: string) => void;
  readonly progress: (text: string) => void;
}

export interface PromptCommandOptions {
  readonly checkpoint: string;
  readonly prompt: readonly string[];
  readonly file?: string;
  readonly job?: string;
  readonly precision: CpuPrecision;
  readonly paramDtype?: 'float32' | 'bfloat16';
  readonly out?: string;
  readonly threads: number;
  /** false: --no-cache. */
  readonly cache: boolean;
  readonly json: boolean;
}

/** One line of the result. */
export interface PromptRow {
  readonly prompt: string;
  readonly cleaned: string;
  readonly tokens: number;
  readonly source: PromptEmbedding['source'];
  readonly milliseconds: number;
  readonly file: string;
  readonly warnings: readonly string[];
}

function invalid(message: string, file: string, found: string, cause?: unknown): PremotorError {
  return new PremotorError('TEXT_INVALID', message, { file, found, ...(cause === undefined ? {} : { cause }) });
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const found = (cause as Error).message;
    throw invalid(`The ${what} ${path} cannot be read (${found}). Give the path of an existing file.`, path, found, cause);
  }
}

/** The instructions of the command line and of the file (one a line, empty lines skipped), and always the empty one, which guidance needs. */
async function collectPrompts(options: PromptCommandOptions): Promise<string[]> {
  const lines = options.file === undefined ? [] : (await readText(options.file, 'prompt file')).split(/\r?\n/).filter((line) => line.trim() !== '');
  if (options.prompt.length + lines.length === 0) {
    const expected = 'at least one instruction';
    throw new PremotorError('TEXT_INVALID', `Expected ${expected}, found none. Give --prompt "..." or --file prompts.txt.`, {
      expected,
      found: 'none',
    });
  }
  return [...new Set([...options.prompt, ...lines, ''])];
}

/** The job's compute dtype: from --param-dtype, from the job file, else what released checkpoints are run with at that precision. */
async function chooseMode(options: PromptCommandOptions): Promise<TextMode> {
  let dtype: unknown = options.paramDtype ?? (options.precision === 'bf16' ? 'bfloat16' : 'float32');
  if (options.job !== undefined) {
    const text = await readText(options.job, 'job');
    try {
      dtype = (JSON.parse(text) as { param_dtype?: unknown } | null)?.param_dtype;
    } catch (cause) {
      throw invalid(
        `The job ${options.job} is not JSON (${(cause as Error).message}). Give the job that the robot runs.`,
        options.job,
        'no JSON',
        cause,
      );
    }
    if (options.paramDtype !== undefined && dtype !== options.paramDtype) {
      const message = `--param-dtype says ${options.paramDtype} but ${options.job} says param_dtype ${String(dtype)}. Give only one of them.`;
      throw invalid(message, options.job, String(dtype));
    }
  }
  if (dtype !== 'float32' && dtype !== 'bfloat16') {
    const message = `The job's param_dtype must be "float32" or "bfloat16", found ${JSON.stringify(dtype)}. Correct ${options.job}.`;
    throw invalid(message, options.job ?? '', JSON.stringify(dtype) ?? 'nothing');
  }
  return textMode(options.precision, dtype);
}

function table(rows: readonly PromptRow[]): string {
  const header = ['prompt', 'tokens', 'from', 'ms'];
  const shorten = (text: string): string => (text.length > 60 ? `${text.slice(0, 59)}…` : text);
  const cells = rows.map((row) => [shorten(JSON.stringify(row.cleaned)), String(row.tokens), row.source, row.milliseconds.toFixed(0)]);
  const widths = header.map((title, column) => Math.max(title.length, ...cells.map((line) => line[column]?.length ?? 0)));
  const align = (text: string, column: number): string => {
    const width = widths[column] ?? 0;
    return column === 1 || column === 3 ? text.padStart(width) : text.padEnd(width);
  };
  return [header, ...cells].map((line) => line.map(align).join('  ').trimEnd()).join('\n');
}

/** Runs the command. Errors: those of embedPrompt, PROMPT_WRITE, TEXT_INVALID (unusable --file or --job). */
export async function runPrompt(options: PromptCommandOptions, dependencies: PromptCommandDependencies): Promise<readonly PromptRow[]> {
  const { out, progress } = dependencies;
  const checkpoint = resolve(options.checkpoint);
  const folder = resolve(options.out ?? promptsFolder(checkpoint));
  const [prompts, mode] = [await collectPrompts(options), await chooseMode(options)];
  const hashes = { checkpointHash: await checkpointHash(checkpoint), textHash: await textHash(checkpoint) };
  const rows: PromptRow[] = [];
  for (const [index, prompt] of prompts.entries()) {
    progress(`[${index + 1}/${prompts.length}] ${JSON.stringify(prompt)}`);
    const started = performance.now();
    const embedding = await embedPrompt({
      checkpoint,
      prompt,
      mode,
      threads: options.threads,
      native: dependencies.native,
      checkpointHash: hashes.checkpointHash,
      precomputed: false,
      ...(options.cache ? {} : { cacheDir: false as const }),
    });
    const { cleaned, count, source, warnings } = embedding;
    const file = precomputedFile(folder, cleaned, mode);
    const stored = { cleaned, count, rows: embedding.rows, ids: embedding.ids.subarray(0, count) };
    await writePrompt(file, folder, stored, { cleaned, mode, ...hashes });
    for (const warning of warnings) progress(`warning: ${warning}`);
    const milliseconds = performance.now() - started;
    rows.push({ prompt, cleaned, tokens: count, source, milliseconds, file, warnings });
    progress(`[${index + 1}/${prompts.length}] ${count} tokens from the ${source}, ${milliseconds.toFixed(0)} ms`);
  }
  if (options.json) out(JSON.stringify({ checkpoint, ...hashes, mode: modeName(mode), folder, prompts: rows }, null, 2));
  else out(`${table(rows)}\n\n${rows.length} prompts, mode ${modeName(mode)}, in ${folder}`);
  return rows;
}

function parseThreads(text: string): number {
  const threads = Number(text);
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) throw new InvalidArgumentError('Expected an integer from 1 to 1024.');
  return threads;
}

const collect = (value: string, previous: readonly string[]): string[] => [...previous, value];

/** Adds `premotor prompt` to the program. Errors of the command reject the program's parseAsync. */
export function registerPrompt(program: Command): void {
  program
    .command('prompt')
    .description('precompute text embeddings for a robot that has no text encoder')
    .requiredOption('--checkpoint <dir>', 'checkpoint folder in the released layout, with tokenizer and text encoder')
    .option('--prompt <text>', 'instruction; may be given more than once', collect, [])
    .option('--file <path>', 'text file with one instruction a line')
    .addOption(precisionOption('precision that the robot runs with', 'f32'))
    .option('--job <path>', 'job that the robot runs; its param_dtype chooses the rounding')
    .addOption(new Option('--param-dtype <name>', 'the same without a job file').choices(['float32', 'bfloat16']))
    .option('--out <dir>', "folder to write to (default: the checkpoint's prompts folder)")
    .option('--threads <n>', 'CPU threads', parseThreads, Math.max(1, availableParallelism() - 1))
    .option('--no-cache', 'neither read nor write the prompt cache of this machine')
    .option('--json', 'print the result as JSON', false)
    .action(async (options: PromptCommandOptions) => {
      const print = (stream: NodeJS.WriteStream) => (text: string) => void stream.write(`${text}\n`);
      await runPrompt(options, { native: loadNative, out: print(process.stdout), progress: print(process.stderr) });
    });
}
