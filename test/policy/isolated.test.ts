/** The isolated policy over the fake engine in real child processes: parity with the local one, errors, aborts, crashes, and how processes end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { getPriority, setPriority } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { Frame, Progress } from '../../src/policy/contract.js';
import { childArguments, IsolatedPolicy } from '../../src/policy/isolated.js';
import { seeds } from '../support/fake-native.js';
import { actionsOf, checkpoint, errorOf, fakeEngineProcess, frame, moments, observation, openRig, smallJob } from '../support/fixtures.js';

const here = dirname(fileURLToPath(import.meta.url));

async function openIsolated(t: Test, changes: Record<string, unknown> = {}): Promise<IsolatedPolicy> {
  const policy = await IsolatedPolicy.open({ checkpoint, job: smallJob(changes), threads: 1 }, { module: fakeEngineProcess, warnings: ['w'] });
  t.teardown(() => policy.close());
  return policy;
}

/** Whether a process with this id exists. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function untilGone(pid: number): Promise<void> {
  while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Starting a process takes longer than all calls together: tests that do not end theirs share one. */
const shared = await openIsolated(t);

t.test(
  'it takes no part in the precedence that its supervisor is given',
  { skip: process.getuid?.() !== 0 && 'only root gives precedence' },
  async (t) => {
    setPriority(-5);
    try {
      const policy = await openIsolated(t);
      t.equal(getPriority(policy.pid), 0);
      t.equal(getPriority(), -5);
    } finally {
      setPriority(0);
    }
  },
);

t.test('it behaves like the local policy', async (t) => {
  const isolated = shared;
  const { policy: local } = await openRig();
  t.not(isolated.pid, process.pid);
  t.same(isolated.job, local.job);
  t.same(isolated.info, { ...local.info, warnings: ['w'] });
  t.same(isolated.cache, local.cache);
  for (const policy of [isolated, local]) t.equal((await errorOf(policy.predict({ obs: observation() }))).code, 'NO_EPISODE');

  const prompt = { prompt: 'pick  up', trace: true };
  t.same(await isolated.reset(prompt), await local.reset(prompt));
  const [here, there] = [
    await local.predict({ obs: observation(), seed: 1n << 40n, trace: true }),
    await isolated.predict({ obs: observation(), seed: 1n << 40n, trace: true }),
  ];
  t.same(there, here);
  t.same(there.latents.shape, [1, 48, 2, 2, 4]);
  t.equal(there.latents.dtype, 'float32');
  t.equal(there.latents.data, there.latents);
  t.type(there.trace, Map);
  t.same(there.trace, here.trace);
  t.same(isolated.cache, local.cache);

  const commit = { obs: moments(4), actions: actionsOf(2), trace: true };
  t.same(await isolated.commit(commit), await local.commit(commit));
  t.match(isolated.cache, { capacity: 100, valid: 2, committed: 2, predicted: 0 });
  const next = { obs: moments(8), executed: actionsOf(2), executing: actionsOf(2) };
  t.same(await isolated.predictNext(next), await local.predictNext(next));

  const films = [await isolated.decode(there.latents), await local.decode(here.latents)] as const;
  t.same(films[0], films[1]);
  t.same(films[0].video.shape, films[1].video.shape);
  t.same(films[0].video, films[1].video);
  t.equal(films[0][0]?.capturedAtNs, 0n);
  t.equal((await isolated.decode({ data: new Float32Array(384), shape: [1, 48, 1, 2, 4] })).length, 1);
});

t.test('errors arrive as PremotorError with their details', async (t) => {
  const policy = shared;
  const { policy: local } = await openRig();
  for (const one of [policy, local]) await one.reset({ prompt: 'a' });
  const calls: ((one: typeof policy | typeof local) => Promise<unknown>)[] = [
    (one) => one.predict(),
    (one) => one.predict({ obs: [frame('cam_high')] }),
    (one) => one.predict({ obs: [frame('cam_high'), frame('cam_low')] }),
    (one) => one.predict({ obs: 5 as never }),
    (one) => one.predict({ obs: observation(), seed: -1 }),
    (one) => one.predict({ obs: observation(), noise: { video: new Float32Array(2) } }),
    (one) => one.predict({ obs: observation(), seed: seeds.fail }),
    (one) => one.predict({ obs: observation(), signal: {} as never }),
    (one) => one.predict(null as never),
    (one) => one.reset({ prompt: 5 as never }),
    (one) => one.commit({ obs: moments(4), actions: actionsOf(2) }),
    (one) => one.decode(new Float32Array(3)),
  ];
  for (const call of calls) {
    const [there, here] = [await errorOf(call(policy)), await errorOf(call(local))];
    t.match(there, { code: here.code, message: here.message, field: here.field, expected: here.expected, found: here.found }, here.message);
  }
});

t.test('what cannot be sent is refused, and the policy goes on', async (t) => {
  const policy = shared;
  await policy.reset({ prompt: 'a' });
  const noise = { video: (() => 1) as never };
  t.equal((await errorOf(policy.predict({ obs: observation(), noise }))).code, 'ARGUMENT_INVALID');
  await policy.predict({ obs: observation() });
});

