/**
 * The disk queue: order, confirmation, bounds, damage at every byte, a process that is killed, disks that are full, folders that others hold.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, rmdirSync, truncateSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { PremotorError } from '../../src/errors.js';
import { DiskQueue } from '../../src/telemetry/queue.js';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');

interface Opened {
  readonly queue: DiskQueue;
  readonly warnings: PremotorError[];
}

async function open(dir: string, bytesMax = 2 ** 20): Promise<Opened> {
  const warnings: PremotorError[] = [];
  const queue = await DiskQueue.open({ dir, bytesMax, onWarning: (error) => void warnings.push(error) });
  queue.describe(Buffer.from('header'));
  return { queue, warnings };
}

function append(queue: DiskQueue, from: number, count: number): void {
  for (let index = from; index < from + count; index++) queue.append(Buffer.from(`record ${index}`), 2);
}

/** Everything that is given out, confirmed as it comes if wanted. */
async function drain(queue: DiskQueue, confirms = true): Promise<string[]> {
  const all: string[] = [];
  for (;;) {
    const records = await queue.next(64);
    const last = records.at(-1);
    if (!last) return all;
    all.push(...records.map(({ bytes }) => text(bytes)));
    if (confirms) await queue.confirm(last.after);
  }
}

const names = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, index) => `record ${from + index}`);
const segments = (dir: string): string[] => readdirSync(join(dir, 'slot-0')).filter((name) => name.endsWith('.seg'));

t.test('records come out in order, once, and are gone when they are confirmed', async (t) => {
  const dir = t.testdir();
  const { queue, warnings } = await open(dir);
  t.ok(queue.isEmpty);
  t.same(await queue.next(10), []);
  append(queue, 0, 100);
  t.notOk(queue.isEmpty);
  const some = await queue.next(10);
  t.same(
    some.map(({ bytes, samples, header }) => [text(bytes), samples, text(header)]),
    names(0, 5).map((name) => [name, 2, 'header']),
  );
  await queue.confirm((some[2] as (typeof some)[number]).after);
  queue.rewind();
  append(queue, 100, 50);
  t.same(await drain(queue, false), names(3, 150), 'what was not confirmed comes again');
  t.notOk(queue.isEmpty);
  queue.rewind();
  t.same(await drain(queue), names(3, 150));
  t.ok(queue.isEmpty);
  t.same(segments(dir), []);
  await queue.close();
  await queue.close();
  t.same(warnings, []);
});

t.test('the next process goes on where this one ended', async (t) => {
  const dir = t.testdir();
  const first = await open(dir);
  append(first.queue, 0, 30);
  const some = await first.queue.next(20);
  await first.queue.confirm((some.at(-1) as (typeof some)[number]).after);
  append(first.queue, 30, 5);
  await first.queue.close();
  const second = await open(dir);
  append(second.queue, 35, 5);
  t.same(await drain(second.queue), names(10, 40));
  await second.queue.close();
  const third = await open(dir);
  t.ok(third.queue.isEmpty);
  await third.queue.close();
});

