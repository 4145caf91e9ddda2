/**
 * The grid of the committed report: which configurations are run on which tasks. Pure data from a job; src/cli/eval-report.ts runs it.
 */
import type { Job } from '../policy/contract.js';
import { sigmas } from '../policy/schedule.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import type { Configuration } from './configuration.js';
import { execStepNear } from './ladder.js';

export interface GridEntry {
  /** Names the kept file. */
  readonly name: string;
  readonly title: string;
  readonly group: 'denoising' | 'memory' | 'disturbances' | 'baseline';
  readonly configuration: Configuration;
  readonly tasks: readonly TaskName[];
}

/** The configuration that every other one is compared with. */
export const BASE_NAME = 'full-5-f32';
const VIDEO_STEPS = [5, 3] as const;
const STOP_SIGMA = 0.5;

/** Another policy on the seeds of the base. An exported one knows what it was made for; the shipped one is made for touch. */
export function baselineEntry(name: string, tasks: readonly TaskName[]): GridEntry {
  const configuration: Configuration = { precision: 'f32', memory: 'episode', disturbances: {}, pace: 'virtual' };
  return { name: `baseline-${name}`, title: name, group: 'baseline', configuration, tasks };
}

/** One rung of denoising: full, or stopped at the pass whose noise level is nearest to 0.5. The title says which level that is. */
function rungs(job: Job): { name: string; title: string; videoSteps: number; videoExecStep: number }[] {
  const full = VIDEO_STEPS.map((steps) => ({ name: `full-${steps}`, title: `full, ${steps} steps`, videoSteps: steps, videoExecStep: -1 }));
  const partial = VIDEO_STEPS.map((steps) => {
    const passes = execStepNear(steps, job.snr_shift, STOP_SIGMA);
    const level = (sigmas(steps, job.snr_shift)[passes - 1] ?? 0).toFixed(2);
    return { name: `partial-${steps}`, title: `to s = ${level}, ${passes} of ${steps} steps`, videoSteps: steps, videoExecStep: passes };
  });
  return [...full, ...partial];
}

export function reportGrid(job: Job): GridEntry[] {
  const plain = { memory: 'episode', disturbances: {}, pace: 'virtual' } as const;
  const actionSteps = job.action_num_inference_steps;
  const entries = (['f32', 'bf16'] as const).flatMap((precision) =>
    rungs(job).map(
      ({ name, title, videoSteps, videoExecStep }): GridEntry => ({
        name: `${name}-${precision}`,
        title: `${title}, ${precision}`,
        group: 'denoising',
        configuration: { ...plain, precision, videoSteps, actionSteps, videoExecStep },
        tasks: TASK_NAMES,
      }),
    ),
  );
  const base = entries.find(({ name }) => name === BASE_NAME);
  if (!base) throw new RangeError('the grid has no base');
  const varied = (
    name: string,
    title: string,
    group: GridEntry['group'],
    change: Partial<Configuration>,
    tasks = TASK_NAMES as readonly TaskName[],
  ) => ({
    name,
    title,
    group,
    tasks,
    configuration: { ...base.configuration, ...change },
  });
  return [
    ...entries,
    varied('memory-off', 'memory off', 'memory', { memory: 'chunk' }),
    varied('camera-delay', 'camera delay 80 ms', 'disturbances', { disturbances: { cameraDelayMs: 80 } }),
    varied('actuator-lag', 'actuator lag 60 ms', 'disturbances', { disturbances: { actuatorLagMs: 60 } }),
    varied('nudge', 'block nudged, 0.25 m/s', 'disturbances', { disturbances: { blockNudgeMPerS: 0.25 } }, ['push']),
  ];
}
