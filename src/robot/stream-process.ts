/**
 * The stream process as the supervisor has it: started apart from this process, so that it outlives it, or found running and attached to. Owned by
 * whoever owns the robot. It never restarts the process by itself, and a supervisor that ends, however it ends, leaves the motion to the stream.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { PremotorError } from '../errors.js';
import type { WorkspaceBox } from '../kinematics/end-effector.js';
import { type Pose, poseToValues } from '../kinematics/pose.js';
import type { KinematicChain } from '../kinematics/urdf.js';
import { loadNative, type NativeJoint, type NativeStreamClient, streamProgram, toPremotorError } from '../native.js';
import { register } from '../runtime/registry.js';

/** From the start of the process to its first event: it opens a bus and locks its memory, which takes well under a second. */
const start_timeout_ms = 10_000;
/** Beyond the time that the process itself waits for the robot to rest. */
const stop_margin_ms = 5_000;
const stop_check_ms = 10;
const default_shutdown_ms = 3_000;

/** What `premotor-stream --help` lists; sent to it as JSON. Times that are left out have its defaults. */
export interface StreamConfiguration {
  /** `socketcan-fd:can0`, `slcan:/dev/ttyACM0`, `cannelloni:20000:192.0.2.1:20001` */
  readonly bus: string;
  readonly joints: readonly NativeJoint[];
  /** Path of the shared memory: one per robot. */
  readonly sharedMemory: string;
  readonly periodUs?: number;
  readonly leadUs?: number;
  readonly wantsFd?: boolean;
  readonly gapMs?: number;
  readonly plannerGraceMs?: number;
  readonly feedbackAgeMs?: number;
  readonly lostMs?: number;
  readonly armingMs?: number;
  readonly stopCategory?: 1 | 2;
  readonly shutdownMs?: number;
  readonly realTime?: {
    /** SCHED_FIFO, 1 .. 98; 0: the ordinary scheduler. */
    readonly priority?: number;
    readonly core?: number | null;
    readonly lock?: boolean;
    readonly awake?: boolean;
  };
  /** Boxes that the tips of arms must stay in, m; an arm's joints follow each other from `firstJoint`. workspaceOf() makes one. */
  readonly workspaces?: readonly StreamWorkspace[];
  /** Every frame of the bus, in candump's format, is appended to this file. */
  readonly log?: string;
}

/** Poses are seven numbers: position in metres, unit quaternion x, y, z, w. */
export interface StreamWorkspace {
  readonly mount: readonly number[];
  readonly firstJoint: number;
  readonly lowerM: readonly number[];
  readonly upperM: readonly number[];
  readonly segments: readonly {
    readonly name: string;
    readonly kind: 'fixed' | 'revolute' | 'continuous' | 'prismatic';
    readonly origin: readonly number[];
    readonly axis: readonly number[];
    readonly lower?: number;
    readonly upper?: number;
  }[];
}

/** The box of an arm whose chain parseUrdf() has read. */
export function workspaceOf(chain: KinematicChain, mount: Pose, firstJoint: number, box: WorkspaceBox): StreamWorkspace {
  const segments = chain.joints.map(({ name, kind, origin, axis, lower, upper }) => ({
    name,
    kind,
    origin: [...poseToValues(origin)],
    axis: [...axis],
    // JSON has no infinity, and joints without limits need none.
    ...(Number.isFinite(lower) && Number.isFinite(upper) ? { lower, upper } : {}),
  }));
  return { mount: [...poseToValues(mount)], firstJoint, lowerM: [...box.lowerM], upperM: [...box.upperM], segments };
}

export interface StreamProcessOptions {
  readonly configuration: StreamConfiguration;
  /** Its events and warnings, one JSON object a line, are appended here. Default: nowhere. */
  readonly output?: string;
  /** Default: the one built beside the addon. */
  readonly program?: string;
}

interface FirstEvent {
  readonly event?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
}

export class StreamProcess {
  readonly client: NativeStreamClient;
  readonly pid: number;
  /** False when it ran already: it may be moving, or hold a latched fault. */
  readonly isNew: boolean;
  readonly #stop_timeout_ms: number;
  #stopped: Promise<void> | undefined;

  private constructor(client: NativeStreamClient, isNew: boolean, configuration: StreamConfiguration) {
    this.client = client;
    this.pid = client.info().pid;
    this.isNew = isNew;
    this.#stop_timeout_ms = (configuration.shutdownMs ?? default_shutdown_ms) + stop_margin_ms;
  }

  /**
   * Attaches to the process that owns `configuration.sharedMemory`, or starts one. Nothing is armed and nothing moves that did not move before.
   *
   * Errors: STREAM_PROCESS_BUSY (another supervisor is attached), STREAM_PROCESS_VERSION, STREAM_PROCESS_CONFIG (it runs with another configuration,
   * or this one is wrong), STREAM_PROCESS_START, STREAM_PROCESS_MEMORY, CAN_* (the bus cannot be opened), NATIVE_MISSING.
   */
  static async open(options: StreamProcessOptions): Promise<StreamProcess> {
    const { configuration } = options;
    const text = JSON.stringify(configuration);
    const running = attach(configuration.sharedMemory, { mayBeMissing: true });
    if (running !== undefined) {
      checkConfiguration(running, text, configuration.sharedMemory);
      return new StreamProcess(running, false, configuration);
    }
    await start(options, text);
    const client = attach(configuration.sharedMemory, { mayBeMissing: false }) as NativeStreamClient;
    // For `premotor stop`; the file is swept away when the process is gone.
    register('stream', configuration.bus, client.info().pid);
    return new StreamProcess(client, true, configuration);
  }

