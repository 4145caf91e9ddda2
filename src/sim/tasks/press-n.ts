/**
 * The task `press-n`: press the named button two, three or four times, then return to the start. Every press looks like the one before, so only a
 * policy that remembers can stop at the right count.
 */
import { HOME_TIP } from '../arm.js';
import { Random } from '../random.js';
import { BUTTON_COLOURS, type ButtonColour } from '../scene.js';
import { buttonGoals, buttonsOf, pickColour, placeButtons } from './buttons.js';
import { Mover } from './moves.js';
import type { Task, TaskScene } from './task.js';

export interface PressScene extends TaskScene {
  readonly target: ButtonColour;
  readonly count: number;
}

const COUNTS = ['two', 'three', 'four'] as const;
const COUNT_MIN = 2;
/** How near to its start, and how slow, the tip must be to have returned. Hovering over a button is at least 6 cm away. */
const HOME_RADIUS_M = 0.04;
const REST_RAD_PER_S = 0.15;

export const pressN: Task<PressScene> = {
  name: 'press-n',
  kind: 'buttons',
  summary: 'press the named button two, three or four times, then return',
  chunksMax: 11,
  demonstrationKnots: 136,
  scene(seed) {
    const random = new Random(seed);
    const target = pickColour(random);
    const index = random.integer(COUNTS.length);
    const buttons = placeButtons(random);
    const instruction = `press the ${target} button ${COUNTS[index]} times`;
    return {
      task: 'press-n',
      seed,
      instruction,
      layout: { kind: 'buttons', buttons },
      goals: buttonGoals(buttons),
      target,
      count: COUNT_MIN + index,
    };
  },
  verdict(world, scene) {
    const { target, count } = scene as PressScene;
    if (world.presses(target) > count || BUTTON_COLOURS.some((colour) => colour !== target && world.presses(colour) > 0)) return 'failed';
    if (world.presses(target) < count) return 'open';
    const tip = world.tip();
    const isHome = Math.hypot(tip[0] - HOME_TIP[0], tip[1] - HOME_TIP[1], tip[2] - HOME_TIP[2]) < HOME_RADIUS_M;
    return isHome && world.state().velocitiesRadPerS.every((velocity) => Math.abs(velocity) < REST_RAD_PER_S) ? 'succeeded' : 'open';
  },
  *expert(_world, scene, random, options) {
    const { target, count } = scene as PressScene;
    const button = buttonsOf(scene.layout)[target];
    const mover = new Mover(random, options);
    const period = mover.knots(14, 18);
    yield* mover.hold(mover.knots(0, 8));
    yield* mover.approach(button, mover.knots(18, 22));
    for (let press = 0; press < count; press++) {
      const down = Math.floor(period / 2);
      yield* mover.press(button, down - 1);
      yield* mover.hold(1);
      yield* mover.lift(button, period - down);
    }
    yield* mover.go(HOME_TIP, mover.knots(18, 22));
  },
};
