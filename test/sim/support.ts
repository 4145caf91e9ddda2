/** Moves the simulated arm without a policy: along an expert's knots, or by hand through a Mover. Not a test itself. */
import { demonstrate } from '../../src/sim/demonstration.js';
import { ACTION_RATE_HZ } from '../../src/sim/job.js';
import { Random } from '../../src/sim/random.js';
import { type ButtonColour, STEP_NS } from '../../src/sim/scene.js';
import { buttonsOf } from '../../src/sim/tasks/buttons.js';
import { Mover } from '../../src/sim/tasks/moves.js';
import type { ExpertOptions, Task, TaskScene, Verdict } from '../../src/sim/tasks/task.js';
import type { TablePoint, World } from '../../src/sim/world.js';

export const STEPS_PER_KNOT = Math.round(1e9 / ACTION_RATE_HZ / Number(STEP_NS));

/** Setpoints on a straight line from knot to knot. */
export function drive(world: World, knots: Iterable<Float64Array>): void {
  let from = world.state().positionsRad;
  for (const knot of knots) {
    for (let step = 1; step <= STEPS_PER_KNOT; step++)
      world.step(from.map((angle, joint) => angle + (step / STEPS_PER_KNOT) * ((knot[joint] ?? 0) - angle)));
    from = knot;
  }
}

/** Resets to a scene and plays the beginning of its expert. */
export function playExpert(world: World, task: Task, scene: TaskScene, knots: number): void {
  world.reset(scene.layout);
  const expert = task.expert(world, scene, new Random(scene.seed));
  for (let knot = 0; knot < knots; knot++) {
    const next = expert.next();
    if (next.done === true) return;
    drive(world, [next.value]);
  }
}

/** Presses what a test wants to have pressed. */
export class Hand {
  readonly #world: World;
  readonly #mover = new Mover(new Random(1));

  constructor(world: World, scene: TaskScene) {
    this.#world = world;
    world.reset(scene.layout);
  }

  /** Over the button, down and up again. */
  press(button: TablePoint): void {
    drive(this.#world, this.#mover.approach(button, 20));
    drive(this.#world, this.#mover.press(button, 9));
    drive(this.#world, this.#mover.hold(2));
    drive(this.#world, this.#mover.lift(button, 9));
  }

  pressColour(scene: TaskScene, ...colours: ButtonColour[]): void {
    for (const colour of colours) this.press(buttonsOf(scene.layout)[colour]);
  }

  go(...way: Parameters<Mover['go']>): void {
    drive(this.#world, this.#mover.go(...way));
  }

  rest(knots: number): void {
    drive(this.#world, this.#mover.hold(knots));
  }
}

export interface Played {
  readonly verdict: Verdict;
  /** [knots], joint poses */
  readonly knots: readonly Float64Array[];
  /** Positions and velocities at the end. */
  readonly end: Float64Array;
  readonly start: Float64Array;
}

/** Plays a whole demonstration. */
export async function playDemonstration(task: Task, seed: number, world: World, options?: ExpertOptions): Promise<Played> {
  const knots: Float64Array[] = [];
  let start = new Float64Array();
  const take = (row: { index: number; positionsRad: Float64Array; actionRad: Float64Array }): void => {
    if (row.index === 0) start = row.positionsRad.slice();
    if (row.index < task.demonstrationKnots) knots.push(row.actionRad.slice());
  };
  const verdict = await demonstrate(task, task.scene(seed), world, take, options);
  return { verdict, knots, start, end: Float64Array.from([...world.mujoco.positions, ...world.mujoco.velocities]) };
}
