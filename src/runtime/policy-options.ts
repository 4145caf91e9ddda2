/**
 * What a configuration says of the policy's options, its job and the limits of the robot's joints. Owned by the rigs and by whoever opens a policy;
 * it opens nothing.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { RobotConfig } from '../config/schema.js';
import type { LoadPolicyOptions } from '../policy/contract.js';
import type { Joint } from '../robot/robot.js';
import { SIM_JOB } from '../sim/job.js';

/** The file in a checkpoint folder that says how the robot it was trained for uses it. */
const JOB_FILE = 'job.json';

/** What loadPolicy is given for a configuration. */
export function policyOptions({ policy }: RobotConfig): LoadPolicyOptions {
  const { checkpoint_dir: checkpoint = '', device, precision, allow_uncertified: allowUncertified, isolate, threads, plan } = policy;
  const optional = {
    ...(policy.backend === 'onnx' ? { backend: policy.backend } : {}),
    ...(policy.kv_cache === undefined ? {} : { kvCache: policy.kv_cache }),
    ...(threads === undefined ? {} : { threads }),
    ...(plan === undefined ? {} : { plan }),
  };
  return { checkpoint, job: jobOf(policy), device, precision, allowUncertified, isolate, ...optional };
}

/** The job of a configuration: its own, the checkpoint's, or that of the robot type. An exported policy has none but its own. */
export function jobOf({ job, checkpoint_dir, backend }: RobotConfig['policy']): LoadPolicyOptions['job'] {
  if (job !== undefined) return job;
  if (checkpoint_dir === undefined) return SIM_JOB;
  const file = join(checkpoint_dir, JOB_FILE);
  return backend === 'onnx' || existsSync(file) ? file : SIM_JOB;
}

type Limits = RobotConfig['control']['limits'];

/** A robot's joints with the limits of a configuration, which the reader has checked to be no wider. */
export function tightened(joints: readonly Joint[], limits: Limits): readonly Joint[] {
  return joints.map((joint) => {
    const { lower_rad, upper_rad, velocity_max_rad_per_s, acceleration_max_rad_per_s2, jerk_max_rad_per_s3 } = limits[joint.name] ?? {};
    return {
      name: joint.name,
      lowerRad: lower_rad ?? joint.lowerRad,
      upperRad: upper_rad ?? joint.upperRad,
      velocityMaxRadPerS: velocity_max_rad_per_s ?? joint.velocityMaxRadPerS,
      accelerationMaxRadPerS2: acceleration_max_rad_per_s2 ?? joint.accelerationMaxRadPerS2,
      jerkMaxRadPerS3: jerk_max_rad_per_s3 ?? joint.jerkMaxRadPerS3,
    };
  });
}
