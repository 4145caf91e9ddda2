/**
 * The scripted expert of `touch`: it is told where the button stands and gives the joint knots, 50 per second, that press it along minimum-jerk paths.
 * It proves that the world can be solved and will make demonstrations; no policy ever sees it.
 */
import { ARM, HOME_TIP, inverseKinematics, type Vector3 } from './arm.js';
import { BUTTON } from './scene.js';
import type { TablePoint } from './world.js';

/** Durations of the four moves in knots of 20 ms. */
const KNOTS = { approach: 48, press: 20, dwell: 4, retreat: 20 } as const;
const HOVER_M = 0.045;
/** How far the button is pushed in: past the 6 mm that count, short of the stop at 12 mm. */
const PRESS_DEPTH_M = 0.01;

/** Minimum-jerk share of the way at time t of 0 .. 1. */
function minimumJerk(t: number): number {
  return t * t * t * (10 - 15 * t + 6 * t * t);
}

function* move(from: Vector3, to: Vector3, knots: number): Generator<Float64Array> {
  for (let knot = 1; knot <= knots; knot++) {
    const share = minimumJerk(knot / knots);
    yield inverseKinematics([from[0] + share * (to[0] - from[0]), from[1] + share * (to[1] - from[1]), from[2] + share * (to[2] - from[2])]);
  }
}

/** Joint knots from home onto the button and up again. */
export function touchKnots(button: TablePoint): Float64Array[] {
  const hover: Vector3 = [button.x, button.y, BUTTON.topZ + HOVER_M];
  const pressed: Vector3 = [button.x, button.y, BUTTON.topZ + ARM.tipRadius - PRESS_DEPTH_M];
  return [
    ...move(HOME_TIP, hover, KNOTS.approach),
    ...move(hover, pressed, KNOTS.press),
    ...move(pressed, pressed, KNOTS.dwell),
    ...move(pressed, hover, KNOTS.retreat),
  ];
}
