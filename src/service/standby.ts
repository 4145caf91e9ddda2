/**
 * What observers of a service are given between two episodes, when there is no control cycle to ask: the robot's own status, an empty cache, and
 * the one request that they may make. Owned by the service; it decides nothing.
 */
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import type { CacheState } from '../policy/contract.js';
import { sourceOf } from '../runtime/open-policy.js';
import type { Rig } from '../runtime/rig.js';
import type { RobotStatus, RunControl, StandbyAbout } from '../tap/observer.js';
import { version } from '../version.js';

export interface StandbyParts {
  readonly rig: () => Rig | undefined;
  /** Of the running episode. */
  readonly episode: () => RunControl | undefined;
  readonly isArmed: () => boolean;
  readonly isFault: () => boolean;
  readonly stop: (reason: string) => void;
}

const NO_CACHE: CacheState = { capacity: 0, valid: 0, committed: 0, predicted: 0, checksum: '' };
/** Nobody knows more while no robot is open. */
const NO_ROBOT: Omit<RobotStatus, 'state'> = {
  timeNs: 0n,
  stream: 'unknown',
  link: 'unknown',
  bridge: 'unknown',
  faultCode: '',
  faultMessage: '',
  isAtRest: true,
  counts: {},
  temperaturesC: {},
};

export function standbyControl({ rig, episode, isArmed, isFault, stop }: StandbyParts): RunControl {
  return {
    // The service must know of every stop: nothing begins by itself after one.
    requestStop: stop,
    status: () => episode()?.status() ?? { ...(rig()?.status() ?? NO_ROBOT), state: isFault() ? 'fault' : isArmed() ? 'holding' : 'disarmed' },
    cache: () => episode()?.cache() ?? NO_CACHE,
    decode: async (latents) => {
      const control = episode();
      if (control) return control.decode(latents);
      throw new PremotorError('BUSY', 'No episode runs. Pictures are decoded while one does.', { expected: 'an episode', found: 'none' });
    },
  };
}

/** Of the robot; undefined: it cannot be opened, and nobody knows its joints. */
export function standbyAbout(rig: Rig | undefined, config: RobotConfig): StandbyAbout {
  const { control, task } = config;
  return {
    id: 'standby',
    version: version(),
    joints: rig?.robot.joints ?? [],
    task: rig?.task ?? task.name,
    instruction: rig?.instruction ?? task.instruction ?? '',
    mode: control.mode,
    chunksMax: rig?.chunksMax ?? control.chunks_max ?? 0,
    checkpoint: sourceOf(config),
    configuration: config,
  };
}
