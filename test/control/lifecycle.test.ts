/** The lifecycle: every pair of state and trigger, what is told of a change, and how an illegal one is refused. */
import t from 'tap';
import { Lifecycle, legalTriggers, nextState, STATES, type State, TRIGGERS, type Transition, type Trigger } from '../../src/control/lifecycle.js';
import { PremotorError } from '../../src/errors.js';

/** Written out once more, row by row: state, then the next state of arm, start, rest, stop, fail, reset, disarm; '-' is illegal. */
const expected = `
disarmed  armed  -        -        disarmed  fault  -         disarmed
armed     -      running  -        disarmed  fault  -         disarmed
running   -      -        holding  stopping  fault  -         -
stopping  -      -        holding  stopping  fault  -         -
holding   armed  -        -        holding   fault  -         disarmed
fault     -      -        -        fault     fault  disarmed  -`;
const rows = expected
  .trim()
  .split('\n')
  .map((line) => line.trim().split(/\s+/));
/** Shortest way to each state. */
const ways: Readonly<Record<State, readonly Trigger[]>> = {
  disarmed: [],
  armed: ['arm'],
  running: ['arm', 'start'],
  stopping: ['arm', 'start', 'stop'],
  holding: ['arm', 'start', 'rest'],
  fault: ['fail'],
};

function give(lifecycle: Lifecycle, trigger: Trigger): void {
  if (trigger === 'fail') lifecycle.fail(new PremotorError('BUS_OFF', 'gone'));
  else lifecycle.dispatch(trigger, `because of ${trigger}`);
}

function inState(state: State): { lifecycle: Lifecycle; heard: Transition[] } {
  const heard: Transition[] = [];
  const lifecycle = new Lifecycle(
    (transition) => heard.push(transition),
    () => 42,
  );
  for (const trigger of ways[state]) give(lifecycle, trigger);
  t.equal(lifecycle.state, state);
  heard.length = 0;
  return { lifecycle, heard };
}

t.test('every state and every trigger', async (t) => {
  t.same(
    rows.map(([state]) => state),
    STATES,
  );
  for (const [name, ...nexts] of rows) {
    const state = name as State;
    t.equal(nexts.length, TRIGGERS.length);
    t.same(
      legalTriggers(state),
      TRIGGERS.filter((_, index) => nexts[index] !== '-'),
    );
    for (const [index, trigger] of TRIGGERS.entries()) {
      const next = nexts[index] === '-' ? undefined : (nexts[index] as State);
      t.equal(nextState(state, trigger), next, `${state}, ${trigger}`);
      const { lifecycle, heard } = inState(state);
      if (next === undefined) {
        const refusal = {
          code: 'CONTROL_TRANSITION',
          found: state,
          message: new RegExp(`"${trigger}".*${state}.*Legal now: ${legalTriggers(state).join(', ')}`),
        };
        t.throws(() => give(lifecycle, trigger), refusal);
        t.throws(() => lifecycle.check(trigger), { code: 'CONTROL_TRANSITION' });
        t.same([lifecycle.state, heard.length], [state, 0], 'nothing changed');
        continue;
      }
      give(lifecycle, trigger);
      t.equal(lifecycle.state, next);
      const reason = trigger === 'fail' ? 'BUS_OFF: gone' : `because of ${trigger}`;
      t.same(heard, next === state ? [] : [{ from: state, to: next, trigger, reason, atMs: 42 }]);
    }
  }
});

t.test('a stop and a failure are possible everywhere; only an armed robot starts', async (t) => {
  for (const state of STATES) {
    t.ok(nextState(state, 'stop'), state);
    t.equal(nextState(state, 'fail'), 'fault');
    t.equal(nextState(state, 'start'), state === 'armed' ? 'running' : undefined);
  }
  const toRunning = STATES.flatMap((state) =>
    TRIGGERS.filter((trigger) => nextState(state, trigger) === 'running').map((trigger) => [state, trigger]),
  );
  t.same(toRunning, [['armed', 'start']]);
});

t.test('a fault keeps its first error until it is reset', async (t) => {
  const lifecycle = new Lifecycle();
  lifecycle.fail(new PremotorError('BUS_OFF', 'first'));
  lifecycle.fail(new PremotorError('ENGINE_DIED', 'second'));
  t.equal(lifecycle.fault?.message, 'first');
  lifecycle.dispatch('reset', 'seen');
  t.same([lifecycle.state, lifecycle.fault], ['disarmed', undefined]);
});
