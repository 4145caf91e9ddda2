/**
 * Work that the engine drops because nobody reads it (docs/ENGINE.md) must not show in results: runs without a trace, which skip it, give the same
 * bits as runs with one, which compute everything. And the event loop stays free while the engine works.
 */
import t from 'tap';
import { type Chunk, type Frame, loadPolicy, type Policy } from '../../src/index.js';
import { type Golden, momentsOf, readGolden } from '../support/golden.js';

async function open(golden: Golden, job: Record<string, unknown> = {}): Promise<Policy> {
  return loadPolicy({ checkpoint: golden.checkpoint, job: { ...golden.job, ...job }, promptCache: false, threads: 2 });
}

/** The recorded episode with the engine's own noise; `extra` predictions follow each recorded one before its commit. */
async function episode(golden: Golden, policy: Policy, trace: boolean, extra: number): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for (const call of golden.calls) {
    if (call.kind === 'reset') await policy.reset({ prompt: call.prompt ?? '' });
    if (call.kind === 'infer') {
      const obs = momentsOf(golden, call)[0];
      const base = obs === undefined ? {} : { obs };
      chunks.push(await policy.predict({ ...base, seed: 7, trace }));
      for (let i = 0; i < extra; i++) chunks.push(await policy.predict({ seed: 8 + i, trace }));
    }
    if (call.kind === 'kv') {
      const actions = golden.tensors.get(`${call.prefix}.state`)?.data as Float32Array;
      await policy.commit({ obs: momentsOf(golden, call), actions });
    }
  }
  return chunks;
}

// With guidance the second row of action passes is skipped, without a further prediction the last action pass is; with one it is made up for.
for (const name of ['franka_tiny', 'robotwin_tiny', 'nocfg_partial']) {
  for (const extra of [0, 1]) {
    t.test(`${name}: ${extra} predictions before the commit`, async (t) => {
      const golden = readGolden(name);
      const policy = await open(golden);
      t.teardown(() => policy.close());
      const [lean, full] = [await episode(golden, policy, false, extra), await episode(golden, policy, true, extra)];
      t.equal(lean.length, full.length);
      t.ok(lean.length >= 3);
      for (const [i, chunk] of lean.entries()) {
        t.same(chunk.actions, full[i]?.actions, `actions of chunk ${i}`);
        t.same([...chunk.latents], [...(full[i]?.latents ?? [])], `latents of chunk ${i}`);
      }
      const passes = (chunks: Chunk[]) => chunks.reduce((sum, chunk) => sum + chunk.timing.actionPasses, 0);
      t.ok(passes(lean) < passes(full), `${passes(lean)} action passes instead of ${passes(full)}`);
    });
  }
}

t.test('the event loop turns while the engine works', async (t) => {
  const golden = readGolden('franka_tiny');
  const policy = await open(golden);
  t.teardown(() => policy.close());
  await policy.reset({ prompt: 'push' });
  const obs = momentsOf(golden, golden.calls[1] as Golden['calls'][number])[0] as Frame[];
  let turns = 0;
  let isWorking = true;
  const count = (): void => {
    turns++;
    if (isWorking) setImmediate(count);
  };
  setImmediate(count);
  await policy.predict({ obs, videoSteps: 40, actionSteps: 40 });
  isWorking = false;
  t.ok(turns > 100, `${turns} turns during one prediction`);
});
