/** The recovering policy over engines that die: where they die changes nothing, what cannot be rebuilt says so, no engine or timer is left. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { PremotorError } from '../../src/errors.js';
import { Journal } from '../../src/journal/journal.js';
import type { Progress } from '../../src/policy/contract.js';
import { IsolatedPolicy } from '../../src/policy/isolated.js';
import { type RecoveringOptions, RecoveringPolicy, type Recovery } from '../../src/policy/recovering.js';
import { FakeModel, fakeMoment, type Hook, PROGRESS, playEpisode } from '../support/fake-model.js';
import { errorOf } from '../support/fixtures.js';

const CHUNKS = 4;
const died = (): PremotorError => new PremotorError('ENGINE_DIED', 'The engine process ended: expected it to run, found signal SIGKILL.');

/** An engine that stays dead once its hook has killed it. */
class MortalModel extends FakeModel {
  isDead = false;
  constructor(hook: Hook, changes: Partial<FakeModel['info']> = {}) {
    super(changes);
    this.hook = async (call, when) => {
      if (this.isDead) throw died();
      try {
        await hook(call, when);
      } catch (error) {
        this.isDead = true;
        throw error;
      }
    };
  }
}

const folders = new WeakMap<Test, string>();

/** A new folder. Asking a test for its own a second time would empty that. */
function folder(t: Test): string {
  const parent = folders.get(t) ?? t.testdir();
  folders.set(t, parent);
  return mkdtempSync(join(parent, 'rig-'));
}

interface Rig {
  readonly policy: RecoveringPolicy;
  readonly engines: MortalModel[];
  readonly recoveries: Recovery[];
  readonly warnings: PremotorError[];
  readonly dir: string;
}

async function openRig(t: Test, hook: Hook, changes: Partial<RecoveringOptions> = {}, infos: Partial<FakeModel['info']>[] = []): Promise<Rig> {
  const dir = changes.journal?.dir ?? folder(t);
  const engines: MortalModel[] = [];
  const recoveries: Recovery[] = [];
  const warnings: PremotorError[] = [];
  const policy = await RecoveringPolicy.open({
    open: async () => {
      const engine = new MortalModel(hook, infos[engines.length]);
      engines.push(engine);
      return engine;
    },
    journal: { dir, seed: 5, configuration: 'c' },
    supervisor: () => Uint8Array.of(1),
    onRecovery: (recovery) => recoveries.push(recovery),
    onWarning: (warning) => warnings.push(warning),
    ...changes,
  });
  t.teardown(() => policy.close());
  return { policy, engines, recoveries, warnings, dir };
}

/** Dies at the n-th event of the episode (a call's beginning or its end, before its answer is out), counted over all engines. */
function deathAt(...numbers: number[]): Hook {
  let count = 0;
  return () => {
    if (numbers.includes(count++)) throw died();
  };
}

const undisturbed = await playEpisode(new FakeModel(), CHUNKS);

t.test('without a death it is the engine itself', async (t) => {
  const { policy, engines, recoveries } = await openRig(t, () => undefined);
  t.same(await playEpisode(policy, CHUNKS), undisturbed);
  t.equal(engines.length, 1);
  t.same(recoveries, []);
  t.equal((await policy.journal?.read())?.commits.length, CHUNKS);
  t.same(policy.cache, engines[0]?.cache);
});

t.test('wherever the engine dies, the actions stay the same to the bit', async (t) => {
  let events = 0;
  const counting = await openRig(t, () => void events++);
  await playEpisode(counting.policy, CHUNKS);
  for (let at = 0; at < events; at++) {
    const { policy, engines, recoveries } = await openRig(t, deathAt(at));
    t.same(await playEpisode(policy, CHUNKS), undisturbed, `death at event ${at} of ${events}`);
    t.equal(engines.length, 2);
    t.same(
      recoveries.map(({ phase }) => phase),
      ['died', 'restarted', 'rebuilt'],
    );
    t.ok(engines[0]?.isClosed);
    t.equal((await policy.journal?.read())?.commits.length, CHUNKS);
  }
});

