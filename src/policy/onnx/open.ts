/**
 * Opens an exported policy: reads model.onnx and job.json of a folder, compares the two, runs the model once, and puts the contract around it, in
 * this process or in a child. Owned by load.ts; it holds no state of its own.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PremotorError } from '../../errors.js';
import type { ModeName } from '../../mode-names.js';
import { describe } from '../../wording.js';
import type { LoadPolicyOptions, Policy, PolicyInfo } from '../contract.js';
import { IsolatedPolicy } from '../isolated.js';
import { fill } from './feeds.js';
import { contractJob, type OnnxJob, readOnnxJob } from './job.js';
import { type Feed, matchInputs, matchOutput, matchResult } from './match.js';
import type { Picture } from './picture.js';
import { OnnxPolicy } from './policy.js';
import { type ImportRuntime, type OnnxSession, openSession } from './runtime.js';
import { weightsOf } from './weights.js';

export const ONNX_MODEL_FILE = 'model.onnx';
export const ONNX_JOB_FILE = 'job.json';
const THREADS_MAX = 1024;
/** Of the picture that a model is tried with. */
const GREY = 128;

/** What opening needs from outside; tests bring their own. */
export interface OnnxParts {
  readonly importRuntime?: ImportRuntime;
}

/** Whether a folder holds an exported policy. */
export const isOnnxFolder = (folder: string): boolean => existsSync(join(folder, ONNX_MODEL_FILE));

/** Errors: docs/ERRORS.md, "Exported policies". */
export async function loadOnnx(options: LoadPolicyOptions): Promise<Policy> {
  const { isolate = false } = options;
  if (!isolate) return openOnnx(options);
  checkOptions(options);
  return IsolatedPolicy.open(options, { module: entryPoint() });
}

