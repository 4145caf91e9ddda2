/** The noise levels are those of docs/MODEL.md, and the helper finds the pass that is nearest. */
import t from 'tap';
import { reportGrid } from '../../src/evaluation/grid.js';
import { execStepNear } from '../../src/evaluation/ladder.js';
import { sigmas } from '../../src/policy/schedule.js';
import { SIM_JOB } from '../../src/sim/job.js';

t.test('noise levels at 5 steps and shift 5', async (t) => {
  t.same(
    sigmas(5, 5).map((sigma) => sigma.toFixed(4)),
    ['1.0000', '0.9524', '0.8824', '0.7692', '0.5556'],
  );
  t.same(sigmas(4, 1), [1, 0.75, 0.5, 0.25], 'shift 1 is even spacing');
});

t.test('the pass nearest to a level', async (t) => {
  t.equal(execStepNear(5, 5, 0.5), 5);
  t.equal(execStepNear(3, 5, 0.5), 3, 'three steps come no nearer than 0.714');
  t.equal(execStepNear(25, 5, 0.5), 22);
  t.ok(Math.abs((sigmas(25, 5)[21] ?? 0) - 0.5) < Math.abs((sigmas(25, 5)[20] ?? 0) - 0.5));
  t.equal(execStepNear(5, 5, 1), 1);
  t.equal(execStepNear(4, 1, 0.5), 3);
  t.equal(execStepNear(4, 1, 0.625), 3, 'of two equally near ones the later');
});

t.test('the grid of the report', async (t) => {
  const grid = reportGrid(SIM_JOB);
  t.same(
    grid.map(({ name }) => name),
    [
      ...['f32', 'bf16'].flatMap((precision) => ['full-5', 'full-3', 'partial-5', 'partial-3'].map((rung) => `${rung}-${precision}`)),
      ...['memory-off', 'camera-delay', 'actuator-lag', 'nudge'],
    ],
  );
  t.match(grid[0]?.configuration, { videoSteps: 5, actionSteps: 10, videoExecStep: -1, precision: 'f32', memory: 'episode' });
  t.match(grid[2], { title: 'to s = 0.56, 5 of 5 steps, f32', configuration: { videoSteps: 5, videoExecStep: 5 } });
  t.match(grid[3], { title: 'to s = 0.71, 3 of 3 steps, f32', configuration: { videoSteps: 3, videoExecStep: 3 } });
  t.same(grid.at(-1)?.tasks, ['push'], 'only a block can be nudged');
});
