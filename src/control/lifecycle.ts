/**
 * The states of a robot under control and the transitions between them, as a table. Owned by the control cycle, which drives it; it moves nothing and
 * waits for nothing. `stop` and `fail` are legal in every state; `running` is reached from `armed` alone; a fault stays until it is reset.
 */
import { PremotorError } from '../errors.js';

export const STATES = ['disarmed', 'armed', 'running', 'stopping', 'holding', 'fault'] as const;
export type State = (typeof STATES)[number];

export const TRIGGERS = ['arm', 'start', 'rest', 'stop', 'fail', 'reset', 'disarm'] as const;
export type Trigger = (typeof TRIGGERS)[number];

/** State -> trigger -> next state. What is not here is illegal. */
const TABLE: Readonly<Record<State, Readonly<Partial<Record<Trigger, State>>>>> = {
  disarmed: { arm: 'armed', stop: 'disarmed', fail: 'fault', disarm: 'disarmed' },
  // A stop withdraws the permission to move, so that one which comes just before the start is not lost.
  armed: { start: 'running', stop: 'disarmed', fail: 'fault', disarm: 'disarmed' },
  running: { rest: 'holding', stop: 'stopping', fail: 'fault' },
  stopping: { rest: 'holding', stop: 'stopping', fail: 'fault' },
  holding: { arm: 'armed', stop: 'holding', fail: 'fault', disarm: 'disarmed' },
  fault: { stop: 'fault', fail: 'fault', reset: 'disarmed' },
};

const REMEDIES: Readonly<Record<Trigger, string>> = {
  arm: 'A fault is reset first, and an episode is stopped or awaited first.',
  start: 'Call arm() before every episode; it checks robot, cameras and policy.',
  rest: 'Only a running or stopping robot comes to rest.',
  stop: '',
  fail: '',
  reset: 'Only a fault is reset.',
  disarm: 'Stop the episode first; a fault is left by reset alone.',
};

/** One change of state. */
export interface Transition {
  readonly from: State;
  readonly to: State;
  readonly trigger: Trigger;
  readonly reason: string;
  /** Milliseconds on the process's monotonic clock. */
  readonly atMs: number;
}

/** The state after a trigger; undefined where it is illegal. */
export function nextState(state: State, trigger: Trigger): State | undefined {
  return TABLE[state][trigger];
}

/** The triggers that are legal in a state. */
export function legalTriggers(state: State): readonly Trigger[] {
  return TRIGGERS.filter((trigger) => nextState(state, trigger) !== undefined);
}

/** Holds the present state and tells a listener of every change. */
export class Lifecycle {
  readonly #onTransition: (transition: Transition) => void;
  readonly #nowMs: () => number;
  #state: State = 'disarmed';
  #fault: PremotorError | undefined;

  constructor(onTransition: (transition: Transition) => void = () => undefined, nowMs: () => number = () => performance.now()) {
    this.#onTransition = onTransition;
    this.#nowMs = nowMs;
  }

  get state(): State {
    return this.#state;
  }

  /** The error that led to the fault; the first one when several followed. */
  get fault(): PremotorError | undefined {
    return this.#fault;
  }

  /** Refuses what is illegal without changing anything. Errors: CONTROL_TRANSITION. */
  check(trigger: Trigger): State {
    const next = nextState(this.#state, trigger);
    if (next) return next;
    const from = STATES.filter((state) => nextState(state, trigger) !== undefined).join(' or ');
    const legal = legalTriggers(this.#state).join(', ');
    const message = `"${trigger}" is not possible in the state ${this.#state}, only in ${from}. Legal now: ${legal}. ${REMEDIES[trigger]}`;
    throw new PremotorError('CONTROL_TRANSITION', message.trim(), { expected: from, found: this.#state });
  }

  /** Changes the state, or leaves it where the table says so. Errors: CONTROL_TRANSITION. */
  dispatch(trigger: Exclude<Trigger, 'fail'>, reason: string): void {
    this.#go(trigger, this.check(trigger), reason);
  }

  /** To `fault`, from anywhere. The first error is kept. */
  fail(error: PremotorError): void {
    this.#fault ??= error;
    this.#go('fail', 'fault', `${error.code}: ${error.message}`);
  }

  #go(trigger: Trigger, to: State, reason: string): void {
    const from = this.#state;
    if (from === to) return;
    this.#state = to;
    if (to !== 'fault') this.#fault = undefined;
    this.#onTransition({ from, to, trigger, reason, atMs: this.#nowMs() });
  }
}
