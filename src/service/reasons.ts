/**
 * Reasons and refusals of the service in words: why the robot does no more than it does, and why a request is not followed. Pure text, shared by
 * the service and its checks.
 */
import { PremotorError } from '../errors.js';
import type { ServiceStatus } from './control-protocol.js';

/** Why the robot does no more, in a code and in words. */
export interface Reason {
  readonly code: string;
  readonly message: string;
}

export const FOUND_HOLDING: Reason = {
  code: 'FOUND_HOLDING',
  message: 'The robot was found holding with power, as an earlier service left it. It goes on when somebody local asks: premotor arm, premotor go.',
};

export const stoppedFor = (reason: string): Reason => ({ code: 'STOPPED', message: `${reason}. It goes on when somebody local asks: premotor arm.` });

export const lockedFor = (reason: string): Reason => ({ code: 'MAINTENANCE', message: `Locked for maintenance: ${reason}.` });

/** A request that the present state does not allow. */
export function refused(what: string, expected: string, { state, reasons }: Pick<ServiceStatus, 'state' | 'reasons'>): PremotorError {
  const found = [state, ...reasons.map(({ code }) => code)].join(', ');
  const first = reasons[0] ? ` ${reasons[0].message}` : '';
  const message = `"${what}" is not possible now: expected ${expected}, found ${found}.${first}`;
  return new PremotorError('SERVICE_STATE', message, { expected, found });
}

export function clockStepped(byMs: number): PremotorError {
  const remedy = `Nothing of the robot reads it; times in logs and recordings before and after differ by so much.`;
  const message = `The wall clock was stepped by ${byMs} ms. ${remedy}`;
  return new PremotorError('CLOCK_STEPPED', message, { expected: 'a clock that runs evenly', found: `${byMs} ms` });
}

/** Waits for work, but no longer than so. */
export async function withinMs(work: Promise<unknown>, wait_ms_max: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, wait_ms_max);
  });
  await Promise.race([work, late]);
  clearTimeout(timer);
}
