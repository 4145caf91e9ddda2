/**
 * The robot configuration: every key with its type, unit, default and meaning. The schema is the one list: reader.ts checks files against it, and
 * docs/CONFIG.md is compared with it by a test. Pure data; it opens nothing.
 */
import { z } from 'zod';
import { MODE_NAMES } from '../mode-names.js';
import { KV_CACHES, PRECISIONS } from '../precision-names.js';
import { among, type KeyNotes, note, positive, text, whole, wholeWords } from './notes.js';
import { robot } from './robot.js';
import { autonomy, service } from './service.js';
import { cameraSource, dashboard, recorder, telemetry } from './services.js';

/** What may compute the actions. */
export const POLICY_BACKENDS = ['engine', 'remote', 'onnx'] as const;
const SEED_MAX = 2 ** 32 - 1;
/** A policy server: no user, no path needed. */
export const SERVER_URL = /^wss?:\/\/[^\s/@?#]+:\d{1,5}(\/[^\s#]*)?$/;

const jointLimits = z.strictObject({
  lower_rad: note(z.number().optional(), 'an angle in radians', 'lowest setpoint of the joint', "the robot's own"),
  upper_rad: note(z.number().optional(), 'an angle in radians', 'highest setpoint of the joint', "the robot's own"),
  velocity_max_rad_per_s: note(positive.optional(), 'a number above 0', 'highest speed of the joint', "the robot's own"),
  acceleration_max_rad_per_s2: note(positive.optional(), 'a number above 0', 'highest acceleration of the joint', "the robot's own"),
  jerk_max_rad_per_s3: note(positive.optional(), 'a number above 0', 'highest change of the acceleration of the joint', "the robot's own"),
});

const task = z.strictObject({
  name: note(
    text.default('touch'),
    'the name of a task',
    'the task whose scene is set up and judged; docs/SIM.md lists them. In the real world any name, for reports: nobody judges it there',
  ),
  seed: note(whole(0, SEED_MAX).default(0), wholeWords(0, SEED_MAX), 'fixes the scene'),
  instruction: note(
    text.optional(),
    'a text',
    "told to the policy instead of the scene's own; the task judges as before",
    "the scene's; required in the real world",
  ),
});

const policy = z.strictObject({
  checkpoint_dir: note(
    text.optional(),
    'the path of a folder',
    'checkpoint in the released layout; with backend `remote` only its job and replays need it',
    'required, but for backend `remote` with a `job`',
  ),
  backend: note(
    z.enum(POLICY_BACKENDS).default('engine'),
    among(POLICY_BACKENDS),
    'what computes: `engine` this checkpoint, `remote` a policy server (docs/SERVER.md), `onnx` an exported policy (docs/ONNX.md)',
  ),
  url: note(
    z.string().regex(SERVER_URL).optional(),
    'ws://HOST:PORT or wss://HOST:PORT',
    'backend `remote`: the policy server',
    'required for `remote`',
  ),
  token_file: note(text.optional(), 'the path of a file', 'backend `remote`: holds the token that the server asks for', 'none'),
  reply_timeout_s: note(
    positive.max(3600).default(60),
    'a number above 0 and up to 3600',
    'backend `remote`: longest wait for an answer; then the episode ends and the arm holds',
  ),
  job: note(
    z.union([text, z.record(z.string(), z.unknown())]).optional(),
    'the path of a JSON file, or the job itself',
    'how the robot uses the checkpoint (docs/CLI.md, "The job")',
    '`job.json` in `checkpoint_dir`, else the job of the robot type',
  ),
  plan: note(
    text.optional(),
    'the path of a plan file',
    'weights packed ahead by `premotor build` for this checkpoint and precision (docs/PLAN.md)',
    'none: they are packed when the policy is loaded',
  ),
  precision: note(z.enum(PRECISIONS).default('f32'), among(PRECISIONS), 'how weights are held; int8 and int4 need a certificate (docs/PRECISION.md)'),
  kv_cache: note(
    z.enum(KV_CACHES).optional(),
    among(KV_CACHES),
    'how cached keys and values are held; another than the default needs a certificate (docs/PRECISION.md)',
    '`f32` with `precision` `f32`, else `bf16`',
  ),
  allow_uncertified: note(
    z.boolean().default(false),
    'true or false',
    'run int8 or int4, or another KV cache than the default, without a certificate for the checkpoint',
  ),
  device: note(z.enum(['auto', 'cpu', 'cuda']).default('auto'), among(['auto', 'cpu', 'cuda']), 'where to compute'),
  threads: note(whole(1, 1024).optional(), wholeWords(1, 1024), 'CPU threads', 'all cores but one'),
  isolate: note(z.boolean().default(true), 'true or false', 'run the engine in a process of its own, so that its crash ends no supervisor'),
  recover: note(
    z.boolean().default(true),
    'true or false',
    'keep a journal: an engine process that dies is replaced and the episode rebuilt, and `premotor run --resume` can go on with it',
  ),
  video_steps: note(whole(1, 1000).optional(), wholeWords(1, 1000), 'denoising steps for video', "the job's"),
  action_steps: note(whole(1, 1000).optional(), wholeWords(1, 1000), 'denoising steps for actions', "the job's"),
  seed: note(whole(0, SEED_MAX).optional(), wholeWords(0, SEED_MAX), "seed of the policy's noise", '`task.seed`'),
});

const cameras = z.strictObject({
  frame_rate_hz: note(positive.max(1000).default(12.5), 'a number above 0 and up to 1000', 'pictures that every camera takes per second'),
  frame_age_max_ms: note(positive.default(100), 'a number above 0', 'an older frame ends the episode'),
  dark_below: note(z.number().min(0).max(255).default(4), 'a number of 0 .. 255', 'a darker picture on average ends the episode; 0: any is fine'),
  frozen_after_rad: note(
    z.number().min(0).default(0.1),
    'a number of at least 0',
    'pictures that stay the same while a joint moves so far in a chunk end the episode; 0: not looked at',
  ),
  frame_skew_max_ms: note(positive.default(50), 'a number above 0', 'frames of one observation that were captured further apart end the episode'),
  sources: note(
    z.record(z.string(), cameraSource).default({}),
    'camera keys with their sources',
    "per camera key of the job, where its pictures come from (docs/CAMERAS.md); cameras that are not named are the robot's own",
  ),
});

const control = z.strictObject({
  mode: note(z.enum(MODE_NAMES).default('sync'), among(MODE_NAMES), 'how predicting and moving are interleaved (docs/ASYNC.md)'),
  thinking_ms: note(
    z.number().min(0).max(60_000).optional(),
    'a number of 0 .. 60000',
    'for the simulated robot: robot time that every prediction takes',
    "0 in mode sync, else half a chunk's motion",
  ),
  budget: note(
    z.enum(['fixed', 'ladder']).default('fixed'),
    among(['fixed', 'ladder']),
    "asynchronous modes: the job's own denoising, or the best rung of its ladder that there is time for (docs/BUDGET.md)",
  ),
  uncertified: note(z.boolean().default(false), 'true or false', 'take rungs of the ladder that are not certified'),
  action_rate_hz: note(
    positive.max(1000).default(25),
    'a number above 0 and up to 1000',
    'actions per second; must be what the policy was trained with',
  ),
  chunks_max: note(
    whole(1, 10_000).optional(),
    wholeWords(1, 10_000),
    'the episode ends after so many action chunks',
    "the task's; required in the real world",
  ),
  action_outside_max_rad: note(
    positive.default(1),
    'a number above 0',
    'actions further outside a range are refused with their chunk, nearer ones clamped',
  ),
  action_jump_max_rad: note(positive.default(1.2), 'a number above 0', 'neighbouring actions further apart are refused with their chunk'),
  start_pose: note(
    z.record(z.string(), z.strictObject({ position_rad: note(z.number(), 'an angle in radians', 'where the joint begins') })).default({}),
    'joint names with their angles',
    'per joint name, where an episode begins: the robot moves there first, other joints stay',
  ),
  stop_category: note(
    z.union([z.literal(1), z.literal(2)]).default(1),
    '1 or 2',
    'after a stop that was asked for: 1 removes power at rest, 2 keeps it (IEC 60204-1)',
  ),
  hold_ms: note(z.number().min(0).max(60_000).default(200), 'a number of 0 .. 60000', 'how long the last setpoint is repeated at the end'),
  limits: note(
    z.record(z.string(), jointLimits).default({}),
    'joint names with their limits',
    "per joint name, limits that are tighter than the robot's own",
  ),
});

const recording = z.strictObject({
  animation: note(z.boolean().default(true), 'true or false', 'leave an animated picture, real beside imagined'),
  out_dir: note(text.default('premotor-out'), 'the path of a folder', 'where it is written, as `episode.gif`'),
  replay: note(z.boolean().default(true), 'true or false', 'leave `episode.replay` in `out_dir`, which `premotor replay` runs again bit by bit'),
  journal_dir: note(text.optional(), 'the path of a folder', 'where the journals of the newest episodes are', '`journal` in `out_dir`'),
  picture_rate_hz: note(positive.max(50).default(12.5), 'a number above 0 and up to 50', 'pictures per second of the animation'),
  recorder,
});

export const robotConfigSchema = z.strictObject({
  robot,
  autonomy,
  task: task.prefault({}),
  policy,
  cameras: cameras.prefault({}),
  control: control.prefault({}),
  recording: recording.prefault({}),
  telemetry: telemetry.prefault({}),
  dashboard: dashboard.prefault({}),
  service: service.prefault({}),
});

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T;

/** A checked configuration: defaults filled in, paths absolute. Keys are those of the file. */
export type RobotConfig = DeepReadonly<z.output<typeof robotConfigSchema>>;

/** One key of a configuration file. */
export interface ConfigKey extends KeyNotes {
  readonly path: string;
  readonly isRequired: boolean;
  /** Undefined when there is none, or only a fallback. */
  readonly defaultValue?: unknown;
}

/** The schema of the values, without what makes it optional. */
function inner(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional)
    return inner(schema.unwrap() as z.ZodType);
  return schema;
}

