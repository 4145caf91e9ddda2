/**
 * What is known of a run at any moment, as the page shows it: gathers what the tap tells into states, lists and histories, and asks the robot for the
 * rest when somebody looks. Owned by the dashboard; it sends nothing, waits for nothing and keeps a bounded amount.
 */
import type { CycleEvent, CycleReport } from '../control/events.js';
import type { Recovery } from '../policy/recovering.js';
import type { MotionSample, RunAbout, RunControl, RunEvent, ServiceReport } from '../tap/observer.js';
import { ChunkLog } from './chunks.js';
import { FaultList } from './faults.js';
import { MotionHistory } from './history.js';
import type { BudgetText, Phase, RunText, StateText, StopText } from './messages.js';
import { runText } from './run-text.js';

/** Predictions whose times are remembered. */
const TIMES_MAX = 512;

const RECOVERIES: Readonly<Record<Recovery['phase'], (recovery: Recovery) => string>> = {
  died: () => 'The engine process died. The arm holds while another one is started.',
  restarted: ({ elapsedMs, commits }) => `Another engine process is up after ${elapsedMs.toFixed(0)} ms. It rebuilds ${commits} commits.`,
  rebuilt: ({ elapsedMs }) => `The episode goes on where it was, ${elapsedMs.toFixed(0)} ms after the engine's death.`,
};

export class RunModel {
  readonly faults = new FaultList();
  run: RunText | null = null;
  motion: MotionHistory | undefined;
  chunks: ChunkLog | undefined;
  #control: RunControl | undefined;
  #phase: Phase = 'opening';
  #reason = '';
  #outcome: string | null = null;
  #timeS = 0;
  #reports = { chunks: 0, knots: 0, clampedKnots: 0 };
  #budget: Omit<BudgetText, 'p50Ms' | 'p99Ms' | 'maxMs'> | undefined;
  #predictMs: number[] = [];
  #latched = '';
  #service: StateText['service'] = null;

  begin(about: RunAbout, control: RunControl): void {
    const { frame_chunk_size: frames, action_per_frame } = about.job;
    this.#control = control;
    this.#timeS = Number(about.timeNs) / 1e9;
    this.run = runText(about);
    this.motion = new MotionHistory(about.joints.length);
    this.chunks = new ChunkLog({ isSynchronous: about.mode === 'sync', frames, frameS: action_per_frame / about.actionRateHz });
    this.#phase = 'running';
    this.#outcome = null;
    this.#reports = { chunks: 0, knots: 0, clampedKnots: 0 };
    this.#budget = undefined;
    this.#predictMs = [];
    for (const message of about.policy.warnings) this.faults.note('warning', { code: '', message }, this.#timeS);
  }

  /** Between two episodes there is a robot to show, and to stop. */
  attend(control: RunControl): void {
    this.#control = control;
  }

  service({ state, reasons }: ServiceReport): void {
    this.#service = { state, reasons: reasons.map(({ code, message }) => `${code}: ${message}`) };
  }

  sample(sample: MotionSample): void {
    this.motion?.add(sample);
  }

  event(event: RunEvent, timeNs: bigint): void {
    const timeS = Number(timeNs) / 1e9;
    // What was imagined is told with the time at which it was to come true.
    if (event.type !== 'imagined') this.#timeS = Math.max(this.#timeS, timeS);
    if (event.type === 'warning') this.faults.note('warning', event.error, timeS);
    if (event.type === 'recovery')
      this.faults.note('note', { code: 'ENGINE_DIED', message: RECOVERIES[event.recovery.phase](event.recovery) }, timeS);
    if (event.type === 'cycle') this.#cycle(event.event, timeS);
  }

  #cycle(event: CycleEvent, timeS: number): void {
    // Asking the stream costs something, and only a landing needs it.
    const expired = event.type === 'predicted' ? (this.#control?.status().counts['expired'] ?? 0) : 0;
    this.chunks?.note(event, timeS, expired);
    if (event.type === 'state') {
      const { to, reason } = event.transition;
      this.#reason = reason;
      if (to === 'fault') this.#fail(errorOf(reason), timeS);
    }
    if (event.type === 'committed') this.#report(event.report);
    if (event.type === 'holding') this.#outcome = event.why;
    if (event.type === 'ended') this.#ended(event.report, timeS);
  }

  #report({ predictMs, timing, rung, knots, clampedKnots }: CycleReport['chunks'][number]): void {
    const { chunks } = this.#reports;
    this.#reports = { chunks: chunks + 1, knots: this.#reports.knots + knots, clampedKnots: this.#reports.clampedKnots + clampedKnots };
    this.#predictMs = [...this.#predictMs.slice(-TIMES_MAX + 1), predictMs];
    const { encodeMs, commitMs, imagineMs, videoMs, actionMs } = timing;
    const parts = { encode: encodeMs, commit: commitMs, imagine: imagineMs, video: videoMs, action: actionMs };
    this.#budget = { predictMs, parts, ...(rung ? { rung } : {}) };
  }

