/**
 * Opens what episodes need, once per configuration: a policy of its own and one simulation per scene. Owned by a worker process, or by a test; it
 * decides nothing about which episodes run.
 */

import { CAMERA_KEY_PREFIX } from '../cameras/simulated.js';
import type { LoadPolicyOptions, Policy, PolicyInfo } from '../policy/contract.js';
import type { Joint } from '../robot/robot.js';
import { JOINTS } from '../sim/arm.js';
import { CAMERAS, type SceneKind } from '../sim/scene.js';
import { Simulation } from '../sim/simulation.js';
import { TASKS } from '../sim/tasks/index.js';
import type { TaskName } from '../sim/tasks/task.js';
import { type Configuration, configuredJob, type Subject } from './configuration.js';
import { type EpisodeOutcome, runEpisode } from './episode.js';

export type LoadPolicy = (options: LoadPolicyOptions) => Promise<Policy>;

export class EvaluationSession {
  readonly #policy: Policy;
  readonly #configuration: Configuration;
  readonly #simulations = new Map<SceneKind, Simulation>();

  private constructor(policy: Policy, configuration: Configuration) {
    this.#policy = policy;
    this.#configuration = configuration;
  }

  /** Loads the policy with one thread: workers share the cores. Errors: those of loadPolicy. */
  static async open(subject: Subject, configuration: Configuration, loadPolicy: LoadPolicy): Promise<EvaluationSession> {
    const { checkpoint, plan, onnxJob } = subject;
    const job = onnxJob ?? configuredJob(subject.job, configuration);
    const { precision, kvCache } = configuration;
    const optional = {
      ...(kvCache === undefined ? {} : { kvCache }),
      ...(plan === undefined ? {} : { plan }),
      ...(onnxJob === undefined ? {} : { backend: 'onnx' as const }),
    };
    // An evaluation is what certificates are made of.
    const options = { checkpoint, job, precision, allowUncertified: true, ...optional };
    const policy = await loadPolicy({ ...options, threads: 1, isolate: false });
    return new EvaluationSession(policy, configuration);
  }

  get info(): PolicyInfo {
    return this.#policy.info;
  }

  /** Runs the episode of a seed. Only the job's cameras are rendered. */
  async run(taskName: TaskName, seed: number, signal?: AbortSignal): Promise<EpisodeOutcome> {
    const task = TASKS[taskName];
    const simulation = this.#simulations.get(task.kind) ?? (await this.#open(task.kind));
    const abort = signal === undefined ? {} : { signal };
    return runEpisode({ task, seed, policy: this.#policy, simulation, configuration: this.#configuration, ...abort });
  }

  async #open(kind: SceneKind): Promise<Simulation> {
    const { disturbances, pace, speedShare = 1 } = this.#configuration;
    const keys = this.#policy.job.obs_cam_keys;
    const cameras = CAMERAS.filter((name) => keys.includes(`${CAMERA_KEY_PREFIX}${name}`));
    const simulation = await Simulation.open({ kind, cameras, disturbances, pace, joints: slowed(JOINTS, speedShare) });
    this.#simulations.set(kind, simulation);
    return simulation;
  }

  async close(): Promise<void> {
    for (const simulation of this.#simulations.values()) simulation.close();
    this.#simulations.clear();
    await this.#policy.close();
  }
}

/** Joints with a share of their speed. */
function slowed(joints: readonly Joint[], share: number): readonly Joint[] {
  return share === 1 ? joints : joints.map((joint) => ({ ...joint, velocityMaxRadPerS: share * joint.velocityMaxRadPerS }));
}
