/**
 * What the control cycle checks before it may move a robot: that job, policy and robot fit each other, and that the measured pose is one to start
 * from. Pure functions; cycle.ts decides when.
 */
import { PremotorError } from '../errors.js';
import type { Job, Policy, PolicyInfo } from '../policy/contract.js';
import type { Joint, Robot, RobotState } from '../robot/robot.js';
import type { ActionMap } from './action-map.js';
import type { ModeName } from './modes/mode.js';

/** Pictures per latent frame: the temporal factor of the released VAE. */
export const MOMENTS_PER_LATENT = 4;
const RATE_HZ_MIN = 1;
/** A joint that rests on its stop may be measured a little beyond it. */
const POSE_TOLERANCE_RAD = 0.01;

/** Errors: CONTROL_JOINTS, CONTROL_RATE, CONTROL_MOMENTS. */
export function checkConfiguration(job: Job, robot: Robot, actionRateHz: number, map?: Pick<ActionMap, 'channels' | 'joints'>): void {
  const found = job.used_action_channel_ids.length;
  const { channels: wanted, joints } = map ?? { channels: robot.joints.length, joints: robot.joints.length };
  if (wanted !== found) {
    const why = map ? 'as many used action channels as the action map takes' : 'one used action channel per joint';
    throw new PremotorError('CONTROL_JOINTS', `The job does not fit the robot: it needs ${why}.`, {
      expected: `${wanted} used_action_channel_ids`,
      found: `${found}`,
    });
  }
  if (joints !== robot.joints.length) {
    throw new PremotorError('CONTROL_JOINTS', 'The action map does not fit the robot. It moves the joints of its arms and one gripper per arm.', {
      expected: `${robot.joints.length} joints`,
      found: `${joints}`,
    });
  }
  const knotNs = actionRateHz >= RATE_HZ_MIN ? BigInt(Math.round(1e9 / actionRateHz)) : 0n;
  if (knotNs < robot.periodNs || knotNs % robot.periodNs !== 0n) {
    throw new PremotorError('CONTROL_RATE', "The time between two actions must be a whole number of the robot's setpoint periods.", {
      expected: `at least ${RATE_HZ_MIN} actions per second, a multiple of ${robot.periodNs} ns apart`,
      found: `${actionRateHz} actions per second`,
    });
  }
  if (job.action_per_frame % MOMENTS_PER_LATENT !== 0) {
    throw new PremotorError('CONTROL_MOMENTS', 'The cameras are read 4 times per latent frame, so action_per_frame must be a multiple of 4.', {
      expected: 'a multiple of 4',
      found: `${job.action_per_frame}`,
    });
  }
}

/** Without memory every chunk is an episode's first, and there is nothing that could be imagined further. Errors: CONTROL_MEMORY. */
export function checkForgetting(job: Job, mode: ModeName): void {
  if (mode !== 'sync') {
    const message = 'Without memory only the synchronous mode is possible: the others go on from what the policy remembers.';
    throw new PremotorError('CONTROL_MEMORY', message, { field: 'mode', expected: 'sync', found: mode });
  }
  if (job.frame_chunk_size >= 2) return;
  const message = "Without memory a chunk's first latent frame is the observation itself: frame_chunk_size 1 leaves no actions to execute.";
  throw new PremotorError('CONTROL_MEMORY', message, { field: 'frame_chunk_size', expected: 'at least 2', found: `${job.frame_chunk_size}` });
}

/** The chunks that the engine announces have one channel per joint and the job's K and H. Errors: CONTROL_JOINTS. */
export function checkPolicy({ info, job }: Policy, channels: number): void {
  const expected = [channels, job.frame_chunk_size, job.action_per_frame].join(' x ');
  const found = info.actionShape.join(' x ');
  if (found === expected) return;
  throw new PremotorError('CONTROL_JOINTS', 'The policy does not fit the robot. Use a checkpoint and a job made for this robot.', {
    expected: `chunks of ${expected} (channels, latent frames, actions)`,
    found,
  });
}

/** Errors: CONTROL_POSE. */
export function checkPose({ positionsRad }: RobotState, joints: readonly Joint[]): void {
  if (positionsRad.length !== joints.length) {
    throw new PremotorError('CONTROL_POSE', 'The robot reports another number of angles than it has joints. Check its driver.', {
      expected: `${joints.length} angles`,
      found: `${positionsRad.length}`,
    });
  }
  joints.forEach(({ name, lowerRad, upperRad }, index) => {
    const angle = positionsRad[index] ?? Number.NaN;
    if (angle >= lowerRad - POSE_TOLERANCE_RAD && angle <= upperRad + POSE_TOLERANCE_RAD) return;
    throw new PremotorError('CONTROL_POSE', `Joint ${name} is outside its range. Move it back by hand, or correct its limits or its zero.`, {
      expected: `${lowerRad} .. ${upperRad} rad`,
      found: `${angle} rad`,
    });
  });
}

/** Errors: CONTROL_MODE. */
export function checkMode({ modes, backend }: PolicyInfo, mode: ModeName): void {
  if (modes === undefined || modes.includes(mode)) return;
  const expected = modes.join(', ');
  const message = `The policy (${backend}) cannot be run in mode ${mode}: expected one of ${expected}. Set control.mode, or use another policy.`;
  throw new PremotorError('CONTROL_MODE', message, { field: 'mode', expected, found: mode });
}
