/**
 * What the service keeps open for as long as it lives: the robot with its cameras, and the policy. Owned by the service, which says when they are
 * wanted and what they are used for. It opens again what could not be opened or was lost, counts engines that died, and arms nothing.
 */
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import type { LoadPolicyOptions, Policy } from '../policy/contract.js';
import { openPolicy } from '../runtime/open-policy.js';
import type { Rig } from '../runtime/rig.js';
import type { MotionSample } from '../tap/observer.js';
import { Keeper } from './keeper.js';
import { LentPolicy } from './lent-policy.js';
import type { ServiceLog } from './log.js';
import type { Starts } from './starts.js';

export interface EquipmentParts {
  readonly config: RobotConfig;
  readonly openRig: (config: RobotConfig) => Promise<Rig>;
  readonly loadPolicy: (options: LoadPolicyOptions) => Promise<Policy>;
  readonly starts: Starts;
  readonly log: ServiceLog;
  readonly monotonicMs: () => number;
  /** The robot is there, or another one in its place. */
  readonly onRig: (rig: Rig) => void;
  /** It could not be opened, for the first time. */
  readonly onNoRig: () => void;
  readonly onMotion: (sample: MotionSample) => void;
}

const MS_NS = 1_000_000;
/** States of the stream in which the motors have power. */
const POWERED: readonly string[] = ['holding', 'following', 'expiring', 'stopping'];

export class Equipment {
  readonly #parts: EquipmentParts;
  readonly #robot: Keeper<Rig>;
  readonly #engine: Keeper<Policy>;
  /** What the simulated world of the present robot was set up for; undefined once an episode has used it. */
  #scene: string | undefined;
  #unwatch: (() => void) | undefined;
  #cycles = 0;
  #hasTried = false;
  /** The end of a robot whose stream process died. */
  #buried: Promise<void> = Promise.resolve();

