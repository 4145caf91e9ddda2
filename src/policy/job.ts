/**
 * Reads a job: the reference's job configuration, from an object or a JSON file, into the readonly Job of the contract. It names the field, what was
 * expected and what was found, and warns about keys that look misspelt. Owned by loadPolicy; it never looks at a checkpoint.
 */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { TEXT_TOKENS_MAX } from '../text/tokenizer.js';
import { describe, nearestName } from '../wording.js';
import type { Job } from './contract.js';
import { readLadder } from './ladder.js';

export interface ParsedJob {
  readonly job: Job;
  readonly warnings: readonly string[];
}

interface Problem {
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

interface Field {
  readonly schema: z.ZodType;
  readonly expected: string;
}

const SIDE_PIXELS_MAX = 8192;
const STEPS_MAX = 1000;
const CAMERAS_MAX = 16;
/** Pixels per latent value along each side: the VAE's spatial factor. */
export const VAE_STRIDE = 16;

const integer = (min: number, max: number): Field => ({ schema: z.int().min(min).max(max), expected: `a whole number of ${min} .. ${max}` });
const among = (...values: [string, ...string[]]): Field => ({ schema: z.enum(values), expected: values.map((value) => `"${value}"`).join(' or ') });
const finite: Field = { schema: z.number(), expected: 'a finite number' };
const positive: Field = { schema: z.number().positive(), expected: 'a number above 0' };
const flag: Field = { schema: z.boolean(), expected: 'true or false' };
const text: Field = { schema: z.string(), expected: 'a text' };

const required: Readonly<Record<string, Field>> = {
  obs_cam_keys: {
    schema: z.array(z.string().min(1)).min(1).max(CAMERAS_MAX),
    expected: `1 .. ${CAMERAS_MAX} camera names`,
  },
  guidance_scale: finite,
  action_guidance_scale: finite,
  num_inference_steps: integer(1, STEPS_MAX),
  action_num_inference_steps: integer(1, STEPS_MAX),
  snr_shift: positive,
  action_snr_shift: positive,
  used_action_channel_ids: { schema: z.array(z.int().min(0)).min(1), expected: 'a list of channel numbers (whole, >= 0)' },
  norm_stat: { schema: z.object({ q01: z.array(z.number()), q99: z.array(z.number()) }), expected: 'an object with the number lists q01 and q99' },
  attn_window: integer(2, 65536),
  height: integer(1, SIDE_PIXELS_MAX),
  width: integer(1, SIDE_PIXELS_MAX),
  frame_chunk_size: integer(1, 256),
  action_per_frame: integer(1, 4096),
};

const defaulted: Readonly<Record<string, Field & { readonly value: unknown }>> = {
  param_dtype: { ...among('float32', 'bfloat16'), value: 'float32' },
  patch_size: { schema: z.tuple([z.int().min(1), z.int().min(1), z.int().min(1)]), expected: 'three whole numbers >= 1', value: [1, 2, 2] },
  infer_mode: { ...among('server', 'i2va'), value: 'server' },
  env_type: { ...among('none', 'robotwin_tshape'), value: 'none' },
  action_dim: { ...integer(1, 4096), value: 30 },
  video_exec_step: { schema: z.int(), expected: '-1 or 1 .. num_inference_steps + 1', value: -1 },
  action_norm_method: { ...among('quantiles'), value: 'quantiles' },
  bf16_input_cast: { ...flag, value: true },
};

const optional: Readonly<Record<string, Field>> = {
  imagine_steps: integer(1, STEPS_MAX),
  max_sequence_length: integer(1, TEXT_TOKENS_MAX),
  prompt: text,
};

/** Keys of the reference's own job files that say nothing to the engine. */
const ignored = ['seed', 'raw_image_hw', 'checkpoint', 'prompt2', 'inverse_used_action_channel_ids', 'save_root', 'num_chunks_to_infer'];

const known: readonly string[] = [...Object.keys(required), ...Object.keys(defaulted), ...Object.keys(optional), 'ladder', ...ignored];

/** Latent rows and columns of one chunk, cameras joined: the network's [h, w]. */
export function latentSizeOf(job: Pick<Job, 'env_type' | 'height' | 'width' | 'obs_cam_keys'>): readonly [number, number] {
  const rows = Math.floor(job.height / VAE_STRIDE);
  const columns = Math.floor(job.width / VAE_STRIDE);
  if (job.env_type === 'robotwin_tshape') return [Math.floor((rows * 3) / 2), columns];
  return [rows, columns * job.obs_cam_keys.length];
}

/** Reads the job itself or the JSON file it names. Errors: JOB_MISSING, JOB_INVALID. */
export async function readJob(job: unknown): Promise<ParsedJob> {
  if (typeof job !== 'string') return parseJob(job);
  let content: string;
  try {
    content = await readFile(job, 'utf8');
  } catch (cause) {
    const found = (cause as NodeJS.ErrnoException).code === 'EISDIR' ? 'a folder' : `no readable file (${(cause as Error).message})`;
    throw new PremotorError('JOB_MISSING', `The job file ${job} cannot be read: expected a JSON file, found ${found}. Check the path.`, {
      field: 'job',
      file: job,
      expected: 'a JSON file',
      found,
      cause,
    });
  }
  try {
    return parseJob(JSON.parse(content), job);
  } catch (error) {
    if (error instanceof PremotorError) throw error;
    const found = (error as Error).message;
    throw new PremotorError('JOB_INVALID', `The job file ${job} is not JSON: ${found}. Correct the file.`, {
      field: 'job',
      file: job,
      expected: 'JSON',
      found,
      cause: error,
    });
  }
}

/** Checks a job object. `file` is named in errors. Errors: JOB_INVALID. */
export function parseJob(raw: unknown, file?: string): ParsedJob {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) {
    throw invalid([{ field: 'job', expected: 'an object or the path of a JSON file', found: describe(raw) }], file);
  }
  const source = raw as Record<string, unknown>;
  const problems: Problem[] = [];
  const parsed: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(required)) readField(source, name, field, parsed, problems);
  for (const [name, field] of Object.entries(defaulted)) {
    if (source[name] === undefined) parsed[name] = field.value;
    else readField(source, name, field, parsed, problems);
  }
  for (const [name, field] of Object.entries(optional)) if (source[name] !== undefined) readField(source, name, field, parsed, problems);
  if (problems.length === 0) problems.push(...crossChecks(parsed as unknown as Job));
  if (problems.length === 0 && source['ladder'] !== undefined) parsed['ladder'] = readLadder(source['ladder'], parsed as unknown as Job, problems);
  if (problems.length > 0) throw invalid(problems, file);
  return {
    job: deepFreeze(parsed) as unknown as Job,
    warnings: nearMisses(source).map(([key, meant]) => `job.${key} is not a field of a job and is ignored: did you mean ${meant}?`),
  };
}

