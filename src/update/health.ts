/**
 * Whether a robot is well after an update: its service gets ready, telemetry connects where it is on, the policy is loaded, one chunk of the model is
 * what it should be. Within one bound, each finding with a name. Owned by whoever put something on trial; it changes nothing.
 */
import { PremotorError } from '../errors.js';
import type { Places } from './places.js';
import { type ServiceStatus, serviceStatus } from './service.js';

/** How often the service is asked. */
const ASK_PERIOD_MS = 1000;
/** States of a service that could move the robot. */
const WELL = ['ready', 'holding', 'running'];

export interface Finding {
  readonly check: 'service' | 'telemetry' | 'policy' | 'selftest';
  readonly ok: boolean;
  readonly found: string;
}

export interface Health {
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}

export interface HealthWants {
  /** Bound of everything together. */
  readonly timeout_ms: number;
  readonly telemetry: boolean;
  readonly signal?: AbortSignal;
  /** Runs the self-test of a configuration, `timeout_ms` a whole number; absent where it is not asked for. */
  readonly selftest?: (configuration: string, timeout_ms: number) => Promise<string>;
  readonly onWait?: (what: string, waited_ms: number, of_ms: number) => void;
}

/** Never rejects for a robot that is not well, only when it is interrupted. */
export async function examineHealth(places: Pick<Places, 'socket'>, wants: HealthWants): Promise<Health> {
  const started = performance.now();
  const { status, findings } = await untilWell(places, wants);
  const file = status?.configuration.file;
  if (findings.every(({ ok }) => ok) && wants.selftest !== undefined && file !== undefined) {
    const left_ms = Math.max(1, Math.round(wants.timeout_ms - (performance.now() - started)));
    wants.onWait?.('running the self-test', performance.now() - started, wants.timeout_ms);
    findings.push(
      await wants.selftest(file, left_ms).then(
        (found): Finding => ({ check: 'selftest', ok: true, found }),
        (error: Error): Finding => ({ check: 'selftest', ok: false, found: error.message }),
      ),
    );
  }
  return { ok: findings.every(({ ok }) => ok), findings };
}

interface Look {
  readonly status: ServiceStatus | undefined;
  readonly findings: Finding[];
}

/** What a status says. A service that is latched in a fault will not get well by waiting. */
function judge(status: ServiceStatus | undefined, telemetry: boolean): Finding[] {
  if (status === undefined) return [{ check: 'service', ok: false, found: 'no service answers' }];
  const why = status.reasons.map(({ code, message }) => `${code}: ${message}`).join('; ');
  const findings: Finding[] = [{ check: 'service', ok: WELL.includes(status.state), found: why === '' ? status.state : `${status.state} (${why})` }];
  if (telemetry && status.telemetry.enabled) {
    findings.push({ check: 'telemetry', ok: status.telemetry.connected, found: status.telemetry.connected ? 'connected' : 'not connected' });
  }
  findings.push({ check: 'policy', ok: status.policy.loaded, found: status.policy.loaded ? (status.policy.checkpoint ?? 'loaded') : 'not loaded' });
  return findings;
}

function untilWell(places: Pick<Places, 'socket'>, { timeout_ms, telemetry, signal, onWait }: HealthWants): Promise<Look> {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    let asking = false;
    const end = (): void => clearInterval(timer);
    const look = async (): Promise<void> => {
      // A slow answer must not pile up questions.
      if (asking) return;
      asking = true;
      const status = await serviceStatus(places).catch(() => undefined);
      asking = false;
      const findings = judge(status, telemetry);
      const waited_ms = performance.now() - started;
      if (signal?.aborted === true) {
        end();
        reject(new PremotorError('ABORTED', 'Waiting for the service was interrupted; what is on trial stays on trial.'));
      } else if (findings.every(({ ok }) => ok) || status?.state === 'fault' || waited_ms >= timeout_ms) {
        end();
        resolve({ status, findings });
      } else onWait?.(`waiting for the service: ${findings.find(({ ok }) => !ok)?.found}`, waited_ms, timeout_ms);
    };
    const timer = setInterval(() => void look(), Math.min(ASK_PERIOD_MS, timeout_ms));
    void look();
  });
}

/** The findings that are not well, in words. */
export const unwell = ({ findings }: Health): string[] => findings.filter(({ ok }) => !ok).map(({ check, found }) => `${check}: ${found}`);
