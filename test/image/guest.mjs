/**
 * A robot in an emulator: boots a disk image in QEMU as a board would (UEFI firmware, no KVM needed), reads its serial console, runs commands in it
 * over ssh with a key made for the test, and cuts its power. Owned by the scenarios of `npm run test:image`; every guest writes to a copy of its
 * own, never to the image. Guests reach this machine at 10.0.2.2; nothing reaches a guest but ssh through a port of loopback.
 */
import { execFileSync, spawn } from 'node:child_process';
import { appendFileSync, copyFileSync, existsSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';

/** Emulation on a busy machine is slow: these are bounds against hanging, not measurements. */
export const boot_timeout_ms = 900_000;
export const command_timeout_ms = 300_000;
const ssh_retry_ms = 1000;
const exit_timeout_ms = 10_000;
const freeze_check_ms = 200;
const KEPT_LINES = 20_000;

const firmware = {
  amd64: { code: ['/usr/share/OVMF/OVMF_CODE_4M.fd'], vars: ['/usr/share/OVMF/OVMF_VARS_4M.fd'] },
  arm64: { code: ['/usr/share/AAVMF/AAVMF_CODE.fd'], vars: ['/usr/share/AAVMF/AAVMF_VARS.fd'] },
};

/** No memory protection keys: V8 uses them for the code that it writes, one thing less that an emulator can get wrong. */
const machines = {
  amd64: ['qemu-system-x86_64', '-M', 'q35', '-cpu', 'max,pku=off'],
  arm64: ['qemu-system-aarch64', '-M', 'virt', '-cpu', 'max,pauth-impdef=on'],
};

const PACED = ['-accel', 'tcg,thread=single', '-icount', 'shift=0,sleep=on'];
const FREE = ['-accel', 'tcg,thread=multi'];

/** What is missing on this machine to boot guests of an architecture; empty when nothing is. */
export function missingFor(arch) {
  const programs = [machines[arch][0], 'ssh', 'ssh-keygen'];
  const absent = programs.filter((name) => !['/usr/bin', '/bin', '/usr/sbin'].some((folder) => existsSync(join(folder, name))));
  return [...absent, ...[...firmware[arch].code, ...firmware[arch].vars].filter((file) => !existsSync(file))];
}

/** An ssh key for tests: { privateKey, publicKey } as paths. */
export function makeKey(folder) {
  mkdirSync(folder, { recursive: true });
  const privateKey = join(folder, 'key');
  if (!existsSync(privateKey)) execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'premotor image test', '-f', privateKey]);
  return { privateKey, publicKey: `${privateKey}.pub` };
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const copySparse = (from, to) => execFileSync('cp', ['--sparse=always', '--reflink=auto', from, to]);

/** A disk that outlives its guests: a copy of an image, with firmware variables of its own. */
export class Disk {
  constructor(folder, arch, image, { sizeGib = 8 } = {}) {
    this.folder = folder;
    this.arch = arch;
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    this.file = join(folder, 'disk.raw');
    this.vars = join(folder, 'vars.fd');
    copySparse(image, this.file);
    // A real disk is larger than the image that is written to it.
    truncateSync(this.file, sizeGib * 2 ** 30);
    copyFileSync(firmware[arch].vars[0], this.vars);
  }

  /** The same disk as it is now, for guests that may ruin it. */
  fork(folder) {
    const copy = Object.create(Disk.prototype);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    Object.assign(copy, { folder, arch: this.arch, file: join(folder, 'disk.raw'), vars: join(folder, 'vars.fd') });
    copySparse(this.file, copy.file);
    copyFileSync(this.vars, copy.vars);
    return copy;
  }
}

export class Guest {
  #child;
  #lines = [];
  #partial = '';
  #waiting = new Set();
  #exited;

  /** Starts the machine; it boots while the caller does something else. */
  static async start(disk, key, options = {}) {
    const guest = new Guest();
    guest.disk = disk;
    guest.key = key;
    guest.port = await freePort();
    guest.log = join(disk.folder, 'console.log');
    guest.qmpPath = join(disk.folder, 'qmp');
    rmSync(guest.qmpPath, { force: true });
    appendFileSync(guest.log, `---- power on\n`);
    guest.#spawn(options);
    if (options.frozen !== undefined) await guest.#thaw();
    return guest;
  }

