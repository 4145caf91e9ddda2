/**
 * What `premotor doctor` looks at: files of the running system under a root folder, which tests replace by one of their own. Owned by doctor.ts; it
 * only reads, opens no device, and a file that is missing or odd is a finding, never an error.
 */
import { accessSync, constants, existsSync, readdirSync, readFileSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';

export type Level = 'ok' | 'warn' | 'missing';

export interface Finding {
  readonly name: string;
  readonly level: Level;
  readonly found: string;
  /** What to do; absent when all is well. */
  readonly advice?: string;
}

/** A read-only view of a file system from `root` on. */
export class SystemFiles {
  readonly #root: string;

  constructor(root = '/') {
    this.#root = root;
  }

  /** A file's text, or undefined. Trailing zero bytes (device tree) and white space are cut. */
  text(path: string): string | undefined {
    try {
      return readFileSync(join(this.#root, path), 'utf8').replaceAll('\0', ' ').trim();
    } catch {
      return undefined;
    }
  }

  list(path: string): readonly string[] {
    try {
      return readdirSync(join(this.#root, path)).sort();
    } catch {
      return [];
    }
  }

  exists(path: string): boolean {
    return existsSync(join(this.#root, path));
  }

  canRead(path: string): boolean {
    return this.#may(path, constants.R_OK);
  }

  canWrite(path: string): boolean {
    return this.#may(path, constants.W_OK);
  }

  isFolder(path: string): boolean {
    return statSync(join(this.#root, path), { throwIfNoEntry: false })?.isDirectory() === true;
  }

  /** Of the file system that a path is on, for this user. */
  freeBytes(path: string): number | undefined {
    try {
      const { bavail, bsize } = statfsSync(join(this.#root, path));
      return bavail * bsize;
    } catch {
      return undefined;
    }
  }

  #may(path: string, right: number): boolean {
    try {
      accessSync(join(this.#root, path), right);
      return true;
    } catch {
      return false;
    }
  }

  link(path: string): string | undefined {
    try {
      return readlinkSync(join(this.#root, path));
    } catch {
      return undefined;
    }
  }
}

const finding = (name: string, level: Level, found: string, advice?: string): Finding => ({
  name,
  level,
  found,
  ...(advice === undefined ? {} : { advice }),
});

/** Jetson and other boards name themselves in the device tree, PCs in /proc/cpuinfo. */
export function probeBoard(files: SystemFiles): Finding {
  const board = files.text('/proc/device-tree/model');
  const cpu = files.text('/proc/cpuinfo') ?? '';
  const field = (name: string): string | undefined => new RegExp(`^${name}\\s*:\\s*(.+)$`, 'm').exec(cpu)?.[1];
  const model = field('model name') ?? field('Model') ?? (field('CPU part') === undefined ? undefined : `ARM part ${field('CPU part')}`);
  const text = [board, model].filter((part) => part !== undefined).join(', ');
  return text === '' ? finding('CPU', 'warn', 'model unknown', 'Nothing to do: /proc/cpuinfo names no model.') : finding('CPU', 'ok', text);
}

/** Instruction sets that the fast kernels use. */
const usefulFeatures = ['avx2', 'fma', 'avx512f', 'avx512_bf16', 'avx512_vnni', 'amx_bf16', 'asimddp', 'bf16', 'i8mm', 'sve2'];

export function probeFeatures(files: SystemFiles): Finding {
  const cpu = files.text('/proc/cpuinfo') ?? '';
  const flags = new Set((/^(?:flags|Features)\s*:\s*(.+)$/m.exec(cpu)?.[1] ?? '').split(/\s+/));
  const present = usefulFeatures.filter((feature) => flags.has(feature));
  const fast = flags.has('avx2') || flags.has('asimddp');
  if (fast) return finding('instructions', 'ok', present.join(', '));
  return finding(
    'instructions',
    'warn',
    present.join(', ') || 'none of AVX2, dot product',
    'The engine runs with portable kernels, many times slower.',
  );
}

export function probeMemory(files: SystemFiles): Finding {
  const info = files.text('/proc/meminfo') ?? '';
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(info)?.[1] ?? Number.NaN);
  const [total, available] = [kib('MemTotal') / 2 ** 20, kib('MemAvailable') / 2 ** 20];
  if (Number.isNaN(total)) return finding('memory', 'warn', 'size unknown', 'Nothing to do: /proc/meminfo cannot be read.');
  const text = `${total.toFixed(1)} GiB, ${Number.isNaN(available) ? '?' : available.toFixed(1)} GiB available`;
  // bf16 weights of the released transformer 9.5 GiB, autoencoder 1.3 GiB, cache of two guidance rows 1.5 .. 9.5 GiB.
  if (total >= 15) return finding('memory', 'ok', text);
  return finding('memory', 'warn', text, 'Too small for the released size (about 16 GiB at bf16); premotor inspect DIR --job JOB gives the need.');
}

const cudaFolders = [
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu/tegra',
  '/usr/lib/aarch64-linux-gnu/nvidia',
  '/usr/lib64',
];

/** A GPU is judged from its device files, its driver's version and libcuda; nothing is opened. */
export function probeGpu(files: SystemFiles): Finding {
  const devices = files.list('/dev').filter((name) => /^nvidia\d+$|^nvhost-gpu$|^nvgpu$/.test(name));
  const names = files
    .list('/proc/driver/nvidia/gpus')
    .map((id) => /^Model:\s*(.+)$/m.exec(files.text(`/proc/driver/nvidia/gpus/${id}/information`) ?? '')?.[1] ?? id);
  const driver = /Kernel Module\s+(?:for \S+\s+)?([\d.]+)/.exec(files.text('/proc/driver/nvidia/version') ?? '')?.[1];
  const tegra = files.text('/etc/nv_tegra_release')?.split('\n')[0];
  const library = cudaFolders.find((folder) => files.list(folder).some((name) => name.startsWith('libcuda.so')));
  const parts = [
    names.join(', ') || devices.join(', '),
    driver === undefined ? undefined : `driver ${driver}`,
    tegra,
    library && `libcuda in ${library}`,
  ];
  const text = parts.filter((part) => part !== undefined && part !== '').join('; ');
  if (devices.length === 0) {
    return text === ''
      ? finding('GPU', 'missing', 'no NVIDIA GPU', 'The engine runs on the CPU: fine for small checkpoints, too slow for the released size.')
      : finding('GPU', 'warn', `no device file; ${text}`, 'Load the driver (nvidia-modprobe), or give the container the GPU.');
  }
  if (library === undefined)
    return finding('GPU', 'warn', `${text}; no libcuda`, "Install the driver's CUDA library (libcuda1, or JetPack on a Jetson).");
  return finding('GPU', 'ok', text);
}

/** Linux capability bits. */
const CAP_IPC_LOCK = 14;
const CAP_SYS_NICE = 23;

function hasCapability(files: SystemFiles, bit: number): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(files.text('/proc/self/status') ?? '')?.[1];
  return mask !== undefined && ((BigInt(`0x${mask}`) >> BigInt(bit)) & 1n) === 1n;
}

function softLimit(files: SystemFiles, name: string): number {
  const value = new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(files.text('/proc/self/limits') ?? '')?.[1];
  return value === 'unlimited' ? Number.POSITIVE_INFINITY : Number(value ?? Number.NaN);
}

/** The stream process wants this priority (docs/DESIGN.md). */
const PRIORITY_WANTED = 80;
const LOCKED_BYTES_WANTED = 64 << 20;

export function probeRealtime(files: SystemFiles): Finding {
  if (hasCapability(files, CAP_SYS_NICE)) return finding('real-time priority', 'ok', 'allowed (CAP_SYS_NICE)');
  const limit = softLimit(files, 'Max realtime priority');
  if (limit >= PRIORITY_WANTED) return finding('real-time priority', 'ok', `allowed up to ${limit}`);
  const line = `"@robot - rtprio ${PRIORITY_WANTED}"`;
  const advice = `Add ${line} to /etc/security/limits.d/premotor.conf (group robot) and log in again, or LimitRTPRIO= in the unit.`;
  return finding('real-time priority', 'warn', Number.isNaN(limit) ? 'limit unknown' : `limit ${limit}`, advice);
}

export function probeLockedMemory(files: SystemFiles): Finding {
  if (hasCapability(files, CAP_IPC_LOCK)) return finding('locked memory', 'ok', 'allowed (CAP_IPC_LOCK)');
  const limit = softLimit(files, 'Max locked memory');
  const text = Number.isFinite(limit) ? `limit ${(limit / 2 ** 20).toFixed(0)} MiB` : Number.isNaN(limit) ? 'limit unknown' : 'unlimited';
  if (limit >= LOCKED_BYTES_WANTED) return finding('locked memory', 'ok', text);
  return finding(
    'locked memory',
    'warn',
    text,
    'Add "@robot - memlock 65536" to /etc/security/limits.d/premotor.conf, or LimitMEMLOCK=64M in the unit.',
  );
}

export function probeKernel(files: SystemFiles): Finding {
  const version = files.text('/proc/version') ?? '';
  const release = /Linux version (\S+)/.exec(version)?.[1] ?? 'Linux';
  if (files.text('/sys/kernel/realtime') === '1' || /PREEMPT_RT/.test(version)) return finding('kernel', 'ok', `${release}, PREEMPT_RT`);
  const model = /PREEMPT_DYNAMIC|PREEMPT/.exec(version)?.[0];
  const advice = 'Install a PREEMPT_RT kernel for 1 kHz setpoints without late cycles; the simulation does not need it.';
  return finding('kernel', 'warn', `${release}, ${model ?? 'no kernel preemption'}`, advice);
}

/** ARPHRD_CAN. */
const CAN_LINK_TYPE = '280';

export function probeCan(files: SystemFiles): Finding {
  const interfaces = files.list('/sys/class/net').filter((name) => files.text(`/sys/class/net/${name}/type`) === CAN_LINK_TYPE);
  if (interfaces.length === 0) {
    return finding('CAN', 'missing', 'no CAN interface', 'Plug in an adapter (gs_usb needs no driver), or use the virtual bus for simulation.');
  }
  const states = interfaces.map((name) => `${name} ${files.text(`/sys/class/net/${name}/operstate`) ?? '?'}`);
  const down = interfaces.filter((name) => files.text(`/sys/class/net/${name}/operstate`) === 'down');
  if (down.length === 0) return finding('CAN', 'ok', states.join(', '));
  return finding('CAN', 'warn', states.join(', '), `ip link set ${down[0]} up type can bitrate 1000000 dbitrate 5000000 fd on`);
}

export function probeSerial(files: SystemFiles): Finding {
  const ports = files.list('/dev/serial/by-id').map((name) => `${name} -> ${files.link(`/dev/serial/by-id/${name}`)?.replace(/^.*\//, '') ?? '?'}`);
  if (ports.length > 0) return finding('serial ports', 'ok', ports.join(', '));
  return finding('serial ports', 'missing', 'none', 'Only needed for slcan adapters and boards on USB.');
}

export function probeCameras(files: SystemFiles): Finding {
  const nodes = files.list('/dev').filter((name) => /^video\d+$/.test(name));
  if (nodes.length === 0) return finding('cameras', 'missing', 'no /dev/video*', 'Plug in a camera, or use files or the simulation.');
  const names = nodes.map((node) => `/dev/${node} ${files.text(`/sys/class/video4linux/${node}/name`) ?? ''}`.trim());
  return finding('cameras', 'ok', names.join(', '));
}
