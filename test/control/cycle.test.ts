/** The synchronous cycle against a scripted policy: what is committed, when frames are taken, what the robot is told, and what listeners hear. */
import t from 'tap';
import { ControlCycle, type CycleOptions } from '../../src/control/cycle.js';
import type { CycleEvent, CycleReport, EpisodeOptions } from '../../src/control/events.js';
import { PremotorError } from '../../src/errors.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { type ActionAt, FakeCameras, FakePolicy, FakeRobot } from './fakes.js';

/** Longer chunks than the simulated arm's, at the cycle's default of 50 actions per second. */
const JOB = { frame_chunk_size: 2, action_per_frame: 16 };
const [K, H] = [JOB.frame_chunk_size, JOB.action_per_frame];
const MOMENT_NS = 80_000_000n;
/** Well inside the limits: 0.01 rad a knot at most. */
const gentle: ActionAt = (channel, knot) => 0.2 * Math.sin(0.05 * knot + channel) - 0.2 * Math.sin(0.05 * -1 + channel);

interface Rig {
  readonly policy: FakePolicy;
  readonly robot: FakeRobot;
  readonly cameras: FakeCameras;
  readonly events: CycleEvent[];
  readonly cycle: ControlCycle;
}

function rig(actionAt: ActionAt = gentle, options: Partial<CycleOptions> = {}, job: Partial<typeof SIM_JOB> = {}): Rig {
  const policy = new FakePolicy(actionAt, { ...JOB, ...job });
  const robot = new FakeRobot();
  const cameras = new FakeCameras(robot);
  const cycle = new ControlCycle({ policy, robot, cameras, holdMs: 20, ...options });
  const events: CycleEvent[] = [];
  cycle.on((event) => events.push(event));
  return { policy, robot, cameras, events, cycle };
}
async function run({ cycle }: Rig, options: Partial<EpisodeOptions> = {}): Promise<CycleReport> {
  await cycle.arm();
  return cycle.run({ prompt: 'touch', chunks: 3, ...options });
}

t.test('the order of calls, and what each of them gets', async (t) => {
  const r = rig();
  const report = await run(r, { seed: 7 });
  t.equal(report.outcome, 'finished');
  t.same(r.policy.calls, ['reset', 'predict', 'commit', 'predict', 'commit', 'predict', 'commit']);
  t.equal(r.policy.resets[0]?.prompt, 'touch');
  t.same(
    r.policy.predictions.map(({ obs, seed }) => [obs?.map(({ camera }) => camera), seed]),
    [
      [SIM_JOB.obs_cam_keys, 7],
      [undefined, 7],
      [undefined, 7],
    ],
    'the first prediction gets one frame per camera in the order of the job; later ones get none',
  );
});

t.test('the first chunk: group 0 is padding, 4 (K - 1) moments; later chunks: 4 K', async (t) => {
  const r = rig((channel, knot) => (knot < 0 ? 50 + channel : gentle(channel, knot)));
  const report = await run(r);
  t.same(
    r.policy.commits.map(({ obs }) => obs.length),
    [4 * (K - 1), 4 * K, 4 * K],
  );
  t.same(
    report.chunks.map(({ knots }) => knots),
    [(K - 1) * H, K * H, K * H],
  );
  t.equal(report.clampedKnots, 0, 'the padding, far outside the limits, was not even looked at');
  t.ok(Math.max(...r.robot.setpoints.map((setpoint) => setpoint[0] ?? 0)) < 1, 'and never sent');
});

/** Actions of a chunk by knot, [channel] each, without the padding. */
function byKnot(actions: Float32Array, padding: number): number[][] {
  return Array.from({ length: K * H - padding }, (_, knot) =>
    Array.from({ length: 4 }, (__, channel) => actions[channel * K * H + padding + knot] ?? NaN),
  );
}

t.test('an unclamped episode commits what was predicted, bit for bit, but for the first knot after each rest', async (t) => {
  const r = rig();
  await run(r);
  r.policy.commits.forEach(({ actions }, index) => {
    const padding = index === 0 ? H : 0;
    const predicted = r.policy.chunks[index]?.actions ?? new Float32Array();
    const [committed, wanted] = [byKnot(actions, padding), byKnot(predicted, padding)];
    t.same(committed.slice(1), wanted.slice(1), `chunk ${index}`);
    // From rest, 15 ms after the plan was taken, the first knot is not in reach of the limits: what is committed is where the arm was told to be.
    const [first, asked] = [committed[0] ?? [], wanted[0] ?? []];
    t.ok(
      first.every((angle, channel) => Math.abs(angle - (asked[channel] ?? 0)) < 0.03),
      `${first} for ${asked}`,
    );
    t.not(actions, predicted, 'a copy');
  });
});

