/**
 * Says in a few words why an episode did not succeed, for tables and contact sheets. It looks at the world when the episode is over; verdicts are the
 * tasks' own.
 */

import type { PressScene } from '../sim/tasks/press-n.js';
import type { PushScene } from '../sim/tasks/push.js';
import type { SequenceScene } from '../sim/tasks/sequence.js';
import type { TaskScene } from '../sim/tasks/task.js';
import type { TouchScene } from '../sim/tasks/touch.js';
import type { World } from '../sim/world.js';

function wrongPress(world: World, allowed: readonly string[]): string | undefined {
  const wrong = world.pressLog.find(({ colour }) => !allowed.includes(colour));
  return wrong === undefined ? undefined : `pressed ${wrong.colour}`;
}

const reasons: Readonly<Record<TaskScene['task'], (scene: TaskScene, world: World) => string>> = {
  touch: (scene, world) => wrongPress(world, [(scene as TouchScene).target]) ?? 'pressed nothing',
  'press-n': (scene, world) => {
    const { target, count } = scene as PressScene;
    const pressed = world.presses(target);
    return wrongPress(world, [target]) ?? (pressed === count ? 'did not return' : `pressed ${pressed} of ${count} times`);
  },
  push: (scene, world) => {
    const { zone } = scene as PushScene;
    const [x, y] = world.block() ?? [Number.NaN, Number.NaN];
    return `block ${(100 * Math.hypot(x - zone.x, y - zone.y)).toFixed(1)} cm off`;
  },
  sequence: (scene, world) => {
    const pressed = world.pressLog.map(({ colour }) => colour);
    return `pressed ${pressed.join(', ') || 'nothing'} of ${(scene as SequenceScene).order.join(', ')}`;
  },
};

export function describeFailure(scene: TaskScene, world: World): string {
  return reasons[scene.task](scene, world);
}