  /**
   * On a machine that is busy with other things an emulated processor can starve for longer than any watchdog waits: only scenarios that are about
   * the watchdog let it act. `isPaced`: the guest's clock counts the instructions of one processor of 1000 MIPS. Such a guest keeps every deadline
   * that a robot of this speed would keep, however slow it is seen from outside (about a sixth of real time): for scenarios in which motors move.
   */
  #spawn({ memoryMib = 2048, isPaced = false, cpus = isPaced ? 1 : 2, serialNumber = 'TEST0001', watchdog = 'none', frozen }) {
    const { arch, file, vars } = this.disk;
    const [program, ...machine] = machines[arch];
    const args = [...machine, ...(isPaced ? PACED : FREE), '-m', String(memoryMib), '-smp', String(cpus)];
    args.push('-display', 'none', '-no-user-config');
    args.push(
      '-drive',
      `if=pflash,format=raw,unit=0,readonly=on,file=${firmware[arch].code[0]}`,
      '-drive',
      `if=pflash,format=raw,unit=1,file=${vars}`,
    );
    args.push('-drive', `if=none,id=disk,format=raw,file=${file},cache=writeback,discard=unmap`, '-device', 'virtio-blk-pci,drive=disk,bootindex=1');
    args.push('-netdev', `user,id=net,hostfwd=tcp:127.0.0.1:${this.port}-:22`, '-device', 'virtio-net-pci,netdev=net,romfile=');
    args.push('-device', 'virtio-rng-pci', '-device', 'i6300esb', '-action', `watchdog=${watchdog}`, '-smbios', `type=1,serial=${serialNumber}`);
    args.push('-serial', 'stdio', '-monitor', 'none', '-qmp', `unix:${this.qmpPath},server=on,wait=off`);
    if (frozen !== undefined) args.push('-incoming', `exec:cat ${frozen}`);
    this.#child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stdout.on('data', (chunk) => this.#take(chunk.toString('utf8')));
    this.#child.stderr.on('data', (chunk) => appendFileSync(this.log, `qemu: ${chunk}`));
    this.#exited = new Promise((resolve) => this.#child.once('close', resolve));
    this.#exited.then(() => {
      for (const waiter of this.#waiting) waiter.fail(new Error('the machine ended'));
    });
  }

  #take(text) {
    appendFileSync(this.log, text);
    // Colours and cursor commands of firmware and systemd are not part of a line.
    const parts = (this.#partial + text.replace(/\u001b\[[0-9;?=]*[A-Za-z]/g, '').replace(/\r/g, '')).split('\n');
    this.#partial = parts.pop() ?? '';
    for (const line of parts) {
      this.#lines.push(line);
      for (const waiter of this.#waiting) waiter.look(line);
    }
    if (this.#lines.length > KEPT_LINES) this.#lines.splice(0, this.#lines.length - KEPT_LINES);
  }

  get lines() {
    return this.#lines;
  }

  /** The first console line from `from` on that matches; waits for it. */
  line(pattern, { timeout_ms = boot_timeout_ms, from = 0 } = {}) {
    const already = this.#lines.slice(from).find((line) => pattern.test(line));
    if (already !== undefined) return Promise.resolve(already);
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        clearTimeout(timer);
        this.#waiting.delete(waiter);
        settle(value);
      };
      const waiter = { look: (line) => pattern.test(line) && end(resolve, line), fail: (error) => end(reject, error) };
      const timer = setTimeout(() => {
        const last = this.#lines.slice(-5).join(' | ');
        end(reject, new Error(`no console line like ${pattern} within ${timeout_ms / 1000} s; the last ones: ${last}`));
      }, timeout_ms);
      this.#waiting.add(waiter);
    });
  }

  /** Runs a command in the guest. Resolves to { code, out, err }; never rejects for what the command does. */
  run(command, { timeout_ms = command_timeout_ms, input } = {}) {
    const options = [
      'StrictHostKeyChecking=no',
      'UserKnownHostsFile=/dev/null',
      'LogLevel=ERROR',
      `ConnectTimeout=${Math.ceil(timeout_ms / 1000)}`,
      'ServerAliveInterval=60',
    ];
    const args = ['-p', String(this.port), '-i', this.key.privateKey, ...options.flatMap((option) => ['-o', option]), 'root@127.0.0.1', command];
    return new Promise((resolve) => {
      const child = spawn('ssh', args, { stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] });
      const [out, err] = [[], []];
      child.stdout.on('data', (chunk) => out.push(chunk));
      child.stderr.on('data', (chunk) => err.push(chunk));
      if (input !== undefined) child.stdin.on('error', () => undefined).end(input);
      const timer = setTimeout(() => child.kill('SIGKILL'), timeout_ms);
      child.once('close', (code) => {
        clearTimeout(timer);
        resolve({ code: code ?? -1, out: Buffer.concat(out).toString('utf8').trim(), err: Buffer.concat(err).toString('utf8').trim() });
      });
    });
  }

  /** The output of a command that must succeed. */
  async output(command, options) {
    const { code, out, err } = await this.run(command, options);
    if (code !== 0) throw new Error(`in the guest: ${command}: expected 0, found ${code}: ${err.slice(-400)} ${out.slice(-200)}`);
    return out;
  }

  /** Until ssh answers; then the console's position, for lines that come later. */
  async reachable({ timeout_ms = boot_timeout_ms } = {}) {
    const until = Date.now() + timeout_ms;
    for (let left = 1; left > 0; left = until - Date.now()) {
      const { code } = await this.run('true', { timeout_ms: 90_000 });
      if (code === 0) return this.#lines.length;
      if (this.#child.exitCode !== null) throw new Error('the machine ended');
      await new Promise((resolve) => setTimeout(resolve, ssh_retry_ms));
    }
    throw new Error(`ssh did not answer within ${timeout_ms / 1000} s; the last console lines: ${this.#lines.slice(-5).join(' | ')}`);
  }

  /** Puts a local file into the guest. */
  async send(text, path, mode = '644') {
    await this.output(`cat >${path} && chmod ${mode} ${path}`, { input: text });
  }

  /** The service's own status, as the control socket gives it. */
  status() {
    return this.ask({ do: 'status' });
  }

  /** One request to the service (docs/SERVICE.md). The start of a command of ours takes seconds in emulation, that of Debian's perl none. */
  async ask(request) {
    const script = [
      'use IO::Socket::UNIX;',
      `my $socket = IO::Socket::UNIX->new('/run/premotor/control.sock');`,
      `if (!$socket) { print '{"ok": false, "error": {"code": "no socket"}}'; exit; }`,
      `print $socket '${JSON.stringify(request)}', "\n";`,
      '$socket->flush();',
      'print scalar <$socket>;',
    ].join('\n');
    return JSON.parse(await this.output('perl', { input: script }));
  }

  /** Pulls the plug: what the guest had not written is lost. */
  async powerCut() {
    appendFileSync(this.log, '\n---- power cut\n');
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /**
   * Ends the machine with its memory in a file; its disk stays as it is at that moment. A guest on a fork of that disk, started with
   * { frozen: file }, goes on from there in seconds, as often as one likes. Connections to it are gone.
   */
  async freeze(file) {
    await this.qmp('stop');
    await this.qmp('migrate', { uri: `exec:cat >${file}` });
    await this.#until('its memory in a file', async () => {
      const { status } = (await this.qmp('query-migrate')).return;
      if (status === 'failed' || status === 'cancelled') throw new Error(`the machine cannot be frozen: found ${status}`);
      return status === 'completed';
    });
    await this.powerCut();
  }

  async #thaw() {
    await this.#until('its memory back', async () => {
      const answer = await this.qmp('query-status').catch(() => undefined);
      return answer !== undefined && answer.return.status !== 'inmigrate';
    });
    await this.qmp('cont');
  }

  async #until(what, isTrue, timeout_ms = command_timeout_ms) {
    const until = Date.now() + timeout_ms;
    while (!(await isTrue())) {
      if (Date.now() > until || this.#child.exitCode !== null) throw new Error(`expected ${what} within ${timeout_ms / 1000} s, found none`);
      await new Promise((resolve) => setTimeout(resolve, freeze_check_ms));
    }
  }

  /** The reset button: firmware, boot loader and kernel start again in the same process. */
  async reset() {
    await this.qmp('system_reset');
  }

  /** An orderly power-off, then the plug. */
  async shutDown({ timeout_ms = 90_000 } = {}) {
    await this.qmp('system_powerdown').catch(() => undefined);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), timeout_ms);
    await this.#exited;
    clearTimeout(timer);
  }

  /** One QMP command. */
  qmp(execute, args) {
    return new Promise((resolve, reject) => {
      const socket = connect(this.qmpPath);
      let text = '';
      const timer = setTimeout(() => {
        socket.destroy();
        reject(new Error(`QMP ${execute}: no answer`));
      }, exit_timeout_ms);
      const end = (settle, value) => {
        clearTimeout(timer);
        socket.destroy();
        settle(value);
      };
      socket.on('error', (error) => end(reject, error));
      socket.on('connect', () => {
        socket.write('{"execute":"qmp_capabilities"}\n');
        socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
      });
      socket.on('data', (chunk) => {
        text += chunk.toString('utf8');
        const answers = text.split('\n').filter((line) => line.includes('"return"') || line.includes('"error"'));
        if (answers.length >= 2) end(resolve, JSON.parse(answers[1]));
      });
    });
  }
}

/** Kept for reading after a failure. */
export const writeNote = (disk, text) => writeFileSync(join(disk.folder, 'note.txt'), `${text}\n`);
