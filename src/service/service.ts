/**
 * The long-running service: opens robot, cameras and policy once, waits until everything is right, lets somebody local arm (or arms itself where
 * that is configured), runs episodes, and says at any time why it does not. Owned by the command `service`. One look after another drives it; a
 * look that hangs, or a robot whose cycles stand still, is silence for systemd. Nothing that comes over a network arms or starts anything.
 */
import { join } from 'node:path';
import type { RobotConfig } from '../config/schema.js';
import type { ControlCycle } from '../control/cycle.js';
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { LoadPolicyOptions, Policy } from '../policy/contract.js';
import { LASTING, type ObserverFactory, Observers } from '../runtime/observers.js';
import { cycleFor } from '../runtime/prepared-episode.js';
import { register } from '../runtime/registry.js';
import type { Rig } from '../runtime/rig.js';
import type { RunControl } from '../tap/observer.js';
import { version } from '../version.js';
import { ClockWatch, SYSTEM_CLOCKS, type WatchedClocks } from './clock-watch.js';
import { type ControlAnswer, type ControlRequest, type ServiceStatus, socketOf } from './control-protocol.js';
import { ControlSocket } from './control-socket.js';
import { Episodes, type EpisodeWish, wished } from './episodes.js';
import { Equipment } from './equipment.js';
import type { ServiceLog } from './log.js';
import type { Notifier } from './notifier.js';
import { OPENING, Preflight, type Verdict } from './preflight.js';
import { clockStepped, FOUND_HOLDING, lockedFor, type Reason, refused, stoppedFor, withinMs } from './reasons.js';
import { standbyAbout, standbyControl } from './standby.js';
import { Starts } from './starts.js';
import { ServiceLifecycle, type ServiceState, type ServiceTransition } from './states.js';
import { statusOf } from './status.js';

export interface ServiceParts {
  readonly config: RobotConfig;
  /** Of the configuration, and its text. */
  readonly file: string;
  readonly text: string;
  readonly openRig: (config: RobotConfig) => Promise<Rig>;
  readonly loadPolicy: (options: LoadPolicyOptions) => Promise<Policy>;
  readonly notifier: Notifier;
  readonly log: ServiceLog;
  /** How often systemd wants a sign of life. */
  readonly watchdogMs?: number | undefined;
  readonly clocks?: WatchedClocks;
  readonly observers?: readonly ObserverFactory[];
  readonly preflight?: ConstructorParameters<typeof Preflight>[1];
}

/** Looks come so much more often than systemd wants to hear of them. */
const LOOKS_PER_WATCHDOG = 3;
/** An episode that was told to stop comes to rest in seconds; then power goes without it. */
const STOP_MS_MAX = 15_000;
/** The robot's own failures; others were found before anything had power. */
const ROBOT_CODES = /^(ROBOT|BRIDGE|STREAM|CAN|NATIVE)_/;

export class Service {
  readonly #parts: ServiceParts;
  readonly #config: RobotConfig;
  readonly #log: ServiceLog;
  readonly #clocks: WatchedClocks;
  readonly #clock: ClockWatch;
  readonly #lifecycle = new ServiceLifecycle((transition) => this.#changed(transition));
  readonly #preflight: Preflight;
  readonly #starts: Starts;
  readonly #equipment: Equipment;
  readonly #periodMs: number;
  #observers: Observers | undefined;
  #socket: ControlSocket | undefined;
  #episodes: Episodes | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #verdict: Verdict = { reasons: [], remarks: [] };
  #fault: PremotorError | undefined;
  /** Why nothing begins by itself while the robot holds, until somebody local asks. */
  #held: Reason | undefined;
  /** Of a fault that was cleared and that the robot still has latched. */
  #acknowledged = '';
  #arming: { readonly cycle: ControlCycle; readonly done: Promise<void> } | undefined;
  #running: Promise<void> | undefined;
  #stopReason: string | undefined;
  #armsItself = false;
  /** Episodes that began by themselves since the robot was armed, and when the next one does. */
  #begun = 0;
  #nextMs = Number.POSITIVE_INFINITY;
  #maintenance = '';
  #toldMs = 0;
  #ending: Promise<void> | undefined;

