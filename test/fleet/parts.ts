/** What the fleet tests share: messages of robots as their bytes, and facts of a robot that is well. Not a test itself. */
import type { RobotFacts } from '../../src/fleet/facts.js';
import { encodePayload, type Metric } from '../../src/telemetry/payload.js';

export const GROUP = 'plant';

/** What a test's robot says at its birth; aliases count from 2. */
export const VALUES: Readonly<Record<string, string | number | null>> = {
  'Robot/State': 'holding',
  'Robot/Fault Code': '',
  'Run/Version': '0.1.0',
  'Properties/Checkpoint': 'tabletop',
  'Host/Uptime': 3600,
  'Update/Slot': 'A',
  'Update/Version': '1.3.0',
};

const metricOf = (name: string, value: string | number | null, alias: number): Metric => ({
  name,
  alias,
  type: name === 'Host/Uptime' ? 'Int64' : 'String',
  saysType: true,
  value,
});

export function birth(bdSeq: number, values: Readonly<Record<string, string | number | null>> = VALUES, seq = 0): Uint8Array {
  const metrics = Object.entries(values).map(([name, value], index) => metricOf(name, value, index + 2));
  return encodePayload({ timestampMs: 1, seq, metrics: [{ name: 'bdSeq', alias: 1, type: 'UInt64', saysType: true, value: bdSeq }, ...metrics] });
}

/** Data has aliases alone. */
export function data(seq: number, changes: Readonly<Record<string, string | number>>, more: Partial<Metric> = {}): Uint8Array {
  const names = Object.keys(VALUES);
  const metrics = Object.entries(changes).map(
    ([name, value]): Metric => ({
      alias: names.indexOf(name) + 2,
      type: name === 'Host/Uptime' ? 'Int64' : 'String',
      value,
      ...more,
    }),
  );
  return encodePayload({ timestampMs: 2, seq, metrics });
}

export const death = (bdSeq: number): Uint8Array =>
  encodePayload({ timestampMs: 3, metrics: [{ name: 'bdSeq', type: 'UInt64', saysType: true, value: bdSeq }] });

export const topic = (verb: string, node: string): string => `spBv1.0/${GROUP}/${verb}/${node}`;

export const fact = (node: string, more: Partial<RobotFacts> = {}): RobotFacts => ({
  group: GROUP,
  node,
  link: 'online',
  sinceMs: 0,
  heardMs: 0,
  why: '',
  state: 'holding',
  version: '0.1.0',
  slot: 'A',
  system: '1.3.0',
  update: null,
  newest: null,
  model: 'tabletop',
  modelHash: null,
  precision: null,
  plan: null,
  configuration: null,
  firmware: null,
  fault: null,
  faultMessage: null,
  uptimeS: 100_000,
  clockSteps: 0,
  ...more,
});
