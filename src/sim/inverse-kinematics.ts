/**
 * Inverse kinematics by damped least squares for the simulated arm: finds the joint pose that puts the tip at a point with the hand pointing straight
 * down, starting from a pose nearby, as a controller that tracks a path does. The scripted experts use it; the closed form in arm.ts is its check.
 */
import { PremotorError } from '../errors.js';
import { ARM, forwardKinematics, JOINTS, type Vector3 } from './arm.js';

const ITERATIONS_MAX = 100;
/** Damping of the normal equations (Levenberg's), metres: small against the arm, so that a few iterations reach the tolerance. */
const DAMPING_M = 0.01;
const TOLERANCE_M = 1e-6;
/** A radian of the hand's tilt weighs as much as so many metres of the tip's place. */
const TILT_M_PER_RAD = 0.1;
const UNKNOWNS = 4;

/** Rows x, y, z, tilt; columns the joints. d(reach, height)/d(joint) of a planar chain, turned by the yaw. */
function jacobian(pose: Float64Array): number[][] {
  const [yaw, shoulder, elbow, wrist] = [pose[0] ?? 0, pose[1] ?? 0, pose[2] ?? 0, pose[3] ?? 0];
  const links = [ARM.upper, ARM.fore, ARM.hand];
  const angles = [shoulder, shoulder + elbow, shoulder + elbow + wrist];
  const sum = (from: number, term: (angle: number) => number): number =>
    links.reduce((total, link, index) => (index < from ? total : total + link * term(angles[index] ?? 0)), 0);
  const reach = sum(0, Math.sin);
  const planar = [0, 1, 2].map((from) => ({ outward: sum(from, Math.cos), upward: -sum(from, Math.sin) }));
  return [
    [-reach * Math.sin(yaw), ...planar.map(({ outward }) => outward * Math.cos(yaw))],
    [reach * Math.cos(yaw), ...planar.map(({ outward }) => outward * Math.sin(yaw))],
    [0, ...planar.map(({ upward }) => upward)],
    [0, TILT_M_PER_RAD, TILT_M_PER_RAD, TILT_M_PER_RAD],
  ];
}

/** Solves (J^T J + damping^2 I) step = J^T error by elimination; the matrix is positive definite, so no pivoting is needed. */
function dampedStep(rows: readonly number[][], error: readonly number[]): number[] {
  const system = Array.from({ length: UNKNOWNS }, (_, i) => [
    ...Array.from({ length: UNKNOWNS }, (_, j) => rows.reduce((sum, row) => sum + (row[i] ?? 0) * (row[j] ?? 0), i === j ? DAMPING_M ** 2 : 0)),
    rows.reduce((sum, row, index) => sum + (row[i] ?? 0) * (error[index] ?? 0), 0),
  ]);
  for (const [i, pivotRow] of system.entries()) {
    for (const row of system.slice(i + 1)) {
      const factor = (row[i] ?? 0) / (pivotRow[i] ?? 1);
      for (let j = i; j <= UNKNOWNS; j++) row[j] = (row[j] ?? 0) - factor * (pivotRow[j] ?? 0);
    }
  }
  const step = new Array<number>(UNKNOWNS).fill(0);
  for (let i = UNKNOWNS - 1; i >= 0; i--) {
    const row = system[i] ?? [];
    const known = step.reduce((sum, value, j) => (j > i ? sum + (row[j] ?? 0) * value : sum), 0);
    step[i] = ((row[UNKNOWNS] ?? 0) - known) / (row[i] ?? 1);
  }
  return step;
}

/**
 * The joint pose nearest to `start` on the way that puts the tip at a point, hand down. Joint limits are kept by clamping each iterate.
 * Errors: SIM_UNREACHABLE when the point is not reached to a micrometre.
 */
export function trackPose(tip: Vector3, start: Float64Array): Float64Array {
  const pose = start.slice();
  let distance = Infinity;
  for (let iteration = 0; iteration < ITERATIONS_MAX; iteration++) {
    const now = forwardKinematics(pose);
    const tilt = Math.PI - (pose[1] ?? 0) - (pose[2] ?? 0) - (pose[3] ?? 0);
    const error = [tip[0] - now[0], tip[1] - now[1], tip[2] - now[2], TILT_M_PER_RAD * tilt];
    distance = Math.hypot(...error);
    if (distance < TOLERANCE_M) return pose;
    const step = dampedStep(jacobian(pose), error);
    JOINTS.forEach((joint, index) => {
      pose[index] = Math.min(joint.upperRad, Math.max(joint.lowerRad, (pose[index] ?? 0) + (step[index] ?? 0)));
    });
  }
  throw new PremotorError('SIM_UNREACHABLE', `The arm cannot reach (${tip.map((value) => value.toFixed(3)).join(', ')}) m with the hand down.`, {
    expected: 'a point inside the workspace of docs/SIM.md',
    found: `the nearest pose is ${(1000 * distance).toFixed(1)} mm away`,
  });
}
