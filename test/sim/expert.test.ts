/** The world can be solved: the scripted expert, playing through the real control cycle, presses the named button; and the cycle is deterministic. */
import { createHash } from 'node:crypto';
import t from 'tap';
import { SimulatedCameras } from '../../src/cameras/simulated.js';
import { ControlCycle } from '../../src/control/cycle.js';
import type { CycleReport } from '../../src/control/events.js';
import type { Frame } from '../../src/policy/contract.js';
import { touchKnots } from '../../src/sim/expert.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { SimulatedRobot } from '../../src/sim/robot.js';
import { BUTTON_COLOURS } from '../../src/sim/scene.js';
import { touchScene, touchSucceeded } from '../../src/sim/touch.js';
import { World } from '../../src/sim/world.js';
import { type ActionAt, FakePolicy } from '../control/fakes.js';

const SEEDS = 20;
/** 16 + 3 * 32 knots: more than the expert's path. */
const CHUNKS = 4;
const world = await World.open();
t.teardown(() => world.close());

interface Episode {
  readonly report: CycleReport;
  readonly policy: FakePolicy;
  readonly success: boolean;
}

/** Plays knots as a policy would: [used, K, H] chunks whose first group is padding. */
async function play(seed: number, actionAt: ActionAt, size: number): Promise<Episode> {
  const scene = touchScene(seed);
  world.reset(scene.layout);
  const policy = new FakePolicy(actionAt);
  const cycle = new ControlCycle({ policy, robot: new SimulatedRobot(world), cameras: new SimulatedCameras(world, size) });
  const report = await cycle.run({ prompt: scene.instruction, chunks: CHUNKS });
  return { report, policy, success: touchSucceeded(world, scene.target) };
}

t.test(`the expert presses the named button, and no other, in at least 18 of ${SEEDS} scenes`, async (t) => {
  let successes = 0;
  let clamped = 0;
  for (let seed = 0; seed < SEEDS; seed++) {
    const scene = touchScene(seed);
    const knots = touchKnots(scene.layout[scene.target]);
    // Pictures are not looked at here: small ones save time.
    const episode = await play(seed, (channel, knot) => knots[Math.max(0, Math.min(knot, knots.length - 1))]?.[channel] ?? Number.NaN, 8);
    t.equal(episode.report.outcome, 'finished');
    if (episode.success) successes++;
    else t.comment(`seed ${seed} failed: ${BUTTON_COLOURS.map((colour) => `${colour} ${world.presses(colour)}`).join(', ')}`);
    clamped += episode.report.clampedKnots;
  }
  t.ok(successes >= 18, `${successes} of ${SEEDS}`);
  t.equal(clamped, 0, 'the expert keeps the limits by itself');
});

t.test('an arm that does not move presses nothing: success is not for free', async (t) => {
  const { policy, success } = await play(0, () => 0, 8);
  t.notOk(success);
  t.equal(policy.commits.length, CHUNKS);
});

/** Everything that the policy was told and the pictures it was shown. */
function digest({ policy }: Episode): string {
  const hash = createHash('sha256');
  const add = (frames: readonly Frame[]): void => {
    for (const { camera, data, capturedAtNs } of frames) hash.update(camera).update(data).update(String(capturedAtNs));
  };
  add(policy.predictions[0]?.obs ?? []);
  for (const { obs, actions } of policy.commits) {
    hash.update(new Uint8Array(actions.buffer, actions.byteOffset, actions.byteLength));
    for (const moment of obs) add(moment);
  }
  return hash.update(new Uint8Array(Float64Array.from(world.mujoco.positions).buffer)).digest('hex');
}

t.test('the same seed gives the same trajectory and the same pictures, bit for bit', async (t) => {
  // Wild actions, so that limits, contacts and joint stops take part.
  const wild: ActionAt = (channel, knot) => 3 * Math.sin(0.11 * knot * (channel + 1) + channel);
  const first = await play(5, wild, SIM_JOB.height);
  const expected = digest(first);
  t.ok(first.report.clampedKnots > 20, 'limits took part');
  t.equal(digest(await play(5, wild, SIM_JOB.height)), expected);
  t.not(digest(await play(6, wild, SIM_JOB.height)), expected, 'another seed differs');
  t.not(digest(await play(5, (channel, knot) => wild(channel, knot) + 1e-3, SIM_JOB.height)), expected, 'other actions differ');
});
