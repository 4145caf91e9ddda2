/**
 * A recording process is killed with SIGKILL at moments drawn by lot: everything that it had flushed is there, in order and without a gap, in full
 * recordings and in windows, and the next process makes the window a recording. When it is killed is drawn; what it must have kept it says itself.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { aboutOf, configOf, EPOCH_NS, readAll, recordingsIn, seeded, Watched } from './support.js';

const SEED = 9;
const ROUNDS = 2;
const script = fileURLToPath(new URL('./recording-process.ts', import.meta.url));
t.comment(`seed ${SEED}`);

/** Starts a recording process, kills it after so many flushes and a little more, and gives the steps that it had flushed. */
async function killed(dir: string, mode: 'full' | 'window', flushes: number, more_ms: number): Promise<number> {
  const child = spawn(process.execPath, ['--import=tsx', script, dir, mode], { stdio: ['ignore', 'pipe', 'inherit'] });
  let flushed = 0;
  let lines = 0;
  const gone = new Promise<void>((resolve) => child.on('close', () => resolve()));
  let rest = '';
  child.stdout.on('data', (data: Buffer) => {
    const parts = (rest + data.toString()).split('\n');
    rest = parts.pop() ?? '';
    for (const line of parts) {
      flushed = Number(line);
      if (++lines === flushes) setTimeout(() => child.kill('SIGKILL'), more_ms);
    }
  });
  await gone;
  return flushed;
}

async function check(t: Test, file: string, flushed: number, name: string): Promise<void> {
  const { messages, state } = await readAll(file);
  for (const message of messages) message.decode();
  const steps = messages.filter(({ topic }) => topic === '/motion').map(({ logTimeNs }) => Number(logTimeNs - EPOCH_NS) / 1e6);
  t.ok(steps.length >= flushed, `${name}: ${steps.length} steps, at least the ${flushed} that were flushed`);
  t.ok(
    steps.every((step, at) => step === at + 1),
    `${name}: in order and without a gap`,
  );
  t.ok(state.damageCount <= 1, `${name}: ${JSON.stringify(state.damages)}`);
}

t.test('a full recording', { timeout: 120_000 }, async (t) => {
  const random = seeded(SEED);
  for (let round = 0; round < ROUNDS; round++) {
    const dir = t.testdir();
    const flushed = await killed(dir, 'full', 1 + Math.floor(random() * 8), random() * 30);
    await check(t, recordingsIn(dir)[0] ?? '', flushed, `round ${round}`);
  }
});

t.test('a window', { timeout: 120_000 }, async (t) => {
  const random = seeded(SEED + 1);
  for (let round = 0; round < ROUNDS; round++) {
    const dir = t.testdir();
    const flushed = await killed(dir, 'window', 1 + Math.floor(random() * 8), random() * 30);
    t.match(readdirSync(dir), [/^window-/]);
    const next = await Watched.open(configOf(dir), {}, aboutOf({ id: 'next' }));
    await next.stop();
    t.match(next.notices, [/the last seconds of a run that was killed are in/]);
    const [file = ''] = recordingsIn(dir);
    await check(t, file, flushed, `round ${round}`);
    t.ok((await readAll(file)).state.isComplete);
    t.same(
      readdirSync(dir).map((name) => join(dir, name)),
      [file],
    );
  }
});