  #ended({ outcome, error, holdError }: CycleReport, timeS: number): void {
    this.#outcome = outcome;
    // The transition has told of the first error; the report may know another.
    for (const one of [error, holdError]) if (one) this.#fail(one, timeS);
  }

  /** Transition, report and robot tell of the same fault: once is enough. */
  #fail(error: { readonly code: string; readonly message: string }, timeS: number): void {
    if (!this.#knows(error)) this.faults.note('fault', error, timeS);
  }

  #knows({ code, message }: { readonly code: string; readonly message: string }): boolean {
    return this.faults.list.some((one) => one.code === code && one.message === message);
  }

  end(): void {
    this.#phase = 'ended';
  }

  /** Everything that changes, now. */
  state(stop: StopText, viewers: number): StateText {
    const status = this.#control?.status();
    const cache = this.#control?.cache();
    if (status) {
      this.#timeS = Math.max(this.#timeS, Number(status.timeNs) / 1e9);
      this.#noteLatched(status.faultCode, status.faultMessage);
    }
    const { capacity = 0, valid = 0, committed = 0, predicted = 0 } = cache ?? {};
    return {
      timeS: this.#timeS,
      phase: this.#phase,
      state: status?.state ?? 'disarmed',
      reason: this.#reason,
      outcome: this.#outcome,
      stream: status?.stream ?? 'unknown',
      link: status?.link ?? 'unknown',
      bridge: status?.bridge ?? 'unknown',
      isAtRest: status?.isAtRest ?? true,
      faultCode: status?.faultCode ?? '',
      counts: status?.counts ?? {},
      temperaturesC: status?.temperaturesC ?? {},
      cache: { capacity, valid, committed, predicted },
      budget: this.#budgetText(),
      ...this.#reports,
      stop,
      viewers,
      service: this.#service,
    };
  }

  /** A fault of the stream or the bridge that the cycle has not met yet, or will not any more. */
  #noteLatched(code: string, message: string): void {
    if (code === this.#latched) return;
    this.#latched = code;
    if (code === '' || this.faults.list.some((one) => one.code === code)) return;
    this.faults.note('fault', { code, message: message === '' ? 'Latched by the setpoint stream or the bridge.' : message }, this.#timeS);
  }

  #budgetText(): BudgetText | null {
    if (!this.#budget) return null;
    const sorted = [...this.#predictMs].sort((a, b) => a - b);
    const rank = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
    return { ...this.#budget, p50Ms: rank(0.5), p99Ms: rank(0.99), maxMs: rank(1) };
  }
}

/** "CODE: message", as the lifecycle gives the reason of a fault. */
function errorOf(reason: string): { readonly code: string; readonly message: string } {
  const [, code = '', message = reason] = /^([A-Z0-9_]+): ([\s\S]*)$/.exec(reason) ?? [];
  return { code, message };
}
