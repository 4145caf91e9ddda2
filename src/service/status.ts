/**
 * What the service says of itself, over the control socket and to its observers: gathered from its parts, at any moment. Owned by the service;
 * pure.
 */
import { createHash } from 'node:crypto';
import type { RobotConfig } from '../config/schema.js';
import { sourceOf } from '../runtime/open-policy.js';
import { version } from '../version.js';
import type { ClockWatch } from './clock-watch.js';
import type { ServiceStatus } from './control-protocol.js';
import type { Equipment } from './equipment.js';
import type { Reason } from './reasons.js';
import type { ServiceState } from './states.js';

export interface StatusParts {
  readonly config: RobotConfig;
  readonly file: string;
  readonly text: string;
  readonly state: ServiceState;
  readonly since: Date;
  readonly reasons: readonly Reason[];
  readonly remarks: readonly Reason[];
  readonly equipment: Equipment;
  readonly isConnected: boolean;
  /** Why it is locked. */
  readonly maintenance: string;
  readonly episodes: ServiceStatus['episodes'];
  readonly clock: ClockWatch;
}

export function statusOf({
  config,
  file,
  text,
  state,
  since,
  reasons,
  remarks,
  equipment,
  isConnected,
  maintenance,
  episodes,
  clock,
}: StatusParts): ServiceStatus {
  const { rig, policy, isPowered, cycles } = equipment;
  const { stream = 'unknown', link = 'unknown', bridge = 'unknown', faultCode = '', isAtRest = true } = rig?.status() ?? {};
  return {
    version: version(),
    state,
    armed: isPowered,
    atRest: isAtRest,
    since: since.toISOString(),
    reasons: [...reasons],
    remarks: [...remarks],
    autonomy: config.autonomy,
    robot: { stream, link, bridge, faultCode },
    telemetry: { enabled: config.telemetry.enabled, connected: isConnected },
    policy: {
      loaded: policy !== undefined,
      checkpoint: sourceOf(config),
      precision: policy?.info.precision ?? config.policy.precision,
      plan: config.policy.plan ?? null,
    },
    configuration: { file, hash: createHash('sha256').update(text).digest('hex') },
    cycles,
    maintenance: { on: state === 'maintenance', reason: maintenance },
    episodes,
    clock: { steps: clock.steps, lastStepMs: clock.lastStepMs },
  };
}
