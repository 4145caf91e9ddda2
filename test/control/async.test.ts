/**
 * The asynchronous modes on stand-ins with known actions: what the policy is asked when, what is committed, that motion is one piece whatever the
 * delay, and that nothing stale is executed.
 */
import t from 'tap';
import { ControlCycle, type CycleOptions } from '../../src/control/cycle.js';
import type { CycleEvent, CycleReport, EpisodeOptions } from '../../src/control/events.js';
import { blend } from '../../src/control/modes/ensemble.js';
import { MODE_NAMES } from '../../src/control/modes/mode.js';
import { isTimeToFollow, softMask } from '../../src/control/modes/timing.js';
import type { Chunk, Job, PredictNextOptions } from '../../src/policy/contract.js';
import type { Joint } from '../../src/robot/robot.js';
import { type ActionAt, FAKE_JOINTS, FakeCameras, FakePolicy, FakeRobot } from './fakes.js';

/** K = 2, H = 8: a chunk is 320 ms at 50 actions per second. */
const JOB: Partial<Job> = { frame_chunk_size: 2, action_per_frame: 8 };
const CHUNK_MS = 320;
const HALF_MS = 160;

const swing: ActionAt = (channel, knot) => Math.fround(0.3 * Math.sin((knot + 1) / 12 + channel) - 0.3 * Math.sin(channel));

interface Played {
  readonly policy: FakePolicy;
  readonly robot: FakeRobot;
  readonly report: CycleReport;
  readonly events: readonly CycleEvent[];
  readonly cycle: ControlCycle;
}

interface Scene {
  readonly actionAt?: ActionAt;
  readonly job?: Partial<Job>;
  readonly joints?: readonly Joint[];
  readonly prepare?: (parts: Omit<Played, 'report'>) => void;
}

async function play(
  options: Partial<CycleOptions> & { actions?: never },
  episode: Partial<EpisodeOptions> = {},
  { actionAt = swing, job = JOB, joints, prepare }: Scene = {},
): Promise<Played> {
  const policy = new FakePolicy(actionAt, job);
  const robot = new FakeRobot([0, 0, 0, 0], joints);
  const cycle = new ControlCycle({ policy, robot, cameras: new FakeCameras(robot), mode: 'async-grounded', thinkingMs: CHUNK_MS, ...options });
  const events: CycleEvent[] = [];
  cycle.on((event) => events.push(event));
  prepare?.({ policy, robot, events, cycle });
  await cycle.arm();
  const report = await cycle.run({ prompt: 'x', chunks: 5, ...episode });
  return { policy, robot, report, events, cycle };
}

const framesOf = ({ executing }: PredictNextOptions): number => executing.length / (4 * 8);

t.test('the delay decides how many frames are executing: as many as it takes, and no more', async (t) => {
  for (const [delay, executing] of [
    [0, 0],
    [0.25, 1],
    [0.5, 1],
    [0.75, 2],
    [1, 2],
  ] as const) {
    const { policy, report } = await play({ thinkingMs: delay * CHUNK_MS });
    t.equal(report.outcome, 'finished', `delay ${delay}`);
    t.same(policy.calls.slice(0, 3), ['reset', 'predict', 'predictNext']);
    t.same([...new Set(policy.nexts.slice(1).map(framesOf))], [executing], `delay ${delay}`);
    // The first plan is one frame long, and the cold start gives two chunks before anything moves.
    t.equal(framesOf(policy.nexts[0] as PredictNextOptions), delay === 0 ? 0 : 1);
    t.same([...new Set(report.chunks.slice(2).map(({ delayKnots }) => delayKnots))], [delay * 16], 'counted from what the stream consumed');
  }
});

t.test('what is committed is what was executed and seen, every frame once and in order', async (t) => {
  const { policy, events } = await play({});
  let frame = 0;
  for (const { obs, executed } of policy.nexts) {
    const frames = (executed?.length ?? 0) / (4 * 8);
    t.equal(obs?.length, 4 * (frames - (frame === 0 ? 1 : 0)));
    for (let action = 0; action < frames * 8; action++) {
      for (let channel = 0; channel < 4; channel++) {
        const value = executed?.[channel * frames * 8 + action] ?? Number.NaN;
        const knot = (frame - 1) * 8 + action;
        // Group 0 is padding, committed as it came; the very first knot is reached from rest, which costs it a little. A chunk that lands when the
        // plan before it ends finds the stream, which is ahead of the clock, about to decelerate: that costs the first knot a little too.
        if (knot > 1) t.ok(Math.abs(value - swing(channel, knot)) < (knot % 16 === 8 ? 0.01 : 2e-3), `channel ${channel}, knot ${knot}: ${value}`);
      }
    }
    frame += frames;
  }
  t.equal(frame, 6, 'the rest of the episode had no prediction to follow');
  const executed = events.flatMap((event) => (event.type === 'executed' ? [event] : []));
  t.same(
    executed.map(({ frameIndex }) => frameIndex),
    [0, 1, 2, 4],
    'frame 0 alone first, then what was executed',
  );
  // Observations carry the times of the actions that they follow.
  const stamps = executed.flatMap(({ moments }) => moments.map(([front]) => front?.capturedAtNs ?? 0n));
  stamps.slice(1).forEach((stamp, index) => {
    t.equal(stamp - (stamps[index] ?? 0n), 40_000_000n);
  });
});

