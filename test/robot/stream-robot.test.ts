/**
 * The control cycle over the real stream process and the firmware as a process: an episode in real time, a policy that hangs, an episode after that
 * by another supervisor. States are asserted, and times only in the stream's own clock.
 */
import { rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { CameraInfo, FrameSource } from '../../src/cameras/source.js';
import { ControlCycle } from '../../src/control/cycle.js';
import type { Frame } from '../../src/policy/contract.js';
import { openStreamRobot, type StreamRobot } from '../../src/robot/stream-robot.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { FakePolicy } from '../control/fakes.js';
import { alone } from '../support/real-time.js';
import { home, makeRig, type Rig } from '../support/stream-rig.js';

await alone(t);

const NAMES = ['yaw', 'lift', 'reach'];

/** How old a picture is when it is delivered. */
const AGE_NS = 10_000_000n;

/** Stamps one-pixel pictures with the robot's clock. */
class Cameras implements FrameSource {
  readonly cameras: readonly CameraInfo[] = SIM_JOB.obs_cam_keys.map((camera) => ({ camera, width: 1, height: 1 }));
  #captures = 0;
  readonly #nowNs: () => bigint;

  constructor(nowNs: () => bigint) {
    this.#nowNs = nowNs;
  }

  async capture(): Promise<readonly Frame[]> {
    const capturedAtNs = this.#nowNs() - AGE_NS;
    const value = 20 + (this.#captures++ % 200);
    return this.cameras.map(({ camera, width, height }) => ({ camera, width, height, data: new Uint8Array(3).fill(value), capturedAtNs }));
  }

  async close(): Promise<void> {}
}

async function open(t: Test, rig: Rig): Promise<StreamRobot> {
  const opened = await openStreamRobot({ configuration: rig.configuration, output: rig.output, names: NAMES });
  t.teardown(() => {
    // It outlives its supervisor by design: a test that fails must not leave it.
    if (opened.process.isAlive) process.kill(opened.process.pid, 'SIGKILL');
    opened.detach();
  });
  return opened;
}

function cycleOf({ robot, process }: StreamRobot, policy: FakePolicy): ControlCycle {
  // A host that stalls for 44 ms is no slow camera.
  return new ControlCycle({
    policy,
    robot,
    cameras: new Cameras(() => process.client.nowNs()),
    actionRateHz: 25,
    frameAgeMaxMs: 2000,
    frameSkewMaxMs: 2000,
  });
}

const job = { used_action_channel_ids: [14, 15, 16] };
const swing = (channel: number, knot: number): number => (home[channel] ?? 0) + 0.2 * (1 - Math.cos(0.12 * Math.max(0, knot + 1)));

t.test('an episode in real time, a policy that hangs, and the next supervisor', async (t) => {
  const rig = await makeRig({});
  t.teardown(() => {
    rig.bridge.kill();
    rmSync(rig.folder, { recursive: true, force: true });
  });
  const first = await open(t, rig);
  const policy = new FakePolicy(swing, job);
  const cycle = cycleOf(first, policy);
  await cycle.arm();
  t.ok((await rig.bridge.report()).isPowered, 'armed: the motors have power');
  const report = await cycle.run({ prompt: 'swing', chunks: 2 });
  t.equal(report.error, undefined, report.error?.message ?? '');
  t.same([report.outcome, policy.commits.length], ['finished', 2]);
  const committed = policy.commits[1]?.actions ?? new Float32Array();
  const asked = policy.chunks[1]?.actions ?? new Float32Array();
  // The stream's cycles are not those of the knots: between two of them it interpolates. Where one came late, the limiter closes a gap.
  const worst = Math.max(...committed.map((value, index) => (index % 16 < 2 ? 0 : Math.abs(value - (asked[index] ?? 0)))));
  t.ok(worst < 5e-3, `committed and asked differ by ${worst} rad`);
  const { positionRad } = await rig.bridge.report();
  const { setpointRad } = first.process.client.status();
  positionRad.forEach((angle, joint) => void t.ok(Math.abs(angle - (setpointRad[joint] ?? 0)) < 0.02, `joint ${joint} is at ${angle}`));

  const hangs = new FakePolicy(swing, job);
  hangs.before = (call) => (call === 'predict' && hangs.chunks.length === 1 ? new Promise(() => undefined) : undefined);
  const stuck = cycleOf(first, hangs);
  await first.robot.disarm();
  await stuck.arm();
  void stuck.run({ prompt: 'swing', chunks: 3 }).catch(() => undefined);
  await waitFor(() => first.process.client.status().stream === 'fault');
  const status = first.process.client.status();
  t.match([status.faultCode, status.isAtRest], ['STREAM_PLANNER_LOST', true]);
  first.detach();

  const second = await open(t, rig);
  t.equal(second.process.isNew, false, 'the process was there, and holds');
  t.equal(second.process.client.status().faultCode, 'STREAM_PLANNER_LOST');
  const next = cycleOf(second, new FakePolicy((channel) => second.process.client.status().setpointRad[channel] ?? 0, job));
  await next.arm();
  t.equal((await next.run({ prompt: 'stay', chunks: 1 })).outcome, 'finished', 'armed again, by another supervisor');
  await next.disarm();
  t.notOk((await rig.bridge.report()).isPowered);
  await second.process.stop();
  t.notOk(second.process.isAlive);
});

/** Looks now and then, at most ten seconds. */
function waitFor(isSo: () => boolean): Promise<void> {
  const look_ms = 5;
  const wait_ms = 10_000;
  return new Promise((resolve, reject) => {
    const end = performance.now() + wait_ms;
    const look = setInterval(() => {
      if (!isSo() && performance.now() < end) return;
      clearInterval(look);
      if (isSo()) resolve();
      else reject(new Error(`not so within ${wait_ms} ms`));
    }, look_ms);
  });
}
