/**
 * Where camera pictures come from. A source samples its cameras by itself, stamps every frame with the time of capture on the robot's clock, and
 * never resizes or reorders colours: the frames are what src/policy/contract.ts calls Frame, whether a camera or a simulation made them.
 */
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
  /** The last frames of every camera, the newest included, in any order; for sources that keep some. */
  history?(): readonly Frame[];
  close(): Promise<void>;
}
