/** Pictures of noise for the benches of the engine: what is in them does not matter, that they differ does. */
import type { Frame, Job } from '../src/index.js';
import { Random } from '../src/sim/random.js';

const PICTURES = 16;

/** Moments without end that repeat after PICTURES, one frame per camera of the job. */
export function noise(job: Pick<Job, 'obs_cam_keys' | 'height' | 'width'>): (index: number) => Frame[] {
  const random = new Random(1);
  const { obs_cam_keys, height, width } = job;
  const moments = Array.from({ length: PICTURES }, () =>
    obs_cam_keys.map((camera): Frame => {
      const data = Uint8Array.from({ length: height * width * 3 }, () => random.integer(256));
      return { camera, width, height, data, capturedAtNs: 0n };
    }),
  );
  return (index) => moments[index % PICTURES] as Frame[];
}
