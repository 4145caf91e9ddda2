/**
 * Turns the actions of one chunk into knots that the robot may follow: clamps position and speed, and says how often. What it returns as `executed`
 * is what the policy is told to remember, and it equals the knots bit for bit. Owned by the control cycle; it never changes the chunk it was given.
 */
import { PremotorError } from '../errors.js';
import type { Joint } from '../robot/robot.js';

/**
 * Room for the peak speed between two knots, over the mean: a smooth segment that starts and ends at rest is at its fastest 1.5 times the mean (a
 * cubic; the stream's quintic takes 1.875 and is held back by its limiter there, which is reported).
 */
export const PEAK_OVER_MEAN = 1.5;

/**
 * How far from sense a chunk may be and still be clamped. Beyond, it is refused whole: a policy that asks for such things does not know this robot,
 * and no limit should mend that.
 */
export interface Tolerance {
  /** Outside a joint's range. */
  readonly outsideRad: number;
  /** Between neighbouring actions, and between the first and where the robot is. */
  readonly jumpRad: number;
}
export const TOLERANCE: Tolerance = { outsideRad: 1, jumpRad: 1.2 };

export interface ChunkToLimit {
  /** [used, K, H], radians, one used channel per joint */
  readonly actions: Float32Array;
  readonly shape: readonly [number, number, number];
  /** Leading actions that are padding: H on an episode's first chunk, else 0. They are neither clamped nor executed. */
  readonly padding: number;
  /** Where the robot is now, [joints]. */
  readonly from: Float64Array;
  readonly joints: readonly Joint[];
  /** Time between two actions. */
  readonly knotS: number;
  /** Default: TOLERANCE. */
  readonly tolerance?: Tolerance;
  /** The robot stands, but the plan may be in full motion: the speed limit is approached over the first knots. Default: false. */
  readonly ramps?: boolean;
}

/** Knots over which a chunk that ramps approaches the speed limit: a joint with 100 rad/s^2 reaches it in less. */
const RAMP_KNOTS = 4;

export interface LimitedChunk {
  /** One knot per executed action, [joints] each. Every value is a float32. */
  readonly knots: readonly Float64Array[];
  /** [used, K, H]: the knots in the chunk's layout, padding as it came. */
  readonly executed: Float32Array;
  /** Number of the first action that is a knot. */
  readonly first: number;
  /** For each knot, whether at least one joint was clamped. */
  readonly clamped: readonly boolean[];
}

const bits = new Int32Array(1);
const single = new Float32Array(bits.buffer);

/** The next float32 in a direction (-1 or 1). */
function neighbour32(value: number, direction: -1 | 1): number {
  if (value === 0) return direction * 2 ** -149;
  single[0] = value;
  bits[0] = (bits[0] ?? 0) + (value > 0 ? direction : -direction);
  return single[0] ?? value;
}

/** The nearest float32 that is not below / not above a number. */
function ceil32(value: number): number {
  const rounded = Math.fround(value);
  return rounded >= value ? rounded : neighbour32(rounded, 1);
}
function floor32(value: number): number {
  const rounded = Math.fround(value);
  return rounded <= value ? rounded : neighbour32(rounded, -1);
}

/** Clamps one joint's target after `previous`, to a share of its speed. A joint that is outside its range is led back no faster than that. */
function clampJoint(target: number, previous: number, joint: Joint, knotS: number, share: number): number {
  const step = (share * joint.velocityMaxRadPerS * knotS) / PEAK_OVER_MEAN;
  const low = Math.min(Math.max(joint.lowerRad, previous - step), previous + step);
  const high = Math.max(Math.min(joint.upperRad, previous + step), previous - step);
  return Math.max(ceil32(low), Math.min(floor32(high), target));
}

/** Errors: CONTROL_ACTION_SHAPE, CONTROL_ACTION_VALUE, CONTROL_ACTION_RANGE, CONTROL_ACTION_JUMP. */
export function limitChunk(chunk: ChunkToLimit): LimitedChunk {
  const [used, latentFrames, perFrame] = chunk.shape;
  const count = latentFrames * perFrame;
  checkActions(chunk, used, count);
  checkSense(chunk, count);
  const executed = chunk.actions.slice();
  const knots: Float64Array[] = [];
  let previous = chunk.from;
  const clamped: boolean[] = [];
  for (let action = chunk.padding; action < count; action++) {
    let isClamped = false;
    const share = chunk.ramps ? Math.min(1, (action - chunk.padding + 1) / RAMP_KNOTS) : 1;
    const knot = new Float64Array(used);
    chunk.joints.forEach((joint, index) => {
      const target = chunk.actions[index * count + action] ?? Number.NaN;
      const allowed = clampJoint(target, previous[index] ?? 0, joint, chunk.knotS, share);
      if (allowed !== target) isClamped = true;
      knot[index] = allowed;
      executed[index * count + action] = allowed;
    });
    clamped.push(isClamped);
    knots.push(knot);
    previous = knot;
  }
  return { knots, executed, clamped, first: chunk.padding };
}

function checkActions(chunk: ChunkToLimit, used: number, count: number): void {
  if (used !== chunk.joints.length || chunk.actions.length !== used * count) {
    throw new PremotorError('CONTROL_ACTION_SHAPE', 'The chunk does not fit the robot. Check used_action_channel_ids of the job.', {
      expected: `${chunk.joints.length} joints x ${count} actions`,
      found: `${used} channels, ${chunk.actions.length} values`,
    });
  }
  const bad = chunk.actions.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    throw new PremotorError('CONTROL_ACTION_VALUE', 'The policy predicted an action that is not a number. The robot holds; check the checkpoint.', {
      expected: 'finite angles',
      found: `${chunk.actions[bad]} in channel ${Math.floor(bad / count)}, action ${bad % count}`,
    });
  }
}

/** Nonsense is refused, not clamped. */
function checkSense({ actions, padding, from, joints, tolerance = TOLERANCE }: ChunkToLimit, count: number): void {
  const { outsideRad, jumpRad } = tolerance;
  joints.forEach(({ name, lowerRad, upperRad }, index) => {
    let previous = from[index] ?? 0;
    for (let action = padding; action < count; action++) {
      const angle = actions[index * count + action] ?? 0;
      if (angle < lowerRad - outsideRad || angle > upperRad + outsideRad) {
        const message = `The policy asks joint ${name} for an angle far outside its range. The chunk is refused; check the job's norm_stat.`;
        const expected = `${lowerRad} .. ${upperRad} rad, clamped up to ${outsideRad} rad outside`;
        throw new PremotorError('CONTROL_ACTION_RANGE', message, { field: name, expected, found: `${angle} rad in action ${action}` });
      }
      if (Math.abs(angle - previous) > jumpRad) {
        const message = `The policy asks joint ${name} for a jump. The chunk is refused; check the job's action rate and the checkpoint.`;
        const found = `${Math.abs(angle - previous)} rad before action ${action}`;
        throw new PremotorError('CONTROL_ACTION_JUMP', message, { field: name, expected: `at most ${jumpRad} rad between two actions`, found });
      }
      previous = angle;
    }
  });
}