t.test('frames are taken at every (H/4)-th action, stamped with those times, in the order of the job', async (t) => {
  const r = rig();
  await run(r);
  const firstNs = r.policy.predictions[0]?.obs?.[0]?.capturedAtNs ?? -1n;
  for (const [chunk, { obs }] of r.policy.commits.entries()) {
    const { plan } = r.robot.plans[chunk] ?? { plan: { startNs: 0n, knotNs: 0n } };
    let expectedNs = plan.startNs - plan.knotNs;
    t.equal((expectedNs - firstNs) % MOMENT_NS, 0n, 'chunks begin a whole number of moments after the first observation');
    for (const moment of obs) {
      expectedNs += MOMENT_NS;
      t.same(
        moment.map(({ camera, capturedAtNs }) => [camera, capturedAtNs]),
        SIM_JOB.obs_cam_keys.map((key) => [key, expectedNs]),
      );
    }
  }
  t.equal(r.cameras.captures, 2 + 4 * (K - 1) + 2 * 4 * K, 'once for arming, once at the start, then at every moment');
});

t.test('plans hold the predicted knots, and the arm rests between them', async (t) => {
  const r = rig();
  await run(r);
  const knots = r.robot.plans.flatMap(({ plan }) => plan.knots);
  t.equal(knots.length, (K - 1) * H + 2 * K * H);
  knots.forEach((knot, index) => {
    for (let channel = 0; channel < 4; channel++) {
      if (knot[channel] !== Math.fround(gentle(channel, index))) t.fail(`knot ${index}, channel ${channel}: ${knot[channel]}`);
    }
  });
  for (const [index, { atNs }] of r.robot.plans.entries()) {
    if (index === 0) continue;
    const before = r.robot.plans[index - 1]?.plan;
    const endNs = (before?.startNs ?? 0n) + BigInt((before?.knots.length ?? 1) - 1) * 20_000_000n;
    t.ok(atNs > endNs && atNs < endNs + 150_000_000n, 'the next plan comes when the arm stands, soon after the last knot');
  }
});

t.test('clamped actions are what is committed, and they are counted', async (t) => {
  // A jump of 0.99 rad with the second chunk: knots of 0.04 rad, the most that 3 rad/s allow, then a shorter one.
  const r = rig((channel, knot) => (channel === 2 && knot >= H ? 0.47 : 0));
  const report = await run(r);
  const committed = r.policy.commits[1]?.actions ?? new Float32Array();
  const channel = [...committed.slice(2 * K * H, 3 * K * H)];
  t.ok((channel[0] ?? 0) <= 0.04 + 1e-6 && (channel[0] ?? 0) > 0, `the first step is no longer than the largest allowed one: ${channel[0]}`);
  t.ok(Math.abs((channel[K * H - 1] ?? 0) - 0.47) < 2e-3, 'the target is reached');
  t.ok((report.chunks[1]?.clampedKnots ?? 0) >= 11, 'the knots before the target is within reach, and those that the limiter smoothed');
  t.same([report.chunks[0]?.clampedKnots, report.knots], [0, 80]);
  const { velocity, acceleration } = r.robot.peaks;
  t.ok(velocity <= 3 + 1e-6, `peak ${velocity} rad/s`);
  t.ok(acceleration <= 100 + 1e-3, `peak ${acceleration} rad/s^2`);
});

t.test('the first setpoint is the measured pose', async (t) => {
  const policy = new FakePolicy(() => 1);
  const robot = new FakeRobot([0.5, -0.5, 0.25, 0]);
  const cycle = new ControlCycle({ policy, robot, cameras: new FakeCameras(robot) });
  await cycle.arm();
  await cycle.run({ prompt: 'x', chunks: 1 });
  const [first] = robot.setpoints;
  // As the motors report it: in steps of 25 rad / 65535.
  t.ok(Math.abs((first?.[0] ?? 0) - 0.5) < 4e-4 && Math.abs((first?.[1] ?? 0) + 0.5) < 4e-4, `first setpoint ${first?.join(', ')}`);
});

