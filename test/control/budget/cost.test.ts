/** The cost model against a machine of known costs: what it expects before and after measurements, at a full cache, under noise and throttling. */
import t from 'tap';
import { CostModel, rungOf, saturationOf, videoPassesOf } from '../../../src/control/budget/cost.js';
import { ALONE, COSTS, jobWith, LADDER, NEXT, rung, timingOf } from './machine.js';

const job = jobWith();
const total = (model: CostModel, think = NEXT, index = 0): number => model.stages(think, LADDER[index] ?? rung(5)).totalMs;

t.test('measured at a full cache, every rung is known at once', async (t) => {
  const model = new CostModel({ job, costs: COSTS });
  for (const think of [NEXT, ALONE, { ...NEXT, imagines: false }]) {
    for (const one of LADDER) t.equal(model.stages(think, one).totalMs, timingOf(think, one).totalMs);
  }
  t.match(model.stages(NEXT, LADDER[0] ?? rung(5)), { encodeMs: 8, commitMs: 20, imagineMs: 6 * 20 + 2 * 4, videoMs: 120, actionMs: 40, otherMs: 1 });
  t.match(model.stages({ commitFrames: 0, executingFrames: 0, imagines: false }, rung(5)), { encodeMs: 0, commitMs: 0, imagineMs: 0 });
});

t.test('before any measurement nothing is known; one prediction teaches all stages', async (t) => {
  const model = new CostModel({ job });
  t.equal(total(model), Number.POSITIVE_INFINITY);
  const first = { commitFrames: 0, executingFrames: 0, imagines: false };
  model.note({ ...first, commitFrames: 1 }, rung(5), timingOf(first, rung(5)));
  const stages = model.stages(NEXT, rung(5));
  t.equal(stages.videoMs, 120);
  t.equal(stages.imagineMs, 128, 'imagining is made of passes that are known');
  t.equal(stages.encodeMs, 8 * 6, 'the first observation serves until there is a commit');
  t.equal(stages.commitMs, 20 + 4, 'a commit is a video and an action pass');
  for (let cycle = 0; cycle < 20; cycle++) model.note(NEXT, rung(5), timingOf(NEXT, rung(5)));
  t.equal(total(model), timingOf(NEXT, rung(5)).totalMs);
});

t.test('without a measurement at a full cache the first one is scaled up to it, and believed for as long as the cache takes to fill', async (t) => {
  const model = new CostModel({ job: jobWith({ attn_window: 40 }), saturation: 1.5 });
  model.note(ALONE, rung(5), timingOf(ALONE, rung(5)));
  t.equal(model.stages(NEXT, rung(5)).videoMs, 1.5 * 120);
  t.equal(model.stages(NEXT, rung(5)).commitMs, 1.5 * 20);
  t.equal(model.stages(NEXT, rung(5)).encodeMs, 8, 'encoding reads no cache');
  for (let chunk = 1; chunk < 20; chunk++) model.note(NEXT, rung(5), timingOf(NEXT, rung(5), { fill: 1 + (0.4 * chunk) / 20 }));
  t.equal(model.stages(NEXT, rung(5)).videoMs, 1.5 * 120, 'cheap passes at a cache that fills do not lower it');
  for (let chunk = 0; chunk < 21; chunk++) model.note(NEXT, rung(5), timingOf(NEXT, rung(5), { fill: 1.4 }));
  t.match(model.stages(NEXT, rung(5)).videoMs.toFixed(6), (1.4 * 120).toFixed(6), 'then measurements have the word');
});

t.test('what a full cache cost is remembered through the start of the next episode', async (t) => {
  const model = new CostModel({ job, costs: COSTS });
  for (let episode = 0; episode < 3; episode++) {
    for (let chunk = 0; chunk < 30; chunk++) model.note(NEXT, rung(5), timingOf(NEXT, rung(5), { fill: Math.min(1, 0.5 + chunk / 8) }));
    const low = { fill: 0.5 };
    for (let chunk = 0; chunk < 4; chunk++) model.note(NEXT, rung(5), timingOf(NEXT, rung(5), low));
    t.equal(model.stages(NEXT, rung(5)).videoMs, 120, `episode ${episode}`);
  }
});

