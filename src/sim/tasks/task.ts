/**
 * What a task is: a seeded scene with an instruction, a success test that looks at the world, and a scripted expert that makes demonstrations. Types
 * only; index.ts lists the tasks. A policy sees the instruction and the cameras, never the scene.
 */
import type { Random } from '../random.js';
import type { SceneKind } from '../scene.js';
import type { TableLayout, World } from '../world.js';

export const TASK_NAMES = ['touch', 'press-n', 'push', 'sequence'] as const;
export type TaskName = (typeof TASK_NAMES)[number];

/** How an episode stands. Once 'failed' it cannot succeed any more: a wrong button was pressed, or one too often. */
export type Verdict = 'open' | 'succeeded' | 'failed';

export interface TaskScene {
  readonly task: TaskName;
  readonly seed: number;
  readonly instruction: string;
  readonly layout: TableLayout;
  /** Where the tip has to go for each thing that an instruction could name on this table, [joints]: what a network can be taught to see. */
  readonly goals: Readonly<Record<string, readonly number[]>>;
}

export interface ExpertOptions {
  /** Share of approaches that miss first and correct themselves, 0 .. 1: demonstrations of recovery. Default: 0. */
  readonly recovery?: number;
}

export interface Task<Scene extends TaskScene = TaskScene> {
  readonly name: TaskName;
  readonly kind: SceneKind;
  /** One sentence for people. */
  readonly summary: string;
  /** Chunks that a policy may use before the episode counts as failed by time, at K = 2, H = 8 and 25 Hz. */
  readonly chunksMax: number;
  /** Actions of a demonstration; what the expert does not need is holding still. */
  readonly demonstrationKnots: number;
  /** The scene of a seed of 0 .. 2^32 - 1. */
  scene(seed: number): Scene;
  verdict(world: World, scene: TaskScene): Verdict;
  /** Joint knots, 25 per second, each to be reached before the next is asked for: the expert may look at the world in between. */
  expert(world: World, scene: TaskScene, random: Random, options?: ExpertOptions): Generator<Float64Array>;
}
