/**
 * Commands: what a message to this robot asks for. There are three: a rebirth, another telemetry rate, and a controlled stop. Owned by the telemetry
 * of a run. Nothing here can start or resume a motion; whatever else is asked for is counted and ignored.
 */
import { type MetricSpec, RATE, REBIRTH, STOP } from './metrics.js';
import { DATA_TYPES, decodePayload, type ReceivedMetric } from './payload.js';

export interface CommandActions {
  readonly rebirth: () => void;
  readonly stop: () => void;
  readonly rate: (rateHz: number) => void;
}

export const RATE_HZ_MIN = 0.1;
export const RATE_HZ_MAX = 10;

export class Commands {
  readonly #actions: CommandActions;
  readonly #byAlias: ReadonlyMap<bigint, string>;
  #followed = 0;
  #refused = 0;

  constructor(specs: readonly MetricSpec[], actions: CommandActions) {
    this.#actions = actions;
    this.#byAlias = new Map(specs.map(({ name, alias }) => [BigInt(alias), name]));
  }

  get followed(): number {
    return this.#followed;
  }

  /** Messages that are none, and metrics that cannot be written so. */
  get refused(): number {
    return this.#refused;
  }

  /** `isRetained`: the broker kept it for whoever comes later, so nobody asks now. */
  accept(payload: Uint8Array, isRetained: boolean): void {
    const message = isRetained ? undefined : decodePayload(payload);
    if (!message) {
      this.#refused++;
      return;
    }
    for (const metric of message.metrics) {
      if (this.#follow(metric)) this.#followed++;
      else this.#refused++;
    }
  }

  #follow(metric: ReceivedMetric): boolean {
    if (metric.is_null === true || metric.is_historical === true) return false;
    switch (this.#nameOf(metric)) {
      case STOP:
        return isTrue(metric) && does(this.#actions.stop);
      case REBIRTH:
        return isTrue(metric) && does(this.#actions.rebirth);
      case RATE:
        return this.#rate(metric);
      default:
        return false;
    }
  }

  /** By its name or by its alias; a message that gives both means one metric. */
  #nameOf({ name, alias }: ReceivedMetric): string | undefined {
    const aliased = alias === undefined ? undefined : this.#byAlias.get(alias);
    if (name === undefined) return aliased;
    return alias === undefined || aliased === name ? name : undefined;
  }

  #rate({ double_value, float_value, datatype }: ReceivedMetric): boolean {
    const isFloat = datatype === DATA_TYPES.Float || (datatype === undefined && double_value === undefined);
    if (datatype !== undefined && datatype !== DATA_TYPES.Double && datatype !== DATA_TYPES.Float) return false;
    const rateHz = isFloat ? float_value : double_value;
    if (rateHz === undefined || !(rateHz >= RATE_HZ_MIN && rateHz <= RATE_HZ_MAX)) return false;
    this.#actions.rate(rateHz);
    return true;
  }
}

const OTHER_VALUES = ['int_value', 'long_value', 'float_value', 'double_value', 'string_value'] as const;

/** A boolean that is true and nothing else, and said to be one if anything is said. */
function isTrue(metric: ReceivedMetric): boolean {
  const { boolean_value, datatype } = metric;
  const isAlone = OTHER_VALUES.every((name) => metric[name] === undefined);
  return boolean_value === true && isAlone && (datatype === undefined || datatype === DATA_TYPES.Boolean);
}

function does(action: () => void): true {
  action();
  return true;
}
