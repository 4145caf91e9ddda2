/** What is kept open: one at a time, tried again with a growing pause, and closed once. */
import t from 'tap';
import { PremotorError } from '../../src/errors.js';
import { Keeper, RETRY_FACTOR_MAX } from '../../src/service/keeper.js';

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('it is opened when it is wanted, again after a pause that grows to a bound', async (t) => {
  let nowMs = 0;
  let opened = 0;
  let fails = true;
  const closed: number[] = [];
  const keeper = new Keeper<number>({
    open: async () => {
      opened++;
      if (fails) throw new PremotorError('CAN_OPEN', 'No bus.');
      return opened;
    },
    close: async (one) => void closed.push(one),
    retryMs: 10,
    monotonicMs: () => nowMs,
  });
  const pauses: number[] = [];
  for (let lastMs = 0; pauses.length < 9; nowMs++) {
    const before = opened;
    keeper.want();
    await settle();
    if (opened === before) continue;
    if (opened > 1) pauses.push(nowMs - lastMs);
    lastMs = nowMs;
  }
  t.same(pauses, [10, 20, 40, 80, 160, 300, 300, 300, 300]);
  t.equal(pauses.at(-1), 10 * RETRY_FACTOR_MAX);
  t.equal(keeper.error?.code, 'CAN_OPEN');
  fails = false;
  const one = await keeper.take();
  t.equal(keeper.value, one, 'somebody who needs it does not wait for the pause');
  t.equal(keeper.error, undefined);
  keeper.lost(new PremotorError('ENGINE_DIED', 'Killed.'));
  t.equal(keeper.value, undefined);
  t.equal(keeper.error?.code, 'ENGINE_DIED');
  keeper.want();
  t.notOk(keeper.isOpening, 'after a pause, too');
  const [a, b] = await Promise.all([keeper.take(), keeper.take()]);
  t.equal(a, b, 'never two at a time');
  await keeper.close();
  await keeper.close();
  t.same(closed, [a]);
  keeper.want();
  t.notOk(keeper.isOpening);
});

t.test('another one in its place', async (t) => {
  const events: string[] = [];
  const keeper = new Keeper<string>({
    open: async () => 'first',
    close: async (one) => void events.push(`closed ${one}`),
    retryMs: 10,
    monotonicMs: () => 0,
    onOpen: (one) => void events.push(`opened ${one}`),
    onFailure: ({ code }) => void events.push(code),
  });
  await keeper.take();
  const renewing = keeper.renew(async () => 'second');
  t.equal(keeper.value, undefined, 'nobody uses what is being closed');
  keeper.want();
  t.equal(await keeper.take(), 'second', 'who asks meanwhile gets the new one');
  t.equal(await renewing, 'second');
  t.same(events, ['opened first', 'closed first', 'opened second']);
  await t.rejects(
    keeper.renew(async () => Promise.reject(new PremotorError('SIM_TASK', 'None.'))),
    { code: 'SIM_TASK' },
  );
  t.same(events.slice(3), ['closed second', 'SIM_TASK']);
  t.equal(keeper.value, undefined);
});