t.test('other shapes: K = 4 with H = 4, and K = 1', async (t) => {
  const wide = rig(gentle, {}, { frame_chunk_size: 4, action_per_frame: 4 });
  await run(wide, { chunks: 2 });
  t.same(
    wide.policy.commits.map(({ obs, actions }) => [obs.length, actions.length]),
    [
      [12, 64],
      [16, 64],
    ],
  );
  const at = wide.policy.commits[0]?.obs.map(([frame]) => frame?.capturedAtNs ?? 0n) ?? [];
  t.equal((at[1] ?? 0n) - (at[0] ?? 0n), 20_000_000n, 'with H = 4 frames are taken at every action');
  const single = rig(gentle, {}, { frame_chunk_size: 1 });
  await run(single, { chunks: 2 });
  t.same(
    single.policy.commits.map(({ obs }) => obs.length),
    [0, 4],
  );
});

t.test('listeners hear every step; one that throws is reported and changes nothing', async (t) => {
  const r = rig();
  const off = r.cycle.on(() => {
    throw new Error('a broken listener');
  });
  const report = await run(r, { chunks: 2 });
  const chunk = ['progress', 'predicted', 'executed', 'remembered', 'committed'];
  t.same(
    r.events.map(({ type }) => type),
    ['state', 'state', 'started', ...chunk, ...chunk, 'holding', 'state', 'ended'],
  );
  t.equal(report.outcome, 'finished');
  t.ok(report.listenerErrors.length > 0 && report.listenerErrors.every(({ message }) => message === 'a broken listener'));
  off();
  t.same((await run(r, { chunks: 1 })).listenerErrors, []);
});

t.test('until ends the episode after a commit', async (t) => {
  const r = rig();
  const report = await run(r, { until: () => r.policy.commits.length === 2 });
  t.equal(report.outcome, 'reached');
  t.equal(r.policy.commits.length, 2);
});

t.test('a configuration that cannot work is refused before anything moves', async (t) => {
  t.throws(() => rig(gentle, {}, { used_action_channel_ids: [14, 15, 16] }), { code: 'CONTROL_JOINTS' });
  t.throws(() => rig(gentle, { actionRateHz: 300 }), { code: 'CONTROL_RATE' });
  t.throws(() => rig(gentle, { actionRateHz: 0 }), { code: 'CONTROL_RATE' });
  t.throws(() => rig(gentle, { actionRateHz: 1000 }), { code: 'CONTROL_RATE' }, 'faster than the setpoints');
  t.throws(() => rig(gentle, {}, { action_per_frame: 6 }), { code: 'CONTROL_MOMENTS' });
  t.throws(() => rig(gentle, {}, { obs_cam_keys: ['elsewhere'] }), { code: 'CAMERA_MISSING' });
  t.doesNotThrow(() => rig(gentle, { actionRateHz: 100 }));
});

t.test('a second run while one is running is refused; afterwards it is welcome', async (t) => {
  const r = rig();
  const first = run(r);
  await new Promise(setImmediate);
  await t.rejects(r.cycle.run({ prompt: 'x', chunks: 1 }), { code: 'CONTROL_BUSY' });
  await t.rejects(r.cycle.arm(), { code: 'CONTROL_TRANSITION', found: 'running' });
  t.equal((await first).outcome, 'finished');
  t.equal((await run(r)).outcome, 'finished');
});

t.test('the states of an episode, with reasons', async (t) => {
  const r = rig();
  t.equal(r.cycle.state, 'disarmed');
  await run(r, { chunks: 1 });
  t.equal(r.robot.native.status().link, 'armed', 'held with power');
  await r.cycle.disarm();
  t.equal(r.robot.native.status().link, 'ready', 'disarmed: no power');
  const states = r.events.flatMap((event) => (event.type === 'state' ? [event.transition] : []));
  t.same(
    states.map(({ from, to }) => [from, to]),
    [
      ['disarmed', 'armed'],
      ['armed', 'running'],
      ['running', 'holding'],
      ['holding', 'disarmed'],
    ],
  );
  t.ok(states.every(({ reason }) => reason !== ''));
  t.ok(states.every(({ atMs }, index) => atMs >= (states[index - 1]?.atMs ?? 0)));
});

