/**
 * Where camera pictures come from. A source gives the newest frame of each of its cameras, stamped with the time of capture on the robot's clock, and
 * never resizes or reorders colours: the frames are what src/policy/contract.ts calls Frame, whether a camera or a simulation made them.
 */
import { PremotorError } from '../errors.js';
import type { Frame } from '../policy/contract.js';

export interface CameraInfo {
  /** The key that the job's obs_cam_keys uses. */
  readonly camera: string;
  readonly width: number;
  readonly height: number;
}

export interface FrameSource {
  readonly cameras: readonly CameraInfo[];
  /** The newest frame of every camera, in the order of `cameras`. */
  capture(): Promise<readonly Frame[]>;
  close(): Promise<void>;
}

/** What the control cycle demands of one observation. */
export interface ObservationRules {
  /** The order in which the policy wants the cameras. */
  readonly keys: readonly string[];
  /** Time on the robot's clock at which the observation is taken. */
  readonly nowNs: bigint;
  /** A frame older than this is an error, never silently used. */
  readonly ageMaxNs: bigint;
}

/**
 * Takes one observation: a frame per key, in the order of the keys, each fresh enough. Frames of cameras that the policy does not use are dropped.
 * Errors: CAMERA_MISSING, CAMERA_FRAME_SIZE, CAMERA_FRAME_STALE, CAMERA_CLOCK.
 */
export async function observe(source: FrameSource, rules: ObservationRules): Promise<readonly Frame[]> {
  const frames = await source.capture();
  return rules.keys.map((key) => {
    const frame = frames.find((candidate) => candidate.camera === key);
    if (!frame) {
      throw new PremotorError('CAMERA_MISSING', `No frame of camera ${key}. Connect it, or change obs_cam_keys in the job.`, {
        expected: rules.keys.join(', '),
        found: frames.map((candidate) => candidate.camera).join(', ') || 'no frames',
      });
    }
    checkFrame(frame, rules);
    return frame;
  });
}

function checkFrame(frame: Frame, rules: ObservationRules): void {
  const bytes = frame.width * frame.height * 3;
  if (frame.data.length !== bytes) {
    throw new PremotorError('CAMERA_FRAME_SIZE', `Camera ${frame.camera} gave a frame that is not ${frame.width} x ${frame.height} RGB.`, {
      expected: `${bytes} bytes`,
      found: `${frame.data.length} bytes`,
    });
  }
  const ageNs = rules.nowNs - frame.capturedAtNs;
  if (ageNs > rules.ageMaxNs) {
    throw new PremotorError(
      'CAMERA_FRAME_STALE',
      `Camera ${frame.camera} delivers too late. Check its cable, its frame rate and the load of this machine.`,
      {
        expected: `a frame at most ${Number(rules.ageMaxNs) / 1e6} ms old`,
        found: `${Number(ageNs) / 1e6} ms`,
      },
    );
  }
  if (ageNs < 0n) {
    throw new PremotorError('CAMERA_CLOCK', `Camera ${frame.camera} stamped a frame in the future: its clock is not the robot's clock.`, {
      expected: `at most ${rules.nowNs} ns`,
      found: `${frame.capturedAtNs} ns`,
    });
  }
}
