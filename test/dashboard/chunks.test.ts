/**
 * When chunks are computed and executed, and how late: from events as the cycle tells them, and from real episodes in virtual time, late ones too.
 */
import t from 'tap';
import { ControlCycle } from '../../src/control/cycle.js';
import type { ChunkReport, CycleEvent } from '../../src/control/events.js';
import type { ModeName } from '../../src/control/modes/mode.js';
import { ChunkLog } from '../../src/dashboard/chunks.js';
import { Simulation } from '../../src/sim/simulation.js';
import { taskNamed } from '../../src/sim/tasks/index.js';
import { atHome, FakePolicy, tensor } from '../control/fakes.js';

const FRAME_S = 0.32;
const LATENTS = tensor([1, 48, 2, 6, 12]);
const TIMING = { encodeMs: 0, videoMs: 0, actionMs: 0, commitMs: 0, imagineMs: 0, totalMs: 0, videoPasses: 0, actionPasses: 0 };
const progress = (chunk: number): CycleEvent => ({ type: 'progress', chunk, progress: { stage: 'video', done: 1, total: 6 } });
const predicted = (chunk: number, frameIndex: number): CycleEvent => ({ type: 'predicted', chunk, frameIndex, latents: LATENTS, timing: TIMING });
const executed = (chunk: number, frameIndex: number, frames: number): CycleEvent => ({
  type: 'executed',
  chunk,
  frameIndex,
  actions: new Float32Array(0),
  moments: Array(4 * (frames - (frameIndex === 0 ? 1 : 0))).fill([]),
  clampedKnots: 0,
});

t.test('a synchronous cycle says it outright', async (t) => {
  const log = new ChunkLog({ isSynchronous: true, frames: 2, frameS: FRAME_S });
  log.note(progress(0), 1, 0);
  t.match(log.list, [{ chunk: 0, computeFromS: 1, computeToS: undefined, executeFromS: undefined, lateS: 0 }]);
  log.note(predicted(0, 0), 1.2, 0);
  log.note(executed(0, 0, 2), 1.6, 0);
  log.note(progress(1), 1.7, 0);
  log.note(predicted(1, 2), 1.9, 0);
  t.match(log.list, [
    { chunk: 0, computeFromS: 1, computeToS: 1.2, executeFromS: 1.2, executeToS: 1.6, lateS: 0 },
    { chunk: 1, computeFromS: 1.7, computeToS: 1.9, executeFromS: 1.9, executeToS: undefined, lateS: 0 },
  ]);
  log.note({ type: 'holding', why: 'stopped' }, 2, 0);
  t.equal(log.list[1]?.executeToS, 2, 'a stop ends what was open');
});

t.test('an asynchronous chunk that lands in time follows its plan; one that does not is late', async (t) => {
  const log = new ChunkLog({ isSynchronous: false, frames: 2, frameS: FRAME_S });
  log.note(predicted(0, 0), 1, 0);
  // Chunk 0 moves for one frame, 1 .. 1.32. Thinking begins when none is executed.
  log.note(executed(1, 0, 1), 1, 0);
  log.note(predicted(1, 2), 1.3, 0);
  t.match(log.list[1], { chunk: 1, computeFromS: 1, computeToS: 1.3, lateS: 0 });
  t.ok(Math.abs((log.list[1]?.executeFromS ?? 0) - 1.32) < 1e-9);
  t.ok(Math.abs((log.list[1]?.executeToS ?? 0) - 1.96) < 1e-9);
  // One frame of chunk 1 is left when thinking about chunk 2 begins; it takes half a second instead of 0.32 s.
  log.note(executed(2, 1, 2), 1.64, 0);
  log.note(predicted(2, 4), 2.14, 1);
  const late = log.list[2];
  t.ok(Math.abs((late?.lateS ?? 0) - 0.18) < 1e-9, `${late?.lateS}`);
  t.equal(late?.executeFromS, 2.14);
});

t.test('the log is bounded', async (t) => {
  const log = new ChunkLog({ isSynchronous: true, frames: 2, frameS: FRAME_S });
  for (let chunk = 0; chunk < 1000; chunk++) log.note(predicted(chunk, 2 * chunk), chunk, 0);
  t.equal(log.list.length, 48);
  t.equal(log.list.at(-1)?.chunk, 999);
});

/** An episode of a policy that thinks for so long, as the page would show it. */
async function episode(mode: ModeName, thinkingMs: number) {
  const task = taskNamed('touch');
  const simulation = await Simulation.open({ kind: task.kind });
  simulation.reset(task.scene(0).layout);
  const policy = new FakePolicy(atHome);
  const { robot, cameras } = simulation;
  const cycle = new ControlCycle({ policy, robot, cameras, mode, thinkingMs, actionRateHz: 25 });
  const { frame_chunk_size: frames, action_per_frame } = policy.job;
  const log = new ChunkLog({ isSynchronous: mode === 'sync', frames, frameS: action_per_frame / 25 });
  const reports: ChunkReport[] = [];
  const expired: number[] = [];
  cycle.on((event) => {
    log.note(event, Number(simulation.world.timeNs) / 1e9, simulation.motors.native.counts().expired);
    if (event.type !== 'committed') return;
    reports.push(event.report);
    expired.push(simulation.motors.native.counts().expired);
  });
  await cycle.arm();
  const report = await cycle.run({ prompt: 'x', chunks: 6 });
  simulation.close();
  return { log: log.list, reports, expired, report };
}

t.test('real episodes: late is what the stream ran out of plans for', async (t) => {
  for (const mode of ['async-naive', 'rtc'] as const) {
    const quick = await episode(mode, 200);
    t.equal(quick.report.outcome, 'finished', mode);
    for (const { chunk, lateS } of quick.log) t.equal(lateS, 0, `${mode}: chunk ${chunk + 1} in time`);
    const slow = await episode(mode, 900);
    const late = slow.log.filter(({ lateS }) => lateS > 0).map(({ chunk }) => chunk);
    const ranOut = slow.reports.filter((_, index) => (slow.expired[index] ?? 0) > (slow.expired[index - 1] ?? 0)).map(({ chunk }) => chunk);
    const thoughtS = 0.9;
    for (const { chunk, lateS } of slow.log) t.ok(lateS <= thoughtS, `${mode}: chunk ${chunk + 1} is no later than it took: ${lateS}`);
    t.ok(late.length > 1, `${mode}: late chunks ${late}`);
    t.same(late, ranOut, `${mode}: the stream counted the same`);
    for (const { chunk, executeFromS = 0, executeToS = 0 } of slow.log) {
      const next = slow.log[chunk + 1];
      if (next?.executeFromS !== undefined) t.ok(executeToS <= next.executeFromS + 1e-9, `${mode}: chunk ${chunk + 1} ends before the next begins`);
      t.ok(executeFromS <= executeToS, 'and not before it began');
    }
  }
});