t.test('executing actions are those of the plan', async (t) => {
  const { policy } = await play({});
  let committed = 0;
  for (const [index, next] of policy.nexts.entries()) {
    committed += (next.executed?.length ?? 0) / 32;
    const frames = framesOf(next);
    for (let action = 0; action < frames * 8; action++) {
      const knot = (committed - 1) * 8 + action;
      t.ok(Math.abs((next.executing[action] ?? 9) - swing(0, knot)) < 1e-6, `prediction ${index}, knot ${knot}`);
    }
  }
});

t.test('the naive mode keeps the forecast of exactly these frames; the grounded one imagines them', async (t) => {
  for (const delay of [HALF_MS, CHUNK_MS]) {
    const { policy, report } = await play({ mode: 'async-naive', thinkingMs: delay });
    let committed = 0;
    for (const { executed, executing, forecast } of policy.nexts) {
      committed += (executed?.length ?? 0) / 32;
      const frames = executing.length / 32;
      const plane = 6 * 12;
      // FakePolicy writes a frame's number into its values.
      const found = Array.from({ length: frames }, (_, frame) => forecast?.[frame * plane]);
      t.same(
        found,
        Array.from({ length: frames }, (_, frame) => committed + frame),
      );
    }
    t.ok(report.chunks.slice(2).every(({ assumedFrames }) => assumedFrames === (delay === HALF_MS ? 1 : 2)));
  }
  const { policy, events } = await play({});
  t.ok(policy.nexts.every(({ forecast }) => forecast === undefined));
  t.ok(events.some((event) => event.type === 'predicted' && event.assumed?.shape[2] === 2));
});

t.test('motion is one piece at every delay up to a chunk: the robot never rests between chunks, and keeps its limits', async (t) => {
  for (const mode of ['async-naive', 'async-grounded'] as const) {
    for (const delay of [0, 0.25, 0.5, 0.75, 1]) {
      const { robot, report } = await play({ mode, thinkingMs: delay * CHUNK_MS }, { chunks: 6 });
      t.equal(report.outcome, 'finished');
      t.equal(report.knots, (6 * 2 - 1) * 8);
      const moved = robot.setpoints.map((setpoint, index) => setpoint.some((angle, joint) => angle !== robot.setpoints[index - 1]?.[joint]));
      const first = moved.findIndex((isMoving, index) => index > 0 && isMoving);
      const last = moved.lastIndexOf(true);
      t.ok(
        moved.slice(first, last).every(Boolean),
        `${mode} at ${delay}: ${moved.slice(first, last).filter((isMoving) => !isMoving).length} ticks of rest`,
      );
      const { velocity, acceleration } = robot.peaks;
      t.ok(velocity < 3.001 && acceleration < 101, `${velocity} rad/s, ${acceleration} rad/s^2`);
    }
  }
});

t.test('at small delays the path through a splice is the path of one plan', async (t) => {
  const { robot } = await play({ thinkingMs: 100 }, { chunks: 6 });
  const startNs = robot.plans[0]?.plan.startNs ?? 0n;
  // Setpoints are kept from the moment of arming on, one per tick of 2 ms; the stream is 5 ms ahead of the clock, half way between two ticks.
  const first = robot.setpoints.length - Number(robot.timeNs / 2_000_000n) + Number(startNs / 2_000_000n) - 3;
  const at = (tick: number): number => robot.setpoints[tick]?.[0] ?? Number.NaN;
  let largest = 0;
  // The first knots are reached from rest, and the last ones belong to the end of the episode.
  for (let tick = 40; tick < (6 * 2 - 1) * 80 - 20; tick++) {
    const exact = 0.3 * Math.sin((tick / 10 + 1) / 12);
    largest = Math.max(largest, Math.abs((at(first + tick) + at(first + tick + 1)) / 2 - exact));
  }
  t.ok(largest < 1e-4, `${largest} rad from the sine`);
});

