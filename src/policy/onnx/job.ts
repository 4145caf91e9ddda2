/**
 * Reads job.json of an exported policy: which of the model's inputs gets what, what its output means, and how a chunk is cut into latent frames.
 * Gives the mapping and the job of the contract that follows from it. Owned by open.ts; it never looks at the model, which match.ts compares it with.
 */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { PremotorError } from '../../errors.js';
import { describe, nearestName } from '../../wording.js';
import type { Job } from '../contract.js';

export const ONNX_JOB_FORMAT = 'premotor-onnx';
export const ONNX_JOB_VERSION = 1;

const SIDE_PIXELS_MAX = 8192;
const CHANNELS_MAX = 256;
const TOKENS_MAX = 512;
const INPUTS_MAX = 64;

const field = <Schema extends z.ZodType>(schema: Schema, expected: string): Schema => schema.meta({ expected });
const whole = (low: number, high: number): z.ZodInt => field(z.int().min(low).max(high), `a whole number of ${low} .. ${high}`);
const among = <const Names extends readonly [string, ...string[]]>(names: Names) =>
  field(z.enum(names), names.map((name) => `"${name}"`).join(' or '));
const numbers = (expected: string) => field(z.array(z.number()).min(1).max(CHANNELS_MAX), expected);
const positives = (expected: string) => field(z.array(z.number().positive()).min(1).max(CHANNELS_MAX), expected);

const camera = z.strictObject({
  from: z.literal('camera'),
  camera: field(z.string().min(1), 'the key of a camera'),
  layout: among(['NCHW', 'NHWC', 'CHW', 'HWC']),
  height: whole(1, SIDE_PIXELS_MAX),
  width: whole(1, SIDE_PIXELS_MAX),
  dtype: among(['f32', 'u8']),
  /** How a picture of another size is brought to this one. */
  resize: among(['none', 'bilinear', 'area']).default('none'),
  order: among(['rgb', 'bgr']).default('rgb'),
  /** f32: (value x scale - mean) / std, per channel in the model's order. */
  scale: field(z.number().positive().optional(), 'a number above 0'),
  mean: field(z.tuple([z.number(), z.number(), z.number()]).optional(), 'three numbers'),
  std: field(z.tuple([z.number().positive(), z.number().positive(), z.number().positive()]).optional(), 'three numbers above 0'),
});

const state = z.strictObject({
  from: z.literal('state'),
  /** Which of the robot's joints, in the model's order. Default: all of the output's. */
  joints: field(z.array(z.int().min(0)).min(1).max(CHANNELS_MAX).optional(), 'a list of joint numbers (whole, >= 0)'),
  mean: numbers('a list of numbers, one per joint').optional(),
  std: positives('a list of numbers above 0, one per joint').optional(),
});

const instruction = z.strictObject({
  from: z.literal('instruction'),
  words: field(
    z.record(z.string().min(1), z.int().min(0)).refine((words) => Object.keys(words).length > 0),
    'words with their numbers (whole, >= 0)',
  ),
  length: whole(1, TOKENS_MAX),
  padding: field(z.int().min(0).default(0), 'a whole number >= 0'),
  /** The number of a word that is not listed. Without it such an instruction is refused. */
  unknown: field(z.int().min(0).optional(), 'a whole number >= 0'),
});

const constant = z.strictObject({
  from: z.literal('constant'),
  shape: field(z.array(z.int().min(1)).max(8), 'the sizes of the axes (whole, >= 1)'),
  /** One number for all elements, or one per element. */
  value: field(z.union([z.number(), z.array(z.number())]), 'a number, or a list of numbers'),
});

const kinds = { camera, state, instruction, constant } as const;
type Kind = keyof typeof kinds;

const output = z.strictObject({
  name: field(z.string().min(1), 'the name of an output'),
  layout: among(['1HD', 'HD', '1DH', 'DH']),
  /** For each of the robot's joints the model's channel. */
  channels: field(z.array(z.int().min(0)).min(1).max(CHANNELS_MAX), "a list of the model's channel numbers, one per joint (whole, >= 0)"),
  /** absolute angles, angles from the pose at the prediction, or steps from action to action. */
  values: among(['absolute', 'from_state', 'from_previous']).default('absolute'),
  /** Per model channel, in its order: value x std + mean, or from -1 .. 1 to min .. max. */
  mean: numbers("a list of numbers, one per model's channel").optional(),
  std: positives("a list of numbers above 0, one per model's channel").optional(),
  min: numbers("a list of numbers, one per model's channel").optional(),
  max: numbers("a list of numbers, one per model's channel").optional(),
});

