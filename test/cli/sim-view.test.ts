/** `premotor sim view`: an animation from a dataset and from the simulator, and what is refused. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { runCli } from '../../src/cli/main.js';
import { hasFonts } from '../../src/recording/animation.js';
import { LeRobotWriter } from '../../src/recording/lerobot.js';
import { PICTURE_SIZE } from '../../src/sim/job.js';
import { Renderer } from '../../src/sim/renderer.js';
import { touch } from '../../src/sim/tasks/touch.js';
import { World } from '../../src/sim/world.js';
import { fakeContext } from './fakes.js';

async function run(argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const { out, err, context } = fakeContext();
  const code = await runCli(['sim', 'view', ...argv], context);
  return { code, out: out.text, err: err.text };
}

/** Two episodes of 3 and 2 rows; every picture has one grey value, told apart by episode, row and camera. */
async function dataset(dir: string, cameras: number): Promise<void> {
  const keys = Array.from({ length: cameras }, (_, index) => ({ key: `observation.images.cam_${index}`, width: 96, height: 96 }));
  const writer = await LeRobotWriter.create({ dir, robotType: 'x', fps: 10, cameras: keys, joints: ['a'] });
  for (const [number, length] of [3, 2].entries()) {
    const rows = Array.from({ length }, (_, row) => ({
      pictures: keys.map(({ width, height }, camera) => {
        return { width, height, data: new Uint8Array(width * height * 3).fill(grey(number, row, camera)) };
      }),
      state: [0],
      action: [0],
    }));
    await writer.add({ task: `task ${number}`, rows });
  }
  await writer.finish();
}
const grey = (episode: number, row: number, camera: number): number => 40 + 100 * episode + 20 * row + 8 * camera;

t.test('an episode of a dataset: cameras side by side, enlarged, at its own rate', async (t) => {
  const dir = t.testdir();
  await dataset(join(dir, 'set'), 2);
  const file = join(dir, 'out', 'b.webp');
  const { code, out, err } = await run([join(dir, 'set'), '--episode', '1', '-o', file]);
  t.equal(code, 0);
  t.equal(out, `"task 1", 2 pictures, 0.20 s\nAnimated picture: ${file}\n`);
  t.match(err, /reading 2\/2[\s\S]*drawing 2\/2/);
  const { pages, pageHeight = 0, width = 0, delay } = await sharp(file, { pages: -1 }).metadata();
  const [side, gap, label] = [3 * 96, 6, (await hasFonts()) ? 18 : 0];
  t.same([pages, width, pageHeight, delay], [2, 2 * side + gap, side + label, [100, 100]]);
  const data = await sharp(file, { pages: -1 }).removeAlpha().raw().toBuffer();
  const at = (page: number, x: number): number | undefined => data[((page * pageHeight + pageHeight - 1) * width + x) * 3];
  for (const page of [0, 1]) {
    t.same([at(page, 0), at(page, side - 1)], [grey(1, page, 0), grey(1, page, 0)]);
    t.same([at(page, side + gap), at(page, width - 1)], [grey(1, page, 1), grey(1, page, 1)]);
  }
});

t.test('one camera, the first episode by default, other endings, --json', async (t) => {
  const dir = t.testdir();
  await dataset(join(dir, 'set'), 1);
  for (const ending of ['gif', 'png']) {
    const file = join(dir, `a.${ending}`);
    const { code, out } = await run([join(dir, 'set'), '--out', file, '--json']);
    t.equal(code, 0);
    t.same(JSON.parse(out), { instruction: 'task 0', out: file, pictures: 3, seconds: 3 / 10, cameras: ['cam_0'] });
    t.ok(existsSync(file));
  }
});

t.test('live: the expert of a task plays a seed', async (t) => {
  const file = join(t.testdir(), 'live.webp');
  const { code, out, err } = await run(['--task', 'touch', '--seed', '3', '-o', file]);
  t.equal(code, 0);
  const pictures = touch.demonstrationKnots + 1;
  t.equal(out, `"${touch.scene(3).instruction}", ${pictures} pictures, ${(pictures / 25).toFixed(2)} s, succeeded\nAnimated picture: ${file}\n`);
  t.match(err, new RegExp(`playing touch ${pictures}/${pictures}`));
  const world = await World.open();
  t.teardown(() => world.close());
  world.reset(touch.scene(3).layout);
  const expected = new Renderer(world, 'cam_front', PICTURE_SIZE, PICTURE_SIZE).render();
  const page = await sharp(file, { page: 0 }).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const { width, height } = page.info;
  const top = height - 3 * PICTURE_SIZE;
  let wrong = 0;
  for (let row = 0; row < PICTURE_SIZE; row++) {
    for (let column = 0; column < PICTURE_SIZE; column++) {
      const from = ((top + 3 * row) * width + 3 * column) * 3;
      if (page.data[from] !== expected[(row * PICTURE_SIZE + column) * 3]) wrong++;
    }
  }
  t.equal(wrong, 0, 'the first picture is what the front camera sees at the start');
});

t.test('what is refused', async (t) => {
  const dir = t.testdir();
  const set = join(dir, 'set');
  await dataset(set, 1);
  const file = join(dir, 'a.gif');
  const cases: [string[], number, RegExp][] = [
    [['-o', file], 2, /USAGE: Expected a dataset's folder or --task, found neither/],
    [[set, '--task', 'push', '-o', file], 2, /USAGE: .*found both/],
    [['--task', 'push', '--episode', '1', '-o', file], 2, /USAGE: --episode/],
    [[set, '--seed', '1', '-o', file], 2, /USAGE: --seed/],
    [['--task', 'juggle', '-o', file], 2, /USAGE: .*Allowed choices/],
    [[set], 2, /USAGE: .*--out/],
    [[join(dir, 'none'), '-o', file], 1, /DATASET_MISSING: /],
    [[set, '--episode', '2', '-o', file], 1, /EPISODE_MISSING: .*0 \.\. 1/],
    [[set, '-o', join(dir, 'a.mp4')], 1, /ANIMATION_FORMAT: .*\.gif/],
  ];
  for (const [argv, expected, message] of cases) {
    const { code, out, err } = await run(argv);
    t.same([code, out], [expected, ''], argv.join(' '));
    t.match(err, message);
  }
  t.notOk(existsSync(file));
  const help = await run(['--help']);
  t.match(help.out, /Examples:\n {2}premotor sim view/);
});
