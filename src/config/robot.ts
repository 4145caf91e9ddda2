/**
 * The section of a robot configuration that says what is driven: the simulated arm, or a robot behind a firmware bridge on a CAN bus with its joints,
 * its stream process and the boxes that its tips must stay in. Pure data; it opens nothing.
 */
import { z } from 'zod';
import { among, note, positive, text, whole, wholeWords } from './notes.js';

/** Which robots a configuration may name. */
export const ROBOT_TYPES = ['sim', 'can'] as const;
/** What a robot on a bus stands in. */
export const WORLDS = ['real', 'sim'] as const;

/** What premotor-stream opens: the same words as everywhere else. */
export const BUS = /^(?:socketcan(?:-fd)?:[A-Za-z0-9_.-]{1,15}|slcan:\/\S+|cannelloni:\d{1,5}:[A-Za-z0-9_.:-]+:\d{1,5})$/;
const busWords = 'socketcan-fd:can0, socketcan:can0, slcan:/dev/ttyACM0 or cannelloni:PORT:ADDRESS:PORT';

const joint = z.strictObject({
  lower_rad: note(z.number(), 'an angle in radians', 'type `can`: lowest setpoint of the joint'),
  upper_rad: note(z.number(), 'an angle in radians', 'type `can`: highest setpoint of the joint'),
  velocity_max_rad_per_s: note(positive, 'a number above 0', 'type `can`: highest speed of the joint'),
  acceleration_max_rad_per_s2: note(positive, 'a number above 0', 'type `can`: highest acceleration of the joint'),
  jerk_max_rad_per_s3: note(positive, 'a number above 0', 'type `can`: highest change of the acceleration of the joint'),
  torque_max_nm: note(positive, 'a number above 0', "type `can`: the bridge stops the robot when a motor's torque is above 1.2 times this"),
});

const realTime = z.strictObject({
  priority: note(whole(0, 98).optional(), wholeWords(0, 98), 'SCHED_FIFO priority of the stream process; 0: the ordinary scheduler', '80'),
  core: note(whole(0, 1023).optional(), wholeWords(0, 1023), 'the one core that its loop runs on', 'any'),
  lock: note(z.boolean().optional(), 'true or false', 'lock its memory', 'true'),
  awake: note(z.boolean().optional(), 'true or false', 'keep the processor out of its deeper sleeps', 'true'),
});

const limit_ms = z.number().min(1).max(10_000).optional();
const limitWords = 'a number of 1 .. 10000';

const stream = z.strictObject({
  gap_ms: note(limit_ms, limitWords, 'a longer pause of the stream process latches STREAM_GAP', '100'),
  planner_grace_ms: note(limit_ms, limitWords, 'so long after all that the control cycle vouched for, its silence is a fault', '50'),
  feedback_age_ms: note(limit_ms, limitWords, 'older feedback of the bridge is a fault', '50'),
  lost_ms: note(limit_ms, limitWords, 'a longer silence of the bridge is a fault', '50'),
  arming_ms: note(z.number().min(1).max(60_000).optional(), 'a number of 1 .. 60000', 'longest arming', '3000'),
  shutdown_ms: note(z.number().min(1).max(60_000).optional(), 'a number of 1 .. 60000', 'longest way to rest when the stream process ends', '3000'),
});

const triple = z.tuple([z.number(), z.number(), z.number()]);

const workspace = z.strictObject({
  urdf: note(text, 'the path of a URDF file', 'box that the tip of an arm must stay in: the file with its kinematics'),
  base_link: note(text, "a link's name", 'where the arm begins in the URDF'),
  tip_link: note(text, "a link's name", 'the link that must stay in the box'),
  first_joint: note(text, "a joint's name", 'the first of its moving joints; the others follow it in `robot.joints`'),
  mount_m: note(triple.optional(), 'three numbers', 'where the base link stands', 'at the origin'),
  mount_xyzw: note(z.tuple([z.number(), z.number(), z.number(), z.number()]).optional(), 'a unit quaternion', 'how it is turned', 'not turned'),
  lower_m: note(triple, 'three numbers', 'lowest corner of the box, in the frame that the mount is given in'),
  upper_m: note(triple, 'three numbers', 'highest corner of the box'),
});

export const robot = z.strictObject({
  type: note(
    z.enum(ROBOT_TYPES),
    among(ROBOT_TYPES),
    'which robot is driven: `sim` the simulated arm, `can` a robot behind a firmware bridge on a bus (docs/ROBOTS.md)',
  ),
  pace: note(
    z.enum(['virtual', 'real']).default('virtual'),
    among(['virtual', 'real']),
    "for the simulated robot: `virtual` time passes only while somebody waits for the robot, and equal seeds give equal bits; `real` is the clock's",
  ),
  world: note(
    z.enum(WORLDS).optional(),
    among(WORLDS),
    'type `can`: `sim` is hardware in the loop, cameras and task come from a simulated table that follows the measured joints',
    '`real`',
  ),
  bus: note(z.string().regex(BUS).optional(), busWords, 'type `can`: where the bridge is', 'required for `can`'),
  joints: z.record(z.string(), joint).optional(),
  shared_memory: note(
    text.optional(),
    'the path of a file',
    'type `can`: what supervisor and stream process share; one per robot, best in /run or /dev/shm',
    'named after the bus, in the runtime folder',
  ),
  real_time: realTime.optional(),
  stream: stream.optional(),
  workspaces: z.record(z.string(), workspace).optional(),
  stays: note(
    z.boolean().optional(),
    'true or false',
    'type `can`: leave the stream process running when the supervisor ends, also without power on the motors',
    'false: it is stopped, unless `control.stop_category` 2 has kept power',
  ),
  stream_output: note(text.optional(), 'the path of a file', 'type `can`: events and warnings of the stream process are appended here', 'none'),
  bus_log: note(text.optional(), 'the path of a file', "type `can`: every frame of the bus is appended here, in candump's format", 'none'),
});

/** Keys of the section that only a robot on a bus has. */
export const CAN_KEYS: readonly string[] = Object.keys(robot.shape).filter((key) => key !== 'type' && key !== 'pace');

/** Whether a key, such as robot.bus, says anything about a robot of this type. */
export function concerns(type: (typeof ROBOT_TYPES)[number], path: string): boolean {
  const [section, key = ''] = path.split('.');
  return section !== 'robot' || key === 'type' || CAN_KEYS.includes(key) === (type === 'can');
}