const top = z.strictObject({
  format: field(z.literal(ONNX_JOB_FORMAT), `"${ONNX_JOB_FORMAT}"`),
  version: field(z.literal(ONNX_JOB_VERSION), String(ONNX_JOB_VERSION)),
  frame_chunk_size: whole(1, 256),
  action_per_frame: whole(1, 4096),
  inputs: field(
    z.record(z.string().min(1), z.record(z.string(), z.unknown())).refine((inputs) => {
      const count = Object.keys(inputs).length;
      return count >= 1 && count <= INPUTS_MAX;
    }),
    "an object: names of the model's inputs with where each comes from",
  ),
  output: field(z.record(z.string(), z.unknown()), 'an object'),
  prompt: field(z.string().optional(), 'a text'),
});

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T;
export type CameraInput = DeepReadonly<z.output<typeof camera>>;
export type StateInput = DeepReadonly<z.output<typeof state>>;
export type InstructionInput = DeepReadonly<z.output<typeof instruction>>;
export type ConstantInput = DeepReadonly<z.output<typeof constant>>;
export type OnnxInput = CameraInput | StateInput | InstructionInput | ConstantInput;
export type OnnxOutput = DeepReadonly<z.output<typeof output>>;

/** The mapping between a model and a robot. */
export interface OnnxJob {
  readonly frameChunkSize: number;
  readonly actionPerFrame: number;
  readonly inputs: Readonly<Record<string, OnnxInput>>;
  readonly output: OnnxOutput;
  readonly prompt?: string;
}

