/** The ray-cast pictures: every pixel against the independent single-ray path, one geom per body, and colours where they belong. */
import t from 'tap';
import { SimulatedCameras } from '../../src/cameras/simulated.js';
import type { Frame } from '../../src/policy/contract.js';
import { PICTURE_SIZE, SIM_JOB, VIDEO_RATE_HZ } from '../../src/sim/job.js';
import { Renderer } from '../../src/sim/renderer.js';
import { CAMERAS } from '../../src/sim/scene.js';
import { push } from '../../src/sim/tasks/push.js';
import type { Task } from '../../src/sim/tasks/task.js';
import { touch } from '../../src/sim/tasks/touch.js';
import { World } from '../../src/sim/world.js';
import { playExpert } from './support.js';

const world = await World.open();
const blocks = await World.open('block');
t.teardown(() => {
  world.close();
  blocks.close();
});

/** The scene of a seed with the arm some knots into the expert's path. */
function pose(seed: number, knots: number): void {
  playExpert(world, touch, touch.scene(seed), knots);
}

t.test('every body has at most one geom, because mj_multiRay drops hits on bodies with several', async (t) => {
  for (const { kind, mujoco } of [world, blocks]) {
    const bodies = [...mujoco.geomBodies];
    t.ok(bodies.length >= 9, kind);
    t.equal(new Set(bodies).size, bodies.length, kind);
  }
});

/** Pixels in which the bundle of rays and single rays differ, and those that hit anything. */
function comparePixels(shown: World, camera: (typeof CAMERAS)[number]): { wrong: number; hit: number; pixels: number } {
  const { origin, rays } = new Renderer(shown, camera, PICTURE_SIZE, PICTURE_SIZE).aim();
  const hits = shown.mujoco.castRays(origin, rays);
  let wrong = 0;
  let hit = 0;
  for (let pixel = 0; pixel < hits.geoms.length; pixel++) {
    const single = shown.mujoco.castRay([...origin], [...rays.subarray(pixel * 3, pixel * 3 + 3)]);
    if (single.geom >= 0) hit++;
    const isSame = single.geom === hits.geoms[pixel] && (single.geom < 0 || Math.abs(single.distance - (hits.distances[pixel] ?? 0)) < 1e-9);
    if (!isSame) wrong++;
  }
  return { wrong, hit, pixels: hits.geoms.length };
}

t.test('every pixel agrees with mj_ray, in both scenes, at rest, on the way, and in contact', async (t) => {
  const cases: [World, Task, number, number][] = [
    [world, touch, 0, 0],
    [world, touch, 3, 18],
    [world, touch, 5, 34],
    [blocks, push, 0, 0],
    [blocks, push, 3, 20],
    [blocks, push, 5, 45],
  ];
  for (const [shown, task, seed, knots] of cases) {
    playExpert(shown, task, task.scene(seed), knots);
    for (const camera of CAMERAS) {
      const { wrong, hit, pixels } = comparePixels(shown, camera);
      t.equal(wrong, 0, `${camera}, ${task.name}, seed ${seed}, ${knots} knots`);
      t.ok(hit > pixels / 2, 'most rays hit something, so the comparison says something');
    }
  }
});

t.test('a renderer that was used before gives what a new one gives', async (t) => {
  const used = CAMERAS.map((camera) => new Renderer(world, camera, PICTURE_SIZE, PICTURE_SIZE));
  for (const knots of [0, 12, 25]) {
    pose(1, knots);
    for (const [index, camera] of CAMERAS.entries()) {
      const fresh = new Renderer(world, camera, PICTURE_SIZE, PICTURE_SIZE).render();
      t.equal(Buffer.compare(used[index]?.render() ?? Buffer.alloc(0), fresh), 0, `${camera} after ${knots} knots`);
    }
  }
});

/** Pixels of a picture whose hue is plainly one channel's. */
function countDominant(data: Uint8Array, channel: number): number {
  let count = 0;
  for (let at = 0; at < data.length; at += 3) {
    const rgb = [data[at] ?? 0, data[at + 1] ?? 0, data[at + 2] ?? 0];
    const others = rgb.filter((_, index) => index !== channel);
    if ((rgb[channel] ?? 0) > 1.8 * Math.max(...others)) count++;
  }
  return count;
}

/** What all cameras see now. */
async function snapshot(of: World): Promise<readonly Frame[]> {
  const cameras = new SimulatedCameras(of, { names: CAMERAS, size: PICTURE_SIZE, fps: VIDEO_RATE_HZ, delayMs: 0 });
  cameras.restart();
  return cameras.capture();
}

t.test('frames have the format of the policy contract and show the buttons', async (t) => {
  pose(2, 0);
  const frames = await snapshot(world);
  t.same(
    frames.map((frame) => frame.camera),
    SIM_JOB.obs_cam_keys,
  );
  for (const frame of frames) {
    t.equal(frame.data.length, PICTURE_SIZE * PICTURE_SIZE * 3);
    t.equal(frame.capturedAtNs, 0n, 'virtual time starts at 0');
  }
  const [front] = frames;
  for (const [channel, colour] of ['red', 'green', 'blue'].entries()) {
    const count = countDominant(front?.data ?? new Uint8Array(), channel);
    t.ok(count > 20, `the front camera sees the ${colour} button in ${count} pixels`);
  }
});

t.test('a picture is stamped with virtual time and follows the arm', async (t) => {
  pose(2, 0);
  const before = await snapshot(world);
  const still = await snapshot(world);
  pose(2, 30);
  const after = await snapshot(world);
  t.equal(after[0]?.capturedAtNs, 1_200_000_000n, '30 knots of 40 ms');
  for (const [index, frame] of before.entries()) {
    // Bytes are compared by Buffer: a deep comparison of pictures takes a minute.
    t.equal(Buffer.compare(frame.data, still[index]?.data ?? Buffer.alloc(0)), 0, 'nothing moves unless stepped');
    t.not(Buffer.compare(frame.data, after[index]?.data ?? Buffer.alloc(0)), 0, `${frame.camera} sees the motion`);
  }
});

t.test('the front camera sees block and zone', async (t) => {
  playExpert(blocks, push, push.scene(2), 0);
  const [front] = await snapshot(blocks);
  const data = front?.data ?? new Uint8Array();
  t.ok(countDominant(data, 0) > 20, 'a red block');
  let purple = 0;
  for (let at = 0; at < data.length; at += 3) {
    const [r, g, b] = [data[at] ?? 0, data[at + 1] ?? 0, data[at + 2] ?? 0];
    if (b > 1.2 * r && r > 2 * g) purple++;
  }
  t.ok(purple > 40, `a purple zone in ${purple} pixels`);
});

t.test('shading follows the surface: a sphere is brightest towards the light', async (t) => {
  pose(2, 0);
  // Over the shoulder joint, a sphere of one colour, brightness must vary smoothly; over the table, a plane, not at all.
  const front = (await snapshot(world))[0]?.data ?? new Uint8Array();
  const table: number[] = [];
  for (let column = 0; column < PICTURE_SIZE; column++) table.push(front[((PICTURE_SIZE - 1) * PICTURE_SIZE + column) * 3] ?? 0);
  t.equal(new Set(table).size, 1, 'the table is evenly lit');
  const tones = new Set<number>();
  for (let at = 0; at < front.length; at += 3) {
    const [r, g, b] = [front[at] ?? 0, front[at + 1] ?? 0, front[at + 2] ?? 0];
    if (r > 1.6 * g && g > 2.5 * b) tones.add(r);
  }
  t.ok(tones.size > 8, `${tones.size} tones of orange`);
});
