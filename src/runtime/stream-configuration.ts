/**
 * The stream process that a configuration of type `can` describes: its bus, joints with tightened limits, shared memory, real-time wishes and
 * workspaces. Owned by rig-can.ts; it reads URDF files and starts nothing.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import { parseUrdf } from '../kinematics/urdf.js';
import type { Joint } from '../robot/robot.js';
import { type StreamConfiguration, type StreamWorkspace, workspaceOf } from '../robot/stream-process.js';
import { tightened } from './policy-options.js';
import { registryFolder } from './registry.js';

type RobotSection = RobotConfig['robot'];

/** One stream process per bus: two supervisors of one robot meet at the same file. */
export function sharedMemoryOf({ shared_memory, bus = '' }: RobotSection): string {
  if (shared_memory !== undefined) return shared_memory;
  const name = `bus-${bus.replaceAll(/[^A-Za-z0-9.]+/g, '-')}`;
  // A file on a disk would be written back under the loop's hands, so without a runtime folder it is the memory's own.
  const hasFolder = (process.env['PREMOTOR_RUNTIME_DIR'] ?? process.env['XDG_RUNTIME_DIR']) !== undefined;
  return hasFolder ? join(registryFolder(), name) : `/dev/shm/premotor-${process.getuid?.() ?? 0}-${name}`;
}

/** The joints of a robot on a bus in the order of its axes, no wider than the configuration allows. */
export function busJoints({ robot, control }: RobotConfig): readonly Joint[] {
  const own = Object.entries(robot.joints ?? {}).map(
    ([name, joint]): Joint => ({
      name,
      lowerRad: joint.lower_rad,
      upperRad: joint.upper_rad,
      velocityMaxRadPerS: joint.velocity_max_rad_per_s,
      accelerationMaxRadPerS2: joint.acceleration_max_rad_per_s2,
      jerkMaxRadPerS3: joint.jerk_max_rad_per_s3,
    }),
  );
  return tightened(own, control.limits);
}

/** Errors: URDF_*, CONFIG_MISSING when a URDF cannot be read. */
export function streamConfiguration(config: RobotConfig): StreamConfiguration {
  const { robot, control } = config;
  const { bus = '', joints = {}, real_time: realTime, stream = {}, bus_log: log } = robot;
  const torques = Object.values(joints).map(({ torque_max_nm }) => torque_max_nm);
  const workspaces = workspacesOf(robot);
  const times = {
    gapMs: stream.gap_ms,
    plannerGraceMs: stream.planner_grace_ms,
    feedbackAgeMs: stream.feedback_age_ms,
    lostMs: stream.lost_ms,
    armingMs: stream.arming_ms,
    shutdownMs: stream.shutdown_ms,
  };
  return {
    bus,
    joints: busJoints(config).map(({ name: _, ...limits }, index) => ({ ...limits, torqueMaxNm: torques[index] ?? 0 })),
    sharedMemory: sharedMemoryOf(robot),
    // Buses without FD refuse its frames.
    wantsFd: /^(socketcan-fd|cannelloni):/.test(bus),
    stopCategory: control.stop_category,
    ...given(times),
    ...(realTime === undefined ? {} : { realTime: given(realTime) }),
    ...(workspaces.length === 0 ? {} : { workspaces }),
    ...(log === undefined ? {} : { log }),
  };
}

/** Without what was left out: the stream process has its own defaults. */
function given<T extends object>(values: T): { readonly [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: NonNullable<T[K]> };
}

function workspacesOf({ workspaces = {}, joints = {} }: RobotSection): StreamWorkspace[] {
  const names = Object.keys(joints);
  return Object.values(workspaces).map(({ urdf, base_link, tip_link, first_joint, mount_m, mount_xyzw, lower_m, upper_m }) => {
    const chain = parseUrdf(textOf(urdf), { base: base_link, tip: tip_link, file: urdf });
    const mount = { positionM: mount_m ?? ([0, 0, 0] as const), quaternion: mount_xyzw ?? ([0, 0, 0, 1] as const) };
    return workspaceOf(chain, mount, names.indexOf(first_joint), { lowerM: lower_m, upperM: upper_m });
  });
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const found = (cause as Error).message;
    const message = `The URDF ${file} cannot be read: expected a file, found none that is readable (${found}). Check the path.`;
    throw new PremotorError('CONFIG_MISSING', message, { file, expected: 'a URDF file', found, cause });
  }
}
