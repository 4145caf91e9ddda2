/** The task sequence: every order, and the verdict for right, wrong and superfluous presses. */
import t from 'tap';
import type { ButtonColour } from '../../../src/sim/scene.js';
import { sequence } from '../../../src/sim/tasks/sequence.js';
import { World } from '../../../src/sim/world.js';
import { Hand } from '../support.js';
import { checkButtons } from './layouts.js';

const world = await World.open();
t.teardown(() => world.close());

t.test('a seed fixes the scene; every order occurs', async (t) => {
  t.same(sequence.scene(11), sequence.scene(11));
  const orders = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const { order, instruction } = sequence.scene(seed);
    orders.add(order.join());
    if (instruction !== `press ${order[0]}, then ${order[1]}; last ${order[2]}`) t.fail(instruction);
    if (new Set(order).size !== 3) t.fail(`seed ${seed} repeats a colour`);
  }
  t.equal(orders.size, 6);
  checkButtons(t, sequence, 200);
});

const scene = sequence.scene(6);
const [first, second, third] = scene.order as readonly [ButtonColour, ButtonColour, ButtonColour];

t.test('the order given succeeds with its last press', async (t) => {
  const hand = new Hand(world, scene);
  t.equal(sequence.verdict(world, scene), 'open');
  for (const [colour, expected] of [
    [first, 'open'],
    [second, 'open'],
    [third, 'succeeded'],
    [third, 'failed'],
  ] as const) {
    hand.pressColour(scene, colour);
    t.equal(sequence.verdict(world, scene), expected, `after ${world.pressLog.map((press) => press.colour).join(', ')}`);
  }
});

t.test('a wrong order fails at the first wrong press', async (t) => {
  new Hand(world, scene).pressColour(scene, second);
  t.equal(sequence.verdict(world, scene), 'failed', 'the second first');
  const hand = new Hand(world, scene);
  hand.pressColour(scene, first, third);
  t.equal(sequence.verdict(world, scene), 'failed', 'the third second');
  hand.pressColour(scene, second);
  t.equal(sequence.verdict(world, scene), 'failed', 'and stays so');
  new Hand(world, scene).pressColour(scene, first, first);
  t.equal(sequence.verdict(world, scene), 'failed', 'the first twice');
});