t.test('an engine that dies while it is rebuilt is replaced too', async (t) => {
  let kills = 0;
  const { policy, engines } = await openRig(t, (call, when) => {
    if (call === 'predict' && kills === 0 && engines[0]?.calls.filter((name) => name === 'commit').length === 2) {
      kills++;
      throw died();
    }
    if (call === 'restore' && when === 'after' && kills < 2) {
      kills++;
      throw died();
    }
  });
  t.same(await playEpisode(policy, CHUNKS), undisturbed);
  t.equal(engines.length, 3);
});

t.test('too many deaths end the episode', async (t) => {
  const { policy, engines } = await openRig(t, (call) => {
    if (call === 'predict') throw died();
  });
  await policy.reset({ prompt: 'a' });
  const error = await errorOf(policy.predict({ obs: fakeMoment(0) }));
  t.match(error, { code: 'ENGINE_RESTARTS', expected: 'at most 3 deaths in an episode', cause: { code: 'ENGINE_DIED' } });
  t.equal(engines.length, 4);
  await policy.reset({ prompt: 'b' });
  t.equal(engines.length, 5, 'a new episode has its own restarts');
});

t.test('progress goes on while it recovers', async (t) => {
  const heard: Progress[] = [];
  let opened = 0;
  const model = (hook: Hook): MortalModel => new MortalModel(hook);
  let kill = true;
  const { policy } = await openRig(t, () => undefined, {
    open: async () => {
      // Long enough for the timer, whatever the machine is doing: it waits for the second report, not for a time.
      if (opened++ > 0) while (heard.filter(({ stage }) => stage === 'recover').length < 3) await new Promise((resolve) => setTimeout(resolve, 10));
      return model((call) => {
        if (call !== 'commit' || !kill) return;
        kill = false;
        throw died();
      });
    },
  });
  await policy.reset({ prompt: 'a' });
  await policy.predict({ obs: fakeMoment(0) });
  await policy.commit({ obs: [1, 2, 3, 4].map((n) => fakeMoment(n)), actions: new Float32Array(64), onProgress: (progress) => heard.push(progress) });
  t.same(heard[0], { stage: 'recover', done: 0, total: 1 });
  t.same(heard.at(-1), PROGRESS, 'and then the call itself reports');
  const count = heard.length;
  await new Promise((resolve) => setTimeout(resolve, 400));
  t.equal(heard.length, count, 'the timer is gone');
});