/** Opens it in this process, whatever `isolate` says. */
export async function openOnnx(options: LoadPolicyOptions, { importRuntime }: OnnxParts = {}): Promise<OnnxPolicy> {
  const threads = checkOptions(options);
  const folder = resolve(options.checkpoint);
  const file = join(folder, ONNX_MODEL_FILE);
  const mapping = await readOnnxJob(options.job ?? join(folder, ONNX_JOB_FILE));
  const model = await readModel(folder);
  const weights = weightsOf(model);
  if (weights?.isExternal) throw externalWeights(file);
  const session = await openSession(model, file, threads, importRuntime);
  try {
    matchOutput(mapping, session.outputs, file);
    const feeds = matchInputs(mapping, session.inputs, file);
    const horizon = await probe(session, mapping, feeds, file);
    const info = infoOf(mapping, horizon, {
      threads,
      version: session.version,
      weightBytes: model.length,
      parameters: weights?.parameters ?? 0,
      checkpointHash: hashOf(model, mapping),
    });
    return new OnnxPolicy({ session, mapping, feeds, job: contractJob(mapping), info, horizon, file });
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** Errors: CHECKPOINT_MISSING_FILE. */
function readModel(folder: string): Promise<Uint8Array> {
  const file = join(folder, ONNX_MODEL_FILE);
  return readFile(file).catch((cause: Error) => {
    const expectation = `Expected ${ONNX_MODEL_FILE} beside ${ONNX_JOB_FILE}`;
    const message = `The exported policy ${folder} cannot be used: ${cause.message}. ${expectation}; check the path.`;
    throw new PremotorError('CHECKPOINT_MISSING_FILE', message, {
      field: 'checkpoint',
      file,
      expected: ONNX_MODEL_FILE,
      found: cause.message,
      cause,
    });
  });
}

/** Runs the model on a grey picture: what it gives must be a chunk of this job. Gives the number of its actions. */
async function probe(session: OnnxSession, mapping: OnnxJob, feeds: readonly Feed[], file: string): Promise<number> {
  const pictures = new Map<string, Picture>();
  const tokens = new Map<string, readonly number[]>();
  for (const { name, input } of feeds) {
    if (input.from === 'camera') {
      const { width, height } = input;
      pictures.set(name, { width, height, data: new Uint8Array(width * height * 3).fill(GREY) });
    }
    if (input.from === 'instruction') tokens.set(name, new Array<number>(input.length).fill(input.padding));
  }
  const pose = new Float64Array(mapping.output.channels.length);
  const { shape } = await session.run(fill(feeds, { pictures, pose, tokens }), mapping.output.name);
  return matchResult(mapping, shape, file).horizon;
}

type About = Pick<PolicyInfo, 'threads' | 'weightBytes' | 'parameters' | 'checkpointHash'> & { readonly version: string };

function infoOf(mapping: OnnxJob, horizon: number, { version, ...about }: About): PolicyInfo {
  const { frameChunkSize: frames, actionPerFrame: perFrame, inputs, output } = mapping;
  const readsState = Object.values(inputs).some(({ from }) => from === 'state');
  return {
    ...about,
    device: 'cpu',
    backend: `onnxruntime ${version}`,
    precision: 'f32',
    kvCache: 'f32',
    cacheBytes: 0,
    unusedTensors: [],
    latentShape: [0, frames, 0, 0],
    actionShape: [output.channels.length, frames, perFrame],
    warnings: [],
    usesState: readsState || output.values !== 'absolute',
    modes: modesOf(horizon, frames * perFrame),
  };
}

/**
 * The modes that make sense without a memory: a chunk from the newest picture (sync), the mean of many such (ensemble), and, where the model looks
 * two chunks ahead, the part of its actions that follows the executing ones (async-naive). Nothing is imagined and nothing is painted in.
 */
function modesOf(horizon: number, chunk: number): readonly ModeName[] {
  return horizon >= 2 * chunk ? ['sync', 'ensemble', 'async-naive'] : ['sync', 'ensemble'];
}

/** The hash that a policy of this folder has. Errors: CHECKPOINT_MISSING_FILE, those of readOnnxJob. */
export async function onnxHash(folder: string, job: unknown = join(folder, ONNX_JOB_FILE)): Promise<string> {
  return hashOf(await readModel(folder), await readOnnxJob(job));
}

/** Of the model and of what it is told and asked: another mapping is another policy. */
function hashOf(model: Uint8Array, mapping: OnnxJob): string {
  return createHash('sha256').update(model).update(JSON.stringify(mapping)).digest('hex');
}

/** Gives the number of threads. Errors: ARGUMENT_INVALID, PRECISION_UNSUPPORTED, DEVICE_UNAVAILABLE. */
function checkOptions(options: LoadPolicyOptions): number {
  const { checkpoint, precision = 'f32', kvCache, plan, device = 'auto', threads = Math.max(1, availableParallelism() - 1) } = options;
  if (typeof checkpoint !== 'string' || checkpoint === '') throw badOption('checkpoint', `the path of a folder with ${ONNX_MODEL_FILE}`, checkpoint);
  if (!Number.isInteger(threads) || threads < 1 || threads > THREADS_MAX)
    throw badOption('threads', `a whole number of 1 .. ${THREADS_MAX}`, threads);
  if (plan !== undefined) throw badOption('plan', 'none: plans are for the engine', plan);
  if (kvCache !== undefined && kvCache !== 'f32') throw badOption('kvCache', 'none: an exported policy has no KV cache', kvCache);
  if (precision !== 'f32') {
    const remedy = 'An exported policy runs as it was exported: export it in another precision instead.';
    const message = `precision: expected "f32", found "${precision}". ${remedy}`;
    throw new PremotorError('PRECISION_UNSUPPORTED', message, { field: 'precision', expected: 'f32', found: precision });
  }
  if (device !== 'auto' && device !== 'cpu') {
    const message = `device: expected "cpu" or "auto", found "${device}": exported policies run on the CPU in this version.`;
    throw new PremotorError('DEVICE_UNAVAILABLE', message, { field: 'device', expected: 'cpu', found: String(device) });
  }
  return threads;
}

function badOption(field: string, expected: string, value: unknown): PremotorError {
  const found = describe(value);
  const message = `loadPolicy: ${field}: expected ${expected}, found ${found}. Correct the option; docs/ONNX.md lists them.`;
  return new PremotorError('ARGUMENT_INVALID', message, { field, expected, found });
}

function externalWeights(file: string): PremotorError {
  const [expected, found] = ['a model with its weights inside', 'one whose weights are in another file'];
  const message = `The model ${file} cannot be opened: expected ${expected}, found ${found}. Export it with external_data=False.`;
  return new PremotorError('ONNX_MODEL', message, { file, expected, found });
}

/** The child runs the same way as this file: compiled, or as TypeScript under a loader. */
function entryPoint(): string {
  return fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './onnx-process.ts' : './onnx-process.js', import.meta.url));
}
