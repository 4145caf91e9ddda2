/**
 * Talks to the long-running service through its control socket: one request a line, one answer. Asks it to keep still while something is written, and
 * whether it is well afterwards. Owned by the update commands; it never arms, and never runs anything.
 */
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { exchangeLine } from '../exchange-line.js';
import { running } from '../runtime/registry.js';
import type { Places } from './places.js';
import { runTool } from './tools.js';

const ANSWER_TIMEOUT_MS = 5000;
const SYSTEMCTL_TIMEOUT_MS = 10_000;

const reason = z.object({ code: z.string(), message: z.string() });

const statusSchema = z.object({
  version: z.string().optional(),
  state: z.string(),
  armed: z.boolean(),
  atRest: z.boolean(),
  reasons: z.array(reason).default([]),
  telemetry: z.object({ enabled: z.boolean(), connected: z.boolean() }),
  policy: z.object({ loaded: z.boolean(), checkpoint: z.string().optional() }),
  configuration: z.object({ file: z.string().optional() }).default({}),
});
export type ServiceStatus = Readonly<z.output<typeof statusSchema>>;

const answerSchema = z.object({
  ok: z.boolean(),
  status: z.unknown().optional(),
  error: z.object({ code: z.string(), message: z.string() }).optional(),
});
type Answer = Readonly<z.output<typeof answerSchema>>;

/** Nobody listens: there is no socket, or one that a process left behind. */
const ABSENT = Symbol('absent');

/** The status, or undefined when no service listens. Errors: UPDATE_SERVICE_UNREACHABLE. */
export async function serviceStatus({ socket }: Pick<Places, 'socket'>): Promise<ServiceStatus | undefined> {
  const answer = await ask(socket, { do: 'status' });
  if (answer === ABSENT) return undefined;
  const status = statusSchema.safeParse(answer.status);
  if (status.success) return status.data;
  throw unreachable(socket, `an answer without a status (${answer.error?.message ?? status.error.message.slice(0, 200)})`);
}

export interface Quiet {
  /** What the operator should know. */
  readonly remark?: string;
  /** Lets the robot be armed again. Never rejects: what was written stays written. */
  release(): Promise<void>;
}

/**
 * Makes sure that the robot is disarmed and still, and stays so until released. Errors: UPDATE_ROBOT_ACTIVE (armed, moving, or the service refuses),
 * UPDATE_SERVICE_UNREACHABLE (something runs, but does not answer).
 */
export async function keepStill(places: Places): Promise<Quiet> {
  const status = await serviceStatus(places);
  if (status === undefined) {
    await checkNothingRuns(places);
    return { remark: 'No service runs here, so nothing had to be kept still.', release: async () => undefined };
  }
  if (status.armed || !status.atRest) throw active(`${status.state}, ${status.armed ? 'armed' : 'disarmed'}, ${status.atRest ? 'still' : 'moving'}`);
  // Somebody who keeps it still already also lets it go.
  if (status.state === 'maintenance') return { release: async () => undefined };
  const answer = await ask(places.socket, { do: 'maintenance', on: true, reason: 'update' });
  if (answer === ABSENT) throw unreachable(places.socket, 'a service that ended meanwhile');
  if (!answer.ok) throw active(answer.error?.message ?? 'a refusal without a reason');
  return { release: () => letGo(places) };
}

/** Ends maintenance; a service that is gone needs none. */
export async function letGo({ socket }: Pick<Places, 'socket'>): Promise<void> {
  await ask(socket, { do: 'maintenance', on: false, reason: 'update' }).catch(() => undefined);
}

/** A stream process outlives its supervisor and holds the motors, so the absence of a socket proves nothing. */
async function checkNothingRuns({ registry, socket }: Places): Promise<void> {
  const [first] = running(registry);
  if (first !== undefined) throw unreachable(socket, `no answer, but process ${first.pid} (${first.kind}, ${first.about}) runs`);
  const state = await runTool('systemctl', ['is-active', 'premotor.service'], { timeout_ms: SYSTEMCTL_TIMEOUT_MS })
    .then(({ out }) => out.trim())
    .catch(() => 'unknown');
  if (['active', 'activating', 'deactivating', 'reloading'].includes(state)) throw unreachable(socket, `no answer, but premotor.service is ${state}`);
}

async function ask(path: string, request: Readonly<Record<string, unknown>>): Promise<Answer | typeof ABSENT> {
  let line: string;
  try {
    line = await exchangeLine(path, JSON.stringify(request), ANSWER_TIMEOUT_MS);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return ABSENT;
    throw unreachable(path, code === 'EACCES' ? 'no right to open it: run this as root' : message, cause);
  }
  try {
    return answerSchema.parse(JSON.parse(line));
  } catch (cause) {
    throw unreachable(path, `an answer that is none (${JSON.stringify(line.slice(0, 80))})`, cause);
  }
}

function active(found: string): PremotorError {
  const expected = 'a robot that is disarmed and still';
  const message = `The robot is in use: expected ${expected}, found ${found}. Nothing was written. Disarm it, wait until it rests, and try again.`;
  return new PremotorError('UPDATE_ROBOT_ACTIVE', message, { expected, found });
}

function unreachable(socket: string, found: string, cause?: unknown): PremotorError {
  const expected = 'the service to answer, or nothing of premotor to run';
  const message =
    `Whether the robot is still cannot be told: expected ${expected}, found ${found}. Nothing was written. ` +
    'Stop the service (systemctl stop premotor), or premotor stop, and try again.';
  return new PremotorError('UPDATE_SERVICE_UNREACHABLE', message, { file: socket, expected, found, cause });
}