t.test('frames of a class keep their fields, bigint included', async (t) => {
  class CameraFrame implements Frame {
    readonly #data = frame('cam_high').data;
    readonly capturedAtNs = 1n << 62n;
    readonly release = (): void => undefined;
    constructor(readonly camera: string) {}
    get width(): number {
      return 6;
    }
    get height(): number {
      return 4;
    }
    get data(): Uint8Array {
      return this.#data;
    }
  }
  const policy = shared;
  await policy.reset({ prompt: 'a' });
  await policy.predict({ obs: [new CameraFrame('cam_high'), new CameraFrame('cam_wrist')] });
  await policy.commit({ obs: Array.from({ length: 4 }, () => [new CameraFrame('cam_high'), new CameraFrame('cam_wrist')]), actions: actionsOf(2) });
  t.equal(policy.cache.committed, 2);
});

t.test('progress, abort, backpressure', async (t) => {
  const policy = shared;
  await policy.reset({ prompt: 'a' });
  const seen: Progress[] = [];
  await policy.predict({ obs: observation(), onProgress: (progress) => seen.push(progress) });
  t.same(
    seen.map(({ done, total }) => `${done}/${total}`),
    ['1/2', '2/2'],
  );
  const before = policy.cache;

  const controller = new AbortController();
  const running = policy.predict({ seed: seeds.waitForCancel, signal: controller.signal });
  t.equal((await errorOf(policy.predict())).code, 'BUSY');
  const reason = new Error('too late');
  controller.abort(reason);
  const error = await errorOf(running);
  t.equal(error.code, 'ABORTED');
  t.equal(error.cause, reason, "the caller's own reason");
  t.same(policy.cache, before);
  t.equal((await errorOf(policy.predict({ signal: AbortSignal.abort() }))).code, 'ABORTED');
  await policy.predict();
});

t.test('reset stops a running prediction in the child', async (t) => {
  const policy = shared;
  const { generation } = await policy.reset({ prompt: 'a' });
  await policy.predict({ obs: observation() });
  const next = { obs: moments(4), executed: actionsOf(2), executing: actionsOf(1), seed: seeds.waitForCancel };
  const rejected = errorOf(policy.predictNext(next));
  t.equal((await errorOf(policy.reset({ prompt: 5 as never }))).code, 'ARGUMENT_INVALID');
  const reset = policy.reset({ prompt: 'b' });
  t.match(await rejected, { code: 'ABORTED', message: /the episode was reset/ });
  t.equal((await reset).generation, generation + 1);
  t.equal((await policy.predict({ obs: observation() })).generation, generation + 1);
});

t.test('a reply of an episode that is over is dropped', async (t) => {
  const policy = await IsolatedPolicy.open({ checkpoint, job: smallJob() }, { module: join(here, '..', 'support', 'stale-engine-process.ts') });
  t.teardown(() => policy.close());
  await policy.reset({ prompt: 'a' });
  const error = await errorOf(policy.predict());
  t.match(error, { code: 'ABORTED', expected: 'episode 1', found: 'episode 0' });
  t.equal(await policy.reset({ prompt: 'b' }), null, 'others are taken');
});

t.test('what belongs to an episode crosses the boundary', async (t) => {
  const policy = shared;
  const { policy: local } = await openRig();
  const generations = [await policy.reset({ prompt: 'a' }), await local.reset({ prompt: 'a' })].map(({ generation }) => generation);
  t.not(generations[0], generations[1]);
  const results = await Promise.all(
    [policy, local].map(async (one) => {
      const found: unknown[] = [await errorOf(one.encoderState()).then(({ code }) => code)];
      await one.predict({ obs: observation() });
      const next = { obs: [], executed: actionsOf(1), executing: actionsOf(2), imagineSteps: 2, guidance: false, videoExecStep: 2 };
      const chunk = await one.predictNext(next);
      const { imagined, committed } = chunk;
      t.equal(imagined?.dtype, 'float32');
      t.equal(committed?.latents.dtype, 'float32');
      const forecast = imagined ?? new Float32Array(0);
      const stale = await one.predictNext({ executing: actionsOf(2), forecast });
      const encoder = await one.encoderState();
      const past = { latents: committed?.latents ?? forecast, actions: actionsOf(1) };
      const { checksum } = one.cache;
      const stages: Progress[] = [];
      const onProgress = (progress: Progress): void => void stages.push(progress);
      const restored = await one.restore({ prompt: 'c', commits: [past], encoder, checksum, onProgress });
      const refused = await errorOf(one.restore({ prompt: 'c', commits: [past], encoder, checksum: 'f' }));
      const gone = await errorOf(one.predict());
      await one.reset({ prompt: 'd' });
      found.push(chunk.actions, imagined, committed, stale.frameIndex, encoder, stages, restored.cleanedPrompt, refused.code, gone.code);
      return [...found, await one.occupy(), one.cache];
    }),
  );
  t.same(results[0], results[1]);
  t.same(results[0]?.slice(-4, -2), ['RESTORE_MISMATCH', 'NO_EPISODE']);
});

