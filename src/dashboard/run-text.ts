/** What a page is told about a run, in words that a person reads. Pure; owned by the dashboard. */
import type { RunAbout } from '../tap/observer.js';
import type { RunText } from './messages.js';

export function runText(about: RunAbout): RunText {
  const { job, policy, cameras } = about;
  return {
    id: about.id,
    version: about.version,
    robot: about.robot,
    task: about.task,
    instruction: about.instruction,
    seed: about.seed,
    chunksMax: about.chunksMax,
    mode: about.mode,
    pace: paceOf(about.configuration),
    checkpoint: about.checkpoint,
    untrained: about.untrained,
    policy: `${policy.backend}, ${policy.precision}, ${policy.threads} ${policy.threads === 1 ? 'thread' : 'threads'}`,
    joints: about.joints.map(({ name, lowerRad, upperRad }) => ({ name, lowerRad, upperRad })),
    cameras: cameras.map(({ camera }) => ({ label: camera.slice(camera.lastIndexOf('.') + 1), isUsed: job.obs_cam_keys.includes(camera) })),
    chunkS: (job.frame_chunk_size * job.action_per_frame) / about.actionRateHz,
    rungs: (job.ladder ?? []).map(
      ({ video_steps, action_steps, guidance }) => `video ${video_steps}, actions ${action_steps}${guidance ? '' : ', unguided'}`,
    ),
    imagines: about.mode === 'sync',
    imaginedParts: partsOf(about),
  };
}

/** The network sees all cameras in one picture; with the usual layout each has an equal part of its width. */
export function partsOf({ job, cameras }: Pick<RunAbout, 'job' | 'cameras'>): RunText['imaginedParts'] {
  return job.env_type === 'none' && job.obs_cam_keys.every((key) => cameras.some(({ camera }) => camera === key)) ? 'cameras' : 'joined';
}

function paceOf(configuration: unknown): string {
  const { robot } = configuration as { robot?: { pace?: unknown } };
  return typeof robot?.pace === 'string' ? robot.pace : 'real';
}
