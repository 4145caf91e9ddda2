/**
 * A staged roll-out: which robots come when, and whether the next stage may begin, judged by what the robots report. Reads the operator's file; keeps
 * beside it what was seen of each robot between two looks. It publishes nothing and tells no robot anything.
 */
import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { replaceFile } from '../replace-file.js';
import type { RobotFacts } from './facts.js';
import { ARCHITECTURES, bundleSchema, ROBOTS_IN_LIST_MAX, type RolloutList, robotName, versionText } from './list.js';

const FILE_CHARACTERS_MAX = 2 ** 22;
const PROBLEMS_SHOWN = 5;
const STAGES_MAX = 100;
const MS_PER_MINUTE = 60_000;

const minutes = z.number().min(0).max(100_000);
const gates = { healthy_minutes: minutes.optional(), failures_max: z.int().min(0).optional() };
const rolloutSchema = z
  .strictObject({
    fleet: robotName,
    version: versionText,
    bundles: z.partialRecord(z.enum(ARCHITECTURES), bundleSchema).refine((found) => Object.keys(found).length > 0, 'at least one bundle'),
    /** Of stages that say nothing else. */
    gate: z.strictObject(gates).prefault({}),
    /** A robot that was seen in its stage and is offline for longer counts as failed. */
    offline_minutes: minutes.default(30),
    stages: z
      .array(z.strictObject({ name: z.string().min(1).max(64), robots: z.array(robotName).min(1), ...gates }))
      .min(1)
      .max(STAGES_MAX),
  })
  .superRefine(({ stages }, context) => {
    const seen = new Map<string, string>();
    stages.forEach(({ name, robots }, stage) => {
      robots.forEach((robot, index) => {
        const other = seen.get(robot);
        if (other !== undefined)
          context.addIssue({ code: 'custom', path: ['stages', stage, 'robots', index], message: `${robot} is in ${other} already` });
        seen.set(robot, name);
      });
    });
    if (seen.size > ROBOTS_IN_LIST_MAX) context.addIssue({ code: 'custom', path: ['stages'], message: `at most ${ROBOTS_IN_LIST_MAX} robots` });
  });

export interface Stage {
  readonly name: string;
  readonly robots: readonly string[];
  readonly healthyMs: number;
  readonly failuresMax: number;
}

export interface Rollout {
  readonly fleet: string;
  readonly version: string;
  readonly bundles: RolloutList['bundles'];
  readonly offlineMs: number;
  readonly stages: readonly Stage[];
}

const HEALTHY_MINUTES = 30;

/** Errors: ROLLOUT_INVALID. */
export function parseRollout(text: string, file: string): Rollout {
  const refused = (found: string, cause?: unknown): PremotorError => {
    const message = `The roll-out ${file} cannot be right: ${found}. docs/FLEET.md lists its keys.`;
    return new PremotorError('ROLLOUT_INVALID', message, { file, expected: 'a roll-out', found, cause });
  };
  if (text.length > FILE_CHARACTERS_MAX) throw refused(`${text.length} characters, at most ${FILE_CHARACTERS_MAX} are read`);
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (cause) {
    throw refused((cause as Error).message, cause);
  }
  const result = rolloutSchema.safeParse(raw);
  if (!result.success) {
    const problems = result.error.issues.map(({ path, message }) => `${path.length === 0 ? '' : `${path.map(String).join('.')}: `}${message}`);
    throw refused(problems.slice(0, PROBLEMS_SHOWN).join('; '));
  }
  const { fleet, version, bundles, gate, offline_minutes, stages } = result.data;
  return {
    fleet,
    version,
    bundles,
    offlineMs: offline_minutes * MS_PER_MINUTE,
    stages: stages.map(({ name, robots, healthy_minutes, failures_max }) => ({
      name,
      robots,
      healthyMs: (healthy_minutes ?? gate.healthy_minutes ?? HEALTHY_MINUTES) * MS_PER_MINUTE,
      failuresMax: failures_max ?? gate.failures_max ?? 0,
    })),
  };
}

/** Errors: ROLLOUT_INVALID. */
export async function readRollout(file: string): Promise<Rollout> {
  const text = await readFile(file, 'utf8').catch((cause: Error) => {
    const message = `The roll-out ${file} cannot be read. Check the path.`;
    throw new PremotorError('ROLLOUT_INVALID', message, { file, expected: 'a YAML file', found: cause.message, cause });
  });
  return parseRollout(text, file);
}

const seenSchema = z.object({
  /** Since when it is on the version, online and without a fault; absent: it is not. */
  healthySinceMs: z.number().optional(),
  /** When it was online last, since its stage was opened. */
  onlineMs: z.number().optional(),
  uptimeS: z.number().optional(),
});
const progressSchema = z.object({
  format: z.literal('premotor-rollout-progress-1'),
  version: versionText,
  serial: z.int().min(0),
  round: z.int().min(1),
  paused: z.boolean(),
  /** Stages that were opened. */
  opened: z.int().min(0),
  lookedMs: z.number(),
  robots: z.record(z.string(), seenSchema),
});
export type Progress = Readonly<z.output<typeof progressSchema>>;
type Seen = Readonly<z.output<typeof seenSchema>>;