t.test('the child is killed while it computes', async (t) => {
  const policy = await openIsolated(t);
  await policy.reset({ prompt: 'a' });
  const running = policy.predict({ obs: observation(), seed: seeds.waitForCancel });
  process.kill(policy.pid as number, 'SIGKILL');
  const error = await errorOf(running);
  t.equal(error.code, 'ENGINE_DIED');
  t.equal(error.found, 'signal SIGKILL');
  t.equal((await errorOf(policy.predict())).code, 'ENGINE_DIED', 'and later');
  t.equal((await errorOf(policy.reset({ prompt: 'a' }))).code, 'ENGINE_DIED');
  t.same(policy.cache.capacity, 100, 'the last cache state can be read');
  await policy.close();
  await policy.close();
  t.equal((await errorOf(policy.predict())).code, 'CLOSED');
});

t.test('the child is killed while idle', async (t) => {
  const policy = await openIsolated(t);
  const pid = policy.pid as number;
  process.kill(pid, 'SIGKILL');
  await untilGone(pid);
  t.equal((await errorOf(policy.reset({ prompt: 'a' }))).code, 'ENGINE_DIED');
  await policy.close();
});

t.test('the child exits by itself', async (t) => {
  const policy = await openIsolated(t);
  await policy.reset({ prompt: 'a' });
  const error = await errorOf(policy.predict({ obs: observation(), seed: seeds.exit }));
  t.equal(error.code, 'ENGINE_DIED');
  t.equal(error.found, 'exit code 7');
});

t.test('a child whose GPU has failed ends, so that another one can take its place', async (t) => {
  const policy = await openIsolated(t);
  await policy.reset({ prompt: 'a' });
  const error = await errorOf(policy.predict({ obs: observation(), seed: seeds.deviceFault }));
  t.equal(error.code, 'ENGINE_DIED');
  t.equal(error.found, 'exit code 75');
});

t.test('one child dies, another lives', async (t) => {
  const first = await openIsolated(t);
  process.kill(first.pid as number, 'SIGKILL');
  await shared.reset({ prompt: 'a' });
  t.equal((await shared.predict({ obs: observation() })).frameIndex, 0);
});

t.test('close: the child ends, also in the middle of a call; idempotent', async (t) => {
  const policy = await openIsolated(t);
  const pid = policy.pid as number;
  await policy.reset({ prompt: 'a' });
  const running = errorOf(policy.predict({ obs: observation(), seed: seeds.waitForCancel }));
  await Promise.all([policy.close(), policy.close()]);
  t.equal((await running).code, 'ABORTED');
  t.equal((await errorOf(policy.predict())).code, 'CLOSED');
  await untilGone(pid);
});

t.test('what fails while loading is reported, and no child stays', async (t) => {
  const missing = await errorOf(IsolatedPolicy.open({ checkpoint: join(here, 'absent'), job: smallJob() }, { module: fakeEngineProcess }));
  t.equal(missing.code, 'CHECKPOINT_MISSING_FILE');
  const broken = await errorOf(IsolatedPolicy.open({ checkpoint, job: smallJob() }, { module: join(here, 'absent-module.ts') }));
  t.equal(broken.code, 'ENGINE_DIED');
});

t.test('the child ends when its parent is gone', async (t) => {
  const parent = spawn(process.execPath, ['--import=tsx', join(here, '..', 'support', 'isolated-parent.ts')], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: join(here, '..', '..'),
  });
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(line.toString());
  t.ok(isAlive(pid), 'the child computes');
  parent.kill('SIGKILL');
  await untilGone(pid);
  t.pass('the child is gone');
});

t.test("an idle policy does not keep its owner's event loop alive", async (t) => {
  const parent = spawn(process.execPath, ['--import=tsx', join(here, '..', 'support', 'isolated-parent.ts'), 'idle'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: join(here, '..', '..'),
  });
  let printed = '';
  parent.stdout.on('data', (data: Buffer) => (printed += data.toString()));
  const [code] = (await once(parent, 'exit')) as [number];
  t.equal(code, 0);
  await untilGone(Number(printed));
});

t.test("Node's arguments for the child", (t) => {
  t.same(childArguments(['--import=tsx', '--require', '/x.cjs']), ['--import=tsx', '--require', '/x.cjs']);
  t.same(childArguments(['-e', 'code', '--import=tsx']), ['--import=tsx']);
  t.same(childArguments(['--input-type=module', '--eval', 'code', '--max-old-space-size=100']), ['--max-old-space-size=100']);
  t.same(childArguments(['--input-type', 'module', '-p', 'code']), []);
  t.same(childArguments(['--inspect=0', '--inspect-brk', '--test', '--watch', '--conditions=x']), ['--conditions=x']);
  t.end();
});
