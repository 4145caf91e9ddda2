/**
 * Asks the service of this machine over its control socket. Owned by the commands; it knows no state of its own, and every request is one
 * connection.
 */
import { existsSync } from 'node:fs';
import { PremotorError } from '../errors.js';
import { exchangeLine } from '../exchange-line.js';
import { answerSchema, type ControlRequest, defaultSocket, type ServiceStatus, SYSTEM_SOCKET } from './control-protocol.js';

/** Arming takes seconds; whoever waits longer for an answer waits for a service that hangs. */
const ANSWER_MS_MAX = 30_000;

/** The socket that is meant when none is named: of this user's service, else of the robot's. */
export function findSocket(named?: string): string {
  if (named !== undefined) return named;
  const own = defaultSocket();
  return !existsSync(own) && existsSync(SYSTEM_SOCKET) ? SYSTEM_SOCKET : own;
}

/** The answer's status, where it has one. Errors: SERVICE_ABSENT, CONTROL_ANSWER, and whatever the service refuses with. */
export async function ask(path: string, request: ControlRequest, answer_ms_max = ANSWER_MS_MAX): Promise<ServiceStatus | undefined> {
  const line = await exchange(path, JSON.stringify(request), answer_ms_max);
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw strange(path, 'no JSON');
  }
  const parsed = answerSchema.safeParse(value);
  if (!parsed.success) throw strange(path, 'an answer of another version');
  const answer = parsed.data;
  if (answer.ok) return answer.status;
  const { code, message, expected, found } = answer.error;
  throw new PremotorError(code, message, { ...(expected === undefined ? {} : { expected }), ...(found === undefined ? {} : { found }) });
}

async function exchange(path: string, request: string, answer_ms_max: number): Promise<string> {
  try {
    return await exchangeLine(path, request, answer_ms_max);
  } catch (cause) {
    const error = cause as NodeJS.ErrnoException;
    throw error.code === undefined ? strange(path, error.message) : absent(path, error);
  }
}

function absent(path: string, cause: Error): PremotorError {
  const isForbidden = (cause as NodeJS.ErrnoException).code === 'EACCES';
  const remedy = isForbidden
    ? 'Ask as root or as a member of the group premotor.'
    : 'Start it with "premotor service CONFIG" or "systemctl start premotor".';
  const found = isForbidden ? 'a socket that this user may not open' : cause.message;
  const message = `No service answers at ${path}: expected a running "premotor service", found ${found}. ${remedy}`;
  return new PremotorError('SERVICE_ABSENT', message, { file: path, expected: 'a running service', found, cause });
}

function strange(path: string, found: string): PremotorError {
  const message = `The service at ${path} does not answer as it should: expected one line of JSON, found ${found}. Look at its log.`;
  return new PremotorError('CONTROL_ANSWER', message, { file: path, expected: 'one line of JSON', found });
}
