/**
 * Hardware in the loop for tests: premotor-bridge with four ideal axes on a cannelloni bus, and a configuration of type `can` for it. Bounds are
 * loose: a host that stalls beside other tests must not look like a fault.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { HOME_TIP, inverseKinematics, JOINTS } from '../../src/sim/arm.js';
import { makeRig, type Rig } from './stream-rig.js';

export const HOME = inverseKinematics(HOME_TIP);

/** The simulated arm's joints as a configuration has them. */
const jointLines = JOINTS.map(
  (joint) =>
    `    ${joint.name}: {lower_rad: ${joint.lowerRad}, upper_rad: ${joint.upperRad}, velocity_max_rad_per_s: ${joint.velocityMaxRadPerS}, ` +
    `acceleration_max_rad_per_s2: ${joint.accelerationMaxRadPerS2}, jerk_max_rad_per_s3: ${joint.jerkMaxRadPerS3}, torque_max_nm: 30}`,
).join('\n');

const poseLines = JOINTS.map(({ name }, index) => `    ${name}: {position_rad: ${HOME[index]}}`).join('\n');

export interface HilOptions {
  readonly world?: 'sim' | 'real';
  /** Where the bridge's axes are at the start. Default: the arm's home. */
  readonly positionRad?: readonly number[];
  /** More of section robot, each line with its indent. */
  readonly robot?: string;
  /** More of section control. */
  readonly control?: string;
  /** More sections. */
  readonly more?: string;
}

export interface Hil extends Rig {
  /** The configuration. */
  readonly file: string;
  readonly sharedMemory: string;
}

/** A bridge that runs, and a configuration for it. */
export async function makeHil(t: Test, options: HilOptions = {}): Promise<Hil> {
  const { world = 'sim', positionRad = [...HOME], robot = '', control = '', more = '' } = options;
  const rig = await makeRig({ joints: positionRad.length, bridge: { positionRad, trackingMaxRad: 0.35 } });
  t.teardown(() => {
    rig.bridge.kill();
    rmSync(rig.folder, { recursive: true, force: true });
  });
  const file = join(rig.folder, 'robot.yaml');
  const { bus, sharedMemory } = rig.configuration;
  const text = `robot:
  type: can
  world: ${world}
  bus: ${bus}
  shared_memory: ${sharedMemory}
  stream_output: ${rig.output}
  real_time: {priority: 50, lock: true, awake: false}
  stream: {gap_ms: 2000, planner_grace_ms: 800, feedback_age_ms: 2000, lost_ms: 2000, arming_ms: 15000}
${robot}  joints:
${jointLines}
policy: {checkpoint_dir: ckpt}
control:
${control}  start_pose:
${poseLines}
recording: {out_dir: out, recorder: {mode: off}}
telemetry: {enabled: false}
dashboard: {enabled: false}
${more}`;
  writeFileSync(file, text);
  return { ...rig, file, sharedMemory };
}