t.test('a chunk that is late finds the arm at rest, and goes on smoothly from there', async (t) => {
  for (const mode of MODE_NAMES) {
    const { robot, report, policy } = await play({ mode, thinkingMs: 2.5 * CHUNK_MS }, { chunks: 4 });
    t.equal(report.outcome, 'finished', `${mode}: ${report.error?.message}`);
    t.equal(report.knots, 7 * 8);
    const { velocity, acceleration } = robot.peaks;
    t.ok(velocity < 3.001 && acceleration < 101, `${mode}: ${velocity} rad/s, ${acceleration} rad/s^2`);
    t.ok(policy.nexts.every(({ executed, executing }) => (executed?.length ?? 0) % 32 === 0 && executing.length % 32 === 0));
  }
});

t.test('at full pace too: a chunk that lands as its plan ends is taken on, within the limits', async (t) => {
  // Every action asks for more than the joints' speed, there and back, so that the plan goes as fast as it may.
  const wide: ActionAt = (channel, knot) => Math.fround(0.35 * Math.sin((knot + 1) / 9 + channel) - 0.35 * Math.sin(channel));
  const joints = FAKE_JOINTS.map((joint) => ({ ...joint, lowerRad: -2, upperRad: 2, velocityMaxRadPerS: 1 }));
  for (const mode of MODE_NAMES) {
    for (const delay of [0.5, 1, 1.02]) {
      const { robot, report } = await play({ mode, thinkingMs: delay * CHUNK_MS }, { chunks: 8 }, { actionAt: wide, joints });
      t.equal(report.outcome, 'finished', `${mode} at ${delay}: ${report.error?.message}`);
      t.equal(report.knots, (8 * 2 - 1) * 8);
      t.ok(report.clampedKnots > report.knots / 2, `${report.clampedKnots} clamped`);
      const { velocity, acceleration } = robot.peaks;
      t.ok(velocity < 1.001 && acceleration < 101, `${mode} at ${delay}: ${velocity} rad/s, ${acceleration} rad/s^2`);
    }
  }
});

t.test('overlapping modes predict from the present; real-time chunking paints the plan in', async (t) => {
  const { policy, report } = await play({ mode: 'rtc', thinkingMs: 80 }, { chunks: 5 });
  t.equal(report.outcome, 'finished');
  t.ok(policy.nexts.every((next) => framesOf(next) === 0));
  let committed = 0;
  for (const { executed, inpaint } of policy.nexts) {
    committed += (executed?.length ?? 0) / 32;
    if (!inpaint) continue;
    t.same([...inpaint.weights.slice(0, 4)], [1, 1, 1, 1], 'executed before it lands');
    t.ok(Math.abs((inpaint.actions[0] ?? 9) - swing(0, (committed - 1) * 8)) < 2e-3, 'aligned with the chunk');
    t.equal(inpaint.betaMax, 5);
  }
  t.ok(policy.nexts.filter(({ inpaint }) => inpaint).length >= 4);
  const other = await play({ mode: 'ensemble', thinkingMs: 80 }, { chunks: 5 });
  t.ok(other.policy.nexts.every(({ inpaint, forecast }) => inpaint === undefined && forecast === undefined));
});

t.test('the soft mask: 1 for what will have been executed, an exponential descent, 0 beyond the plan', (t) => {
  // By hand for H = 8, d = 2, overlap 6: c = (6 - i) / 5 and W = c (e^c - 1) / (e - 1).
  const descent = [2, 3, 4, 5].map((i) => {
    const c = (6 - i) / 5;
    return Math.fround((c * (Math.exp(c) - 1)) / (Math.E - 1));
  });
  t.same([...softMask(8, 2, 6)], [1, 1, ...descent, 0, 0]);
  t.same([...softMask(4, 0, 0)], [0, 0, 0, 0]);
  t.same([...softMask(4, 9, 3)], [1, 1, 1, 0], 'a delay beyond the plan');
  t.ok(descent.every((weight, index) => weight < (descent[index - 1] ?? 1)));
  t.end();
});

