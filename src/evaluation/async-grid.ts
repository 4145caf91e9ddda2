/**
 * The grid of the asynchronous report: which modes are run at which delays, and which commits under which limits. Pure data; src/cli/eval-async.ts
 * runs it.
 */
import { MODE_NAMES, type ModeName } from '../control/modes/mode.js';
import { COMMITS } from '../control/run.js';
import type { KvCache } from '../policy/contract.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import type { Configuration } from './configuration.js';

/** Of a chunk's motion. */
export const DELAYS = [0, 0.25, 0.5, 0.75, 1] as const;
/** The mode that every other one is compared with, at the same delay. */
export const BASE_MODE: ModeName = 'sync';
/** Modes with the full number of episodes; the others have a part of it. */
const MAIN_MODES: readonly ModeName[] = ['sync', 'async-naive', 'async-grounded'];
const OTHERS_SHARE = 0.125;
const SLOW_EPISODES_SHARE = 0.25;
const COMMIT_EPISODES_SHARE = 0.125;
/** Real time takes its time. */
const REAL_EPISODES_SHARE = 0.05;

export interface AsyncEntry {
  /** Names the kept file. */
  readonly name: string;
  readonly title: string;
  readonly group: 'delay' | 'slow' | 'moved' | 'commit' | 'real';
  /** What it is compared with, by name; its own name: nothing. */
  readonly base: string;
  readonly tasks: readonly TaskName[];
  readonly configuration: Configuration;
  /** Of the report's episodes per task; may be more than all. */
  readonly share: number;
}

/** Robots that may move at such a share of the arm's speed; the demonstrations use all of it. */
const SLOW_SHARES = [0.25] as const;
/** How far the board with the buttons is knocked; a button's radius is 3 cm. */
const MOVED_M = 0.05;
const MOVED_EPISODES_SHARE = 2;
/** The long ones: a forecast has time to become wrong. */
const MOVED_TASKS: readonly TaskName[] = ['press-n', 'sequence'];
/** The share of the speed at which commits are compared. */
const CLAMPED_SHARE = 0.4;
const LAG_MS = 60;

export interface AsyncGridOptions {
  readonly precision: Configuration['precision'];
  readonly kvCache?: KvCache;
  readonly videoSteps: number;
  readonly actionSteps: number;
  readonly imagineSteps: number;
}

/** What every cell has in common. */
type Plain = Pick<Configuration, 'precision' | 'kvCache' | 'videoSteps' | 'actionSteps' | 'imagineSteps' | 'memory' | 'disturbances' | 'pace'>;

const modeOf = (mode: ModeName): Pick<Configuration, 'mode'> => (mode === 'sync' ? {} : { mode });

function delayCells(plain: Plain): AsyncEntry[] {
  return DELAYS.flatMap((delayChunks) =>
    MODE_NAMES.map((mode): AsyncEntry => {
      const percent = 100 * delayChunks;
      return {
        name: `${mode}-${percent}`,
        title: `${mode}, ${percent} %`,
        group: 'delay',
        base: `${BASE_MODE}-${percent}`,
        tasks: TASK_NAMES,
        configuration: { ...plain, ...modeOf(mode), delayChunks },
        share: MAIN_MODES.includes(mode) ? 1 : OTHERS_SHARE,
      };
    }),
  );
}

function slowCells(plain: Plain): AsyncEntry[] {
  return SLOW_SHARES.flatMap((speedShare) =>
    MAIN_MODES.map((mode): AsyncEntry => {
      const name = `slow-${100 * speedShare}`;
      return {
        name: `${name}-${mode}`,
        title: `${mode}, ${100 * speedShare} % of the speed`,
        group: 'slow',
        base: `${name}-${BASE_MODE}`,
        tasks: TASK_NAMES,
        configuration: { ...plain, ...modeOf(mode), delayChunks: 1, speedShare },
        share: SLOW_EPISODES_SHARE,
      };
    }),
  );
}

function movedCells(plain: Plain): AsyncEntry[] {
  return MAIN_MODES.map((mode) => ({
    name: `moved-${mode}`,
    title: `${mode}, board moved ${100 * MOVED_M} cm`,
    group: 'moved',
    // What grounding is worth is the question here, and the answer is a matter of some percent.
    base: 'moved-async-naive',
    tasks: MOVED_TASKS,
    configuration: { ...plain, disturbances: { boardShiftM: MOVED_M }, ...modeOf(mode), delayChunks: 1 },
    share: MOVED_EPISODES_SHARE,
  }));
}

function commitCells(plain: Plain): AsyncEntry[] {
  return [
    { name: 'lag', title: `actuator lag ${LAG_MS} ms`, change: { disturbances: { actuatorLagMs: LAG_MS } } },
    { name: 'clamped', title: `${100 * CLAMPED_SHARE} % of the speed`, change: { speedShare: CLAMPED_SHARE } },
  ].flatMap(({ name, title, change }) =>
    COMMITS.map(
      (committed): AsyncEntry => ({
        name: `commit-${name}-${committed}`,
        title: `${title}: commits what was ${committed}`,
        group: 'commit',
        base: `commit-${name}-executed`,
        tasks: TASK_NAMES,
        configuration: { ...plain, ...change, ...(committed === 'executed' ? {} : { commits: committed }) },
        share: COMMIT_EPISODES_SHARE,
      }),
    ),
  );
}

function realCells(plain: Plain): AsyncEntry[] {
  return MAIN_MODES.map((mode) => ({
    name: `real-${mode}`,
    title: `${mode}, real time`,
    group: 'real',
    base: `real-${BASE_MODE}`,
    tasks: TASK_NAMES,
    configuration: { ...plain, pace: 'real', ...modeOf(mode) },
    share: REAL_EPISODES_SHARE,
  }));
}

export function asyncGrid({ precision, kvCache, videoSteps, actionSteps, imagineSteps }: AsyncGridOptions): AsyncEntry[] {
  const held = { precision, ...(kvCache === undefined ? {} : { kvCache }) };
  const plain: Plain = { ...held, videoSteps, actionSteps, imagineSteps, memory: 'episode', disturbances: {}, pace: 'virtual' };
  return [delayCells, slowCells, movedCells, commitCells, realCells].flatMap((cells) => cells(plain));
}

/** Delays first that decide most, so that an interrupted run has them. */
export function inRunningOrder(entries: readonly AsyncEntry[]): AsyncEntry[] {
  const order: readonly (number | undefined)[] = [1, 0.5, 0];
  const rank = ({ group, configuration, share }: AsyncEntry): number => {
    if (group === 'real') return order.length + 3;
    if (group !== 'delay') return order.length;
    if (share < 1) return order.length + 2;
    const place = order.indexOf(configuration.delayChunks);
    return place >= 0 ? place : order.length + 1;
  };
  return entries
    .map((entry, index) => ({ entry, index }))
    .sort((a, b) => rank(a.entry) - rank(b.entry) || a.index - b.index)
    .map(({ entry }) => entry);
}
