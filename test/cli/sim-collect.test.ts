/** `premotor sim collect` end to end: a dataset of each kind, what is printed, interrupts, dropped demonstrations. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { CliContext } from '../../src/cli/context.js';
import { runCli } from '../../src/cli/main.js';
import { DEMONSTRATION_SEED } from '../../src/cli/sim-collect.js';
import { episodePath } from '../../src/recording/lerobot.js';
import { LeRobotDataset } from '../../src/recording/lerobot-reader.js';
import { PICTURE_SIZE } from '../../src/sim/job.js';
import { Renderer } from '../../src/sim/renderer.js';
import { push } from '../../src/sim/tasks/push.js';
import { touch } from '../../src/sim/tasks/touch.js';
import { World } from '../../src/sim/world.js';
import { fakeContext } from './fakes.js';

async function run(argv: string[], parts: Partial<CliContext> = {}): Promise<{ code: number; out: string; err: string }> {
  const { out, err, context } = fakeContext(parts);
  const code = await runCli(['sim', 'collect', ...argv], context);
  return { code, out: out.text, err: err.text };
}

const episodeLines = (dir: string): Record<string, unknown>[] =>
  readFileSync(join(dir, 'meta/episodes.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

t.test('two demonstrations become a dataset that says which scenes it shows', async (t) => {
  const dir = join(t.testdir(), 'touch');
  const { code, out, err } = await run(['--task', 'touch', '--episodes', '2', '--out', dir]);
  t.equal(code, 0);
  const rows = 2 * (touch.demonstrationKnots + 1);
  t.match(out, new RegExp(`^2 episodes of touch, ${rows} rows, in [0-9.]+ s, [0-9.]+ x real time\nLeRobot v2\\.1 dataset: ${dir}\n$`));
  t.match(err, /recording touch 2\/2/);
  const dataset = await LeRobotDataset.open(dir);
  t.same([dataset.episodes, dataset.fps, dataset.cameras], [2, 25, ['observation.images.cam_front', 'observation.images.cam_wrist']]);
  const world = await World.open();
  t.teardown(() => world.close());
  for (const [index, line] of episodeLines(dir).entries()) {
    const scene = touch.scene(DEMONSTRATION_SEED + index);
    const { instruction, seed, layout, goals } = scene;
    t.same(line, { episode_index: index, tasks: [instruction], length: rows / 2, seed, task_name: 'touch', layout, goals });
    const episode = await dataset.episode(index);
    t.equal(episode.instruction, instruction);
    t.equal(episode.rows.length, touch.demonstrationKnots + 1);
    world.reset(layout);
    const first = new Renderer(world, 'cam_wrist', PICTURE_SIZE, PICTURE_SIZE).render();
    t.equal(Buffer.compare(episode.rows[0]?.pictures[1]?.data ?? Buffer.alloc(0), first), 0, 'the first row shows the scene before any motion');
    t.same(episode.rows[0]?.state, Array.from(world.state().positionsRad, Math.fround));
    t.same(episode.rows.at(-1)?.action, episode.rows.at(-2)?.action, 'the last action holds still');
  }
});

t.test('equal command lines give equal files, bit for bit', async (t) => {
  const dir = t.testdir();
  const files = ['meta/info.json', 'meta/tasks.jsonl', 'meta/episodes.jsonl', 'meta/episodes_stats.jsonl', episodePath(0)];
  for (const name of ['a', 'b']) await run(['--task', 'touch', '--episodes', '1', '--seed', '7', '--recovery', '0.5', '--out', join(dir, name)]);
  for (const file of files) t.equal(Buffer.compare(readFileSync(join(dir, 'a', file)), readFileSync(join(dir, 'b', file))), 0, file);
});

t.test('--json prints the result; --cameras and --stills record less', async (t) => {
  const dir = join(t.testdir(), 'stills');
  const { code, out } = await run(['--task', 'push', '--episodes', '3', '--seed', '5', '--stills', '--cameras', 'front', '--json', '--out', dir]);
  t.equal(code, 0);
  const { wallS, ...result } = JSON.parse(out);
  t.type(wallS, 'number');
  t.same(result, { task: 'push', out: dir, episodes: 3, rows: 3, dropped: 0, simulatedS: 0, interrupted: false });
  const dataset = await LeRobotDataset.open(dir);
  t.same(dataset.cameras, ['observation.images.cam_front']);
  const { rows } = await dataset.episode(2);
  t.equal(rows.length, 1);
  t.same(rows[0]?.action, rows[0]?.state, 'a still holds its pose');
  t.same(
    episodeLines(dir).map(({ seed, goals }) => [seed, goals]),
    [5, 6, 7].map((seed) => [seed, push.scene(seed).goals]),
  );
});

t.test('--recovery changes the way, not the scene', async (t) => {
  const dir = t.testdir();
  for (const share of ['0', '1'])
    await run(['--task', 'touch', '--episodes', '1', '--cameras', 'wrist', '--recovery', share, '--out', join(dir, share)]);
  const [straight, recovered] = [episodeLines(join(dir, '0'))[0], episodeLines(join(dir, '1'))[0]];
  t.same(recovered, straight);
  const actions = async (share: string): Promise<unknown> =>
    (await (await LeRobotDataset.open(join(dir, share))).episode(0)).rows.map(({ action }) => action);
  t.notSame(await actions('1'), await actions('0'));
});

t.test('a demonstration that does not succeed is left out and counted', async (t) => {
  const dir = join(t.testdir(), 'sequence');
  // With every approach missing first, the expert of this scene runs out of time.
  const argv = ['--task', 'sequence', '--episodes', '1', '--seed', '3', '--recovery', '1', '--cameras', 'front', '--out', dir];
  const { code, out } = await run(argv);
  t.equal(code, 0);
  t.match(out, /^1 episodes of sequence.*, 1 failed demonstrations left out\n/);
  t.equal(episodeLines(dir)[0]?.['seed'], 4, 'the next scene took its place');
});

t.test('an interrupt leaves a complete dataset and exit code 130', async (t) => {
  const dir = join(t.testdir(), 'cut');
  const stop = new AbortController();
  const err = {
    text: '',
    isTTY: true,
    write(text: string): void {
      this.text += text;
      if (text.includes('recording touch') && text.includes('1/50')) stop.abort();
    },
  };
  const { out } = await run(['--task', 'touch', '--episodes', '50', '--cameras', 'front', '--out', dir], { err, signal: stop.signal });
  t.equal(process.exitCode, 130);
  process.exitCode = 0;
  t.match(out, /^(\d) episodes of touch[\s\S]*Interrupted: the dataset is complete up to there\.\n$/);
  const dataset = await LeRobotDataset.open(dir);
  t.ok(dataset.episodes >= 1 && dataset.episodes < 50, `${dataset.episodes} episodes`);
  t.equal((await dataset.episode(dataset.episodes - 1)).rows.length, touch.demonstrationKnots + 1, 'the last one is whole');
  t.notOk(existsSync(join(dir, episodePath(dataset.episodes))));
});

t.test('what is refused', async (t) => {
  const dir = t.testdir({ 'a.txt': '' });
  const base = ['--task', 'touch', '--out', dir];
  const full = await run([...base, '--episodes', '1']);
  t.same([full.code, full.out], [1, '']);
  t.match(full.err, /error OUT_NOT_EMPTY: .*--force/);
  for (const argv of [
    ['--episodes', '0'],
    ['--episodes', ''],
    ['--episodes', '1', '--seed', '4294967296'],
    ['--episodes', '1', '--recovery', '1.5'],
    ['--episodes', '1', '--cameras', 'left'],
    ['--episodes', '1', '--task', 'juggle'],
    [],
  ]) {
    const { code, err } = await run([...base, ...argv]);
    t.equal(code, 2, argv.join(' '));
    t.match(err, /^error USAGE: /);
  }
  const forced = await run([...base, '--episodes', '1', '--stills', '--force']);
  t.equal(forced.code, 0);
  t.ok(existsSync(join(dir, 'a.txt')), 'only a dataset is replaced');
});

t.test('help names every option and gives an example', async (t) => {
  const { code, out } = await run(['--help']);
  t.equal(code, 0);
  for (const option of ['task', 'episodes', 'out', 'seed', 'cameras', 'recovery', 'stills', 'force', 'json']) t.match(out, `--${option}`);
  t.match(out, /"touch", "press-n", "push", "sequence"/);
  t.match(out, /Example:\n {2}premotor sim collect/);
});
