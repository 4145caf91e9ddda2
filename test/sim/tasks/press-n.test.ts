/** The task press-n: every colour and count, and the verdict at each press and on the way home. */
import t from 'tap';
import { HOME_TIP } from '../../../src/sim/arm.js';
import { BUTTON_COLOURS } from '../../../src/sim/scene.js';
import { pressN } from '../../../src/sim/tasks/press-n.js';
import { World } from '../../../src/sim/world.js';
import { drive, Hand } from '../support.js';
import { checkButtons } from './layouts.js';

const world = await World.open();
t.teardown(() => world.close());

t.test('a seed fixes the scene; every colour is asked for two, three and four times', async (t) => {
  t.same(pressN.scene(11), pressN.scene(11));
  const words = ['', '', 'two', 'three', 'four'];
  const asked = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const { target, count, instruction } = pressN.scene(seed);
    asked.add(`${target} ${count}`);
    if (instruction !== `press the ${target} button ${words[count]} times`) t.fail(instruction);
  }
  t.equal(asked.size, 9);
  checkButtons(t, pressN, 200);
});

/** The first scene that asks for two presses. */
const twice = Array.from({ length: 100 }, (_, seed) => pressN.scene(seed)).find(({ count }) => count === 2) ?? pressN.scene(0);

t.test('the count and the way home make a success; one more press fails', async (t) => {
  const hand = new Hand(world, twice);
  t.equal(pressN.verdict(world, twice), 'open');
  hand.pressColour(twice, twice.target);
  t.equal(pressN.verdict(world, twice), 'open', 'once is not twice');
  hand.pressColour(twice, twice.target);
  t.equal(pressN.verdict(world, twice), 'open', 'not home yet');
  hand.go(HOME_TIP, 20);
  hand.rest(5);
  t.equal(pressN.verdict(world, twice), 'succeeded');
  hand.pressColour(twice, twice.target);
  t.equal(pressN.verdict(world, twice), 'failed', 'three times is too often');
  hand.go(HOME_TIP, 20);
  t.equal(pressN.verdict(world, twice), 'failed', 'and stays so');
});

t.test('home too early stays open, passing through home is no return', async (t) => {
  const hand = new Hand(world, twice);
  hand.pressColour(twice, twice.target);
  hand.go(HOME_TIP, 20);
  hand.rest(5);
  t.equal(pressN.verdict(world, twice), 'open', 'home after one press');
  hand.pressColour(twice, twice.target);
  hand.go(HOME_TIP, 20);
  hand.rest(5);
  t.equal(pressN.verdict(world, twice), 'succeeded', 'a pause at home does no harm');
  const home = world.state().positionsRad;
  drive(world, [home.map((angle, joint) => angle + (joint === 0 ? 0.03 : 0))]);
  const moving = world.state().velocitiesRadPerS[0] ?? 0;
  t.ok(Math.abs(moving) > 0.15, `the arm turns at ${moving} rad/s`);
  t.equal(pressN.verdict(world, twice), 'open', 'at home but not at rest');
});

t.test('another button fails', async (t) => {
  const hand = new Hand(world, twice);
  hand.pressColour(twice, BUTTON_COLOURS.find((colour) => colour !== twice.target) ?? 'red');
  t.equal(pressN.verdict(world, twice), 'failed');
});