/** The schemas of the keys inside; `undefined` for a schema without any. A record's keys are all alike and called `<name>`. */
function keysInside(schema: z.ZodType): Readonly<Record<string, z.ZodType>> | undefined {
  const value = inner(schema);
  if (value instanceof z.ZodObject) return value.shape;
  return value instanceof z.ZodRecord ? { '<name>': value.valueType as z.ZodType } : undefined;
}

/** Names that may stand under a path; empty where there are no fixed ones. */
export function namesUnder(path: readonly PropertyKey[]): readonly string[] {
  const schema = schemaAt(path);
  return Object.keys((schema && keysInside(schema)) ?? {}).filter((name) => name !== '<name>');
}

function schemaAt(path: readonly PropertyKey[]): z.ZodType | undefined {
  let schema: z.ZodType | undefined = robotConfigSchema;
  for (const part of path) {
    const names: Readonly<Record<string, z.ZodType>> | undefined = schema && keysInside(schema);
    schema = names?.[String(part)] ?? names?.['<name>'];
  }
  return schema;
}

/** What is expected at a path, in an error's words. */
export function expectedAt(path: readonly PropertyKey[]): string {
  const schema = schemaAt(path);
  const notes = schema?.meta() as Partial<KeyNotes> | undefined;
  if (notes?.expected !== undefined) return notes.expected;
  const names = namesUnder(path);
  return names.length > 0 ? `a section with ${names.join(', ')}` : 'a value';
}

/** Sections whose keys are names that the file gives. */
const RECORDS: readonly string[] = ['limits', 'start_pose', 'sources', 'joints', 'workspaces'];

/** Every key in the order of the schema. */
export function configKeys(schema: z.ZodType = robotConfigSchema, prefix = ''): ConfigKey[] {
  return Object.entries(keysInside(schema) ?? {}).flatMap(([name, value]): ConfigKey[] => {
    const path = `${prefix}${name}`;
    const notes = value.meta() as KeyNotes | undefined;
    const insides = inner(value) instanceof z.ZodObject || RECORDS.includes(name) ? configKeys(value, `${path}.`) : [];
    if (!notes || insides.length > 0) return insides;
    const defaultValue = value instanceof z.ZodDefault ? value.def.defaultValue : undefined;
    const isRequired = !(value instanceof z.ZodDefault || value instanceof z.ZodOptional);
    return [{ path, ...notes, isRequired, ...(defaultValue === undefined ? {} : { defaultValue }) }];
  });
}
