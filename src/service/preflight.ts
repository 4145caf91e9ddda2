/**
 * What has to be right before the robot may be armed: robot and bridge, cameras, policy, disks, memory. Owned by the service, which asks again and
 * again while it waits. It looks and changes nothing; the broker is looked at too, and is only a remark unless the configuration wants it.
 */
import { constants } from 'node:fs';
import { access, mkdir, readFile, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { checkBrightness } from '../cameras/health.js';
import { CameraSampler } from '../cameras/sampler.js';
import type { FrameSource } from '../cameras/source.js';
import type { RobotConfig } from '../config/schema.js';
import { checkPose } from '../control/checks.js';
import type { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { Frame, Policy } from '../policy/contract.js';
import { recordingsDir } from '../recording/recorder.js';
import type { Rig } from '../runtime/rig.js';
import type { Reason } from './reasons.js';

/** What the checks look at. */
export interface Checked {
  readonly rig: Rig | undefined;
  /** Why there is none. */
  readonly rigError: PremotorError | undefined;
  readonly policy: Policy | undefined;
  readonly policyError: PremotorError | undefined;
  /** A fault of the robot that a person has acknowledged: arming clears it. */
  readonly acknowledged: string;
  /** Whether the broker is there; undefined: telemetry is off. */
  readonly isBrokerThere: boolean | undefined;
  /** Why telemetry is not even open. */
  readonly telemetryError?: PremotorError | undefined;
  readonly crashes: { readonly isLooping: boolean; readonly count: number };
}

export interface Verdict {
  readonly reasons: readonly Reason[];
  readonly remarks: readonly Reason[];
}

const BYTES_PER_MIB = 2 ** 20;
/** The link is up beyond these. The simulated motors are 'off' until they are armed; a robot's link is never. */
const LINK_DOWN: readonly string[] = ['connecting', 'uploading'];

const reasonOf = ({ code, message }: PremotorError): Reason => ({ code, message });

/** Reasons that pass by themselves within seconds of a start. */
export const OPENING: readonly string[] = ['ROBOT_OPENING', 'POLICY_LOADING'];

/** Free memory without swapping, bytes; undefined where the kernel does not say. */
export async function memoryFree(): Promise<number | undefined> {
  const text = await readFile('/proc/meminfo', 'utf8').catch(() => '');
  const [, kib] = /^MemAvailable:\s+(\d+) kB$/m.exec(text) ?? [];
  return kib === undefined ? undefined : Number(kib) * 1024;
}

export class Preflight {
  readonly #config: RobotConfig;
  readonly #memoryFree: typeof memoryFree;
  /** Samplers remember frames, and belong to one robot. */
  #cameras: CameraChecks | undefined;
  #rig: Rig | undefined;

  constructor(config: RobotConfig, parts: { readonly memoryFree?: typeof memoryFree } = {}) {
    this.#config = config;
    this.#memoryFree = parts.memoryFree ?? memoryFree;
  }

  async check(checked: Checked): Promise<Verdict> {
    const { require_telemetry, starts_max, starts_window_s } = this.#config.service;
    const { isLooping, count } = checked.crashes;
    const reasons: Reason[] = [];
    if (isLooping) {
      const remedy = `Find out why, then: premotor clear`;
      const message = `Service or engine ended unexpectedly ${count} times within ${starts_window_s} s; ${starts_max} are allowed. ${remedy}`;
      reasons.push({ code: 'CRASH_LOOP', message });
    }
    reasons.push(...(await this.#robot(checked)), ...(await this.#pictures(checked)), ...this.#policy(checked), ...(await this.#machine()));
    const broker = this.#broker(checked);
    if (broker && require_telemetry) reasons.push(broker);
    return { reasons, remarks: broker && !require_telemetry ? [broker] : [] };
  }

  async #robot({ rig, rigError, acknowledged }: Checked): Promise<Reason[]> {
    if (!rig) return [rigError ? reasonOf(rigError) : { code: 'ROBOT_OPENING', message: 'The robot and its cameras are being opened.' }];
    const { link, bridge, faultCode, faultMessage } = rig.status();
    if (faultCode !== '' && faultCode !== acknowledged) {
      const words = faultMessage === '' ? 'Latched by the setpoint stream or the bridge.' : faultMessage;
      return [{ code: 'FAULT_LATCHED', message: `${faultCode}: ${words} Look at the robot, then: premotor clear` }];
    }
    if (LINK_DOWN.includes(link) || (link === 'off' && rig.snapshot === undefined)) {
      const message = `The bridge does not report: its link is ${link}, the bridge ${bridge}. Check its power, the bus and the bit rate.`;
      return [{ code: 'BRIDGE_SILENT', message }];
    }
    try {
      checkPose(await rig.robot.getState(), rig.robot.joints);
      return [];
    } catch (error) {
      return [reasonOf(toPremotorError(error))];
    }
  }

  async #pictures({ rig, policy }: Checked): Promise<Reason[]> {
    if (!rig) return [];
    if (rig !== this.#rig) this.#cameras = undefined;
    this.#rig = rig;
    const keys = policy?.job.obs_cam_keys ?? rig.cameras.cameras.map(({ camera }) => camera);
    if (this.#cameras?.isOf(keys) !== true) this.#cameras = new CameraChecks(rig, keys, this.#config.cameras);
    return this.#cameras.check();
  }

  #policy({ policy, policyError }: Checked): Reason[] {
    if (policy) return [];
    return [policyError ? reasonOf(policyError) : { code: 'POLICY_LOADING', message: 'The policy is being loaded.' }];
  }

  async #machine(): Promise<Reason[]> {
    const { recording, telemetry, service } = this.#config;
    const folders = new Set([
      recording.out_dir,
      ...(recording.recorder.mode === 'off' ? [] : [recordingsDir(this.#config)]),
      ...(telemetry.enabled ? [telemetry.queue_dir ?? join(recording.out_dir, 'telemetry')] : []),
    ]);
    const found = await Promise.all([...folders].map((folder) => folderProblem(folder, service.disk_free_min_mib)));
    const free = await this.#memoryFree();
    const low = free !== undefined && free < service.memory_free_min_mib * BYTES_PER_MIB;
    const freeMib = Math.floor((free ?? 0) / BYTES_PER_MIB);
    const memory = `${freeMib} MiB of memory are free, ${service.memory_free_min_mib} are wanted. Stop what else runs here.`;
    return [...found.flatMap((reason) => reason ?? []), ...(low ? [{ code: 'MEMORY_LOW', message: memory }] : [])];
  }

  #broker({ isBrokerThere, telemetryError }: Checked): Reason | undefined {
    if (isBrokerThere !== false) return undefined;
    if (telemetryError) return reasonOf(telemetryError);
    const message = 'The telemetry broker cannot be reached; samples are kept on disk. Check broker, network and credentials.';
    return { code: 'TELEMETRY_OFFLINE', message };
  }
}

/** Errors of a folder as a reason; undefined: it can be written and has room. */
async function folderProblem(folder: string, freeMinMib: number): Promise<Reason | undefined> {
  try {
    await mkdir(folder, { recursive: true });
    await access(folder, constants.W_OK);
    const { bavail, bsize } = await statfs(folder);
    const freeMib = Math.floor((bavail * bsize) / BYTES_PER_MIB);
    if (freeMib >= freeMinMib) return undefined;
    return {
      code: 'DISK_LOW',
      message: `${freeMib} MiB are free on the disk of ${folder}, ${freeMinMib} are wanted. Remove recordings that were taken away.`,
    };
  } catch (error) {
    return { code: 'FOLDER_UNWRITABLE', message: `${folder} cannot be written: ${(error as Error).message}. Check its disk and its owner.` };
  }
}

/** Every camera by itself, so that each one that is wrong is named. */
class CameraChecks {
  readonly #rig: Rig;
  readonly #keys: readonly string[];
  readonly #darkBelow: number;
  readonly #samplers: readonly CameraSampler[];
  /** Of this look: asked for once. */
  #newest: readonly Frame[] = [];

  /** A camera that does not exist is told by its check. */
  constructor(rig: Rig, keys: readonly string[], { frame_age_max_ms, dark_below }: RobotConfig['cameras']) {
    this.#rig = rig;
    this.#keys = keys;
    this.#darkBelow = dark_below;
    const { cameras } = rig;
    const source: FrameSource = {
      cameras: keys.map((camera) => cameras.cameras.find((one) => one.camera === camera) ?? { camera, width: 0, height: 0 }),
      capture: async () => this.#newest,
      ...(cameras.history ? { history: () => cameras.history?.() ?? [] } : {}),
      close: async () => undefined,
    };
    const ageMaxNs = BigInt(Math.round(frame_age_max_ms * 1e6));
    this.#samplers = keys.map((key) => new CameraSampler({ source, keys: [key], ageMaxNs, skewMaxNs: ageMaxNs }));
  }

  isOf(keys: readonly string[]): boolean {
    return keys.length === this.#keys.length && keys.every((key, index) => key === this.#keys[index]);
  }

  async check(): Promise<Reason[]> {
    const now = async (): Promise<bigint> => (await this.#rig.robot.getState()).timeNs;
    try {
      this.#newest = await this.#rig.cameras.capture();
    } catch (error) {
      return [reasonOf(toPremotorError(error))];
    }
    const problems = await Promise.all(
      this.#samplers.map(async (sampler) => {
        try {
          const { frames } = await sampler.sampleAt(await now(), now);
          checkBrightness(frames, { darkBelow: this.#darkBelow, frozenAfterRad: 0 });
          return undefined;
        } catch (error) {
          return reasonOf(toPremotorError(error));
        }
      }),
    );
    return problems.flatMap((problem) => problem ?? []);
  }
}
