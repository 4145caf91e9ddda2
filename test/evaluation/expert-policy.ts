/**
 * A policy for evaluation tests that needs no engine: it knows the scene by the seed of the prediction and plays the scripted expert's knots, or
 * holds still where it is told to fail. Not a test itself.
 */
import type { Chunk, PredictOptions, ResetOptions } from '../../src/policy/contract.js';
import { demonstrate } from '../../src/sim/demonstration.js';
import { TASKS } from '../../src/sim/tasks/index.js';
import type { Task } from '../../src/sim/tasks/task.js';
import { World } from '../../src/sim/world.js';
import { FakePolicy } from '../control/fakes.js';

async function expertKnots(task: Task, seed: number): Promise<Float64Array[]> {
  const world = await World.open(task.kind);
  const knots: Float64Array[] = [];
  await demonstrate(task, task.scene(seed), world, ({ actionRad }) => void knots.push(actionRad.slice()));
  world.close();
  return knots;
}

export class ExpertPolicy extends FakePolicy {
  readonly #fails: (seed: number) => boolean;
  readonly #plan: { knots: readonly Float64Array[] };

  constructor(fails: (seed: number) => boolean = () => false) {
    const plan: { knots: readonly Float64Array[] } = { knots: [] };
    super((channel, knot) => plan.knots[Math.max(0, Math.min(knot, plan.knots.length - 1))]?.[channel] ?? 0);
    this.#plan = plan;
    this.#fails = fails;
  }

  override async reset(options: ResetOptions): ReturnType<FakePolicy['reset']> {
    this.chunks.length = 0;
    return super.reset(options);
  }

  override async predict(options: PredictOptions = {}): Promise<Chunk> {
    const seed = Number(options.seed);
    const prompt = this.resets.at(-1)?.prompt;
    const task = Object.values(TASKS).find((one) => one.scene(seed).instruction === prompt);
    if (!task) throw new Error(`no task says "${prompt}" at seed ${seed}`);
    if (this.chunks.length === 0) {
      const knots = await expertKnots(task, seed);
      this.#plan.knots = this.#fails(seed) ? knots.slice(0, 1) : knots;
    }
    return super.predict(options);
  }
}
