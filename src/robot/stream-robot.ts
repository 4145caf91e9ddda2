/**
 * A real robot: the Robot of the control cycle over the stream process. The process owns the motion and outlives this; here is only its clock, its
 * feedback and the wait for both. Owned by whoever drives the robot.
 */
import { PremotorError } from '../errors.js';
import type { MotionClock } from './motion-robot.js';
import { MotionRobot } from './motion-robot.js';
import type { Joint, Robot } from './robot.js';
import { StreamProcess, type StreamProcessOptions } from './stream-process.js';

export interface StreamRobotOptions extends StreamProcessOptions {
  /** Names of the configuration's joints, in its order. */
  readonly names: readonly string[];
}

export interface StreamRobot {
  readonly robot: Robot;
  readonly process: StreamProcess;
  /** Lets go: the process goes on, and the robot holds. `process.stop()` ends both. Idempotent. */
  detach(): void;
}

/** A bridge that is there answers and reports within some ten milliseconds; one that is not is found out by getState(). */
const FEEDBACK_WAIT_MS = 1000;
const FEEDBACK_LOOK_MS = 5;

function firstFeedback(isThere: () => boolean): Promise<void> {
  const untilMs = performance.now() + FEEDBACK_WAIT_MS;
  return new Promise((resolve) => {
    const look = setInterval(() => {
      if (!isThere() && performance.now() < untilMs) return;
      clearInterval(look);
      resolve();
    }, FEEDBACK_LOOK_MS);
  });
}

/** The bridge stops and holds the robot by itself; nobody streams any more. */
export function streamDied(pid: number, output: string | undefined): PremotorError {
  const where = output === undefined ? 'Set robot.stream_output to keep its last words' : `Its last words are in ${output}`;
  const message =
    `The stream process ${pid} has ended: expected it to run as long as the robot is used, found it gone. ` +
    'The bridge stops the robot within 100 ms. ' +
    `${where}; look at the robot, then start again.`;
  return new PremotorError('STREAM_PROCESS_DIED', message, { expected: `process ${pid}`, found: 'none' });
}

/** Timers are at most so early. */
const TIMER_SLACK_NS = 1_000_000n;

/** Starts or finds the stream process; the robot is not armed by it. Errors: those of StreamProcess.open. */
export async function openStreamRobot(options: StreamRobotOptions): Promise<StreamRobot> {
  const { names, ...rest } = options;
  const process = await StreamProcess.open(rest);
  const { client } = process;
  const joints = rest.configuration.joints.map((joint, index): Joint => ({ ...joint, name: names[index] ?? `joint ${index}` }));
  const clock: MotionClock = {
    nowNs: () => client.nowNs(),
    waitUntil: async (timeNs) => {
      const aheadNs = timeNs - client.nowNs();
      if (aheadNs > 0n) await new Promise((resolve) => setTimeout(resolve, Number(aheadNs + TIMER_SLACK_NS) / 1e6));
      // A dead process leaves its last words in the shared memory: they would look like a robot that waits.
      if (!client.isAlive()) throw streamDied(process.pid, rest.output);
    },
  };
  const robot = new MotionRobot({
    native: client,
    clock,
    joints,
    periodNs: client.info().periodNs,
    measure: () => {
      const { measuredNs, measuredRad, measuredRadPerS, link } = client.status();
      if (measuredNs >= 0n) return { timeNs: client.nowNs(), positionsRad: measuredRad, velocitiesRadPerS: measuredRadPerS };
      const message = 'The robot has not reported yet where it is. Check the power of its bridge and the bus.';
      throw new PremotorError('ROBOT_NO_FEEDBACK', message, { expected: 'feedback of every joint', found: `link ${link}` });
    },
  });
  await firstFeedback(() => client.status().measuredNs >= 0n);
  return { robot, process, detach: () => process.detach() };
}