t.test('the ensemble weighs the oldest most; when to think', (t) => {
  const [a, b] = [Math.exp(0), Math.exp(-0.01)];
  t.ok(Math.abs((blend([Float32Array.of(1), Float32Array.of(3)])[0] ?? 0) - (a * 1 + b * 3) / (a + b)) < 1e-6);
  t.same([...blend([Float32Array.of(0.5, -1)])], [0.5, -1]);
  t.notOk(isTimeToFollow(2, 1));
  t.ok(isTimeToFollow(2, 1.01));
  t.ok(isTimeToFollow(0, 0));
  t.notOk(isTimeToFollow(1, 0));
  t.end();
});

t.test('a chunk of another generation is never executed', async (t) => {
  for (const mode of MODE_NAMES) {
    const stale: { chunk?: Chunk } = {};
    const { report, robot } = await play(
      { mode, thinkingMs: HALF_MS },
      {},
      {
        prepare: ({ policy }) => {
          const name = mode === 'sync' ? 'predict' : 'predictNext';
          const honest = policy[name].bind(policy) as (options?: unknown) => Promise<Chunk>;
          Object.assign(policy, { [name]: async (options: unknown) => (stale.chunk = { ...(await honest(options)), generation: 99 }) });
        },
      },
    );
    t.equal(report.outcome, 'failed', mode);
    t.equal(report.error?.code, 'CONTROL_STALE');
    t.equal(robot.plans.length, mode === 'sync' ? 0 : 1, 'only the plan before it');
  }
});

t.test('a stop and a failure while the policy thinks: the arm comes to rest, the call is over when the report is there', async (t) => {
  for (const mode of ['async-grounded', 'rtc'] as const) {
    const state = { running: 0 };
    const stopped = await play(
      { mode },
      {},
      {
        prepare: ({ policy, robot, cycle }) => {
          policy.before = async (call, signal) => {
            if (call !== 'predictNext' || policy.nexts.length < 3) return;
            state.running++;
            await new Promise<void>((_, reject) => {
              signal?.addEventListener('abort', () => {
                state.running--;
                reject(Object.assign(new Error('aborted'), { code: 'ABORTED' }));
              });
            });
          };
          robot.before = () => (policy.nexts.length === 3 && robot.plans.length > 2 ? cycle.requestStop('enough') : undefined);
        },
      },
    );
    t.equal(stopped.report.outcome, 'stopped', `${mode}: ${stopped.report.error?.message}`);
    t.equal(state.running, 0, 'no call is left behind');
    const failed = await play(
      { mode },
      {},
      {
        prepare: ({ policy }) => {
          policy.before = (call) => {
            if (call === 'predictNext' && policy.nexts.length === 3) throw new Error('broken');
          };
        },
      },
    );
    t.equal(failed.report.outcome, 'failed');
    t.match(failed.report.error?.message, /broken/);
    const [last, before] = [failed.robot.setpoints.at(-1), failed.robot.setpoints.at(-2)];
    t.same(last, before, 'at rest');
  }
});

t.test('other shapes: K = 1, and K = 4 with H = 4', async (t) => {
  for (const job of [
    { frame_chunk_size: 1, action_per_frame: 8 },
    { frame_chunk_size: 4, action_per_frame: 4 },
  ]) {
    for (const mode of MODE_NAMES) {
      const { report, robot } = await play({ mode, thinkingMs: 80 }, { chunks: 6 }, { job });
      t.equal(report.outcome, 'finished', `${mode} ${JSON.stringify(job)}: ${report.error?.message}`);
      t.equal(report.knots, (6 * job.frame_chunk_size - 1) * job.action_per_frame);
      t.ok(robot.peaks.acceleration < 101);
    }
  }
});

t.test('an episode that is resumed goes on without a reset and without a first picture', async (t) => {
  for (const mode of ['sync', 'async-grounded', 'ensemble'] as const) {
    const { policy, report, events } = await play(
      { mode, thinkingMs: HALF_MS },
      { chunks: 6, resume: { chunk: 3, frameIndex: 6, generation: 7 } },
      {
        prepare: ({ policy }) => Object.assign(policy, { frameIndex: 6, generation: 7 }),
      },
    );
    t.equal(report.outcome, 'finished', `${mode}: ${report.error?.message}`);
    t.notOk(policy.calls.includes('reset'));
    t.ok(policy.predictions.every(({ obs }) => obs === undefined));
    const first = events.find((event) => event.type === 'executed');
    t.equal(first?.type === 'executed' && first.frameIndex, 6);
    t.equal(report.knots, 6 * 8, 'three chunks were left');
  }
});

t.test('without memory only the synchronous mode is possible', async (t) => {
  await t.rejects(play({ memory: 'chunk' }), { code: 'CONTROL_MEMORY', expected: 'sync', found: 'async-grounded' });
});
