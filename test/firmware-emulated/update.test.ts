/**
 * The real boot loader and firmware in QEMU, updated by `premotor firmware` over slcan: an empty board is filled and updated, refuses what it
 * must, comes back from a firmware that hangs, and is reset at random moments of an update. Run by `npm run test:firmware`;
 * skipped, with the reason, in any other run and where a tool is missing.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { CanBus } from '../../src/can/bus.js';
import { loadNative } from '../../src/native.js';
import { FirmwareClient } from '../../src/robot/firmware-client.js';
import { crc32, type FirmwareImage, packFirmware, parseFirmware } from '../../src/robot/firmware-image.js';
import { arm, hello } from '../support/bridge-host.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const built = join(root, 'build', 'firmware', 'mps2_an500');
const bootLoader = join(built, 'mps2_an500-boot.elf');
const emulator = 'qemu-system-arm';
const axes = 4;
/** Wire units, within the ceilings of firmware-bridge/board/robot_config.h. */
const limits = [-15_000_000, 15_000_000, 3000, 20_000, 400_000, 8000];
const seed = 20261130;
const cuts = 4;

function obstacle(): string | undefined {
  if (process.env['PREMOTOR_FIRMWARE_TESTS'] === undefined) return 'npm run test:firmware runs this';
  if (spawnSync(emulator, ['--version']).status !== 0) return `${emulator} is not installed (Debian package qemu-system-arm)`;
  if (!existsSync(bootLoader)) return 'the firmware was not built (Debian packages gcc-arm-none-eabi, libnewlib-arm-none-eabi)';
  return undefined;
}

interface Board {
  readonly address: string;
  readonly reset: () => Promise<void>;
}

/** An emulated board with empty slots; its clock counts instructions. */
async function startBoard(t: Test): Promise<Board> {
  const monitor = join(t.testdir(), 'qmp');
  const quiet = ['-M', 'mps2-an500', '-display', 'none', '-monitor', 'none', '-nic', 'none', '-icount', 'shift=0'];
  const lines = ['-serial', 'pty', '-serial', 'pty', '-serial', 'pty', '-qmp', `unix:${monitor},server=on,wait=off`];
  const board = spawn(emulator, [...quiet, ...lines, '-kernel', bootLoader], { stdio: ['ignore', 'pipe', 'ignore'] });
  t.teardown(() => board.kill('SIGKILL'));
  let path: string | undefined;
  for await (const line of createInterface({ input: board.stdout })) if ((path = /\/dev\/pts\/\d+/.exec(line)?.[0]) !== undefined) break;
  board.stdout.resume();
  const socket = createConnection(monitor);
  t.teardown(() => socket.destroy());
  socket.write('{"execute":"qmp_capabilities"}\n');
  const reset = (): Promise<void> => new Promise((resolve) => void socket.write('{"execute":"system_reset"}\n', () => resolve()));
  return { address: `slcan:${path}`, reset };
}

/** The images of the build under another version. */
function renamed(images: readonly FirmwareImage[], versionWord: number): FirmwareImage[] {
  return images.map(({ bytes }) => {
    // A Buffer's own slice() would share its memory.
    const copy = new Uint8Array(bytes);
    const view = new DataView(copy.buffer);
    view.setUint32(12, versionWord, true);
    view.setUint32(36, crc32(copy.subarray(0, 36)), true);
    return parseFirmware('renamed', copy)[0] as FirmwareImage;
  });
}

/** A firmware that does nothing for ever: sixteen vectors to a branch to itself. */
function hanging(slot: 0 | 1, versionWord: number): FirmwareImage {
  const address = slot === 0 ? 0x10000 : 0x30000;
  const body = Buffer.alloc(72, 0);
  for (let vector = 0; vector < 16; vector++) body.writeUInt32LE(vector === 0 ? 0x20010000 : address + 512 + 64 + 1, 4 * vector);
  body.writeUInt16LE(0xe7fe, 64);
  return parseFirmware('hanging', packFirmware({ body, board: 'MP25', versionWord, slot, address }))[0] as FirmwareImage;
}

async function story(t: Test): Promise<void> {
  const { address, reset } = await startBoard(t);
  const native = loadNative();
  const images = parseFirmware('built', readFileSync(join(built, 'mps2_an500.pmfw')));
  let client = FirmwareClient.open(address, native, new AbortController().signal);
  const reopen = (signal = new AbortController().signal): void => {
    client.close();
    client = FirmwareClient.open(address, native, signal);
  };
  t.teardown(() => client.close());
  t.match(await client.identity(), { version: 'none', slot: 255, board: 'MP25', targetSlot: 0 }, 'an empty board: the boot loader answers');
  t.match(await client.update(images), { slot: 0, isTrial: false, checksum: images[0]?.bodyChecksum }, 'filled over the bus');
  const next = renamed(images, 0x09000000);
  t.match(await client.update(next), { slot: 1, isTrial: false, version: '9.0.0' }, 'updated from A to B');
  await t.rejects(client.update(images), { code: 'FIRMWARE_OLDER' }, 'older');
  const [first] = renamed(images, 0x09000001);
  if (first === undefined) throw new Error('no image');
  await t.rejects(client.update([{ ...first, checksum: first.checksum ^ 1 }]), { code: 'FIRMWARE_CHECKSUM' }, 'another checksum');
  client.close();
  const host = CanBus.open(address, native);
  await hello(host, axes);
  let armed = -1;
  for (let tries = 0; tries < 20 && armed !== 0; tries++) armed = await arm(host, axes, limits);
  host.close();
  t.equal(armed, 0, 'armed');
  reopen();
  await t.rejects(client.update(renamed(images, 0x09000001)), { code: 'FIRMWARE_ARMED' }, 'refused while armed, and in a fault');
  await reset();
  reopen();
  t.match(await client.identity(), { slot: 1, version: '9.0.0' }, 'a reset keeps what was confirmed');
  await t.rejects(client.update([hanging(0, 0x09000002)]), { code: 'FIRMWARE_FELL_BACK' }, 'a firmware that hangs');
  t.match(await client.identity(), { slot: 1, version: '9.0.0', failedSlot: 0 }, 'was reset by the watchdog three times, and the old one is back');
  let random = seed;
  for (let cut = 1; cut <= cuts; cut++) {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    const abort = new AbortController();
    reopen(abort.signal);
    const share = random / 2 ** 32;
    const onProgress = (_: string, done: number, total: number): void => void (done / total >= share && abort.abort());
    const version = 0x09000010 + cut;
    const ended = await client.update(renamed(images, version), { onProgress }).then(
      () => 'done',
      (error: { code: string }) => error.code,
    );
    await reset();
    reopen();
    const { slot, version: now } = await client.identity();
    t.ok(slot <= 1, `cut ${cut} at ${(100 * share).toFixed(0)} % (${ended}): ${now} runs in slot ${slot}`);
  }
  t.match(await client.update(renamed(images, 0x0a000000)), { version: '10.0.0', isTrial: false }, 'and the next update goes through');
}

const reason = obstacle();
if (reason !== undefined) t.pass('updates of the emulated firmware', { skip: reason });
else {
  t.setTimeout(900_000);
  t.comment(`seed ${seed}`);
  t.test('the boot loader and updates', story);
}
