/** Checks that every button task's layouts must pass: inside the area, apart, and all different. Not a test itself. */
import type { Test } from 'tap';
import { BUTTON_COLOURS } from '../../../src/sim/scene.js';
import { BUTTON_AREA, buttonsOf, distance } from '../../../src/sim/tasks/buttons.js';
import type { Task } from '../../../src/sim/tasks/task.js';

export function checkButtons(t: Test, task: Task, seeds: number): void {
  const { xMin, xMax, yMin, yMax, spacing } = BUTTON_AREA;
  const places = new Set<number>();
  for (let seed = 0; seed < seeds; seed++) {
    const { layout } = task.scene(seed);
    const points = BUTTON_COLOURS.map((colour) => buttonsOf(layout)[colour]);
    places.add(points[0]?.x ?? Number.NaN);
    for (const [index, a] of points.entries()) {
      if (!(a.x >= xMin && a.x <= xMax && a.y >= yMin && a.y <= yMax)) t.fail(`seed ${seed} leaves the area`);
      for (const b of points.slice(index + 1)) if (!(distance(a, b) >= spacing)) t.fail(`seed ${seed} is too crowded`);
    }
  }
  t.equal(places.size, seeds, 'no two scenes are alike');
}
