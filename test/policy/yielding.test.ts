/** Pictures are decoded aside: the owner's calls never fail for it, and never wait longer than they must. */
import t from 'tap';
import type { DecodedVideo, Policy } from '../../src/policy/contract.js';
import { LocalPolicy } from '../../src/policy/local.js';
import { YieldingPolicy } from '../../src/policy/yielding.js';
import { atHome, FakePolicy, tensor } from '../control/fakes.js';
import { errorOf, moments, observation, openRig } from '../support/fixtures.js';

const LATENTS = tensor([1, 48, 2, 6, 12]);

/** A fake whose decode waits until it is told to go on, or is aborted. */
function slowDecoder() {
  const inner = new FakePolicy(atHome);
  const log: string[] = [];
  let finish: () => void = () => undefined;
  const decode: Policy['decode'] = (_, options) =>
    new Promise<DecodedVideo>((resolve, reject) => {
      log.push('decode');
      finish = () => {
        log.push('decoded');
        resolve([] as unknown as DecodedVideo);
      };
      options?.signal?.addEventListener('abort', () => {
        log.push('aborted');
        reject(new Error('aborted'));
      });
    });
  Object.assign(inner, { decode });
  inner.before = (call) => void log.push(call);
  return { inner, log, finish: () => finish() };
}

t.test('the owner makes it give way', async (t) => {
  const { inner, log } = slowDecoder();
  const policy = new YieldingPolicy(inner, { isPatient: false });
  await policy.reset({ prompt: 'x' });
  const aside = errorOf(policy.decodeAside(LATENTS)).catch((error: Error) => error);
  await policy.predict({ obs: [] });
  await aside;
  t.same(log, ['reset', 'decode', 'aborted', 'predict']);
});

t.test('a patient owner lets it finish', async (t) => {
  const { inner, log, finish } = slowDecoder();
  const policy = new YieldingPolicy(inner, { isPatient: true });
  const aside = policy.decodeAside(LATENTS);
  const owner = policy.reset({ prompt: 'x' });
  t.same(log, ['decode']);
  finish();
  await Promise.all([aside, owner]);
  t.same(log, ['decode', 'decoded', 'reset']);
});

t.test('aside is refused while the engine computes, and twice at once', async (t) => {
  const { inner, finish } = slowDecoder();
  let answer: () => void = () => undefined;
  inner.before = () => new Promise<void>((resolve) => (answer = resolve));
  const policy = new YieldingPolicy(inner, { isPatient: false });
  const owner = policy.reset({ prompt: 'x' });
  t.match(await errorOf(policy.decodeAside(LATENTS)), { code: 'BUSY' });
  answer();
  await owner;
  const first = policy.decodeAside(LATENTS);
  t.match(await errorOf(policy.decodeAside(LATENTS)), { code: 'BUSY' });
  finish();
  await first;
});

t.test("without anything aside the owner's calls start at once", async (t) => {
  const { inner, log } = slowDecoder();
  const policy = new YieldingPolicy(inner, { isPatient: false });
  const call = policy.reset({ prompt: 'x' });
  t.same(log, ['reset'], 'before the promise is awaited');
  await call;
});

t.test('over the real gate: a commit beside a decode is not BUSY', async (t) => {
  const { policy: inner, engine } = await openRig();
  t.ok(inner instanceof LocalPolicy && engine);
  const policy = new YieldingPolicy(inner, { isPatient: false });
  await policy.reset({ prompt: 'x' });
  const chunk = await policy.predict({ obs: observation() });
  const aside = policy.decodeAside(chunk.latents).catch((error: { code: string }) => error.code);
  await t.resolves(policy.commit({ obs: moments(4), actions: chunk.actions }));
  const value = await aside;
  t.ok(value === 'ABORTED' || Array.isArray(value), String(value));
  await policy.close();
  t.match(await errorOf(policy.decodeAside(chunk.latents)), { code: 'CLOSED' });
});