interface Problem {
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

/** Reads the mapping itself or the JSON file it names. Errors: JOB_MISSING, JOB_INVALID. */
export async function readOnnxJob(source: unknown): Promise<OnnxJob> {
  if (typeof source !== 'string') return parseOnnxJob(source);
  const text = await readFile(source, 'utf8').catch((cause: Error) => {
    const message = `The job file ${source} cannot be read: ${cause.message}. Expected the mapping of an exported policy; docs/ONNX.md describes it.`;
    throw new PremotorError('JOB_MISSING', message, { field: 'job', file: source, expected: 'a job file', found: cause.message, cause });
  });
  try {
    return parseOnnxJob(JSON.parse(text), source);
  } catch (cause) {
    if (cause instanceof PremotorError) throw cause;
    throw invalid([{ field: 'job', expected: 'JSON', found: (cause as Error).message }], source);
  }
}

/** Checks a mapping. `file` is named in errors. Errors: JOB_INVALID. */
export function parseOnnxJob(raw: unknown, file?: string): OnnxJob {
  const problems: Problem[] = [];
  const head = part(top, raw, 'job', problems);
  if (!head) throw invalid(problems, file);
  const inputs: Record<string, OnnxInput> = {};
  for (const [name, value] of Object.entries(head.inputs)) {
    const input = inputOf(name, value, problems);
    if (input) inputs[name] = input;
  }
  const result = part(output, head.output, 'job.output', problems);
  if (!result || problems.length > 0) throw invalid(problems, file);
  const { frame_chunk_size: frameChunkSize, action_per_frame: actionPerFrame, prompt } = head;
  const job: OnnxJob = { frameChunkSize, actionPerFrame, inputs, output: result, ...(prompt === undefined ? {} : { prompt }) };
  problems.push(...crossChecks(job));
  if (problems.length > 0) throw invalid(problems, file);
  return job;
}

function inputOf(name: string, value: Readonly<Record<string, unknown>>, problems: Problem[]): OnnxInput | undefined {
  const place = `job.inputs.${name}`;
  const { from } = value;
  if (typeof from === 'string' && from in kinds) return part(kinds[from as Kind] as z.ZodType<OnnxInput> & z.ZodObject, value, place, problems);
  problems.push({
    field: `${place}.from`,
    expected: Object.keys(kinds)
      .map((kind) => `"${kind}"`)
      .join(' or '),
    found: describe(from),
  });
  return undefined;
}

/** One object of the file; what is wrong goes to `problems`. */
function part<Schema extends z.ZodObject>(schema: Schema, value: unknown, place: string, problems: Problem[]): z.output<Schema> | undefined {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const names = Object.keys(schema.shape);
  for (const issue of result.error.issues) {
    if (issue.code === 'unrecognized_keys') {
      for (const key of issue.keys) {
        const meant = nearestName(key, names);
        const found = `an unknown key${meant === undefined ? '' : `: did you mean ${meant}?`}`;
        problems.push({ field: `${place}.${key}`, expected: `one of ${names.join(', ')}`, found });
      }
      continue;
    }
    const path = issue.path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`)).join('');
    const known = schema.shape[String(issue.path[0])] as z.ZodType | undefined;
    const expected = expectedOf(known) ?? 'an object';
    const found = issue.path.reduce<unknown>((at, step) => (at as Record<PropertyKey, unknown> | undefined)?.[step], value);
    problems.push({ field: `${place}${path}`, expected, found: describe(found) });
  }
  return undefined;
}

/** The words that go with a schema, also when it is optional or has a default. */
function expectedOf(schema: z.ZodType | undefined): string | undefined {
  const own = schema?.meta()?.['expected'];
  if (typeof own === 'string') return own;
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) return expectedOf(schema.unwrap() as z.ZodType);
  return undefined;
}

function crossChecks({ inputs, output: { channels, mean, std, min, max } }: OnnxJob): Problem[] {
  const problems: Problem[] = [];
  const pairs = (place: string, one: [string, unknown], other: [string, unknown]): void => {
    if ((one[1] === undefined) === (other[1] === undefined)) return;
    const missing = one[1] === undefined ? one[0] : other[0];
    problems.push({
      field: `${place}.${missing}`,
      expected: `a value, because ${one[1] === undefined ? other[0] : one[0]} is given`,
      found: 'nothing',
    });
  };
  for (const [name, input] of Object.entries(inputs)) problems.push(...inputChecks(`job.inputs.${name}`, input, channels.length, pairs));
  if (!Object.values(inputs).some(({ from }) => from === 'camera'))
    problems.push({ field: 'job.inputs', expected: 'at least one input from a camera', found: 'none' });
  pairs('job.output', ['mean', mean], ['std', std]);
  pairs('job.output', ['min', min], ['max', max]);
  if (mean && min) problems.push({ field: 'job.output', expected: 'mean and std, or min and max', found: 'both' });
  const twice = channels.findIndex((channel, index) => channels.indexOf(channel) !== index);
  if (twice >= 0) problems.push({ field: `job.output.channels[${twice}]`, expected: 'each channel once', found: `${channels[twice]} again` });
  const low = min?.findIndex((value, index) => !(value < (max?.[index] ?? Number.NaN))) ?? -1;
  if (low >= 0) problems.push({ field: `job.output.max[${low}]`, expected: `more than min (${min?.[low]})`, found: describe(max?.[low]) });
  return problems;
}

type Pairs = (place: string, one: [string, unknown], other: [string, unknown]) => void;

function inputChecks(place: string, input: OnnxInput, joints: number, pairs: Pairs): Problem[] {
  const problems: Problem[] = [];
  if (input.from === 'camera') {
    pairs(place, ['mean', input.mean], ['std', input.std]);
    const given = (['scale', 'mean'] as const).find((name) => input[name] !== undefined);
    if (input.dtype === 'u8' && given !== undefined)
      problems.push({ field: `${place}.${given}`, expected: 'nothing: dtype u8 takes pictures as they are', found: describe(input[given]) });
  }
  if (input.from === 'state') {
    pairs(place, ['mean', input.mean], ['std', input.std]);
    const wanted = input.joints?.length ?? joints;
    for (const name of ['mean', 'std'] as const) {
      const found = input[name]?.length;
      if (found !== undefined && found !== wanted)
        problems.push({ field: `${place}.${name}`, expected: `${wanted} numbers, one per joint`, found: `${found}` });
    }
    const outside = input.joints?.findIndex((joint) => joint >= joints) ?? -1;
    if (outside >= 0)
      problems.push({ field: `${place}.joints[${outside}]`, expected: `a joint below ${joints}`, found: describe(input.joints?.[outside]) });
  }
  if (input.from === 'constant' && typeof input.value !== 'number') {
    const wanted = input.shape.reduce((product, size) => product * size, 1);
    if (input.value.length !== wanted)
      problems.push({ field: `${place}.value`, expected: `one number, or ${wanted} for the shape`, found: `${input.value.length}` });
  }
  return problems;
}

function invalid(problems: readonly Problem[], file: string | undefined): PremotorError {
  const list = problems.map(({ field: name, expected, found }) => `${name}: expected ${expected}, found ${found}`);
  const more = list.length > 5 ? `; and ${list.length - 5} more` : '';
  const first = problems[0] as Problem;
  const which = `The job${file === undefined ? '' : ` file ${file}`} of the exported policy`;
  const message = `${which} is not usable. ${list.slice(0, 5).join('; ')}${more}. Correct it; docs/ONNX.md describes it.`;
  return new PremotorError('JOB_INVALID', message, {
    field: first.field,
    ...(file === undefined ? {} : { file }),
    expected: first.expected,
    found: first.found,
  });
}

/** The cameras of a mapping, each once. */
export function camerasOf({ inputs }: OnnxJob): string[] {
  return [...new Set(Object.values(inputs).flatMap((input) => (input.from === 'camera' ? [input.camera] : [])))];
}

/** The job of the contract: what control cycle, films and records ask for. Denoising and normalisation have no meaning here and do nothing. */
export function contractJob(job: OnnxJob): Job {
  const first = Object.values(job.inputs).find((input) => input.from === 'camera') as CameraInput;
  const used = job.output.channels.map((_, joint) => joint);
  return Object.freeze({
    param_dtype: 'float32',
    patch_size: [1, 1, 1],
    infer_mode: 'server',
    env_type: 'none',
    action_dim: used.length,
    obs_cam_keys: camerasOf(job),
    guidance_scale: 1,
    action_guidance_scale: 1,
    num_inference_steps: 1,
    video_exec_step: -1,
    action_num_inference_steps: 1,
    snr_shift: 1,
    action_snr_shift: 1,
    used_action_channel_ids: used,
    action_norm_method: 'quantiles',
    norm_stat: { q01: used.map(() => -1), q99: used.map(() => 1) },
    attn_window: 2,
    height: first.height,
    width: first.width,
    frame_chunk_size: job.frameChunkSize,
    action_per_frame: job.actionPerFrame,
    bf16_input_cast: false,
    ...(job.prompt === undefined ? {} : { prompt: job.prompt }),
  } as const satisfies Job);
}
