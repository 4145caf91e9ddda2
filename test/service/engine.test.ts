/**
 * The death of a real engine process under a service that waits or holds: the robot stays as it is, another engine comes, and a loop of deaths
 * ends in a wait.
 */
import { readFileSync } from 'node:fs';
import t from 'tap';
import type { Policy } from '../../src/policy/contract.js';
import { IsolatedPolicy } from '../../src/policy/isolated.js';
import { Harness } from './harness.js';

/** Processes take their time on a busy machine. */
t.setTimeout(240_000);

const module = new URL('../support/fake-model-process.ts', import.meta.url).pathname;
const pids: number[] = [];

async function isolated(): Promise<Policy> {
  const policy = await IsolatedPolicy.open({ checkpoint: 'none', job: {} } as Parameters<typeof IsolatedPolicy.open>[0], { module });
  if (policy.pid !== undefined) pids.push(policy.pid);
  return policy;
}

t.test('kill -9 of the engine while the robot holds, and again and again', async (t) => {
  const one = new Harness(t, { policy: isolated, service: 'starts_max: 1' });
  await one.reaches('ready');
  const first = pids.at(-1) ?? 0;
  t.equal(readFileSync(`/proc/${first}/oom_score_adj`, 'utf8').trim(), '800', 'it offers itself when memory runs out');
  await one.ask({ do: 'arm' });
  const again = one.next(({ event }) => event === 'policy');
  process.kill(first, 'SIGKILL');
  await one.next(({ event, fields }) => event === 'engine' && fields['code'] === 'ENGINE_DIED');
  t.match(await one.status(), { state: 'holding', armed: true, policy: { loaded: false } }, 'the robot holds');
  await t.rejects(one.ask({ do: 'run' }), { code: 'SERVICE_STATE', message: /a policy that is loaded/ });
  await again;
  t.match(await one.status(), { state: 'holding', policy: { loaded: true } });
  t.not(pids.at(-1), first);
  await one.ask({ do: 'disarm' });
  await one.reaches('ready');
  process.kill(pids.at(-1) ?? 0, 'SIGKILL');
  await one.reaches('waiting');
  await one.looks(2);
  t.match(await one.status(), { state: 'waiting', policy: { loaded: false }, reasons: [{ code: 'CRASH_LOOP' }, { code: 'ENGINE_DIED' }] });
  await one.looks(5);
  t.equal(pids.length, 2, 'no third one before a person has seen it');
  await one.ask({ do: 'clear' });
  await one.reaches('ready');
  t.equal(pids.length, 3);
});