t.test('a process that is killed loses nothing that was synchronised', async (t) => {
  const dir = t.testdir();
  const source = new URL('../../src/telemetry/queue.ts', import.meta.url).href;
  const script = `import { DiskQueue } from ${JSON.stringify(source)};
    const queue = await DiskQueue.open({ dir: ${JSON.stringify(dir)}, bytesMax: 1e6, onWarning: () => undefined });
    queue.describe(Buffer.from('header'));
    for (let index = 0; index < 20; index++) queue.append(Buffer.from('record ' + index), 2);
    await queue.sync();
    console.log('synchronised');
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  const beside = await open(dir);
  t.ok(beside.queue.isEmpty, 'its folder is its own while it lives');
  await beside.queue.close();
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
  const { queue } = await open(dir);
  t.same(await drain(queue), names(0, 20));
  await queue.close();
});

t.test('the bound: the oldest go, and are counted, over processes', async (t) => {
  const dir = t.testdir();
  const { queue } = await open(dir, 32_768);
  for (let from = 0; from < 4000; from += 100) {
    append(queue, from, 100);
    await queue.sync();
    t.ok(queue.bytes <= 32_768, `${queue.bytes} bytes`);
  }
  const { dropped } = queue;
  const rest = await drain(queue);
  t.equal(dropped, 2 * (4000 - rest.length));
  t.same(rest, names(4000 - rest.length, 4000), 'what is left is the newest, without a gap');
  queue.countDropped(3);
  await queue.close();
  const again = await open(dir);
  t.equal(again.queue.dropped, dropped + 3);
  await again.queue.close();
});

t.test('a tail cut at every byte, and a bit turned at every byte: what is whole before it is read, the rest is counted', async (t) => {
  const dir = t.testdir();
  const { queue } = await open(join(dir, 'good'));
  append(queue, 0, 3);
  await queue.close();
  const [name = ''] = segments(join(dir, 'good'));
  const good = readFileSync(join(dir, 'good', 'slot-0', name));
  let least = 3;
  for (let at = 1; at < good.length; at++) {
    for (const kind of ['cut', 'turned'] as const) {
      const folder = join(dir, `${kind}-${at}`);
      mkdirSync(join(folder, 'slot-0'), { recursive: true });
      const file = join(folder, 'slot-0', name);
      copyFileSync(join(dir, 'good', 'slot-0', name), file);
      if (kind === 'cut') truncateSync(file, at);
      else {
        const bytes = Buffer.from(good);
        bytes[at] = (bytes[at] ?? 0) ^ 4;
        writeFileSync(file, bytes);
      }
      const hurt = await open(folder);
      append(hurt.queue, 3, 2);
      const found = await drain(hurt.queue);
      const whole = found.length - 2;
      least = Math.min(least, whole);
      const isRight = JSON.stringify(found) === JSON.stringify([...names(0, whole), ...names(3, 5)]) && whole <= 3;
      const isTold = hurt.warnings.length === (hurt.queue.damagedBytes > 0 ? 1 : 0);
      if (!isRight || !isTold) t.fail(`${kind} at ${at}: ${found}`);
      if (kind === 'turned' && hurt.queue.damagedBytes === 0) t.fail(`turned at ${at} unnoticed`);
      await hurt.queue.close();
    }
  }
  t.equal(least, 0);
});

t.test('a damaged state file means once more, not never', async (t) => {
  const dir = t.testdir();
  const { queue } = await open(dir);
  append(queue, 0, 10);
  const some = await queue.next(8);
  await queue.confirm((some.at(-1) as (typeof some)[number]).after);
  await queue.close();
  writeFileSync(join(dir, 'slot-0', 'state'), 'nonsense');
  const again = await open(dir);
  t.same(await drain(again.queue), names(0, 10));
  await again.queue.close();
});

const isRoot = userInfo().uid === 0 ? 'SKIPPED: root may write everywhere' : false;

t.test('a folder that cannot be written', async (t) => {
  const dir = t.testdir({ file: '' });
  await t.rejects(open(join(dir, 'file')), { code: 'TELEMETRY_QUEUE' });
  await t.test('rights', { skip: isRoot }, async (t) => {
    chmodSync(dir, 0o500);
    await t.rejects(open(join(dir, 'queue')), { code: 'TELEMETRY_QUEUE' });
    chmodSync(dir, 0o700);
  });
});

t.test('a disk that refuses: one warning, nothing lost, and it goes on when it can', async (t) => {
  const dir = t.testdir();
  const { queue, warnings } = await open(dir);
  // A folder in the place of the next segment is what every user cannot write, root included.
  mkdirSync(join(dir, 'slot-0', '0000000001.seg'));
  append(queue, 0, 5);
  await queue.sync();
  await queue.sync();
  t.match(warnings, [{ code: 'TELEMETRY_QUEUE_WRITE' }]);
  t.equal(warnings.length, 1);
  rmdirSync(join(dir, 'slot-0', '0000000001.seg'));
  append(queue, 5, 5);
  t.same(await drain(queue), names(0, 10));
  t.equal(queue.dropped, 0);
  await queue.close();
});

t.test('sixteen processes share a folder, and no more', async (t) => {
  const dir = t.testdir();
  const all = await Promise.all(Array.from({ length: 16 }, () => open(dir)));
  await t.rejects(open(dir), { code: 'TELEMETRY_QUEUE' });
  await all[3]?.queue.close();
  const next = await open(dir);
  for (const { queue } of [...all, next]) await queue.close();
  t.equal(readdirSync(dir).length, 16);
});
