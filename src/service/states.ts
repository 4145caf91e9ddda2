/**
 * The states of the long-running service and the changes that are legal between them, as a table. Owned by src/service/service.ts, which drives
 * it; it moves nothing and waits for nothing. Power is on in `holding`, `running` and `stopping`, and may be in `fault`; the only way to it leads
 * through `arming`, but for a robot that was found holding.
 */
import { PremotorError } from '../errors.js';

export const SERVICE_STATES = ['starting', 'waiting', 'ready', 'arming', 'holding', 'running', 'stopping', 'fault', 'maintenance'] as const;
export type ServiceState = (typeof SERVICE_STATES)[number];

/** State -> states that may follow. What is not here is a bug. */
const TABLE: Readonly<Record<ServiceState, readonly ServiceState[]>> = {
  starting: ['waiting', 'ready', 'holding', 'fault', 'stopping'],
  waiting: ['ready', 'holding', 'maintenance', 'fault', 'stopping'],
  ready: ['waiting', 'arming', 'maintenance', 'fault', 'stopping'],
  arming: ['holding', 'waiting', 'fault', 'stopping'],
  holding: ['running', 'waiting', 'fault', 'stopping'],
  running: ['holding', 'waiting', 'fault', 'stopping'],
  stopping: ['holding', 'waiting', 'fault'],
  fault: ['waiting', 'stopping'],
  maintenance: ['waiting', 'stopping'],
};

/** One change of state. */
export interface ServiceTransition {
  readonly from: ServiceState;
  readonly to: ServiceState;
  readonly reason: string;
}

export function mayFollow(from: ServiceState, to: ServiceState): boolean {
  return TABLE[from].includes(to);
}

/** Holds the present state and tells a listener of every change. */
export class ServiceLifecycle {
  readonly #onTransition: (transition: ServiceTransition) => void;
  readonly #now: () => Date;
  #state: ServiceState = 'starting';
  #since: Date;

  constructor(onTransition: (transition: ServiceTransition) => void, now: () => Date = () => new Date()) {
    this.#onTransition = onTransition;
    this.#now = now;
    this.#since = now();
  }

  get state(): ServiceState {
    return this.#state;
  }

  get since(): Date {
    return this.#since;
  }

  is(...states: readonly ServiceState[]): boolean {
    return states.includes(this.#state);
  }

  /** Errors: INTERNAL, a change that the table does not have. */
  go(to: ServiceState, reason: string): void {
    const from = this.#state;
    if (from === to) return;
    if (!mayFollow(from, to)) throw new PremotorError('INTERNAL', `The service cannot go from ${from} to ${to} (${reason}). Report this as a bug.`);
    this.#state = to;
    this.#since = this.#now();
    this.#onTransition({ from, to, reason });
  }
}
