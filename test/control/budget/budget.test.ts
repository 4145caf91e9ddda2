/** Which rung the budgets choose: by time left, down at once, up after a while, through throttling and back, and when nothing fits. */
import fc from 'fast-check';
import t from 'tap';
import { budgetOf } from '../../../src/control/budget/budget.js';
import { FixedBudget } from '../../../src/control/budget/fixed.js';
import { LadderBudget, type LadderBudgetOptions } from '../../../src/control/budget/ladder-budget.js';
import type { PolicyInfo } from '../../../src/policy/contract.js';
import { thrownBy } from '../../support/fixtures.js';
import { ALONE, COSTS, jobWith, LADDER, NEXT, rung, timingOf } from './machine.js';

const job = jobWith();
const ladderBudget = (options: Partial<LadderBudgetOptions> = {}): LadderBudget => new LadderBudget(LADDER, { job, costs: COSTS, ...options });
/** Expected time of a rung on this machine, and the least time that it needs. */
const expected = (index: number): number => timingOf(NEXT, LADDER[index] ?? rung(5)).totalMs;
const need = (index: number, extra = 1): number => expected(index) * 1.2 * extra + 10;
const chosen = (budget: LadderBudget, availableMs: number, count: number): number[] =>
  Array.from({ length: count }, () => budget.choose(NEXT, availableMs).index);

t.test('the best rung that fits with its margin', async (t) => {
  for (const [index, one] of LADDER.entries()) {
    t.match(ladderBudget().choose(NEXT, need(index) + 1e-6), { index, rung: one, expectedMs: expected(index), fits: true });
    const next = Math.min(index + 1, LADDER.length - 1);
    t.match(ladderBudget().choose(NEXT, need(index) - 1e-6), { index: next, fits: index < LADDER.length - 1 });
  }
  t.match(ladderBudget({ margin: { share: 0, ms: 0 } }).choose(NEXT, expected(0)), { index: 0, fits: true });
});

t.test('none fits: the cheapest, and it says so; later one fits again', async (t) => {
  const budget = ladderBudget();
  for (const availableMs of [1, 0, -50]) t.match(budget.choose(NEXT, availableMs), { index: 3, rung: LADDER[3], fits: false });
  t.match(budget.choose(NEXT, need(3)), { index: 3, fits: true });
  t.same(chosen(budget, need(2, 1.1), 6), [3, 3, 3, 3, 2, 2]);
  t.match(budget.choose(NEXT, 1), { index: 3, fits: false });
  const lastIsDear = new LadderBudget([rung(2), rung(1), rung(5)], { job, costs: COSTS });
  t.match(lastIsDear.choose(NEXT, 1), { index: 1, fits: false }, 'the cheapest, not the last');
});

t.test('down at once, up after five predictions in a row with something to spare', async (t) => {
  const budget = ladderBudget();
  t.same(chosen(budget, need(0), 2), [0, 0]);
  t.same(chosen(budget, need(1), 1), [1]);
  t.same(chosen(budget, need(0), 20), Array(20).fill(1), 'the better rung fits, but with nothing to spare');
  t.same(chosen(budget, need(0, 1.1), 6), [1, 1, 1, 1, 0, 0]);
  t.same(chosen(budget, need(3), 1), [3], 'several rungs at once');
  t.same(chosen(budget, need(0, 1.1), 4), [3, 3, 3, 3]);
  t.same(chosen(budget, need(1, 1.1), 1), [1], 'up to the worst of the rungs that would have fitted');
  t.same(chosen(budget, need(2), 1), [2]);
  t.same(chosen(budget, need(0, 1.1), 4), [2, 2, 2, 2]);
  t.same(chosen(budget, need(2), 1), [2], 'one prediction without room');
  t.same(chosen(budget, need(0, 1.1), 5), [2, 2, 2, 2, 0], 'begins the count again');
});

t.test('alternating room does not make it swing', async (t) => {
  const budget = ladderBudget();
  const indices = Array.from({ length: 40 }, (_, cycle) => budget.choose(NEXT, cycle % 2 === 0 ? need(1) : need(0, 1.2)).index);
  t.same(indices, Array(40).fill(1));
});