export const progressFile = (rollout: string): string => `${rollout}.progress.json`;

const begin = (version: string): Progress => ({
  format: 'premotor-rollout-progress-1',
  version,
  serial: 0,
  round: 1,
  paused: false,
  opened: 0,
  lookedMs: 0,
  robots: {},
});

/** What was seen so far; of another version nothing counts but its serial number. Errors: ROLLOUT_PROGRESS. */
export async function readProgress(rolloutFile: string, version: string): Promise<Progress> {
  const file = progressFile(rolloutFile);
  try {
    const progress = progressSchema.parse(JSON.parse(await readFile(file, 'utf8')));
    return progress.version === version ? progress : { ...begin(version), serial: progress.serial };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return begin(version);
    const message = `What was seen of the roll-out, ${file}, cannot be read. Remove it to begin with the first stage again.`;
    throw new PremotorError('ROLLOUT_PROGRESS', message, { file, expected: 'a file that fleet rollout wrote', found: 'another content', cause });
  }
}

export async function writeProgress(rolloutFile: string, progress: Progress): Promise<void> {
  await replaceFile(progressFile(rolloutFile), `${JSON.stringify(progress, null, 1)}\n`, 0o644);
}

/**
 * Of a robot: its stage is closed; it was never heard of; it is offline, not yet for long; it must install; it runs the version, not yet for long
 * enough; it did so; it fell back, has a fault on the version, or went offline and stays so.
 */
export type RobotProgress = 'waiting' | 'missing' | 'offline' | 'due' | 'settling' | 'done' | 'failed';
/** Of a stage: closed; open; its gate is passed; too many failed. */
export type StageProgress = 'closed' | 'open' | 'passed' | 'halted';

export interface Judgement {
  readonly stages: readonly {
    readonly name: string;
    readonly progress: StageProgress;
    readonly robots: readonly { readonly name: string; readonly progress: RobotProgress; readonly why: string }[];
  }[];
  /** What was seen now, for the next look. */
  readonly seen: Progress;
  /** Why the next stage may not begin; empty: it may, or there is none. */
  readonly blocks: readonly string[];
  readonly isComplete: boolean;
}

/** Endings of an update after which a robot does not run its version; of docs/UPDATE.md. */
const FAILURES: ReadonlySet<string> = new Set(['unhealthy', 'fell-back', 'interrupted', 'refused', 'rolled-back']);

interface Look {
  readonly rollout: Rollout;
  readonly stage: Stage;
  readonly nowMs: number;
  readonly lookedMs: number;
}

/** Judges by what robots report now and what was seen of them before. */
export function judge(rollout: Rollout, before: Progress, facts: readonly RobotFacts[], nowMs: number): Judgement {
  const byName = new Map(facts.filter(({ group }) => group === rollout.fleet).map((one) => [one.node, one]));
  const robots: Record<string, Seen> = {};
  const stages = rollout.stages.map((stage, index) => {
    const isOpen = index < before.opened;
    const judged = stage.robots.map((name) => {
      if (!isOpen) return { name, progress: 'waiting' as const, why: '' };
      const look: Look = { rollout, stage, nowMs, lookedMs: before.lookedMs };
      const { seen, ...rest } = judgeRobot(look, before.robots[name] ?? {}, byName.get(name));
      robots[name] = seen;
      return { name, ...rest };
    });
    return { name: stage.name, progress: isOpen ? stageProgress(stage, judged) : ('closed' as const), robots: judged };
  });
  const isComplete = before.opened === stages.length && stages.every(({ progress }) => progress === 'passed');
  const blocks = stages.slice(0, before.opened).flatMap((stage, index) => blocksOf(stage, rollout.stages[index] as Stage));
  return { stages, seen: { ...before, lookedMs: nowMs, robots }, blocks, isComplete };
}

function stageProgress({ failuresMax }: Stage, robots: readonly { readonly progress: RobotProgress }[]): StageProgress {
  const count = (wanted: RobotProgress): number => robots.filter(({ progress }) => progress === wanted).length;
  if (count('failed') > failuresMax) return 'halted';
  return count('done') + count('failed') === robots.length ? 'passed' : 'open';
}

function blocksOf({ name, progress, robots }: Judgement['stages'][number], { failuresMax }: Stage): string[] {
  if (progress === 'passed') return [];
  const failed = robots.filter((one) => one.progress === 'failed');
  if (progress === 'halted') return [`${name}: ${failed.length} failed, at most ${failuresMax} may: ${failed.map((one) => one.name).join(', ')}`];
  return robots.flatMap((one) => (one.progress === 'done' || one.progress === 'failed' ? [] : [`${name}: ${one.name} is ${one.progress}`]));
}

