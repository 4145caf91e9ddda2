/** The table of the service's states: what may follow what, and that a document draws the same states. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { mayFollow, SERVICE_STATES, ServiceLifecycle, type ServiceState, type ServiceTransition } from '../../src/service/states.js';

t.test('power is reached through arming alone, but for a robot that has it', async (t) => {
  const before = SERVICE_STATES.filter((state) => mayFollow(state, 'holding'));
  t.same(before, ['starting', 'waiting', 'arming', 'running', 'stopping']);
  t.same(
    SERVICE_STATES.filter((state) => mayFollow(state, 'running')),
    ['holding'],
  );
  t.same(
    SERVICE_STATES.filter((state) => mayFollow(state, 'arming')),
    ['ready'],
  );
});

t.test('every state has a way to a fault, but for those that stand still; a fault is left to waiting', async (t) => {
  const still: readonly ServiceState[] = ['fault', 'maintenance'];
  for (const state of SERVICE_STATES) t.equal(mayFollow(state, 'fault'), !still.includes(state), state);
  t.same(
    SERVICE_STATES.filter((state) => mayFollow('fault', state)),
    ['waiting', 'stopping'],
  );
});

t.test('every change of the table is taken and told, every other one is a bug', async (t) => {
  for (const from of SERVICE_STATES) {
    for (const to of SERVICE_STATES) {
      const told: ServiceTransition[] = [];
      const lifecycle = new ServiceLifecycle(
        (one) => told.push(one),
        () => new Date(7),
      );
      for (const step of pathTo(from)) lifecycle.go(step, 'on the way');
      told.length = 0;
      if (from === to) lifecycle.go(to, 'nothing');
      else if (mayFollow(from, to)) {
        lifecycle.go(to, 'why');
        t.same(told, [{ from, to, reason: 'why' }]);
        t.equal(lifecycle.since.getTime(), 7);
      } else t.throws(() => lifecycle.go(to, 'why'), { code: 'INTERNAL' }, `${from} to ${to}`);
      t.equal(lifecycle.state, mayFollow(from, to) || from === to ? to : from);
    }
  }
});

t.test('docs/SERVICE.md has a row for each', async (t) => {
  const text = readFileSync(new URL('../../docs/SERVICE.md', import.meta.url), 'utf8');
  for (const state of SERVICE_STATES) t.match(text, new RegExp(`^\\| ${state} \\| `, 'm'), state);
});

/** The shortest way from the beginning. */
function pathTo(wanted: ServiceState): readonly ServiceState[] {
  let paths: (readonly ServiceState[])[] = [['starting']];
  for (;;) {
    const found = paths.find((path) => path.at(-1) === wanted);
    if (found) return found.slice(1);
    paths = paths.flatMap((path) => SERVICE_STATES.filter((state) => mayFollow(path.at(-1) ?? 'starting', state)).map((state) => [...path, state]));
  }
}
