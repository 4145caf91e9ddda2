/**
 * What a job needs of a robot on a bus: a picture for every camera key, a joint for every action channel. Looked at by `config check` and before a
 * robot is opened, so that nothing is started for a job that cannot run. It opens nothing but the job's file.
 */
import { CAMERA_KEY_PREFIX } from '../cameras/simulated.js';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import { readJob } from '../policy/job.js';
import { readOnnxJob } from '../policy/onnx/job.js';
import { CAMERAS } from '../sim/scene.js';
import { jobOf } from './policy-options.js';

export interface JobNeeds {
  readonly cameras: readonly string[];
  readonly channels: number;
}

/** Errors: JOB_*. */
export async function jobNeeds({ policy }: RobotConfig): Promise<JobNeeds> {
  if (policy.backend !== 'onnx') {
    const { job } = await readJob(jobOf(policy));
    return { cameras: job.obs_cam_keys, channels: job.used_action_channel_ids.length };
  }
  const { inputs, output } = await readOnnxJob(jobOf(policy));
  const cameras = Object.values(inputs).flatMap((input) => (input.from === 'camera' ? [input.camera] : []));
  return { cameras: [...new Set(cameras)], channels: output.channels.length };
}

/** Of a robot on a bus; others have their own cameras and joints. Errors: CAMERA_MISSING, CONTROL_JOINTS. */
export function checkJob({ robot, cameras: { sources } }: RobotConfig, { cameras, channels }: JobNeeds): void {
  if (robot.type !== 'can') return;
  const own = robot.world === 'sim' ? CAMERAS.map((name) => `${CAMERA_KEY_PREFIX}${name}`) : [];
  const missing = cameras.filter((key) => sources[key] === undefined && !own.includes(key));
  if (missing.length > 0) {
    const found = [...own, ...Object.keys(sources)].join(', ') || 'none';
    const message =
      `The job needs cameras that the robot does not have: expected pictures of ${cameras.join(', ')}, found ${found}. ` +
      `Name a source for ${missing.join(', ')} in cameras.sources.`;
    throw new PremotorError('CAMERA_MISSING', message, { field: 'cameras.sources', expected: cameras.join(', '), found });
  }
  const joints = Object.keys(robot.joints ?? {}).length;
  if (joints === channels) return;
  const [expected, found] = [`${channels} joints, one for each action channel of the job`, `${joints} in robot.joints`];
  const message = `The job does not fit the robot: expected ${expected}, found ${found}. Use a checkpoint and a job made for this robot.`;
  throw new PremotorError('CONTROL_JOINTS', message, { field: 'robot.joints', expected, found });
}
