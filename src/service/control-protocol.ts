/**
 * What is said over the service's control socket: one JSON object a line, one answer a line. Shared by the service and by the commands that ask
 * it. Whoever may open the socket is local; nothing here comes from a network.
 */
import { join } from 'node:path';
import { z } from 'zod';
import type { RobotConfig } from '../config/schema.js';
import type { PremotorError } from '../errors.js';
import { registryFolder } from '../runtime/registry.js';
import { SERVICE_STATES } from './states.js';

const text = z.string().min(1).max(1000);

export const requestSchema = z.discriminatedUnion('do', [
  z.strictObject({ do: z.literal('status') }),
  z.strictObject({ do: z.literal('arm') }),
  z.strictObject({ do: z.literal('disarm') }),
  z.strictObject({ do: z.literal('run'), task: text.optional(), seed: z.int().min(0).max(4_294_967_295).optional(), instruction: text.optional() }),
  z.strictObject({ do: z.literal('stop') }),
  z.strictObject({ do: z.literal('clear') }),
  z.strictObject({ do: z.literal('maintenance'), on: z.boolean(), reason: text.optional() }),
]);
export type ControlRequest = Readonly<z.output<typeof requestSchema>>;

const reasonSchema = z.object({ code: z.string(), message: z.string() });

/** Unknown members are kept out: a newer service may say more. */
export const statusSchema = z.object({
  version: z.string(),
  state: z.enum(SERVICE_STATES),
  armed: z.boolean(),
  atRest: z.boolean(),
  /** Of the state, ISO 8601. */
  since: z.string(),
  /** Why it is not further. */
  reasons: z.array(reasonSchema),
  /** What does not keep it from moving. */
  remarks: z.array(reasonSchema),
  autonomy: z.enum(['local-arm', 'arm-on-boot']),
  robot: z.object({ stream: z.string(), link: z.string(), bridge: z.string(), faultCode: z.string() }),
  telemetry: z.object({ enabled: z.boolean(), connected: z.boolean() }),
  policy: z.object({ loaded: z.boolean(), checkpoint: z.string(), precision: z.string(), plan: z.string().nullable() }),
  configuration: z.object({ file: z.string(), hash: z.string() }),
  /** Of the setpoint stream that were seen since the robot was opened, with power or without. */
  cycles: z.int(),
  maintenance: z.object({ on: z.boolean(), reason: z.string() }),
  /** Episodes that ended, and how the last one did. */
  episodes: z.object({ ended: z.int(), succeeded: z.int(), last: z.string().nullable() }),
  clock: z.object({ steps: z.int(), lastStepMs: z.int() }),
});
export type ServiceStatus = z.output<typeof statusSchema>;

export const answerSchema = z.union([
  z.object({ ok: z.literal(true), status: statusSchema.optional() }),
  z.object({
    ok: z.literal(false),
    error: z.object({ code: z.string(), message: z.string(), expected: z.string().optional(), found: z.string().optional() }),
  }),
]);
export type ControlAnswer = z.output<typeof answerSchema>;

export function refusal({ code, message, expected, found }: PremotorError): ControlAnswer {
  return { ok: false, error: { code, message, ...(expected === undefined ? {} : { expected }), ...(found === undefined ? {} : { found }) } };
}

/** A longer line is none of ours. */
export const LINE_BYTES_MAX = 16 * 1024;

const SOCKET_NAME = 'control.sock';

/** Where a service of this user, or of this machine's runtime folder, listens. */
export const defaultSocket = (): string => join(registryFolder(), SOCKET_NAME);

/** Where the service of a robot listens that systemd started. */
export const SYSTEM_SOCKET = `/run/premotor/${SOCKET_NAME}`;

/** Where the service of a configuration listens. */
export const socketOf = ({ service }: Pick<RobotConfig, 'service'>): string => service.control_socket ?? defaultSocket();
