/**
 * Turns what the native side kept of every cycle into the samples that observers see. Owned by the rig; it copies a few numbers and allocates nothing
 * but the time's bigint.
 */
import type { NativeSamples } from '../native.js';
import type { RobotState } from '../robot/robot.js';
import type { MotionSample } from '../tap/observer.js';

/**
 * Calls a watcher once per cycle. A joint that the bridge has not reported yet, or does not report any more, is where the robot itself says that it
 * is (`now`): the motors of a robot without power are silent, and it still stands somewhere.
 */
export function eachCycle(joints: number, now: () => RobotState, watcher: (sample: MotionSample) => void): (samples: NativeSamples) => void {
  const setpointRad = new Float64Array(joints);
  const positionsRad = new Float64Array(joints);
  const velocitiesRadPerS = new Float64Array(joints);
  return ({ count, timesNs, setpointRad: told, positionRad: position, velocityRadPerS: velocity }) => {
    let state: RobotState | undefined;
    for (let cycle = 0; cycle < count; cycle++) {
      for (let joint = 0; joint < joints; joint++) {
        const at = cycle * joints + joint;
        setpointRad[joint] = told[at] ?? Number.NaN;
        positionsRad[joint] = position[at] ?? Number.NaN;
        velocitiesRadPerS[joint] = velocity[at] ?? Number.NaN;
        if (!Number.isNaN(positionsRad[joint])) continue;
        state ??= now();
        positionsRad[joint] = state.positionsRad[joint] ?? Number.NaN;
        velocitiesRadPerS[joint] = state.velocitiesRadPerS[joint] ?? Number.NaN;
      }
      watcher({ timeNs: timesNs[cycle] ?? 0n, setpointRad, positionsRad, velocitiesRadPerS });
    }
  };
}