  constructor(parts: EquipmentParts) {
    const { config, log, monotonicMs } = parts;
    const retry = { retryMs: config.service.retry_s * 1000, monotonicMs };
    this.#parts = parts;
    this.#robot = new Keeper({
      ...retry,
      open: async () => {
        await this.#buried;
        return parts.openRig(config);
      },
      close: (rig) => rig.close(),
      onOpen: (rig) => this.#robotOpened(rig),
      onFailure: (error) => this.#robotFailed(error),
    });
    this.#engine = new Keeper({
      ...retry,
      open: () => openPolicy(config, parts.loadPolicy),
      close: (policy) => policy.close(),
      onOpen: (policy) => this.#policyOpened(policy),
      onFailure: ({ code, message }) => log('warn', 'policy', { code, message }),
    });
  }

  get rig(): Rig | undefined {
    return this.#robot.value;
  }

  get rigError(): PremotorError | undefined {
    return this.#robot.error;
  }

  get policy(): Policy | undefined {
    return this.#engine.value;
  }

  get policyError(): PremotorError | undefined {
    return this.#engine.error;
  }

  /** Cycles of the setpoint stream that were seen since the robot was opened, with power or without: each left a sample behind. */
  get cycles(): number {
    return this.#cycles;
  }

  /** The motors have power. */
  get isPowered(): boolean {
    const status = this.rig?.status();
    return status !== undefined && POWERED.includes(status.stream);
  }

  /**
   * Opens what is not there, the robot first; an engine that dies again and again is left alone. A robot whose stream process has died is opened
   * anew, without power, once nothing uses it: without its cycles nobody would believe that this service lives.
   */
  want(isRobotInUse: boolean): void {
    if (!isRobotInUse && this.rig?.status().faultCode === 'STREAM_PROCESS_DIED') this.#robotDied(this.rig);
    this.#robot.want();
    if (this.rig && !this.#parts.starts.isLooping) this.#engine.want();
  }

  /** A simulated robot in virtual time lives only while somebody waits for it. */
  async letTimePass(periodMs: number): Promise<void> {
    const { type, pace } = this.#parts.config.robot;
    const { rig } = this;
    if (!rig || type !== 'sim' || pace !== 'virtual') return;
    // A fault that is latched meanwhile is found by whoever looks at the status.
    await rig.robot.waitUntil(rig.nowNs() + BigInt(Math.round(periodMs * MS_NS))).catch(() => undefined);
  }

  /** The policy for an episode, to be closed by it. Errors: CRASH_LOOP, those of loading. */
  async lend(): Promise<Policy> {
    const { starts, config } = this.#parts;
    const there = this.policy;
    if (there?.life?.death) this.#engineDied(there, there.life.death);
    if (starts.isLooping) {
      const [expected, found] = [`at most ${config.service.starts_max} unexpected ends`, String(starts.count)];
      const message = `The engine is not started again: expected ${expected}, found ${found}. Find out why, then: premotor clear`;
      throw new PremotorError('CRASH_LOOP', message, { expected, found });
    }
    return new LentPolicy(await this.#engine.take());
  }

  /**
   * The robot for an episode. A simulated world that was used, or another task's, is set up anew, without power; what moves for real only learns what
   * the episode is about. Errors: those of the robot, of openRig and of setTask.
   */
  async rigFor(config: RobotConfig): Promise<Rig> {
    const rig = await this.#robot.take();
    const isReal = rig.snapshot === undefined;
    const isFresh = this.#scene === JSON.stringify(config.task);
    this.#scene = undefined;
    if (!isFresh) rig.setTask?.(config.task);
    if (isReal || isFresh) return rig;
    await rig.robot.disarm();
    const renewed = await this.#robot.renew(() => this.#parts.openRig(config));
    this.#scene = undefined;
    return renewed;
  }

  /** Comes to rest, then power off. Errors: those of the robot. */
  async powerOff(): Promise<void> {
    const robot = this.rig?.robot;
    robot?.stop(1);
    await robot?.disarm();
  }

  /** Idempotent. Errors: the first of closing. */
  async close(): Promise<void> {
    this.#unwatch?.();
    this.#unwatch = undefined;
    const closed = await Promise.allSettled([this.#engine.close(), this.#robot.close()]);
    const failed = closed.find((one) => one.status === 'rejected');
    if (failed) throw failed.reason;
  }

  #robotOpened(rig: Rig): void {
    const { config, log, onMotion, onRig } = this.#parts;
    for (const text of rig.notices) log('info', 'notice', { text });
    this.#scene = JSON.stringify(config.task);
    this.#unwatch?.();
    this.#hasTried = true;
    this.#cycles = 0;
    this.#unwatch = rig.watch((sample) => {
      this.#cycles++;
      onMotion(sample);
    });
    this.#robot.proven();
    onRig(rig);
  }

  #robotDied(rig: Rig): void {
    const message = 'The stream process has ended; another one is started, without power.';
    this.#parts.log('warn', 'robot', { code: 'STREAM_PROCESS_DIED', message });
    this.#robot.lost(new PremotorError('STREAM_PROCESS_DIED', message));
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#buried = rig.close().catch((thrown: unknown) => this.#parts.log('warn', 'robot', { message: String(thrown) }));
  }

  #robotFailed({ code, message }: PremotorError): void {
    this.#parts.log('warn', 'robot', { code, message });
    if (this.#hasTried) return;
    this.#hasTried = true;
    this.#parts.onNoRig();
  }

  #policyOpened(policy: Policy): void {
    const { backend, precision, threads, warnings } = policy.info;
    this.#parts.log('info', 'policy', { backend, precision, threads, warnings });
    void policy.life?.died.then((death) => this.#engineDied(policy, death));
  }

  #engineDied(policy: Policy, death: PremotorError): void {
    if (this.policy !== policy) return;
    this.#parts.starts.engineDied();
    this.#parts.log('warn', 'engine', { code: death.code, message: death.message });
    this.#engine.lost(death);
  }
}
