/**
 * Facts: what a robot runs, from the metrics that it reports, in the words of the fleet view; and sorting and filtering of them. Pure functions,
 * owned by
 * whoever shows robots or judges a roll-out.
 */
import { PremotorError } from '../errors.js';
import { nearestName } from '../wording.js';
import type { RobotLink, RobotRow } from './robots.js';

/** null: the robot does not say. */
export interface RobotFacts {
  readonly group: string;
  readonly node: string;
  readonly link: RobotLink;
  readonly sinceMs: number;
  readonly heardMs: number;
  readonly why: string;
  /** Of the service where one runs, else of the control cycle. */
  readonly state: string | null;
  readonly version: string | null;
  readonly slot: string | null;
  readonly system: string | null;
  readonly update: string | null;
  /** The version that `update` speaks of. */
  readonly newest: string | null;
  readonly model: string | null;
  readonly modelHash: string | null;
  readonly precision: string | null;
  readonly plan: string | null;
  readonly configuration: string | null;
  readonly firmware: string | null;
  readonly fault: string | null;
  readonly faultMessage: string | null;
  readonly uptimeS: number | null;
  readonly clockSteps: number | null;
}

export function factsOf({ group, node, link, sinceMs, heardMs, why, values }: RobotRow): RobotFacts {
  const text = (...names: readonly string[]): string | null => {
    const found = names.map((name) => values[name]).find((value) => typeof value === 'string' && value !== '');
    return typeof found === 'string' ? found : null;
  };
  const number = (...names: readonly string[]): number | null => {
    const found = names.map((name) => values[name]).find((value) => typeof value === 'number' && Number.isFinite(value));
    return typeof found === 'number' ? found : null;
  };
  return {
    group,
    node,
    link,
    sinceMs,
    heardMs,
    why,
    state: text('Service/State', 'Robot/State'),
    version: text('Run/Version'),
    slot: text('Update/Slot'),
    system: text('Update/Version'),
    update: text('Update/State'),
    newest: text('Update/Newest'),
    model: text('Properties/Checkpoint'),
    modelHash: text('Properties/Checkpoint Hash'),
    precision: text('Properties/Precision'),
    plan: text('Properties/Plan'),
    configuration: text('Properties/Configuration Hash'),
    firmware: text('Properties/Firmware'),
    fault: text('Robot/Fault Code'),
    faultMessage: text('Robot/Fault Message'),
    uptimeS: number('Host/Uptime'),
    clockSteps: number('Service/Clock Steps', 'Telemetry/Clock Steps'),
  };
}

/** What can be sorted and filtered by. */
export const FACT_NAMES: readonly string[] = [
  ...['node', 'group', 'link', 'state', 'version', 'slot', 'system', 'update', 'newest', 'model', 'modelHash', 'precision', 'plan', 'configuration'],
  ...['firmware', 'fault', 'uptimeS', 'clockSteps', 'sinceMs', 'heardMs'],
];

function checked(name: string): keyof RobotFacts {
  if (FACT_NAMES.includes(name)) return name as keyof RobotFacts;
  const meant = nearestName(name, FACT_NAMES);
  const message = `"${name}" is no fact of a robot${meant === undefined ? '' : `: did you mean ${meant}?`} Use one of ${FACT_NAMES.join(', ')}.`;
  throw new PremotorError('FLEET_FACT', message, { expected: FACT_NAMES.join(', '), found: name });
}

/**
 * Keeps robots of which every `fact=value` holds, `!=` for the opposite; a value may end in an asterisk; nothing stands for null. Errors: FLEET_FACT.
 */
export function filterFacts(facts: readonly RobotFacts[], filters: readonly string[]): readonly RobotFacts[] {
  const tests = filters.map((filter) => {
    const [, name = '', not = '', value = ''] = /^([^=!]+)(!?)=(.*)$/s.exec(filter) ?? [];
    const key = checked(name === '' ? filter : name);
    const matches = (found: string): boolean => (value.endsWith('*') ? found.startsWith(value.slice(0, -1)) : found === value);
    return (one: RobotFacts): boolean => matches(String(one[key] ?? '')) === (not === '');
  });
  return facts.filter((one) => tests.every((test) => test(one)));
}

/** By a fact, numbers by size and what is null last; a minus in front turns the order round. Ties keep theirs. Errors: FLEET_FACT. */
export function sortFacts(facts: readonly RobotFacts[], by: string): readonly RobotFacts[] {
  const isTurned = by.startsWith('-');
  const key = checked(isTurned ? by.slice(1) : by);
  const order = (a: RobotFacts, b: RobotFacts): number => {
    const [left, right] = [a[key], b[key]];
    if (left === null || right === null) return Number(left === null) - Number(right === null);
    const sign = isTurned ? -1 : 1;
    if (typeof left === 'number' && typeof right === 'number') return sign * (left - right);
    return sign * String(left).localeCompare(String(right), 'en', { numeric: true });
  };
  return facts.toSorted(order);
}