function readField(source: Record<string, unknown>, name: string, field: Field, parsed: Record<string, unknown>, problems: Problem[]): void {
  const value = source[name];
  const result = field.schema.safeParse(value);
  if (result.success) {
    parsed[name] = result.data;
    return;
  }
  const path = (result.error.issues[0]?.path ?? []).map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
  let culprit: unknown = value;
  for (const part of result.error.issues[0]?.path ?? []) culprit = (culprit as Record<PropertyKey, unknown> | undefined)?.[part];
  const alias = value === undefined ? nearMisses(source).find(([, meant]) => meant === name)?.[0] : undefined;
  const found = alias === undefined ? describe(culprit) : `nothing, but a field "${alias}" that looks like it`;
  problems.push({ field: name + path, expected: field.expected, found });
}

function crossChecks(job: Job): Problem[] {
  return [...channelChecks(job), ...cameraChecks(job), ...samplingChecks(job), ...sizeChecks(job)];
}

function channelChecks(job: Job): Problem[] {
  const problems: Problem[] = [];
  const ids = job.used_action_channel_ids;
  const outside = ids.findIndex((id) => id >= job.action_dim);
  if (outside >= 0) {
    const expected = `a channel below action_dim (${job.action_dim})`;
    problems.push({ field: `used_action_channel_ids[${outside}]`, expected, found: describe(ids[outside]) });
  }
  const twice = ids.findIndex((id, index) => ids.indexOf(id) !== index);
  if (twice >= 0) problems.push({ field: `used_action_channel_ids[${twice}]`, expected: 'each channel once', found: `${ids[twice]} again` });
  for (const name of ['q01', 'q99'] as const) {
    const length = job.norm_stat[name].length;
    if (length !== job.action_dim) {
      problems.push({ field: `norm_stat.${name}`, expected: `${job.action_dim} numbers (action_dim)`, found: `${length} numbers` });
    }
  }
  return problems;
}

