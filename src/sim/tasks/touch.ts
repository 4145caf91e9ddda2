/**
 * The task `touch`: press the button whose colour the instruction names, and no other.
 */
import { Random } from '../random.js';
import { BUTTON_COLOURS, type ButtonColour } from '../scene.js';
import { buttonGoals, buttonsOf, pickColour, placeButtons } from './buttons.js';
import { Mover } from './moves.js';
import type { Task, TaskScene } from './task.js';

export interface TouchScene extends TaskScene {
  readonly target: ButtonColour;
}

export const touch: Task<TouchScene> = {
  name: 'touch',
  kind: 'buttons',
  summary: 'press the button of the named colour, and no other',
  chunksMax: 6,
  demonstrationKnots: 56,
  scene(seed) {
    const random = new Random(seed);
    const target = pickColour(random);
    const buttons = placeButtons(random);
    const instruction = `touch the ${target} button`;
    return { task: 'touch', seed, instruction, layout: { kind: 'buttons', buttons }, goals: buttonGoals(buttons), target };
  },
  verdict(world, scene) {
    const { target } = scene as TouchScene;
    if (BUTTON_COLOURS.some((colour) => colour !== target && world.presses(colour) > 0)) return 'failed';
    return world.presses(target) > 0 ? 'succeeded' : 'open';
  },
  *expert(_world, scene, random, options) {
    const button = buttonsOf(scene.layout)[(scene as TouchScene).target];
    const mover = new Mover(random, options);
    yield* mover.hold(mover.knots(0, 3));
    yield* mover.approach(button, mover.knots(18, 22));
    yield* mover.press(button, mover.knots(9, 10));
    yield* mover.hold(mover.knots(1, 2));
    yield* mover.lift(button, mover.knots(8, 9));
  },
};
