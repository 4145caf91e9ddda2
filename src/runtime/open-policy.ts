/**
 * Opens the policy that a configuration names: the engine with a checkpoint, or a policy server. Owned by whoever runs an episode; the one place that
 * knows the backends.
 */
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import type { LoadPolicyOptions, Policy } from '../policy/contract.js';
import { readJob } from '../policy/job.js';
import { RemotePolicy } from '../server/remote-policy.js';
import { readServerToken } from '../server/token.js';
import { jobOf, policyOptions } from './rig.js';

/** Errors: those of loadPolicy, JOB_*, TOKEN_INVALID, REMOTE_*. */
export async function openPolicy(config: RobotConfig, loadPolicy: (options: LoadPolicyOptions) => Promise<Policy>): Promise<Policy> {
  return config.policy.backend === 'remote' ? openRemote(config) : loadPolicy(policyOptions(config));
}

async function openRemote({ policy }: RobotConfig): Promise<Policy> {
  const { job, warnings } = await readJob(jobOf(policy));
  const token = policy.token_file === undefined ? {} : { token: readServerToken(policy.token_file) };
  const remote = await RemotePolicy.open({ url: policy.url ?? '', job, warnings, ...token, reply_timeout_ms: policy.reply_timeout_s * 1000 });
  try {
    checkSteps(policy, remote);
    return remote;
  } catch (error) {
    await remote.close();
    throw error;
  }
}

/** Found here, before anything moves, rather than with the first prediction. */
function checkSteps({ video_steps, action_steps }: RobotConfig['policy'], { isPremotor }: RemotePolicy): void {
  if (isPremotor || (video_steps === undefined && action_steps === undefined)) return;
  throw unsupported('steps of the server itself', 'policy.video_steps or policy.action_steps', 'Leave them out: this server is no premotor.');
}

/** What this backend cannot do, before anything is opened. Errors: REMOTE_UNSUPPORTED. */
export function checkBackend({ policy, control }: RobotConfig, resumes: boolean): void {
  if (policy.backend !== 'remote') return;
  const { mode } = control;
  if (mode !== 'sync')
    throw unsupported('control.mode sync, for which the protocol has requests', mode, 'Use control.mode sync with a policy server.');
  if (resumes) throw unsupported('an episode of the engine', '--resume', 'Episodes of a policy server keep no journal; begin anew.');
}

/** Whether the engine runs here, so that its death can be survived. */
export const isLocal = ({ policy }: RobotConfig): boolean => policy.backend !== 'remote';

/** Where the policy comes from, for summaries and records. */
export const sourceOf = ({ policy }: RobotConfig): string => (policy.backend === 'remote' ? (policy.url ?? '') : (policy.checkpoint_dir ?? ''));

function unsupported(expected: string, found: string, remedy: string): PremotorError {
  const message = `A policy server cannot run this episode: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('REMOTE_UNSUPPORTED', message, { field: 'policy.backend', expected, found });
}