function cameraChecks(job: Job): Problem[] {
  const problems: Problem[] = [];
  const keys = job.obs_cam_keys;
  const twice = keys.findIndex((key, index) => keys.indexOf(key) !== index);
  if (twice >= 0) problems.push({ field: `obs_cam_keys[${twice}]`, expected: 'each camera once', found: `"${keys[twice]}" again` });
  if (job.env_type === 'robotwin_tshape' && keys.length !== 3) {
    problems.push({ field: 'obs_cam_keys', expected: '3 cameras (env_type robotwin_tshape)', found: `${keys.length} cameras` });
  }
  return problems;
}

function samplingChecks(job: Job): Problem[] {
  const problems: Problem[] = [];
  if (job.guidance_scale <= 1 && job.action_guidance_scale > 1) {
    const expected = 'at most 1 when guidance_scale is at most 1 (the negative prompt is computed for guidance_scale > 1 only)';
    problems.push({ field: 'action_guidance_scale', expected, found: describe(job.action_guidance_scale) });
  }
  const last = job.num_inference_steps + 1;
  if (job.video_exec_step !== -1 && (job.video_exec_step < 1 || job.video_exec_step > last)) {
    const expected = `-1 or 1 .. ${last} (num_inference_steps + 1)`;
    problems.push({ field: 'video_exec_step', expected, found: describe(job.video_exec_step) });
  }
  return problems;
}

function sizeChecks(job: Job): Problem[] {
  const problems: Problem[] = [];
  const [patchFrames, patchRows, patchColumns] = job.patch_size;
  if (job.frame_chunk_size % patchFrames !== 0) {
    problems.push({ field: 'frame_chunk_size', expected: `a multiple of ${patchFrames} (patch_size)`, found: describe(job.frame_chunk_size) });
  }
  const halved = job.env_type === 'robotwin_tshape';
  const multiple = halved ? 2 * VAE_STRIDE : VAE_STRIDE;
  const why = halved ? 'the half size cameras need multiples of 16' : "the VAE's latents are 16 pixels apart";
  for (const side of ['height', 'width'] as const) {
    if (job[side] % multiple !== 0) problems.push({ field: side, expected: `a multiple of ${multiple} (${why})`, found: describe(job[side]) });
  }
  if (problems.length > 0) return problems;
  const [rows, columns] = latentSizeOf(job);
  if (rows % patchRows !== 0) {
    problems.push({
      field: 'height',
      expected: `joined latent rows in multiples of ${patchRows} (patch_size)`,
      found: `${job.height}, which gives ${rows} rows`,
    });
  }
  if (columns % patchColumns !== 0) {
    problems.push({
      field: 'width',
      expected: `joined latent columns in multiples of ${patchColumns} (patch_size)`,
      found: `${job.width}, which gives ${columns} columns`,
    });
  }
  return problems;
}

function invalid(problems: readonly Problem[], file: string | undefined): PremotorError {
  const list = problems.map(({ field, expected, found }) => `${field === 'job' ? 'job' : `job.${field}`}: expected ${expected}, found ${found}`);
  const shown = list.slice(0, 5).join('; ');
  const more = list.length > 5 ? `; and ${list.length - 5} more` : '';
  const first = problems[0] as Problem;
  return new PremotorError('JOB_INVALID', `The job${file === undefined ? '' : ` file ${file}`} is not usable. ${shown}${more}. Correct the job.`, {
    field: first.field,
    ...(file === undefined ? {} : { file }),
    expected: first.expected,
    found: first.found,
  });
}

/** Keys that no job has but that look like one that exists: [key, the name probably meant]. */
function nearMisses(source: Record<string, unknown>): [string, string][] {
  const pairs: [string, string][] = [];
  for (const key of Object.keys(source)) {
    if (known.includes(key) || key.length > 64) continue;
    const absent = known.filter((name) => source[name] === undefined);
    const meant = nearestName(key, absent);
    if (meant !== undefined) pairs.push([key, meant]);
  }
  return pairs;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    for (const inner of Object.values(value)) deepFreeze(inner);
    Object.freeze(value);
  }
  return value;
}
