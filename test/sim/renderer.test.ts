/** The ray-cast pictures: every pixel against the independent single-ray path, one geom per body, and colours where they belong. */
import t from 'tap';
import { SimulatedCameras } from '../../src/cameras/simulated.js';
import { touchKnots } from '../../src/sim/expert.js';
import { PICTURE_SIZE, SIM_JOB } from '../../src/sim/job.js';
import { Renderer } from '../../src/sim/renderer.js';
import { CAMERAS } from '../../src/sim/scene.js';
import { touchScene } from '../../src/sim/touch.js';
import { World } from '../../src/sim/world.js';

const world = await World.open();
t.teardown(() => world.close());

/** The scene of a seed with the arm some knots into the expert's path. */
function pose(seed: number, knots: number): void {
  const scene = touchScene(seed);
  world.reset(scene.layout);
  for (const knot of touchKnots(scene.layout[scene.target]).slice(0, knots)) for (let step = 0; step < 10; step++) world.step(knot);
}

t.test('every body has at most one geom, because mj_multiRay drops hits on bodies with several', async (t) => {
  const bodies = [...world.mujoco.geomBodies];
  t.ok(bodies.length > 10);
  t.equal(new Set(bodies).size, bodies.length);
});

t.test('every pixel agrees with mj_ray', async (t) => {
  for (const [seed, knots] of [
    [0, 0],
    [3, 45],
  ] as const) {
    pose(seed, knots);
    for (const camera of CAMERAS) {
      const { origin, rays } = new Renderer(world, camera, PICTURE_SIZE, PICTURE_SIZE).aim();
      const hits = world.mujoco.castRays(origin, rays);
      let wrong = 0;
      let hit = 0;
      for (let pixel = 0; pixel < hits.geoms.length; pixel++) {
        const single = world.mujoco.castRay([...origin], [...rays.subarray(pixel * 3, pixel * 3 + 3)]);
        if (single.geom >= 0) hit++;
        const isSame = single.geom === hits.geoms[pixel] && (single.geom < 0 || Math.abs(single.distance - (hits.distances[pixel] ?? 0)) < 1e-9);
        if (!isSame) wrong++;
      }
      t.equal(wrong, 0, `${camera}, seed ${seed}, ${knots} knots`);
      t.ok(hit > hits.geoms.length / 2, 'most rays hit something, so the comparison says something');
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

t.test('frames have the format of the policy contract and show the buttons', async (t) => {
  const cameras = new SimulatedCameras(world, PICTURE_SIZE);
  pose(2, 0);
  const frames = await cameras.capture();
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
  const cameras = new SimulatedCameras(world, PICTURE_SIZE);
  pose(2, 0);
  const before = await cameras.capture();
  const still = await cameras.capture();
  pose(2, 30);
  const after = await cameras.capture();
  t.equal(after[0]?.capturedAtNs, 600_000_000n, '30 knots of 20 ms');
  for (const [index, frame] of before.entries()) {
    // Bytes are compared by Buffer: a deep comparison of pictures takes a minute.
    t.equal(Buffer.compare(frame.data, still[index]?.data ?? Buffer.alloc(0)), 0, 'nothing moves unless stepped');
    t.not(Buffer.compare(frame.data, after[index]?.data ?? Buffer.alloc(0)), 0, `${frame.camera} sees the motion`);
  }
});

t.test('shading follows the surface: a sphere is brightest towards the light', async (t) => {
  pose(2, 0);
  // Over the shoulder joint, a sphere of one colour, brightness must vary smoothly; over the table, a plane, not at all.
  const front = (await new SimulatedCameras(world, PICTURE_SIZE).capture())[0]?.data ?? new Uint8Array();
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
