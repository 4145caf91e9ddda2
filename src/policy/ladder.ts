/**
 * Reads a job's ladder: rungs of denoising, best first, with their certificates. It names every field that is wrong; whether a certificate suffices
 * is the budget's question (src/control/budget/ladder.ts). Called by job.ts; the text of a rung's steps serves everyone.
 */
import { z } from 'zod';
import { describe } from '../wording.js';
import type { Job, LadderRung } from './contract.js';
import { execStepAtMost } from './schedule.js';

const RUNGS_MAX = 16;
const STEPS_MAX = 1000;

export interface LadderProblem {
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

interface Field {
  readonly schema: z.ZodType;
  readonly expected: string;
}

const steps: Field = { schema: z.int().min(1).max(STEPS_MAX), expected: `a whole number of 1 .. ${STEPS_MAX}` };
const text: Field = { schema: z.string().min(1), expected: 'a text' };
const share: Field = { schema: z.number().min(0).max(1), expected: 'a share of 0 .. 1' };
const points: Field = { schema: z.number().min(-100).max(100), expected: 'points of percent, -100 .. 100' };

const rungFields: Readonly<Record<string, Field>> = {
  video_steps: steps,
  video_exec_step: { schema: z.int(), expected: '-1 or 1 .. video_steps + 1' },
  stop_sigma: { schema: z.number().min(0).lt(1), expected: 'a noise level of 0 up to, but not including, 1' },
  action_steps: steps,
  guidance: { schema: z.boolean(), expected: 'true or false' },
  imagine_steps: steps,
  certificate: { schema: z.record(z.string(), z.unknown()), expected: 'an object: what `premotor eval certify --write` wrote' },
};
const optionalInRung = ['video_exec_step', 'stop_sigma', 'certificate'];

const certificateFields: Readonly<Record<string, Field>> = {
  date: { schema: z.iso.datetime(), expected: 'a time such as 2026-01-31T12:00:00.000Z' },
  checkpoint: { schema: z.string().regex(/^[0-9a-f]{64}$/), expected: "a checkpoint's SHA-256, 64 hexadecimal digits" },
  tool: text,
  tasks: { schema: z.array(z.string().min(1)).min(1), expected: 'a list of task names' },
  episodes: { schema: z.int().min(1), expected: 'a whole number of at least 1' },
  seed: { schema: z.int().min(0), expected: 'a whole number of at least 0' },
  success: share,
  base_success: share,
  difference_points: points,
  interval_points: { schema: z.tuple([points.schema, points.schema]), expected: 'two numbers of -100 .. 100: the lower and the upper bound' },
  margin_points: { schema: z.number().min(0).max(100), expected: 'a number of 0 .. 100' },
  mode: text,
  rung: text,
  base: text,
};

/** The ladder of a job whose other fields are read; problems are appended. */
export function readLadder(raw: unknown, job: Pick<Job, 'snr_shift'>, problems: LadderProblem[]): LadderRung[] {
  if (!Array.isArray(raw) || raw.length < 1 || raw.length > RUNGS_MAX) {
    const found = Array.isArray(raw) ? `${raw.length} of them` : describe(raw);
    problems.push({ field: 'ladder', expected: `a list of 1 .. ${RUNGS_MAX} rungs, the best first`, found });
    return [];
  }
  const before = problems.length;
  const rungs = raw.map((one, index) => readRung(one, `ladder[${index}]`, job, problems));
  if (problems.length > before) return [];
  rungs.forEach((rung, index) => {
    const same = rungs.findIndex((other) => stepsText(other) === stepsText(rung));
    if (same < index) problems.push({ field: `ladder[${index}]`, expected: 'each rung once', found: `the steps of ladder[${same}] again` });
  });
  return rungs;
}

function readRung(raw: unknown, name: string, job: Pick<Job, 'snr_shift'>, problems: LadderProblem[]): LadderRung {
  const before = problems.length;
  const fields = readObject(raw, name, rungFields, optionalInRung, problems);
  if (fields['certificate'] !== undefined) {
    fields['certificate'] = readObject(fields['certificate'], `${name}.certificate`, certificateFields, [], problems);
  }
  if (problems.length > before) return fields as unknown as LadderRung;
  const { stop_sigma: stopSigma, video_exec_step: given, ...rest } = fields;
  const videoSteps = rest['video_steps'] as number;
  const execStep = (given ?? -1) as number;
  if (given !== undefined && stopSigma !== undefined) {
    problems.push({ field: `${name}.stop_sigma`, expected: 'either video_exec_step or stop_sigma', found: 'both' });
  }
  if (execStep !== -1 && (execStep < 1 || execStep > videoSteps + 1)) {
    const expected = `-1 or 1 .. ${videoSteps + 1} (video_steps + 1)`;
    problems.push({ field: `${name}.video_exec_step`, expected, found: describe(execStep) });
  }
  const resolved = stopSigma === undefined ? execStep : execStepAtMost(videoSteps, job.snr_shift, stopSigma as number);
  return { ...rest, video_exec_step: resolved } as unknown as LadderRung;
}

/** The fields of an object; what is missing, wrong or unknown becomes a problem. */
function readObject(
  raw: unknown,
  name: string,
  fields: Readonly<Record<string, Field>>,
  optional: readonly string[],
  problems: LadderProblem[],
): Record<string, unknown> {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) {
    problems.push({ field: name, expected: `an object with ${Object.keys(fields).join(', ')}`, found: describe(raw) });
    return {};
  }
  const source = raw as Record<string, unknown>;
  const parsed: Record<string, unknown> = {};
  for (const [key, { schema, expected }] of Object.entries(fields)) {
    const value = source[key];
    if (value === undefined && optional.includes(key)) continue;
    const result = schema.safeParse(value);
    if (result.success) parsed[key] = result.data;
    else problems.push({ field: `${name}.${key}`, expected, found: describe(value) });
  }
  for (const key of Object.keys(source)) {
    if (!Object.hasOwn(fields, key))
      problems.push({ field: `${name}.${key}`, expected: `one of ${Object.keys(fields).join(', ')}`, found: 'no such field' });
  }
  return parsed;
}

/** The steps of a rung in one text, equal for equal steps: what a certificate says it was made for. */
export function stepsText({ video_steps, video_exec_step, action_steps, guidance, imagine_steps }: Omit<LadderRung, 'certificate'>): string {
  const video = video_exec_step === -1 ? `video ${video_steps}` : `video ${video_exec_step} of ${video_steps}`;
  return `${video}, actions ${action_steps}, imagine ${imagine_steps}, ${guidance ? 'guided' : 'unguided'}`;
}