  constructor(parts: ServiceParts) {
    const { config, log, clocks = SYSTEM_CLOCKS, watchdogMs = Number.POSITIVE_INFINITY } = parts;
    const { service, recording } = config;
    this.#parts = parts;
    this.#config = config;
    this.#log = log;
    this.#clocks = clocks;
    this.#clock = new ClockWatch(clocks);
    this.#periodMs = Math.min(service.check_period_s * 1000, watchdogMs / LOOKS_PER_WATCHDOG);
    this.#preflight = new Preflight(config, parts.preflight);
    this.#starts = new Starts({
      dir: service.state_dir ?? join(process.env['STATE_DIRECTORY']?.split(':')[0] ?? recording.out_dir, 'service'),
      max: service.starts_max,
      windowS: service.starts_window_s,
      onWarning: (error) => this.#warn(error),
    });
    const { openRig, loadPolicy } = parts;
    this.#equipment = new Equipment({
      ...{ config, openRig, loadPolicy, log, starts: this.#starts, monotonicMs: clocks.monotonicMs },
      onRig: (rig) => {
        void this.#observers?.attend(standbyAbout(rig, config), this.#control);
        this.#indicate();
      },
      // Telemetry says why it waits, robot or no robot.
      onNoRig: () => void this.#observers?.attend(standbyAbout(undefined, config), this.#control),
      onMotion: (sample) => this.#observers?.motion(sample),
    });
  }

  /** Runs until the signal comes; resolves when the robot rests and everything is closed. Errors: SERVICE_RUNNING, CONTROL_SOCKET, of observers. */
  async run(signal: AbortSignal): Promise<void> {
    const { config, notifier, log } = this.#parts;
    const unregister = register('service', `${config.robot.type}, ${this.#parts.file}`);
    try {
      this.#socket = await ControlSocket.open(socketOf(config), (request) => this.#handle(request));
      this.#observers = await Observers.open(
        config,
        { onNotice: (text) => log('info', 'notice', { text }), onWarning: (error) => this.#warn(error) },
        this.#parts.observers ?? LASTING,
      );
      this.#episodes = this.#makeEpisodes(this.#observers);
      this.#armsItself = config.autonomy === 'arm-on-boot' && !this.#starts.hasCrashed;
      this.#starts.begin();
      log('info', 'service', { version: version(), configuration: this.#parts.file, socket: this.#socket.path, autonomy: config.autonomy });
      notifier.ready();
      const asked = new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      this.#next(0);
      await asked;
      await this.stop('the service was told to end');
      await this.#leave();
    } finally {
      await this.#close();
      unregister();
    }
  }

  get state(): ServiceState {
    return this.#lifecycle.state;
  }

  #next(afterMs: number): void {
    if (this.#ending) return;
    this.#timer = setTimeout(() => {
      this.#looking = this.#look().finally(() => this.#next(this.#periodMs));
    }, afterMs);
  }

  /** One look: at the clock, at what has to be open, at what the state needs. Only one that comes to its end is a sign of life. */
  async #look(): Promise<void> {
    try {
      const step = this.#clock.look();
      if (step !== undefined) this.#warn(clockStepped(step));
      const isMoving = this.#lifecycle.is('running', 'arming', 'stopping');
      this.#equipment.want(isMoving || this.#lifecycle.is('holding'));
      if (!isMoving) await this.#equipment.letTimePass(this.#periodMs);
      await this.#consider();
      this.#report();
    } catch (thrown) {
      const error = toPremotorError(thrown);
      this.#log('error', 'look', { code: error.code, message: error.message });
      if (!this.#ending) this.#fail(error);
    }
  }

  async #consider(): Promise<void> {
    if (this.#lifecycle.is('starting', 'waiting', 'ready')) await this.#check();
    if (this.#lifecycle.is('holding')) this.#considerHolding();
  }

  async #check(): Promise<void> {
    const rig = this.#equipment.rig;
    const verdict = await this.#preflight.check({
      rig,
      rigError: this.#equipment.rigError,
      policy: this.#equipment.policy,
      policyError: this.#equipment.policyError,
      acknowledged: this.#acknowledged,
      ...{ isBrokerThere: this.#observers?.isConnected, telemetryError: this.#observers?.notOpen },
      crashes: this.#starts,
    });
    // Somebody may have asked for something while the cameras were looked at, and the robot may have been lost.
    if (!this.#lifecycle.is('starting', 'waiting', 'ready') || rig !== this.#equipment.rig) return;
    this.#verdict = verdict;
    if (rig && this.#equipment.isPowered && rig.status().faultCode === '') {
      this.#held = FOUND_HOLDING;
      this.#lifecycle.go('holding', 'the robot was found holding');
      return;
    }
    const isOpening = verdict.reasons.every(({ code }) => OPENING.includes(code));
    if (verdict.reasons.length === 0) this.#lifecycle.go('ready', 'all checks pass');
    else if (!this.#lifecycle.is('starting') || !isOpening) this.#lifecycle.go('waiting', verdict.reasons.map(({ code }) => code).join(', '));
    if (!this.#lifecycle.is('ready') || !this.#armsItself) return;
    await this.#arm('arm-on-boot').catch((error: PremotorError) => this.#log('warn', 'arm', { code: error.code, message: error.message }));
  }

  #considerHolding(): void {
    const status = this.#equipment.rig?.status();
    if (!status) return;
    if (status.faultCode !== '') {
      this.#fail(new PremotorError(status.faultCode, status.faultMessage || `The robot has latched ${status.faultCode} while it held.`));
      return;
    }
    if (!this.#equipment.isPowered) {
      this.#lifecycle.go('waiting', 'the power is gone');
      return;
    }
    if (this.#held || this.#clocks.monotonicMs() < this.#nextMs || !this.#equipment.policy) return;
    const { run, episodes_max = Number.POSITIVE_INFINITY, pause_s } = this.#config.service;
    if (run === 'none' || (run === 'once' && this.#begun > 0) || this.#begun >= episodes_max) return;
    this.#begin({ seed: this.#config.task.seed + this.#begun });
    this.#begun++;
    this.#nextMs = this.#clocks.monotonicMs() + pause_s * 1000;
  }

  /** At the end of a look. */
  #report(): void {
    const { notifier } = this.#parts;
    const status = this.#status();
    this.#observers?.service({
      state: status.state,
      reasons: status.reasons,
      autonomy: status.autonomy,
      isArmed: status.armed,
      isInMaintenance: status.maintenance.on,
      clockSteps: status.clock.steps,
      lastClockStepMs: status.clock.lastStepMs,
    });
    const reasons = status.reasons.map(({ code, message }) => `${code} ${message}`).join('; ');
    notifier.status(reasons === '' ? status.state : `${status.state}: ${reasons}`);
    const isProgressing = this.#episodes?.isProgressing(this.#config.service.progress_timeout_s * 1000) ?? true;
    notifier.looked({ cycles: this.#equipment.rig ? status.cycles : undefined, isProgressing });
    const nowMs = this.#clocks.monotonicMs();
    if (nowMs - this.#toldMs < this.#config.service.status_period_s * 1000) return;
    this.#toldMs = nowMs;
    const { state, armed, cycles, episodes } = status;
    this.#log('info', 'status', { state, armed, cycles, reasons: status.reasons.map(({ code }) => code), episodes: episodes.ended });
  }

  #makeEpisodes(observers: Observers): Episodes {
    return new Episodes({
      config: this.#config,
      rigFor: (config) => this.#equipment.rigFor(config),
      lend: () => this.#equipment.lend(),
      observers,
      controlled: () => this.#control,
      log: this.#log,
      onWarning: (error) => this.#warn(error),
      monotonicMs: this.#clocks.monotonicMs,
    });
  }

  /** What observers may do, during an episode and between two. */
  readonly #control: RunControl = standbyControl({
    rig: () => this.#equipment.rig,
    episode: () => this.#episodes?.control,
    isArmed: () => this.#lifecycle.is('holding'),
    isFault: () => this.#lifecycle.is('fault'),
    stop: (reason) => this.#stopSoon(reason),
  });

  async #handle(request: ControlRequest): Promise<ControlAnswer> {
    if (request.do !== 'status') this.#log('info', 'asked', { ...request });
    if (this.#ending && request.do !== 'status') throw refused(request.do, 'a service that goes on', this.#status());
    if (request.do === 'arm') await this.#arm('armed locally');
    if (request.do === 'disarm') await this.#disarm();
    if (request.do === 'run') this.#goOn(request);
    if (request.do === 'stop') await this.stop('asked for at the robot');
    if (request.do === 'clear') await this.#clear();
    if (request.do === 'maintenance') this.#lock(request.on, request.reason ?? 'update');
    return { ok: true, status: this.#status() };
  }

  /** Errors: SERVICE_STATE, those of ControlCycle.arm. */
  async #arm(reason: string): Promise<void> {
    if (this.#lifecycle.is('holding')) {
      this.#release();
      return;
    }
    const [rig, policy] = [this.#equipment.rig, this.#equipment.policy];
    if (!this.#lifecycle.is('ready') || !rig || !policy) throw refused('arm', 'the state ready', this.#status());
    this.#armsItself = false;
    this.#stopReason = undefined;
    this.#lifecycle.go('arming', reason);
    try {
      const cycle = await cycleFor(this.#config, rig, policy);
      if (this.#stopReason !== undefined) cycle.requestStop(this.#stopReason);
      const done = cycle.arm();
      this.#arming = { cycle, done };
      await done;
      this.#acknowledged = '';
      this.#lifecycle.go('holding', reason);
      this.#release();
    } catch (thrown) {
      const error = toPremotorError(thrown);
      if (ROBOT_CODES.test(error.code)) this.#fail(error);
      else this.#lifecycle.go('waiting', `${error.code}: ${error.message}`);
      throw error;
    } finally {
      this.#arming = undefined;
    }
  }

  /** From now on episodes may begin as configured. */
  #release(): void {
    this.#held = undefined;
    this.#begun = 0;
    this.#nextMs = this.#clocks.monotonicMs();
  }

  /** Errors: SERVICE_STATE, those of Rig.checkTask. */
  #goOn({ task, seed, instruction }: EpisodeWish): void {
    if (!this.#lifecycle.is('holding')) throw refused('run', 'the state holding (premotor arm)', this.#status());
    if (!this.#equipment.policy) throw refused('run', 'a policy that is loaded', this.#status());
    this.#equipment.rig?.checkTask(wished(this.#config, { task, seed, instruction }).task);
    this.#held = undefined;
    this.#begin({ task, seed, instruction });
  }

  #begin(wish: EpisodeWish): void {
    const episodes = this.#episodes;
    if (!episodes) return;
    this.#stopReason = undefined;
    this.#lifecycle.go('running', `episode, task ${wish.task ?? this.#config.task.name}`);
    const run = async (): Promise<void> => {
      const end = await episodes.run(wish);
      this.#nextMs = this.#clocks.monotonicMs() + this.#config.service.pause_s * 1000;
      const stopReason = this.#stopReason ?? end.stopReason;
      if (stopReason !== undefined && end.outcome !== 'failed') await this.#stopped(stopReason);
      else if (end.error) this.#fail(end.error);
      else this.#lifecycle.go('holding', `the episode is over: ${end.outcome}`);
    };
    this.#running = run()
      .catch((thrown: unknown) => this.#fail(toPremotorError(thrown)))
      .finally(() => {
        this.#running = undefined;
      });
  }

  /** After a stop nothing begins by itself, with power or without. */
  async #stopped(reason: string): Promise<void> {
    this.#armsItself = false;
    // An episode that ended by itself in the same moment has kept its power.
    if (this.#equipment.isPowered && this.#config.control.stop_category === 1) await this.#equipment.powerOff();
    this.#held = stoppedFor(reason);
    if (this.#equipment.isPowered) this.#lifecycle.go('holding', `stopped with power: ${reason}`);
    else this.#lifecycle.go('waiting', `stopped: ${reason}`);
  }

  #stopSoon(reason: string): void {
    this.stop(reason).catch((error: unknown) => this.#fail(toPremotorError(error)));
  }

  /**
   * A controlled stop, in every state: a running episode comes to rest and keeps its power or not, as control.stop_category says; a robot that holds
   * loses it. Whatever comes after needs somebody local. Errors: those of the robot.
   */
  async stop(reason: string): Promise<void> {
    this.#armsItself = false;
    this.#stopReason ??= reason;
    this.#arming?.cycle.requestStop(reason);
    // Whoever asked for the arming is told what became of it.
    if (this.#arming)
      await withinMs(
        this.#arming.done.catch(() => undefined),
        STOP_MS_MAX,
      );
    if (this.#lifecycle.is('running')) {
      this.#lifecycle.go('stopping', reason);
      this.#episodes?.stop(reason);
    }
    if (this.#running) await withinMs(this.#running, STOP_MS_MAX);
    else if (this.#lifecycle.is('holding')) await this.#powerOff(reason);
  }

  /** Errors: SERVICE_STATE, ROBOT_TIMEOUT. */
  async #disarm(): Promise<void> {
    if (this.#lifecycle.is('waiting', 'ready') && !this.#equipment.isPowered) return;
    if (!this.#lifecycle.is('holding')) throw refused('disarm', 'the state holding (premotor halt ends an episode)', this.#status());
    await this.#powerOff('disarmed locally');
  }

  async #powerOff(reason: string): Promise<void> {
    this.#lifecycle.go('stopping', reason);
    try {
      await this.#equipment.powerOff();
      this.#held = stoppedFor(reason);
      this.#lifecycle.go('waiting', reason);
    } catch (error) {
      this.#fail(toPremotorError(error));
      throw error;
    }
  }

  /** Acknowledges a fault and a crash loop; takes the power away. Errors: those of the robot. */
  async #clear(): Promise<void> {
    this.#starts.clear();
    if (!this.#lifecycle.is('fault', 'waiting')) return;
    if (this.#lifecycle.is('fault')) await this.#equipment.rig?.robot.disarm();
    this.#acknowledged = this.#equipment.rig?.status().faultCode ?? '';
    this.#fault = undefined;
    this.#lifecycle.go('waiting', 'the fault was cleared');
  }

  /** Errors: SERVICE_STATE. */
  #lock(isOn: boolean, reason: string): void {
    if (!isOn) {
      if (this.#lifecycle.is('maintenance')) this.#lifecycle.go('waiting', 'maintenance is over');
      this.#maintenance = '';
      return;
    }
    if (this.#lifecycle.is('maintenance')) return;
    const status = this.#status();
    if (!this.#lifecycle.is('waiting', 'ready') || status.armed || !status.atRest)
      throw refused('maintenance', 'a robot that is disarmed and at rest', status);
    this.#maintenance = reason;
    this.#armsItself = false;
    this.#lifecycle.go('maintenance', reason);
  }

  #changed({ from, to, reason }: ServiceTransition): void {
    this.#log(to === 'fault' ? 'error' : 'info', 'state', { from, to, reason });
    this.#indicate();
    if (!this.#ending && this.#observers) this.#report();
  }

  #indicate(): void {
    const { state } = this.#lifecycle;
    const pattern = state === 'arming' ? 'holding' : state === 'stopping' ? 'running' : state;
    this.#equipment.rig?.robot.indicate?.(pattern);
  }

  /** Latched; the robot holds as it does. */
  #fail(error: PremotorError): void {
    this.#fault ??= error;
    this.#armsItself = false;
    if (!this.#lifecycle.is('fault', 'maintenance')) this.#lifecycle.go('fault', `${error.code}: ${error.message}`);
  }

  #warn(error: PremotorError): void {
    this.#log('warn', 'warning', { code: error.code, message: error.message });
    this.#observers?.event({ type: 'warning', error }, this.#equipment.rig?.nowNs() ?? 0n);
  }

  #reasons(): readonly Reason[] {
    if (this.#fault) return [{ code: this.#fault.code, message: this.#fault.message }];
    if (this.#lifecycle.is('maintenance')) return [lockedFor(this.#maintenance)];
    if (this.#lifecycle.is('holding', 'ready')) return this.#held ? [this.#held] : [];
    return this.#lifecycle.is('starting', 'waiting') ? this.#verdict.reasons : [];
  }

  #status(): ServiceStatus {
    const { config, file, text } = this.#parts;
    return statusOf({
      ...{ config, file, text },
      state: this.#lifecycle.state,
      since: this.#lifecycle.since,
      reasons: this.#reasons(),
      remarks: this.#verdict.remarks,
      equipment: this.#equipment,
      isConnected: this.#observers?.isConnected ?? false,
      maintenance: this.#maintenance,
      episodes: this.#episodes?.counts ?? { ended: 0, succeeded: 0, last: null },
      clock: this.#clock,
    });
  }

  /** A robot that stands in a fault has its power taken away, unless the configuration keeps it. */
  async #leave(): Promise<void> {
    if (this.#config.control.stop_category === 2 || !this.#equipment.isPowered) return;
    await this.#equipment.powerOff().catch((error: unknown) => this.#warn(toPremotorError(error)));
  }

  /** Everything in order, whatever was opened. Idempotent. */
  #close(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    clearTimeout(this.#timer);
    this.#parts.notifier.stopping();
    this.#log('info', 'stopping');
    await withinMs(this.#looking, STOP_MS_MAX);
    await this.#socket?.close();
    await this.#observers?.close();
    await this.#equipment.close();
    this.#starts.end();
    this.#log('info', 'stopped');
  }
}
