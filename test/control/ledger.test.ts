/** The book of actions, and the arrays that actions travel in. */
import t from 'tap';
import { actionAt, joinActions, sliceActions, stackActions } from '../../src/control/channels.js';
import { Ledger, type PlannedAction } from '../../src/control/ledger.js';
import type { ExecutedKnot } from '../../src/robot/robot.js';

const action = (value: number, isLimited = false): PlannedAction => ({
  asked: Float32Array.of(value),
  plannedRad: Float64Array.of(value),
  isLimited,
});
const knot = (plan: bigint, index: number, value: number, isClamped = false): ExecutedKnot => ({
  plan,
  knot: index,
  timeNs: 0n,
  isClamped,
  positionsRad: Float64Array.of(value),
});

t.test('actions are executed in order, whatever order they are reported in', (t) => {
  const ledger = new Ledger();
  ledger.plan(0, [action(0), action(1), action(2)]);
  ledger.placed(7n, 0);
  ledger.note([knot(7n, 1, 1.5)]);
  t.equal(ledger.done, 0, 'action 0 is missing');
  ledger.note([knot(7n, 0, 0.5, true), knot(9n, 0, 9), knot(7n, 5, 9)]);
  t.equal(ledger.done, 2, 'a plan that nobody placed and a knot that nobody planned count nothing');
  t.same(
    ledger.executed(0, 2).map(({ executedRad, isClamped }) => [executedRad[0], isClamped]),
    [
      [0.5, true],
      [1.5, false],
    ],
  );
  t.end();
});

t.test('a new plan replaces what is ahead; a knot that it repeats is executed once', (t) => {
  const ledger = new Ledger();
  ledger.plan(0, [action(0), action(1), action(2), action(3)]);
  ledger.placed(1n, 0);
  ledger.note([knot(1n, 0, 0), knot(1n, 1, 1)]);
  ledger.plan(3, [action(30, true), action(40), action(50)]);
  t.equal(ledger.end, 6);
  t.equal(ledger.planned(2)?.plannedRad[0], 2);
  t.equal(ledger.planned(3)?.plannedRad[0], 30);
  // The new plan begins with actions 1 and 2 again.
  ledger.placed(2n, 1);
  ledger.note([knot(2n, 0, 1.1), knot(2n, 1, 2.2), knot(2n, 2, 30)]);
  t.equal(ledger.done, 4);
  t.same(
    ledger.executed(1, 4).map(({ executedRad, isClamped }) => [executedRad[0], isClamped]),
    [
      [1, false],
      [2.2, false],
      [30, true],
    ],
  );
  ledger.forget(4);
  t.equal(ledger.planned(2), undefined);
  t.ok(ledger.planned(3), 'motion goes on from the last one');
  ledger.plan(6, [action(60)]);
  t.equal(ledger.end, 7);
  t.end();
});

t.test('stretches of actions: cut, joined, stacked', (t) => {
  // Two channels, three actions.
  const actions = Float32Array.of(1, 2, 3, 10, 20, 30);
  t.same([...sliceActions(actions, 2, 1, 3)], [2, 3, 20, 30]);
  t.same([...sliceActions(actions, 2, 1, 1)], []);
  t.same([...actionAt(actions, 2, 2)], [3, 30]);
  t.same([...joinActions(sliceActions(actions, 2, 0, 1), sliceActions(actions, 2, 1, 3), 2)], [...actions]);
  t.same([...joinActions(new Float32Array(0), actions, 2)], [...actions]);
  t.same([...stackActions([actionAt(actions, 2, 0), actionAt(actions, 2, 1), actionAt(actions, 2, 2)], 2)], [...actions]);
  t.end();
});
