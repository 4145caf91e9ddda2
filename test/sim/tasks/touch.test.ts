/** The task touch: reproducible scenes and the verdict. */
import t from 'tap';
import { BUTTON_COLOURS } from '../../../src/sim/scene.js';
import { TASKS, taskNamed } from '../../../src/sim/tasks/index.js';
import { TASK_NAMES } from '../../../src/sim/tasks/task.js';
import { touch } from '../../../src/sim/tasks/touch.js';
import { World } from '../../../src/sim/world.js';
import { Hand } from '../support.js';
import { checkButtons } from './layouts.js';

const world = await World.open();
t.teardown(() => world.close());

t.test('tasks are found by name', async (t) => {
  for (const name of TASK_NAMES) {
    t.equal(taskNamed(name).name, name);
    t.equal(TASKS[name].scene(1).task, name);
  }
  t.throws(() => taskNamed('juggle'), { code: 'SIM_TASK', found: 'juggle', expected: TASK_NAMES.join(', ') });
});

t.test('a seed fixes the scene; seeds differ', async (t) => {
  t.same(touch.scene(11), touch.scene(11));
  const targets = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const { target, instruction, goals } = touch.scene(seed);
    targets.add(target);
    if (instruction !== `touch the ${target} button`) t.fail(instruction);
    if (BUTTON_COLOURS.some((colour) => goals[colour]?.length !== 4)) t.fail(`seed ${seed} lacks a goal`);
  }
  t.equal(targets.size, 3, 'every colour is asked for');
  checkButtons(t, touch, 200);
  t.doesNotThrow(() => touch.scene(2 ** 32 - 1));
});

t.test('the named button succeeds, another one fails for good', async (t) => {
  const scene = touch.scene(4);
  const { target } = scene;
  const other = BUTTON_COLOURS.find((colour) => colour !== target) ?? 'red';
  const hand = new Hand(world, scene);
  t.equal(touch.verdict(world, scene), 'open', 'nothing pressed yet');
  hand.pressColour(scene, target);
  t.equal(touch.verdict(world, scene), 'succeeded');
  hand.pressColour(scene, target);
  t.equal(touch.verdict(world, scene), 'succeeded', 'twice is no mistake');
  hand.pressColour(scene, other);
  t.equal(touch.verdict(world, scene), 'failed', 'both pressed is no success');
  new Hand(world, scene).pressColour(scene, other);
  t.equal(touch.verdict(world, scene), 'failed', 'the wrong button');
});
