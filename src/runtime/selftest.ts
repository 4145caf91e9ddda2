/**
 * One chunk of a model from fixed pictures, instruction and seed, compared with a reference that lies beside the model. It tells a model that
 * computes
 * what it computed on the machine of its makers from one that does not. Owned by `premotor selftest`; it opens no robot and moves nothing.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import type { Frame, LoadPolicyOptions, Policy } from '../policy/contract.js';
import { type CpuPrecision, pairName } from '../policy/precision.js';
import { replaceFile } from '../replace-file.js';
import { policyOptions } from './rig.js';

export const SELFTEST_FILE = 'selftest.json';
const FORMAT = 'premotor-selftest-1';
const SEED = 20_260_101;
const PICTURE = { width: 96, height: 72 };
const PROMPT = 'touch the red button';

/**
 * How far a value may be from its reference, as a share of the channel's spread in the reference (its root mean square about its mean, at least
 * the floor below). Processors round
 * and sum in other orders, and quantised activations then fall on other integers; docs/UPDATE.md has what was measured. A wrong weight, a wrong
 * file or
 * a broken kernel differs by the whole spread.
 */
export const TOLERANCE: Readonly<Record<CpuPrecision, number>> = { f32: 1e-4, bf16: 0.1, int8: 0.3, int4: 0.3 };
/** A channel that hardly moves has no spread to compare with: radians, metres. */
const SPREAD_MIN = 0.01;

const referenceSchema = z.object({
  prompt: z.string(),
  seed: z.int().nonnegative(),
  tolerance: z.number().positive(),
  /** [used, K, H], 32-bit floats, little-endian, base64. */
  shape: z.array(z.int().positive()).length(3),
  actions: z.string(),
  /** SHA-256 of those bytes. */
  sha256: z.string(),
  /** Where it was made: for people. */
  backend: z.string(),
});
type Reference = Readonly<z.output<typeof referenceSchema>>;

const fileSchema = z.object({ format: z.literal(FORMAT), checkpointHash: z.string(), references: z.record(z.string(), referenceSchema) });
type ReferenceFile = z.output<typeof fileSchema>;

export interface SelftestResult {
  readonly checkpoint: string;
  readonly precision: string;
  readonly backend: string;
  readonly matches: boolean;
  /** Hash of the chunk with every value that is within tolerance replaced by its reference. */
  readonly sha256: string;
  readonly expectedSha256: string;
  /** Largest distance, as a share of its channel's spread, and what is allowed. */
  readonly worst: number;
  readonly tolerance: number;
  readonly values: number;
  readonly tookMs: number;
}

export interface SelftestParts {
  readonly loadPolicy: (options: LoadPolicyOptions) => Promise<Policy>;
  readonly signal?: AbortSignal;
}

/** Every picture is a ramp of its own, so that a camera taken for another shows. */
export function testPicture(camera: string, index: number): Frame {
  const { width, height } = PICTURE;
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 3;
      data[at] = (x * 2 + index * 40) % 256;
      data[at + 1] = (y * 3 + index * 80) % 256;
      data[at + 2] = ((x >> 3) + (y >> 3)) % 2 === 0 ? 200 : 40;
    }
  }
  return { camera, width, height, data, capturedAtNs: 0n };
}

interface Computed {
  readonly actions: Float32Array;
  readonly shape: readonly number[];
  readonly info: Policy['info'];
}

async function compute(
  config: RobotConfig,
  { prompt, seed }: Pick<Reference, 'prompt' | 'seed'>,
  { loadPolicy, signal }: SelftestParts,
): Promise<Computed> {
  const policy = await loadPolicy(policyOptions(config));
  try {
    const interrupt = signal === undefined ? {} : { signal };
    await policy.reset({ prompt, ...interrupt });
    const obs = policy.job.obs_cam_keys.map(testPicture);
    // A policy that wants the joints gets them in the middle of nowhere: the same each time is all that counts.
    const state = policy.info.usesState === true ? { state: new Float64Array(policy.info.actionShape[0]) } : {};
    const { actions, shape } = await policy.predict({ obs, seed, ...state, ...interrupt });
    return { actions: Float32Array.from(actions), shape: [...shape], info: policy.info };
  } finally {
    await policy.close();
  }
}

const bytesOf = (actions: Float32Array): Buffer => {
  const bytes = Buffer.alloc(actions.length * 4);
  for (const [index, value] of actions.entries()) bytes.writeFloatLE(value, index * 4);
  return bytes;
};

const hashOf = (actions: Float32Array): string => createHash('sha256').update(bytesOf(actions)).digest('hex');

/** Values near their reference become it; the hash then says whether all did. */
export function snap(actions: Float32Array, reference: Float32Array, channels: number, tolerance: number): { snapped: Float32Array; worst: number } {
  const snapped = Float32Array.from(actions);
  const per = Math.max(1, reference.length / channels);
  let worst = actions.length === reference.length ? 0 : Number.POSITIVE_INFINITY;
  for (let channel = 0; channel * per < reference.length; channel++) {
    const scale = spread(reference.subarray(channel * per, (channel + 1) * per));
    for (let index = channel * per; index < (channel + 1) * per; index++) {
      const expected = reference[index] ?? 0;
      const distance = Math.abs((actions[index] ?? Number.NaN) - expected) / scale;
      // NaN is no distance, and must not pass for a small one.
      worst = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : Math.max(worst, distance);
      if (distance <= tolerance) snapped[index] = expected;
    }
  }
  return { snapped, worst };
}

