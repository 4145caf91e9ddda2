/**
 * What the tap tells, as values of metrics: follows the events of a run, sums the motion up between two messages, asks for status and cache. Owned by
 * the telemetry of a run; it sends nothing and asks the robot for nothing but its status.
 */
import { basename } from 'node:path';
import { z } from 'zod';
import { configurationHash } from '../config/hash.js';
import type { ChunkReport, CycleEvent, CycleReport } from '../control/events.js';
import type { PremotorError } from '../errors.js';
import type { MotionSample, RobotStatus, RunControl, RunEvent, ServiceReport, StandbyAbout } from '../tap/observer.js';
import type { MetricNames } from './metrics.js';
import { STOP } from './metrics.js';
import type { Reporter } from './reporter.js';

/** What metrics are named after, as a run knows it. */
export function namesOf(about: StandbyAbout, status: RobotStatus, hostSensors: readonly string[]): MetricNames {
  return {
    joints: about.joints.map(({ name }) => name),
    counts: Object.keys(status.counts),
    sensors: Object.keys(status.temperaturesC),
    hostSensors,
  };
}

const HASH_DIGITS = 16;
/** As much of a configuration as telemetry names. */
const named = z.object({ policy: z.object({ plan: z.string().optional() }) });

/** What runs on the robot, by the names of metrics. */
function propertiesOf({ checkpoint, policy, configuration }: StandbyAbout): readonly (readonly [string, string])[] {
  const plan = named.safeParse(configuration).data?.policy.plan;
  // A folder is told by its name: where it lies on a robot is nobody's business.
  const model = URL.canParse(checkpoint) ? checkpoint : basename(checkpoint);
  return [
    ['Properties/Checkpoint', model],
    ['Properties/Checkpoint Hash', policy?.checkpointHash.slice(0, HASH_DIGITS) ?? ''],
    ['Properties/Precision', policy?.precision ?? ''],
    ['Properties/Backend', policy?.backend ?? ''],
    ['Properties/Plan', plan === undefined ? '' : basename(plan)],
    ['Properties/Configuration Hash', configurationHash(configuration)],
  ];
}

/** Smaller than every amount: nothing was measured. */
const NONE = -1;
const known = (amount = NONE): number | null => (amount < 0 ? null : amount);

export class Sampler {
  readonly #reporter: Reporter;
  readonly #nowMs: () => number;
  readonly #joints: readonly string[];
  readonly #counts: ReadonlyMap<string, string>;
  /** [joints], since the last call of sample(). */
  readonly #errorMaxRad: Float64Array;
  readonly #velocityMaxRadPerS: Float64Array;
  readonly #positionsRad: Float64Array;
  #hasMotion = false;
  /** Code of the fault that the robot has latched. */
  #latched = '';
  #chunks = 0;
  #warnings = 0;
  #recoveries = 0;

  constructor(reporter: Reporter, about: StandbyAbout, nowMs: () => number) {
    this.#reporter = reporter;
    this.#nowMs = nowMs;
    this.#joints = about.joints.map(({ name }) => name);
    this.#errorMaxRad = new Float64Array(this.#joints.length);
    this.#velocityMaxRadPerS = new Float64Array(this.#joints.length);
    this.#positionsRad = new Float64Array(this.#joints.length);
    this.#forget();
    const counts = [...reporter.values()].flatMap(({ spec }) => (spec.name.startsWith('Motion/') ? [spec] : []));
    this.#counts = new Map(counts.map(({ name, prometheus }) => [prometheus.labels['event'] ?? '', name]));
    this.#set(STOP, false);
    for (const [name, value] of [
      ['Run/Id', about.id],
      ['Run/Version', about.version],
      ['Run/Task', about.task],
      ['Run/Instruction', about.instruction],
      ['Run/Mode', about.mode],
      ['Run/Chunks Max', about.chunksMax],
      ...propertiesOf(about),
      ['Robot/Fault Code', ''],
      ['Robot/Fault Message', ''],
      ['Run/Warnings', 0],
      ['Engine/Recoveries', 0],
      ['Engine/State', 'ready'],
      ['Chunk/Done', 0],
    ] as const) {
      this.#set(name, value);
    }
  }

  event(event: RunEvent): void {
    if (event.type === 'cycle') this.#cycle(event.event);
    if (event.type === 'warning') this.warning(event.error);
    if (event.type === 'recovery') {
      const { phase } = event.recovery;
      if (phase === 'died') this.#set('Engine/Recoveries', ++this.#recoveries);
      this.#set('Engine/State', phase === 'rebuilt' ? 'ready' : phase);
    }
  }

  warning({ code }: PremotorError): void {
    this.#set('Run/Warnings', ++this.#warnings);
    this.#set('Run/Warning', code);
  }

  service({ state, reasons, autonomy, isArmed, isInMaintenance, clockSteps, lastClockStepMs }: ServiceReport): void {
    this.#set('Service/State', state);
    this.#set('Service/Reasons', reasons.map(({ code, message }) => `${code}: ${message}`).join('; '));
    this.#set('Service/Autonomy', autonomy);
    this.#set('Service/Armed', isArmed);
    this.#set('Service/Maintenance', isInMaintenance);
    this.#set('Service/Clock Steps', clockSteps);
    this.#set('Service/Last Clock Step', lastClockStepMs);
  }

