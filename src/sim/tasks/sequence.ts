/**
 * The task `sequence`: press all three buttons in the order that the instruction gives. The longest horizon of the tasks: what was pressed already is
 * nowhere to be seen.
 */
import { Random } from '../random.js';
import { BUTTON_COLOURS, type ButtonColour } from '../scene.js';
import { buttonGoals, buttonsOf, placeButtons } from './buttons.js';
import { Mover } from './moves.js';
import type { Task, TaskScene } from './task.js';

export interface SequenceScene extends TaskScene {
  readonly order: readonly ButtonColour[];
}

function shuffled(random: Random): ButtonColour[] {
  const order: ButtonColour[] = [...BUTTON_COLOURS];
  for (let last = order.length - 1; last > 0; last--) {
    const other = random.integer(last + 1);
    const [a, b] = [order[last] ?? 'red', order[other] ?? 'red'];
    order[last] = b;
    order[other] = a;
  }
  return order;
}

export const sequence: Task<SequenceScene> = {
  name: 'sequence',
  kind: 'buttons',
  summary: 'press all three buttons in the order given',
  chunksMax: 11,
  demonstrationKnots: 136,
  scene(seed) {
    const random = new Random(seed);
    const order = shuffled(random);
    const buttons = placeButtons(random);
    const instruction = `press ${order[0]}, then ${order[1]}; last ${order[2]}`;
    return { task: 'sequence', seed, instruction, layout: { kind: 'buttons', buttons }, goals: buttonGoals(buttons), order };
  },
  verdict(world, scene) {
    const { order } = scene as SequenceScene;
    const pressed = world.pressLog.map(({ colour }) => colour);
    if (pressed.length > order.length || pressed.some((colour, index) => colour !== order[index])) return 'failed';
    return pressed.length === order.length ? 'succeeded' : 'open';
  },
  *expert(_world, scene, random, options) {
    const buttons = buttonsOf(scene.layout);
    const mover = new Mover(random, options);
    yield* mover.hold(mover.knots(0, 3));
    for (const [index, colour] of (scene as SequenceScene).order.entries()) {
      const button = buttons[colour];
      yield* mover.approach(button, index === 0 ? mover.knots(18, 22) : mover.knots(14, 17));
      yield* mover.press(button, mover.knots(8, 9));
      yield* mover.hold(1);
      yield* mover.lift(button, mover.knots(7, 8));
    }
  },
};