function spread(values: Float32Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.max(SPREAD_MIN, Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length));
}

function folderOf({ policy }: RobotConfig): string {
  if (policy.backend !== 'remote' && policy.checkpoint_dir !== undefined) return policy.checkpoint_dir;
  const [expected, found] = ['a checkpoint on this machine', `backend ${policy.backend}`];
  const message = `There is no model to test: expected ${expected}, found ${found}. Test the policy server's machine instead.`;
  throw new PremotorError('SELFTEST_MISSING', message, { field: 'policy.backend', expected, found });
}

/** Errors: SELFTEST_MISSING, SELFTEST_INVALID, those of loadPolicy and Policy. A chunk that differs is a result, not an error. */
export async function runSelftest(config: RobotConfig, parts: SelftestParts): Promise<SelftestResult> {
  const folder = folderOf(config);
  const started = performance.now();
  const { checkpointHash, references } = await readReferences(folder);
  const name = pairOf(config);
  const reference = references[name];
  if (reference === undefined) throw missing(folder, `a reference for ${name}`, Object.keys(references).join(', ') || 'none');
  const { actions, info } = await compute(config, reference, parts);
  const expected = floatsOf(reference, join(folder, SELFTEST_FILE));
  if (info.checkpointHash !== checkpointHash)
    throw invalid(join(folder, SELFTEST_FILE), `the reference of checkpoint ${info.checkpointHash}`, checkpointHash);
  const { snapped, worst } = snap(actions, expected, reference.shape[0] ?? 1, reference.tolerance);
  const sha256 = hashOf(snapped);
  return {
    checkpoint: folder,
    precision: name,
    backend: info.backend,
    matches: sha256 === reference.sha256,
    sha256,
    expectedSha256: reference.sha256,
    worst,
    tolerance: reference.tolerance,
    values: actions.length,
    tookMs: performance.now() - started,
  };
}

/** Computes the reference of a configuration's precision and keeps it beside the model. Errors: as runSelftest, FILE_WRITE. */
export async function createReference(config: RobotConfig, parts: SelftestParts): Promise<{ readonly file: string; readonly sha256: string }> {
  const folder = folderOf(config);
  const file = join(folder, SELFTEST_FILE);
  const fixed = { prompt: config.task.instruction ?? PROMPT, seed: SEED };
  const { actions, shape, info } = await compute(config, fixed, parts);
  if (!actions.every(Number.isFinite)) throw invalid(file, 'finite actions', 'values that are none');
  const before = await readReferences(folder).catch(() => undefined);
  // References of another checkpoint are of no use to this one.
  const kept = before?.checkpointHash === info.checkpointHash ? before.references : {};
  const tolerance = TOLERANCE[config.policy.precision as CpuPrecision];
  const sha256 = hashOf(actions);
  const made: Reference = { ...fixed, tolerance, shape: [...shape], actions: bytesOf(actions).toString('base64'), sha256, backend: info.backend };
  const content: ReferenceFile = { format: FORMAT, checkpointHash: info.checkpointHash, references: { ...kept, [pairOf(config)]: made } };
  await replaceFile(file, `${JSON.stringify(content, null, 1)}\n`, 0o644).catch((cause: Error) => {
    throw new PremotorError('FILE_WRITE', `${file} cannot be written: ${cause.message}. Check the disk and the folder's rights.`, { file, cause });
  });
  return { file, sha256 };
}

const pairOf = ({ policy }: RobotConfig): string =>
  policy.kv_cache === undefined ? policy.precision : pairName({ precision: policy.precision as CpuPrecision, kvCache: policy.kv_cache });

async function readReferences(folder: string): Promise<ReferenceFile> {
  const file = join(folder, SELFTEST_FILE);
  const text = await readFile(file, 'utf8').catch((cause: Error) => {
    throw missing(folder, `the file ${SELFTEST_FILE}`, cause.message);
  });
  try {
    return fileSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw invalid(file, 'references that premotor selftest wrote', (cause as Error).message.replaceAll(/\s+/g, ' ').slice(0, 160));
  }
}

function floatsOf({ actions, sha256, shape }: Reference, file: string): Float32Array {
  const bytes = Buffer.from(actions, 'base64');
  const values = Float32Array.from({ length: Math.floor(bytes.length / 4) }, (_, index) => bytes.readFloatLE(index * 4));
  const count = shape.reduce((product, size) => product * size, 1);
  if (values.length !== count || hashOf(values) !== sha256) throw invalid(file, 'actions with the hash beside them', 'others');
  return values;
}

function missing(folder: string, expected: string, found: string): PremotorError {
  const message =
    `The model in ${folder} cannot be tested: expected ${expected}, found ${found}. premotor selftest CONFIG --create makes it, ` +
    `where the model is known to be good.`;
  return new PremotorError('SELFTEST_MISSING', message, { file: folder, expected, found });
}

function invalid(file: string, expected: string, found: string): PremotorError {
  const message = `${file} says nothing about this model: expected ${expected}, found ${found}. Copy the model again, or make its reference again.`;
  return new PremotorError('SELFTEST_INVALID', message, { file, expected, found });
}