t.test('a slow disk gives signs of life, and no others after that', async (t) => {
  const { policy } = await openRig(t, async () => undefined);
  await policy.reset({ prompt: 'a' });
  await policy.predict({ obs: fakeMoment(0) });
  const heard: Progress[] = [];
  const onProgress = (progress: Progress): void => void heard.push(progress);
  const commit = () => policy.commit({ obs: [1, 2, 3, 4].map((n) => fakeMoment(n)), actions: new Float32Array(64), onProgress });
  await commit();
  const { journal } = policy;
  const settle = journal?.settled.bind(journal);
  let isWritten = (): void => undefined;
  const written = new Promise<void>((resolve) => {
    isWritten = resolve;
  });
  Object.assign(journal ?? {}, { settled: () => written.then(settle) });
  await policy.predict();
  heard.length = 0;
  const committed = commit();
  while (heard.length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
  t.same(heard.slice(0, 2), [
    { stage: 'journal', done: 0, total: 1 },
    { stage: 'journal', done: 0, total: 1 },
  ]);
  isWritten();
  await committed;
  t.equal(heard.at(-1)?.stage, PROGRESS.stage, 'then the commit itself');
  const count = heard.length;
  await new Promise((resolve) => setTimeout(resolve, 400));
  t.equal(heard.length, count, 'the timer is gone');
});

t.test('predictNext is a commit, its record, and a prediction', async (t) => {
  const executing = new Float32Array(64).fill(0.25);
  const step = { obs: [1, 2, 3, 4].map((n) => fakeMoment(n)), executed: new Float32Array(64).fill(0.5), executing, seed: 3 };
  const plain = new FakeModel();
  await plain.reset({ prompt: 'a' });
  await plain.predict({ obs: fakeMoment(0) });
  const wanted = await plain.predictNext(step);
  for (const call of ['commit', 'encoderState', 'predictNext']) {
    let kill = true;
    const { policy, engines } = await openRig(t, (name, when) => {
      if (name !== call || when !== 'after' || !kill) return;
      kill = false;
      throw died();
    });
    await policy.reset({ prompt: 'a' });
    await policy.predict({ obs: fakeMoment(0) });
    const chunk = await policy.predictNext(step);
    t.same(chunk.actions, wanted.actions, `death in ${call}`);
    t.same(chunk.committed, wanted.committed);
    t.equal(chunk.timing.commitMs, 2 * wanted.timing.commitMs, 'the times of both calls');
    t.equal(policy.cache.checksum, plain.cache.checksum);
    t.equal(engines.length, 2);
    const without = await policy.predictNext({ executing });
    t.notOk('committed' in without);
  }
});

t.test('an abort between commit and prediction keeps the commit', async (t) => {
  const stop = new AbortController();
  const { policy } = await openRig(t, (call, when) => {
    if (call === 'commit' && when === 'after') stop.abort(new Error('enough'));
  });
  await policy.reset({ prompt: 'a' });
  await policy.predict({ obs: fakeMoment(0) });
  const step = { obs: [1, 2, 3, 4].map((n) => fakeMoment(n)), executed: new Float32Array(64), executing: new Float32Array(64), signal: stop.signal };
  t.equal((await errorOf(policy.predictNext(step))).code, 'ABORTED');
  t.equal(policy.cache.committed, 1);
  t.equal((await policy.journal?.read())?.commits.length, 1);
});

t.test('generations are the episode counts of the caller, whatever engine serves', async (t) => {
  let kill = false;
  const { policy, engines } = await openRig(t, (call) => {
    if (call !== 'predict' || !kill) return;
    kill = false;
    throw died();
  });
  t.equal((await policy.reset({ prompt: 'a' })).generation, 1);
  t.equal((await policy.reset({ prompt: 'b' })).generation, 2);
  kill = true;
  t.equal((await policy.predict({ obs: fakeMoment(0) })).generation, 2);
  t.equal(engines.length, 2);
  t.equal((await policy.commit({ obs: [fakeMoment(1)], actions: new Float32Array(64) })).generation, 2);
});

t.test('what cannot be rebuilt says why', async (t) => {
  let kill = false;
  const hook: Hook = (call) => {
    if (call === 'predict' && kill) throw died();
  };
  const lost = async (rig: Rig): Promise<PremotorError> => {
    kill = false;
    await playEpisode(rig.policy, 3);
    await rig.policy.journal?.settled();
    kill = true;
    return errorOf(rig.policy.predict());
  };
  const full = await openRig(t, hook, { journal: { dir: folder(t), seed: 0, configuration: '', maxRecords: 2 } });
  t.match(await lost(full), { code: 'ENGINE_DIED', cause: { code: 'JOURNAL_FULL' } });
  t.match(full.warnings, [{ code: 'JOURNAL_FULL' }]);
  const gone = await openRig(t, (call) => {
    if (call === 'predict' && kill) {
      rmSync(join(gone.policy.journal?.dir ?? '', 'encoder-1'));
      rmSync(join(gone.policy.journal?.dir ?? '', 'encoder-0'));
      throw died();
    }
  });
  t.match(await lost(gone), { code: 'ENGINE_DIED', cause: { code: 'JOURNAL_DAMAGED' } });
  const file = join(folder(t), 'file');
  writeFileSync(file, '');
  const nowhere = await openRig(t, hook, { journal: { dir: join(file, 'inside'), seed: 0, configuration: '' } });
  t.match(await lost(nowhere), { code: 'ENGINE_DIED', found: 'an episode without a journal' });
  t.match(nowhere.warnings, [{ code: 'JOURNAL_WRITE' }]);
  const spoilt = await openRig(t, hook);
  kill = false;
  await playEpisode(spoilt.policy, 1);
  await spoilt.policy.occupy();
  kill = true;
  t.equal((await errorOf(spoilt.policy.predict())).code, 'ENGINE_DIED');
});

t.test('another checksum after rebuilding is refused', async (t) => {
  let kill = true;
  const { policy, engines } = await openRig(t, (call, when) => {
    if (call === 'commit' && when === 'before' && kill && engines[0]?.calls.filter((name) => name === 'commit').length === 2) {
      kill = false;
      throw died();
    }
    if (call === 'restore' && when === 'before') Object.defineProperty(engines[1], 'cache', { get: () => ({ checksum: 'other' }) });
  });
  t.match(await errorOf(playEpisode(policy, CHUNKS)), { code: 'RESTORE_MISMATCH' });
});

t.test('other errors pass, and one call at a time', async (t) => {
  const { policy, engines } = await openRig(t, () => undefined);
  t.equal((await errorOf(policy.predict())).code, 'NO_EPISODE');
  await policy.reset({ prompt: 'a' });
  t.equal((await errorOf(policy.predict())).code, 'OBS_REQUIRED');
  const running = policy.predict({ obs: fakeMoment(0) });
  t.equal((await errorOf(policy.commit({ obs: [], actions: new Float32Array(64) }))).code, 'BUSY');
  await running;
  await policy.close();
  t.ok(engines[0]?.isClosed);
  t.equal((await errorOf(policy.predict())).code, 'CLOSED');
});

t.test('a resume goes on with the journal', async (t) => {
  const first = await openRig(t, () => undefined);
  await playEpisode(first.policy, 3);
  const dir = first.policy.journal?.dir ?? '';
  await first.policy.close();
  const { journal, past } = await Journal.resume(dir);
  const second = await openRig(t, deathAt(3), { resumed: journal, journal: { dir: first.dir, seed: 5, configuration: 'c' } });
  const { prompt } = past.header;
  const call = { prompt, commits: past.commits, encoder: { data: past.encoder ?? new Uint8Array(0) }, checksum: past.commits.at(-1)?.checksum ?? '' };
  t.equal((await second.policy.restore(call)).generation, 1);
  t.same((await second.policy.predict({ seed: 5 })).actions, undisturbed[3], 'also when the engine dies in it');
  t.equal(second.engines.length, 2);
  const foreign = { open: async () => new FakeModel({ checkpointHash: 'other' }), journal: { dir, seed: 0, configuration: '' }, resumed: journal };
  t.match(await errorOf(RecoveringPolicy.open(foreign)), { code: 'JOURNAL_FOREIGN', field: 'checkpoint' });
  await second.policy.finish('reached');
  t.equal((await errorOf(Journal.resume(dir))).code, 'RESUME_FINISHED');
});

t.test('a real process, killed in the middle of a prediction and of a commit', async (t) => {
  const module = fileURLToPath(new URL('../support/fake-model-process.ts', import.meta.url));
  for (const victim of [3, 4]) {
    const pids: (number | undefined)[] = [];
    const { policy, recoveries } = await openRig(t, () => undefined, {
      open: async () => {
        const engine = await IsolatedPolicy.open({ checkpoint: 'none', job: {} }, { module });
        pids.push(engine.pid);
        return engine;
      },
    });
    let calls = 0;
    let isKilled = false;
    const watched = new Proxy(policy, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name, target);
        if (typeof member !== 'function') return member;
        return (options: object) => {
          const number = name === 'predict' || name === 'commit' ? calls++ : -1;
          const onProgress = ({ stage }: Progress): void => {
            if (number !== victim || isKilled || stage === 'recover') return;
            isKilled = true;
            process.kill(policy.pid ?? 0, 'SIGKILL');
          };
          return member.call(target, { ...options, onProgress });
        };
      },
    });
    t.same(await playEpisode(watched, CHUNKS), undisturbed, `killed in call ${victim}`);
    t.equal(recoveries.length, 3);
    t.equal(new Set(pids).size, 2);
    await policy.close();
  }
});

t.test('a reset stops a prediction and begins anew', async (t) => {
  const { policy, engines } = await openRig(t, () => undefined);
  await policy.reset({ prompt: 'a' });
  if (engines[0]) engines[0].delayMs = 50;
  const running = errorOf(policy.predict({ obs: fakeMoment(0) }));
  t.equal((await errorOf(policy.reset({ prompt: 5 as never }))).code, 'ARGUMENT_INVALID');
  t.equal((await policy.reset({ prompt: 'b' })).generation, 2);
  t.match(await running, { code: 'ABORTED' });
  t.equal((await policy.predict({ obs: fakeMoment(0) })).generation, 2);
});