  motion({ setpointRad, positionsRad, velocitiesRadPerS }: MotionSample): void {
    this.#hasMotion = true;
    for (let joint = 0; joint < this.#joints.length; joint++) {
      const position = positionsRad[joint] ?? Number.NaN;
      // A setpoint that is none, NaN, compares as no larger.
      const error = Math.abs((setpointRad[joint] ?? Number.NaN) - position);
      const velocity = Math.abs(velocitiesRadPerS[joint] ?? Number.NaN);
      this.#positionsRad[joint] = position;
      if (error > (this.#errorMaxRad[joint] ?? NONE)) this.#errorMaxRad[joint] = error;
      if (velocity > (this.#velocityMaxRadPerS[joint] ?? NONE)) this.#velocityMaxRadPerS[joint] = velocity;
    }
  }

  /** Brings everything up to date that no event tells; to be called before a message. */
  sample(control: RunControl): void {
    this.#status(control.status());
    if (this.#hasMotion) this.#sumUp();
    const { capacity, valid, committed, predicted } = control.cache();
    for (const [name, value] of [
      ['Cache/Capacity', capacity],
      ['Cache/Valid', valid],
      ['Cache/Committed', committed],
      ['Cache/Predicted', predicted],
      ['Cache/Fill', (100 * valid) / capacity],
    ] as const) {
      this.#set(name, value);
    }
  }

  end(report: CycleReport | undefined): void {
    this.#set('Run/Outcome', report?.outcome ?? 'failed');
    const { stopReason, error } = report ?? {};
    if (stopReason !== undefined) this.#set('Run/Stop Reason', stopReason);
    if (error) {
      this.#set('Robot/Fault Code', error.code);
      this.#set('Robot/Fault Message', error.message);
    }
  }

  #set(name: string, value: number | string | boolean | null): void {
    this.#reporter.set(name, value, this.#nowMs());
  }

  #status({ state, stream, link, bridge, faultCode, faultMessage, isAtRest, counts, temperaturesC, firmware }: RobotStatus): void {
    this.#set('Properties/Firmware', firmware ?? null);
    this.#set('Robot/State', state);
    this.#set('Robot/Stream', stream);
    this.#set('Robot/Link', link);
    this.#set('Robot/Bridge', bridge);
    this.#set('Robot/At Rest', isAtRest);
    // What ended the episode stays until something is latched or a new run begins.
    if (faultCode !== '' || this.#latched !== '') {
      this.#set('Robot/Fault Code', faultCode);
      this.#set('Robot/Fault Message', faultMessage);
      this.#latched = faultCode;
    }
    for (const [count, value] of Object.entries(counts)) this.#set(this.#counts.get(count) ?? '', value);
    for (const [sensor, celsius] of Object.entries(temperaturesC)) this.#set(`Robot/Temperature/${sensor}`, celsius);
  }

  #sumUp(): void {
    this.#joints.forEach((joint, index) => {
      this.#set(`Joint/${joint}/Position`, this.#positionsRad[index] ?? null);
      this.#set(`Joint/${joint}/Setpoint Error Max`, known(this.#errorMaxRad[index]));
      this.#set(`Joint/${joint}/Velocity Max`, known(this.#velocityMaxRadPerS[index]));
    });
    this.#forget();
  }

  #forget(): void {
    this.#errorMaxRad.fill(NONE);
    this.#velocityMaxRadPerS.fill(NONE);
    this.#hasMotion = false;
  }

  #cycle(event: CycleEvent): void {
    if (event.type === 'state') {
      const { to, reason } = event.transition;
      this.#set('Robot/State', to);
      if (to === 'fault') this.#fault(reason);
    }
    if (event.type === 'committed') this.#chunk(event.report);
  }

  /** The reason of a fault is its code and its message. */
  #fault(reason: string): void {
    const [, code = 'INTERNAL', message = reason] = /^([A-Z][A-Z0-9_]*): (.*)$/s.exec(reason) ?? [];
    this.#set('Robot/Fault Code', code);
    this.#set('Robot/Fault Message', message);
  }

  #chunk({ rung, timing, ...report }: ChunkReport): void {
    this.#set('Chunk/Done', ++this.#chunks);
    for (const [name, value] of [
      ['Predict Time', report.predictMs],
      ['Execute Time', report.executeMs],
      ['Commit Time', report.commitMs],
      ['Encode Time', timing.encodeMs],
      ['Video Time', timing.videoMs],
      ['Action Time', timing.actionMs],
      ['Delay', report.delayKnots],
      ['Knots', report.knots],
      ['Knots Clamped', report.clampedKnots],
      ['Assumed Frames', report.assumedFrames],
      ['Frame Age Max', report.frameAgeMsMax],
      ['Frame Skew Max', report.frameSkewMsMax],
    ] as const) {
      this.#set(`Chunk/${name}`, value);
    }
    this.#set('Budget/Rung', rung?.index ?? null);
    this.#set('Budget/Fits', rung?.fits ?? null);
  }
}
