/**
 * The movements that scripted experts are made of: minimum-jerk paths of the tip with the hand pointing down, as joint knots of 40 ms. Each expert
 * owns one Mover for an episode; it knows where the tip was sent last, not where it is.
 */
import { HOME_TIP, inverseKinematics, PADDLE, type Vector3 } from '../arm.js';
import { trackPose } from '../inverse-kinematics.js';
import type { Random } from '../random.js';
import { BUTTON } from '../scene.js';
import type { TablePoint } from '../world.js';
import type { ExpertOptions } from './task.js';

/**
 * Height of the tip above a button's face: hovering, and sent past the stop at 12 mm, as a person presses a button: a policy that learns from it
 * still presses deep enough when it is a few millimetres off.
 */
const HOVER_M = 0.05;
const PRESS_DEPTH_M = 0.018;
/** People do not hit the centre: deviations of where the tip hovers and presses, metres. */
const HOVER_DEVIATION_M = 0.008;
const PRESS_DEVIATION_M = 0.003;
const DEVIATION_MAX_M = 0.018;
/** How far a missed approach misses. */
const MISS_MIN_M = 0.02;
const MISS_MAX_M = 0.045;
const CORRECTION_KNOTS = 9;
/** Keeps the fastest joint of a minimum-jerk move below the arm's speed limit. */
const KNOTS_PER_RAD = 23;

/** Minimum-jerk share of the way at time t of 0 .. 1 (Flash and Hogan 1985). */
function minimumJerk(t: number): number {
  return t * t * t * (10 - 15 * t + 6 * t * t);
}

/** The tip's centre when it hovers over a button. */
export function hoverPoint(button: TablePoint): Vector3 {
  return [button.x, button.y, BUTTON.topZ + PADDLE.halfHeight + HOVER_M];
}

/** The tip's centre when it holds a button down. */
export function pressPoint(button: TablePoint): Vector3 {
  return [button.x, button.y, BUTTON.topZ + PADDLE.halfHeight - PRESS_DEPTH_M];
}

export class Mover {
  #tip: Vector3 = HOME_TIP;
  #pose = inverseKinematics(HOME_TIP);
  readonly #random: Random;
  readonly #recovery: number;

  constructor(random: Random, options: ExpertOptions = {}) {
    this.#random = random;
    this.#recovery = options.recovery ?? 0;
  }

  get tip(): Vector3 {
    return this.#tip;
  }

  /** A whole number of low .. high knots. */
  knots(low: number, high: number): number {
    return low + this.#random.integer(high - low + 1);
  }

  *hold(knots: number): Generator<Float64Array> {
    for (let knot = 0; knot < knots; knot++) yield this.#pose.slice();
  }

  /** One knot straight to a near point. */
  step(to: Vector3): Float64Array {
    this.#pose = trackPose(to, this.#pose);
    this.#tip = to;
    return this.#pose.slice();
  }

  /** Along a straight line in at least so many knots, more where a joint would have to hurry. */
  *go(to: Vector3, knotsMin: number): Generator<Float64Array> {
    const from = this.#tip;
    const end = inverseKinematics(to);
    const turn = Math.max(...end.map((angle, joint) => Math.abs(angle - (this.#pose[joint] ?? 0))));
    const knots = Math.max(knotsMin, Math.ceil(turn * KNOTS_PER_RAD));
    for (let knot = 1; knot <= knots; knot++) {
      const share = minimumJerk(knot / knots);
      yield this.step([from[0] + share * (to[0] - from[0]), from[1] + share * (to[1] - from[1]), from[2] + share * (to[2] - from[2])]);
    }
  }

  /** Over a button; a share of the approaches misses by centimetres and then corrects itself. */
  *approach(button: TablePoint, knots: number): Generator<Float64Array> {
    if (this.#random.uniform(0, 1) < this.#recovery) {
      const angle = this.#random.uniform(-Math.PI, Math.PI);
      const miss = this.#random.uniform(MISS_MIN_M, MISS_MAX_M);
      const beside = { x: button.x + miss * Math.cos(angle), y: button.y + miss * Math.sin(angle) };
      yield* this.go(hoverPoint(beside), knots);
      yield* this.go(this.#near(hoverPoint(button), HOVER_DEVIATION_M), CORRECTION_KNOTS);
    } else yield* this.go(this.#near(hoverPoint(button), HOVER_DEVIATION_M), knots);
  }

  *press(button: TablePoint, knots: number): Generator<Float64Array> {
    yield* this.go(this.#near(pressPoint(button), PRESS_DEVIATION_M), knots);
  }

  *lift(button: TablePoint, knots: number): Generator<Float64Array> {
    yield* this.go(this.#near(hoverPoint(button), HOVER_DEVIATION_M), knots);
  }

  #near([x, y, z]: Vector3, deviation: number): Vector3 {
    const off = (): number => Math.max(-DEVIATION_MAX_M, Math.min(DEVIATION_MAX_M, this.#random.normal(deviation)));
    return [x + off(), y + off(), z];
  }
}