t.test('one hiccup changes nothing, a step in cost does within two predictions, for every rung', async (t) => {
  const model = new CostModel({ job, costs: COSTS });
  const before = total(model, NEXT, 1);
  model.note(NEXT, rung(5), timingOf(NEXT, rung(5), { slowdown: 5 }));
  t.equal(total(model, NEXT, 1), before);
  for (let cycle = 0; cycle < 20; cycle++) model.note(NEXT, rung(5), timingOf(NEXT, rung(5)));
  for (let cycle = 0; cycle < 2; cycle++) model.note(NEXT, rung(5), timingOf(NEXT, rung(5), { slowdown: 2 }));
  t.equal(total(model, NEXT, 1), 2 * before, 'also for a rung that did not run');
  for (let cycle = 0; cycle < 16; cycle++) model.note(NEXT, rung(5), timingOf(NEXT, rung(5)));
  t.equal(total(model, NEXT, 1), before, 'and is forgotten when it is over');
});

t.test('noise: the estimate stays near the upper end of what is measured', async (t) => {
  const model = new CostModel({ job, costs: COSTS });
  let state = 7;
  const noise = (): number => (state = (state * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31;
  const exact = timingOf(NEXT, rung(5)).totalMs;
  let above = 0;
  for (let cycle = 0; cycle < 500; cycle++) {
    const expected = total(model);
    const timing = timingOf(NEXT, rung(5), { slowdown: 0.9 + 0.2 * noise() });
    if (timing.totalMs > expected) above++;
    t.ok(expected > 0.9 * exact && expected < 1.101 * exact);
    model.note(NEXT, rung(5), timing);
  }
  t.ok(above < 100, `${above} of 500 took longer than expected, before any margin`);
  t.ok(above > 0, 'it is no upper bound');
});

t.test('work that was never measured is bounded from above by what was', async (t) => {
  const guided = jobWith({ guidance_scale: 5 });
  const model = new CostModel({ job: guided, costs: COSTS });
  t.equal(model.stages(NEXT, rung(5)).videoMs, 2 * 120, 'two rows cost at most twice one');
  t.equal(model.stages(NEXT, rung(5, { guidance: false })).videoMs, 120);
  t.equal(model.stages({ ...NEXT, executingFrames: 1 }, rung(5, { guidance: false })).imagineMs, 6 * 20 + 2 * 4, 'fewer frames: not cheaper');
  t.equal(model.stages({ ...NEXT, executingFrames: 4 }, rung(5, { guidance: false })).imagineMs, 2 * (6 * 20 + 2 * 4), 'more: in proportion');
  const one = { ...NEXT, executingFrames: 1 };
  for (let cycle = 0; cycle < 3; cycle++) model.note(one, rung(5), timingOf(one, rung(5), { guided: true }));
  t.match(model.stages(one, rung(5)).videoMs.toFixed(6), (1.6 * 120).toFixed(6), 'measured, it is known');
  const half = model.stages(one, rung(5)).imagineMs;
  t.ok(half < timingOf(one, rung(5), { guided: true }).imagineMs + 5 && half > 0.9 * timingOf(one, rung(5), { guided: true }).imagineMs);
  const onlyGuided = new CostModel({ job: guided, costs: { ...COSTS, video: [{ frames: 2, guided: true, passMs: 32 }] } });
  t.equal(onlyGuided.stages(NEXT, rung(5, { guidance: false })).videoMs, 6 * 32, 'one row costs at most what two do');
});

t.test('measurements that say nothing are left out', async (t) => {
  const model = new CostModel({ job, costs: COSTS });
  const before = total(model);
  for (const bad of [Number.NaN, -1, Number.POSITIVE_INFINITY]) {
    for (let cycle = 0; cycle < 3; cycle++) model.note(NEXT, rung(5), { ...timingOf(NEXT, rung(5)), videoMs: bad, encodeMs: bad });
  }
  t.equal(total(model), before);
});

t.test('the steps of a job, and what a full cache adds', async (t) => {
  t.same(rungOf(jobWith({ video_exec_step: 3 })), { videoSteps: 5, videoExecStep: 3, actionSteps: 10, guidance: true, imagineSteps: 5 });
  t.equal(rungOf(jobWith({ imagine_steps: 2 })).imagineSteps, 2);
  t.equal(videoPassesOf(rung(5)), 6);
  t.equal(videoPassesOf(rung(5, { videoExecStep: 3 })), 3);
  const info = { cacheBytes: 800, parameters: 100, kvCache: 'f32' } as const;
  t.equal(saturationOf(info, job), 3);
  t.equal(saturationOf({ ...info, kvCache: 'bf16' }, jobWith({ guidance_scale: 5 })), 3);
  t.equal(saturationOf({ ...info, kvCache: 'int8' }, job), 9);
  t.equal(saturationOf({ ...info, parameters: 0 }, job), 1);
});
