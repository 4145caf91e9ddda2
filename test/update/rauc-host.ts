/**
 * A real RAUC on this machine, as on a robot but for its slots (files), its boot loader (a script that keeps its state in files) and its bus (a
 * private
 * one). Not a test itself.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';

const SLOT_BYTES = 8 << 20;
const root = fileURLToPath(new URL('../..', import.meta.url));

/** Why there is no RAUC here; undefined when there is. */
export function raucMissing(): string | undefined {
  const needed = ['rauc', 'dbus-daemon', 'mksquashfs', 'openssl'];
  const missing = needed.filter((program) => spawnSync('which', [program]).status !== 0);
  if (missing.length > 0) return `SKIPPED: ${missing.join(', ')} not installed (apt-get install rauc dbus squashfs-tools openssl)`;
  // RAUC mounts a bundle to read it.
  return process.getuid?.() === 0 && existsSync('/dev/loop-control') ? undefined : 'SKIPPED: needs root and loop devices';
}

const backend = (state: string): string => `#!/bin/sh
case $1 in
get-primary) cat ${state}/primary ;;
set-primary) echo "$2" > ${state}/primary; echo good > "${state}/$2" ;;
get-state) cat "${state}/$2" ;;
set-state) echo "$3" > "${state}/$2" ;;
esac
`;

function script(file: string, text: string): string {
  writeFileSync(file, text);
  chmodSync(file, 0o755);
  return file;
}

export class RaucHost {
  readonly #folder: string;
  #service: ChildProcess | undefined;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Starts a bus and writes system.conf into `folder`; slot A is booted. `options` are given to premotor by the handlers. */
  static async start(t: Test, folder: string, keyring: string, options: readonly string[]): Promise<RaucHost> {
    const host = new RaucHost(folder);
    const state = join(folder, 'boot');
    mkdirSync(state, { recursive: true });
    mkdirSync(join(folder, 'mnt'), { recursive: true });
    mkdirSync(join(folder, 'state', 'update'), { recursive: true });
    for (const [name, text] of [
      ['primary', 'A'],
      ['A', 'good'],
      ['B', 'bad'],
    ] as const)
      writeFileSync(join(state, name), `${text}\n`);
    for (const slot of ['slot-a', 'slot-b']) {
      writeFileSync(join(folder, slot), '');
      truncateSync(join(folder, slot), SLOT_BYTES);
    }
    const main = join(folder, 'main.mts');
    writeFileSync(
      main,
      `import { runCli } from ${JSON.stringify(join(root, 'src/cli/main.ts'))};\nprocess.exitCode = await runCli(process.argv.slice(2));\n`,
    );
    const premotor = script(
      join(folder, 'premotor'),
      `#!/bin/sh\nexec ${process.execPath} --import=${join(root, 'node_modules/tsx/dist/loader.mjs')} ${main} "$@"\n`,
    );
    const handler = (name: string): string =>
      script(
        join(folder, name),
        `#!/bin/sh\nexport PREMOTOR=${premotor} PREMOTOR_RUNTIME_DIR=${join(folder, 'run')} ` +
          `PREMOTOR_UPDATE_OPTIONS="${options.join(' ')}"\nexec ${join(root, 'deploy/update', name)}\n`,
      );
    const slot = (index: number, letter: string): string =>
      `[slot.rootfs.${index}]\ndevice=${join(folder, `slot-${letter.toLowerCase()}`)}\ntype=raw\nbootname=${letter}\n`;
    const statusFile = join(folder, 'state', 'update', 'rauc.status');
    const lines = [
      '[system]',
      'compatible=premotor-amd64',
      'bootloader=custom',
      `statusfile=${statusFile}`,
      `mountprefix=${join(folder, 'mnt')}`,
      '',
    ];
    lines.push('[keyring]', `path=${keyring}`, '', '[handlers]', `bootloader-custom-backend=${script(join(folder, 'backend'), backend(state))}`);
    lines.push(`pre-install=${handler('pre-install')}`, `post-install=${handler('post-install')}`, '', slot(0, 'A'), slot(1, 'B'));
    writeFileSync(join(folder, 'system.conf'), lines.join('\n'));
    await host.#bus(t);
    await host.boot('A');
    t.teardown(() => host.stop());
    return host;
  }

  async #bus(t: Test): Promise<void> {
    const bus = spawn('dbus-daemon', ['--session', '--print-address', '--nofork'], { stdio: ['ignore', 'pipe', 'ignore'] });
    t.teardown(() => bus.kill());
    const address = await new Promise<string>((resolve) => bus.stdout.once('data', (bytes: Buffer) => resolve(bytes.toString().trim())));
    process.env['DBUS_SYSTEM_BUS_ADDRESS'] = address;
  }

  /** The robot starts from a slot: RAUC's service anew, as after a start. */
  async boot(bootname: string): Promise<void> {
    await this.stop();
    const args = [`--conf=${join(this.#folder, 'system.conf')}`, `--override-boot-slot=${bootname}`, 'service'];
    const service = spawn('rauc', args, { stdio: ['ignore', 'ignore', 'ignore'] });
    this.#service = service;
    const asked = spawn('gdbus', ['wait', '--address', process.env['DBUS_SYSTEM_BUS_ADDRESS'] ?? '', '--timeout', '60', 'de.pengutronix.rauc']);
    await new Promise<void>((resolve, reject) => asked.on('close', (code) => (code === 0 ? resolve() : reject(new Error('RAUC has not started')))));
  }

  async stop(): Promise<void> {
    const service = this.#service;
    this.#service = undefined;
    if (service === undefined || service.exitCode !== null) return;
    await new Promise((resolve) => {
      service.on('close', resolve);
      service.kill();
    });
  }

  /** What the boot loader would start next: the primary slot if it is good, else the other. */
  get next(): string {
    const read = (name: string): string => readFileSync(join(this.#folder, 'boot', name), 'utf8').trim();
    const primary = read('primary');
    return read(primary) === 'good' ? primary : primary === 'A' ? 'B' : 'A';
  }

  stateOf(bootname: string): string {
    return readFileSync(join(this.#folder, 'boot', bootname), 'utf8').trim();
  }

  slot(letter: 'a' | 'b'): Buffer {
    return readFileSync(join(this.#folder, `slot-${letter}`));
  }
}