t.test('throttling and back: valid, invalid, valid', async (t) => {
  const budget = ladderBudget();
  const availableMs = need(0, 1.1);
  const indices: number[] = [];
  const late: number[] = [];
  for (let cycle = 0; cycle < 90; cycle++) {
    const slowdown = cycle >= 20 && cycle < 45 ? 2 : 1;
    const choice = budget.choose(NEXT, availableMs);
    const timing = timingOf(NEXT, choice.rung ?? rung(5), { slowdown });
    if (timing.totalMs > availableMs) late.push(cycle);
    indices.push(choice.index);
    budget.note(choice, NEXT, timing);
  }
  t.same(indices.slice(0, 22), Array(22).fill(0));
  t.same([...new Set(indices.slice(22, 60))], [2], 'after two slow predictions, and for as long as slow ones are remembered');
  t.same(late, [20, 21]);
  t.same([...new Set(indices.slice(70))], [0]);
  const changes = indices.filter((index, cycle) => cycle > 0 && index !== indices[cycle - 1]).length;
  t.equal(changes, 2, `once down, once up: ${indices.join('')}`);
});

t.test('steady noise and steady room: at most a few changes', async (t) => {
  let state = 3;
  const noise = (): number => (state = (state * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31;
  const budget = ladderBudget();
  const indices: number[] = [];
  let late = 0;
  for (let cycle = 0; cycle < 300; cycle++) {
    const choice = budget.choose(NEXT, need(0));
    const timing = timingOf(NEXT, choice.rung ?? rung(5), { slowdown: 0.85 + 0.3 * noise() });
    if (timing.totalMs > need(0)) late++;
    indices.push(choice.index);
    budget.note(choice, NEXT, timing);
  }
  t.equal(late, 0, 'the margin covers noise of 15 %');
  const changes = indices.filter((index, cycle) => cycle > 0 && index !== indices[cycle - 1]).length;
  t.ok(changes <= 6, `${changes} changes in 300 predictions`);
});

t.test('a full cache is expected from the start: an episode that fills it never goes down', async (t) => {
  const budget = ladderBudget();
  for (let chunk = 0; chunk < 40; chunk++) {
    const choice = budget.choose(NEXT, need(1));
    t.equal(choice.index, 1, `chunk ${chunk}`);
    const timing = timingOf(NEXT, choice.rung ?? rung(5), { fill: Math.min(1, 0.5 + chunk / 8) });
    t.ok(timing.totalMs <= choice.expectedMs + 1e-9);
    budget.note(choice, NEXT, timing);
  }
});

t.test('without measurements: nothing is known, the last rung is tried, then it knows', async (t) => {
  const budget = new LadderBudget(LADDER, { job });
  t.equal(budget.expectedMs(NEXT), Number.POSITIVE_INFINITY);
  t.match(budget.choose(NEXT, 1e6), { index: 3, expectedMs: Number.POSITIVE_INFINITY, fits: false });
  const first = { commitFrames: 0, executingFrames: 0, imagines: false };
  const choice = budget.choose(first, Number.POSITIVE_INFINITY);
  t.match(choice, { index: 0, fits: true }, 'nothing waits for the first prediction');
  budget.note(choice, first, timingOf(first, LADDER[0] ?? rung(5)));
  t.same([...new Set(chosen(budget, 1e6, 6))], [3, 0]);
});

t.test('a prediction that nothing waits for takes the best rung and changes nothing', async (t) => {
  const budget = ladderBudget();
  t.same(chosen(budget, need(2), 2), [2, 2]);
  t.same(chosen(budget, Number.POSITIVE_INFINITY, 9), Array(9).fill(0));
  t.same(chosen(budget, need(0, 1.1), 4), [2, 2, 2, 2]);
  t.same(chosen(budget, Number.POSITIVE_INFINITY, 1), [0]);
  t.same(chosen(budget, need(0, 1.1), 1), [0]);
});

t.test('when to begin: early enough for the best rung that can ever fit', async (t) => {
  const near = (found: number, wanted: number): void => void t.match(found.toFixed(6), wanted.toFixed(6));
  const budget = ladderBudget({ availableMsMax: need(1, 1.1) });
  near(budget.expectedMs(NEXT), need(1));
  t.equal(budget.choose(NEXT, budget.expectedMs(NEXT)).index, 1, 'what begins then gets that rung');
  chosen(budget, need(3), 1);
  near(budget.expectedMs(NEXT), need(1, 1.1));
  t.same(chosen(budget, budget.expectedMs(NEXT), 5).at(-1), 1, 'a worse rung leaves the room that going up asks for');
  near(ladderBudget({ availableMsMax: 1 }).expectedMs(NEXT), need(3));
  near(ladderBudget().expectedMs(NEXT), need(0));
  t.ok(ladderBudget().expectedMs(ALONE) < ladderBudget().expectedMs(NEXT), 'without executing actions there is nothing to imagine');
});

t.test('whatever comes in, the choice is sound', async () => {
  const anyTime = fc.double({ min: -100, max: 2000, noNaN: true });
  const cycle = fc.record({ availableMs: anyTime, slowdown: fc.double({ min: 0, max: 20, noNaN: true }), executingFrames: fc.nat(2) });
  // Times that are hardly any, and none: found by this test.
  const noTimes = [5e-324, 8.881784197001252e-16, 8.881784197001252e-16, 0].map((slowdown, at) => ({
    availableMs: 0,
    slowdown,
    executingFrames: at % 2,
  }));
  fc.assert(
    fc.property(fc.array(cycle, { maxLength: 40 }), fc.boolean(), (cycles, measured) => {
      const budget = new LadderBudget(LADDER, measured ? { job, costs: COSTS } : { job });
      const twin = new LadderBudget(LADDER, measured ? { job, costs: COSTS } : { job });
      for (const { availableMs, slowdown, executingFrames } of cycles) {
        const think = { ...NEXT, executingFrames };
        const choice = budget.choose(think, availableMs);
        if (JSON.stringify(twin.choose(think, availableMs)) !== JSON.stringify(choice)) return false;
        if (choice.rung !== LADDER[choice.index] || Number.isNaN(choice.expectedMs) || Number.isNaN(budget.expectedMs(think))) return false;
        if (choice.fits !== choice.expectedMs * 1.2 + 10 <= availableMs) return false;
        const timing = timingOf(think, choice.rung ?? rung(5), { slowdown });
        budget.note(choice, think, timing);
        twin.note(choice, think, timing);
      }
      return true;
    }),
    { examples: [[noTimes, false]] },
  );
});

t.test('a job without a ladder', async (t) => {
  const budget = new FixedBudget({ job, initialMs: 300 });
  t.match(budget.choose(NEXT, 370), { index: 0, rung: undefined, expectedMs: 300, fits: true });
  t.match(budget.choose(NEXT, 369), { index: 0, rung: undefined, fits: false });
  t.equal(budget.expectedMs(NEXT), 370);
  for (let count = 0; count < 3; count++) budget.note(budget.choose(NEXT, 1), NEXT, timingOf(NEXT, rung(5)));
  t.equal(budget.choose(NEXT, 1e6).expectedMs, expected(0));
  t.equal(new FixedBudget({ job }).expectedMs(NEXT), Number.POSITIVE_INFINITY);
  const given = new FixedBudget({ job, costs: COSTS, rung: rung(1), margin: { share: 0, ms: 0 } });
  t.match(given.choose(NEXT, 1e6), { rung: rung(1), expectedMs: timingOf(NEXT, rung(1)).totalMs });
  t.throws(() => new LadderBudget([], { job }), RangeError);
});

t.test('the budget of a loaded policy', async (t) => {
  const info = { checkpointHash: 'ab', cacheBytes: 400, parameters: 100, precision: 'f32', kvCache: 'f32' } as PolicyInfo;
  const options = { actionRateHz: 20, costs: COSTS };
  t.type(budgetOf({ job, info }, options), FixedBudget);
  const base = { video_steps: 5, video_exec_step: -1, action_steps: 10, guidance: true, imagine_steps: 5 };
  const ladder = [base, { ...base, video_steps: 2 }, { ...base, video_steps: 1 }];
  const own = { job: jobWith({ ladder }), info };
  t.equal(thrownBy(() => budgetOf(own, options)).code, 'LADDER_UNCERTIFIED');
  const forced = budgetOf(own, { ...options, force: true });
  t.type(forced, LadderBudget);
  // A chunk of 8 actions moves for 400 ms, in which the best rung fits; at twice the rate it is the worse one that a prediction begins for.
  t.equal(forced.expectedMs(NEXT).toFixed(6), need(0).toFixed(6));
  t.ok(budgetOf(own, { ...options, actionRateHz: 25, force: true }).expectedMs(NEXT) <= 320);
  const taught = budgetOf({ job, info }, { actionRateHz: 20, margin: { share: 0, ms: 0 } });
  taught.note(taught.choose(ALONE, 1), ALONE, timingOf(ALONE, rung(5)));
  t.equal(taught.expectedMs({ ...ALONE, commitFrames: 0 }), 2 * (120 + 40) + 1, 'scaled up to a full cache: as many values as parameters');
});
