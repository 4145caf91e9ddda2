/**
 * What systemd is told (sd_notify): ready, what the service does in words, that it lives, that it ends. Owned by the service. A sign of life is
 * sent only by a look that came to its end and saw the robot's own cycles advance; there is no timer here that could go on when those stand still.
 */
import type { PremotorError } from '../errors.js';
import { callNativeNow, loadNative } from '../native.js';

/** Sends one message; throws when it cannot. */
export type Send = (text: string) => void;

/** What a look has seen of those who have to be alive. */
export interface Evidence {
  /** Cycles of the setpoint stream so far, of the robot that is open now; undefined: none is. */
  readonly cycles: number | undefined;
  /** A running episode has got somewhere within its bound, or none runs. */
  readonly isProgressing: boolean;
}

const STATUS_CHARACTERS_MAX = 200;

export class Notifier {
  readonly #send: Send | undefined;
  readonly #onWarning: (error: PremotorError) => void;
  #cycles: number | undefined;
  #status = '';
  #hasWarned = false;

  /** `send`: undefined when nobody wants to be told. */
  constructor(send: Send | undefined, onWarning: (error: PremotorError) => void) {
    this.#send = send;
    this.#onWarning = onWarning;
  }

  ready(): void {
    this.#tell('READY=1');
  }

  /** In one line; told when it has changed. */
  status(text: string): void {
    const line = text.replaceAll(/\s+/g, ' ').slice(0, STATUS_CHARACTERS_MAX);
    if (line === this.#status) return;
    this.#status = line;
    this.#tell(`STATUS=${line}`);
  }

  /** At the end of a look. Returns whether it was a sign of life. */
  looked({ cycles, isProgressing }: Evidence): boolean {
    // Another robot, or the same one opened anew, counts from 0: any difference is an advance.
    const advances = cycles === undefined || cycles !== this.#cycles;
    this.#cycles = cycles;
    if (!advances || !isProgressing) return false;
    this.#tell('WATCHDOG=1');
    return true;
  }

  stopping(): void {
    this.#tell('STOPPING=1');
  }

  #tell(text: string): void {
    try {
      this.#send?.(text);
      this.#hasWarned = false;
    } catch (error) {
      if (this.#hasWarned) return;
      this.#hasWarned = true;
      this.#onWarning(error as PremotorError);
    }
  }
}

/** To the socket that systemd names; undefined without one. Its name is taken out of the environment: what this process starts is not the service. */
export function systemdSend(environment: NodeJS.ProcessEnv = process.env): Send | undefined {
  const address = environment['NOTIFY_SOCKET'];
  if (address === undefined || address === '') return undefined;
  delete environment['NOTIFY_SOCKET'];
  return (text) => callNativeNow(() => loadNative().notify(address, text));
}

/** How often systemd wants a sign of life, milliseconds; undefined: it does not. WATCHDOG_PID names the process that is meant. */
export function watchdogMs(environment: NodeJS.ProcessEnv = process.env): number | undefined {
  const usec = Number(environment['WATCHDOG_USEC']);
  const pid = environment['WATCHDOG_PID'];
  if (!Number.isFinite(usec) || usec <= 0) return undefined;
  return pid === undefined || pid === String(process.pid) ? usec / 1000 : undefined;
}