  get isAlive(): boolean {
    return this.client.isAlive();
  }

  /** Leaves the process and the motion as they are; another supervisor may attach. Idempotent. */
  detach(): void {
    this.client.detach();
  }

  /**
   * Ends the process: it stops the robot by its configured category first. Resolves when it is gone; idempotent. Errors: STREAM_PROCESS_STOP (it is
   * still there after the time that it may take; it was not killed, because that would leave the robot to the bridge's watchdog).
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#end();
    return this.#stopped;
  }

  async #end(): Promise<void> {
    if (this.client.isAlive()) {
      process.kill(this.pid, 'SIGTERM');
      await this.#gone();
    }
    this.client.detach();
  }

  /** The end of a process that may be nobody's child: its lock is let go. */
  #gone(): Promise<void> {
    return new Promise((resolve, reject) => {
      const until_ms = performance.now() + this.#stop_timeout_ms;
      const check = setInterval(() => {
        const isAlive = this.client.isAlive();
        if (isAlive && performance.now() < until_ms) return;
        clearInterval(check);
        if (!isAlive) return resolve();
        const found = `process ${this.pid} still runs`;
        reject(
          new PremotorError(
            'STREAM_PROCESS_STOP',
            `The stream process did not end within ${this.#stop_timeout_ms} ms of SIGTERM. Look at the robot.`,
            {
              expected: 'the end of the process',
              found,
            },
          ),
        );
      }, stop_check_ms);
    });
  }
}

function attach(path: string, { mayBeMissing }: { mayBeMissing: boolean }): NativeStreamClient | undefined {
  const { StreamClient } = loadNative();
  try {
    return new StreamClient(path);
  } catch (cause) {
    const error = toPremotorError(cause);
    if (mayBeMissing && error.code === 'STREAM_PROCESS_MISSING') return undefined;
    throw error;
  }
}

/** A process with other limits or another bus is not the one that was asked for. */
function checkConfiguration(client: NativeStreamClient, text: string, path: string): void {
  const expected = hashOf(text).toString(16);
  const found = client.info().configurationHash.toString(16);
  if (expected === found) return;
  const { pid } = client.info();
  client.detach();
  throw new PremotorError(
    'STREAM_PROCESS_CONFIG',
    `The stream process ${pid} at ${path} runs with another configuration. Stop it (SIGTERM), then start again.`,
    { file: path, expected, found },
  );
}

const WORD = 2 ** 32;
/** The FNV prime is 2^40 + 0x1b3. */
const FNV_PRIME_LOW = 0x1b3;

/**
 * 64-bit FNV-1a, as cpp/motion/shared_memory.h has it. In two words and without bigints: Node 20 can abort where it optimises a loop over
 * BigInt.asUintN(64).
 */
function hashOf(text: string): bigint {
  let [high, low] = [0xcbf29ce4, 0x84222325];
  for (const byte of Buffer.from(text)) {
    const mixed = (low ^ byte) >>> 0;
    const product = mixed * FNV_PRIME_LOW;
    high = (high * FNV_PRIME_LOW + Math.floor(product / WORD) + ((mixed << 8) >>> 0)) % WORD;
    low = product % WORD;
  }
  return (BigInt(high) << 32n) | BigInt(low);
}

/** Starts the process in a session of its own, with no descriptor of this process, and waits for its first event. */
async function start({ output, program = streamProgram() }: StreamProcessOptions, text: string): Promise<void> {
  const out = output === undefined ? ('ignore' as const) : openSync(output, 'a');
  let child: ChildProcess;
  try {
    child = spawn(program, ['-', '--ready-fd', '3'], { detached: true, stdio: ['pipe', out, out, 'pipe'] });
  } finally {
    if (typeof out === 'number') closeSync(out);
  }
  // A process that ends before it has read everything breaks this pipe; its first event says why.
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(text);
  try {
    await firstEvent(child, child.stdio[3] as Readable);
  } finally {
    child.unref();
    (child.stdio[3] as Readable).destroy();
  }
}

function firstEvent(child: ChildProcess, pipe: Readable): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (found: string, cause?: unknown): void => {
      const message = `The stream process did not start: expected its first event within ${start_timeout_ms} ms, found ${found}.`;
      reject(new PremotorError('STREAM_PROCESS_START', message, { expected: 'a "ready" event', found, ...(cause === undefined ? {} : { cause }) }));
    };
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      fail('nothing');
    }, start_timeout_ms);
    let text = '';
    pipe.setEncoding('utf8');
    pipe.on('data', (part: string) => (text += part));
    child.once('error', (cause) => {
      clearTimeout(timer);
      fail(cause.message, cause);
    });
    // Without a "ready" it is about to end by itself, and takes away what it made.
    const refuse = (): void => {
      clearTimeout(timer);
      const { code, message } = parseEvent(text);
      if (typeof code === 'string' && typeof message === 'string') reject(new PremotorError(code, message));
      else fail(`exit ${child.exitCode ?? child.signalCode}`);
    };
    // It closes the pipe behind its first event, and so does its end.
    pipe.once('close', () => {
      if (parseEvent(text).event === 'ready') {
        clearTimeout(timer);
        resolve();
      } else if (child.exitCode === null && child.signalCode === null) child.once('exit', refuse);
      else refuse();
    });
  });
}

function parseEvent(text: string): FirstEvent {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
