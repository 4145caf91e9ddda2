/** What is remembered of unexpected ends: across processes, within a window of uptime, in one boot; and what a broken file or disk does. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { PremotorError } from '../../src/errors.js';
import { Starts } from '../../src/service/starts.js';

interface World {
  upS: number;
  boot: string;
  readonly warnings: PremotorError[];
}

function open(dir: string, world: World, max = 2): Starts {
  const onWarning = (error: PremotorError): void => void world.warnings.push(error);
  return new Starts({ dir, max, windowS: 100, onWarning, uptimeS: () => world.upS, boot: world.boot });
}

t.test('starts that end in order are forgotten, others are counted', async (t) => {
  const dir = join(t.testdir({}), 'state');
  const world: World = { upS: 10, boot: 'a', warnings: [] };
  const first = open(dir, world);
  first.begin();
  t.same([first.count, first.hasCrashed, first.isLooping], [0, false, false], 'its own start is no end');
  first.end();
  const second = open(dir, world);
  second.begin();
  t.same([second.count, second.hasCrashed], [0, false]);
  // Killed.
  const third = open(dir, world);
  third.begin();
  t.same([third.count, third.hasCrashed, third.isLooping], [1, true, false]);
  third.engineDied();
  t.equal(third.isLooping, false, 'as many as are allowed');
  third.engineDied();
  t.same([third.count, third.isLooping], [3, true], 'engines count, too');
  third.clear();
  t.same([third.count, third.hasCrashed, third.isLooping], [0, false, false]);
  const fourth = open(dir, world);
  fourth.begin();
  t.equal(fourth.count, 1, 'the third was not ended');
  t.same(world.warnings, []);
});

t.test('the window is of uptime, and a boot begins anew', async (t) => {
  const dir = t.testdir({});
  const world: World = { upS: 10, boot: 'a', warnings: [] };
  open(dir, world).begin();
  world.upS = 60;
  open(dir, world).begin();
  world.upS = 111;
  const late = open(dir, world);
  late.begin();
  t.equal(late.count, 1, 'the first is older than the window');
  world.upS = 500;
  t.equal(late.count, 0, 'its own start gets old and stays its own');
  world.boot = 'b';
  world.upS = 5;
  const next = open(dir, world);
  next.begin();
  t.equal(next.count, 0);
});

t.test('a file that is damaged says nothing; a disk that refuses is a warning, once', async (t) => {
  const dir = t.testdir({});
  const world: World = { upS: 10, boot: 'a', warnings: [] };
  for (const text of [
    '',
    '{',
    '[]',
    '{"boot":"a"}',
    '{"boot":"a","entries":[{"kind":"x","upS":1}]}',
    '{"boot":"a","entries":[{"kind":"engine","upS":-1}]}',
  ]) {
    writeFileSync(join(dir, 'starts.json'), text);
    const starts = open(dir, world);
    starts.begin();
    t.equal(starts.count, 0, text);
    t.match(JSON.parse(readFileSync(join(dir, 'starts.json'), 'utf8')), { boot: 'a', entries: [{ kind: 'service', upS: 10 }] });
  }
  t.same(world.warnings, []);
  mkdirSync(join(dir, 'not', 'a'), { recursive: true });
  writeFileSync(join(dir, 'not', 'a', 'folder'), '');
  const starts = open(join(dir, 'not', 'a', 'folder'), world);
  starts.begin();
  starts.engineDied();
  t.match(world.warnings, [{ code: 'SERVICE_STATE_DIR' }]);
  t.equal(starts.count, 1, 'this process still counts');
});