t.test('a robot that is not armed does not move; every episode is armed anew', async (t) => {
  const r = rig();
  const refused = { code: 'CONTROL_TRANSITION', expected: 'armed', message: /Call arm\(\)/ };
  await t.rejects(r.cycle.run({ prompt: 'x', chunks: 1 }), { ...refused, found: 'disarmed' });
  await run(r, { chunks: 1 });
  await t.rejects(r.cycle.run({ prompt: 'x', chunks: 1 }), { ...refused, found: 'holding' });
  t.equal(r.policy.resets.length, 1);
  t.throws(() => r.cycle.reset(), { code: 'CONTROL_TRANSITION' });
});

t.test('arming looks at policy, robot and cameras, and changes nothing when it finds something', async (t) => {
  const refuse = async (code: string, spoil: (r: Rig) => void): Promise<void> => {
    const r = rig();
    spoil(r);
    await t.rejects(r.cycle.arm(), { code });
    t.equal(r.cycle.state, 'disarmed', code);
    t.equal(r.robot.setpoints.length, 0);
  };
  await refuse('CAMERA_FRAME_STALE', (r) => (r.cameras.ageNs = 101_000_000n));
  await refuse('CAMERA_FRAME_SIZE', (r) => (r.cameras.bytes = 4));
  await refuse('CONTROL_JOINTS', (r) => Object.defineProperty(r.policy, 'info', { value: { ...r.policy.info, actionShape: [4, 2, 8] } }));
  await refuse('CONTROL_POSE', (r) => (r.robot.start[1] = 1.52));
  await refuse('CONTROL_POSE', (r) => (r.robot.start[1] = Number.NaN));
  await refuse('BUS_OFF', (r) => {
    r.robot.getState = async () => {
      throw new PremotorError('BUS_OFF', 'no answer');
    };
  });
  const r = rig();
  r.robot.start[1] = 1.505;
  await r.cycle.arm();
  t.equal(r.cycle.state, 'armed', 'a joint on its stop is fine');
});

t.test('steps reach the policy; age and skew of the frames are reported per chunk', async (t) => {
  const r = rig(gentle, { videoSteps: 2, actionSteps: 3 });
  r.cameras.ageNs = 3_000_000n;
  r.cameras.skewNs = 7_000_000n;
  const report = await run(r, { chunks: 2 });
  t.match(r.policy.predictions[0], { videoSteps: 2, actionSteps: 3 });
  t.same(
    report.chunks.map(({ frameAgeMsMax, frameSkewMsMax }) => [frameAgeMsMax, frameSkewMsMax]),
    [
      [10, 7],
      [10, 7],
    ],
  );
  t.ok(report.activeMs >= (16 + 32) * 20 && report.activeMs < (16 + 32) * 20 + 400, `${report.activeMs} ms`);
  t.ok(report.robotMs >= report.activeMs + 20, 'and holding');
});

t.test('a start pose: the robot moves there first, all joints together and within the limits, then the episode begins', async (t) => {
  const pose = Float64Array.of(0.5, -0.4, 0.2, 0);
  const r = rig((channel, knot) => (pose[channel] ?? 0) + gentle(channel, knot), { startPoseRad: pose });
  const report = await run(r, { chunks: 1 });
  t.equal(report.outcome, 'finished', report.error?.message ?? '');
  const [move] = r.robot.setpoints.filter((setpoint) => setpoint.every((angle, joint) => angle === pose[joint]));
  t.ok(move, 'it was there, exactly');
  const { velocity, acceleration } = r.robot.peaks;
  t.ok(velocity <= 3 + 1e-6 && velocity > 0.8, `peak ${velocity} rad/s`);
  t.ok(acceleration <= 100 + 1e-3, `peak ${acceleration} rad/s^2`);
  const firstNs = r.policy.predictions[0]?.obs?.[0]?.capturedAtNs ?? 0n;
  t.ok(firstNs > 400_000_000n, `the first picture is taken there, at ${firstNs} ns`);
  await t.rejects(r.robot.moveTo(Float64Array.of(9, 0, 0, 0)), { code: 'STREAM_POSE' });
});