type JudgedRobot = { readonly progress: RobotProgress; readonly why: string; readonly seen: Seen };

function judgeRobot({ rollout, stage, nowMs, lookedMs }: Look, before: Seen, facts: RobotFacts | undefined): JudgedRobot {
  const lost = (progress: RobotProgress, why: string): JudgedRobot => ({
    progress,
    why,
    seen: { ...(before.onlineMs === undefined ? {} : { onlineMs: before.onlineMs }) },
  });
  if (facts === undefined || facts.link !== 'online') {
    if (before.onlineMs === undefined) return lost('missing', facts === undefined ? 'nothing was heard of it' : `${facts.link}: ${facts.why}`);
    const isLong = nowMs - before.onlineMs > rollout.offlineMs;
    return lost(isLong ? 'failed' : 'offline', `not online for ${Math.round((nowMs - before.onlineMs) / MS_PER_MINUTE)} minutes`);
  }
  const uptime = facts.uptimeS === null ? {} : { uptimeS: facts.uptimeS };
  const online = { onlineMs: nowMs, ...uptime };
  const running = facts.system ?? facts.version;
  if (running !== rollout.version) {
    const isFailed = facts.newest === rollout.version && FAILURES.has(facts.update ?? '');
    return isFailed
      ? { progress: 'failed', why: `its update is ${facts.update}; it runs ${running ?? 'an unknown version'}`, seen: online }
      : { progress: 'due', why: `it runs ${running ?? 'an unknown version'}`, seen: online };
  }
  if (facts.fault !== null) return { progress: 'failed', why: `${facts.fault} on ${running}`, seen: online };
  if (facts.update === 'trial' || facts.update === 'writing') return { progress: 'settling', why: 'its update is not committed yet', seen: online };
  // A computer that was started between two looks was not healthy all the time.
  const wasRestarted = facts.uptimeS !== null && lookedMs > 0 && facts.uptimeS * 1000 < nowMs - lookedMs && before.uptimeS !== undefined;
  const since = before.healthySinceMs === undefined || wasRestarted ? nowMs : before.healthySinceMs;
  const isDone = nowMs - since >= stage.healthyMs;
  const why = `healthy for ${Math.floor((nowMs - since) / MS_PER_MINUTE)} of ${Math.round(stage.healthyMs / MS_PER_MINUTE)} minutes`;
  return { progress: isDone ? 'done' : 'settling', why, seen: { ...online, healthySinceMs: since } };
}

export interface NextWish {
  readonly pause?: boolean;
  readonly resume?: boolean;
  /** Robots on which it failed try again. */
  readonly retry?: boolean;
}

/** The progress after a wish of the operator, and what it means in words. Errors: ROLLOUT_GATE when the next stage may not begin. */
export function advance(
  rollout: Rollout,
  judgement: Judgement,
  wish: NextWish,
  file: string,
): { readonly progress: Progress; readonly words: string } {
  const { seen, blocks, isComplete } = judgement;
  if (wish.pause === true) return { progress: { ...seen, paused: true }, words: 'paused: no robot installs until it is resumed' };
  if (wish.resume === true || wish.retry === true) {
    const round = seen.round + (wish.retry === true ? 1 : 0);
    return {
      progress: { ...seen, paused: false, round },
      words: wish.retry === true ? `round ${round}: robots on which it failed try again` : 'resumed',
    };
  }
  if (blocks.length > 0) {
    const found = blocks.slice(0, PROBLEMS_SHOWN).join('; ');
    const message = `The next stage may not begin: ${found}. Wait, or mend them; --pause stops the stages that are open.`;
    throw new PremotorError('ROLLOUT_GATE', message, {
      file,
      expected: 'every open stage to pass its gate',
      found,
    });
  }
  if (isComplete) return { progress: seen, words: 'complete: every stage passed' };
  const stage = rollout.stages[seen.opened];
  return {
    progress: { ...seen, opened: seen.opened + 1 },
    words: `stage ${seen.opened + 1} of ${rollout.stages.length} begins: ${stage?.name ?? ''}`,
  };
}

/** What robots are told. Serial numbers are seconds since 1970, so that a lost file of progress makes none run back. */
export function listOf(rollout: Rollout, progress: Progress, nowMs: number): RolloutList {
  return {
    format: 'premotor-rollout-1',
    fleet: rollout.fleet,
    serial: Math.max(progress.serial + 1, Math.floor(nowMs / 1000)),
    issued: new Date(nowMs).toISOString(),
    version: rollout.version,
    round: progress.round,
    paused: progress.paused,
    bundles: rollout.bundles,
    robots: rollout.stages.slice(0, progress.opened).flatMap(({ robots }) => robots),
  };
}
