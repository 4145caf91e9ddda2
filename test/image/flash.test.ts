import { mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { runFlash } from '../../src/cli/image-flash.js';
import { SystemFiles } from '../../src/cli/probes.js';
import { type DeviceHandle, type DeviceIo, type FlashState, flash, realDevices } from '../../src/image/flash.js';
import { MIB } from '../../src/image/layout.js';

const IMAGE_MIB = 11;

/** A machine with one free disk, a regular file behind it. */
function machine(t: Test, diskMib = 16) {
  const root = t.testdir({});
  const files: Record<string, string> = {
    '/sys/class/block/sdb/dev': '8:16',
    '/sys/class/block/sdb/size': String((diskMib * MIB) / 512),
    '/proc/self/mountinfo': '22 1 8:1 / / rw - ext4 /dev/sda1 rw',
  };
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  const image = join(root, 'disk.img');
  const content = Buffer.alloc(IMAGE_MIB * MIB);
  // A pattern whose blocks all differ, so that one block in another's place is noticed.
  for (let at = 0; at < content.length; at += 4) content.writeUInt32LE((at * 2654435761) >>> 0, at);
  content.write('EFI PART', 512, 'latin1');
  writeFileSync(image, content);
  const device = join(root, 'device');
  writeFileSync(device, 'something else');
  truncateSync(device, diskMib * MIB);
  return { root, image, device, content, view: new SystemFiles(root) };
}

interface Fault {
  /** Called before each write; throwing makes it fail. */
  readonly onWrite?: (offset: number) => unknown;
  /** Bytes of the device that reading gives changed. */
  readonly rotAt?: number;
}

function fakeIo(device: string, log: string[], fault: Fault = {}): DeviceIo {
  const handle = (file: FileHandle): DeviceHandle => {
    const write = (async (buffer: Buffer, from: number, bytes: number, offset: number) => {
      fault.onWrite?.(offset);
      log.push(`write ${offset / MIB}`);
      return file.write(buffer, from, bytes, offset);
    }) as FileHandle['write'];
    const read = (async (buffer: Buffer, from: number, bytes: number, offset: number) => {
      const result = await file.read(buffer, from, bytes, offset);
      const { rotAt } = fault;
      if (rotAt !== undefined && rotAt >= offset && rotAt < offset + bytes) buffer[rotAt - offset] = (buffer[rotAt - offset] ?? 0) ^ 1;
      return result;
    }) as FileHandle['read'];
    return {
      write,
      read,
      sync: async () => {
        log.push('sync');
        await file.sync();
      },
      close: async () => {
        log.push('close');
        await file.close();
      },
    };
  };
  return {
    open: async (_path, mode) => handle(await open(device, mode === 'write' ? 'r+' : 'r')),
    flushCaches: async () => void log.push('flush'),
    rereadTable: async () => void log.push('reread'),
  };
}

t.test('an image is written, read back, and its table comes last', async (t) => {
  const { image, device, content, view } = machine(t);
  const [log, states]: [string[], FlashState[]] = [[], []];
  const { bytes } = await flash({
    image,
    device: '/dev/sdb',
    view,
    io: fakeIo(device, log),
    confirm: async () => '/dev/sdb',
    onProgress: (state) => {
      if (states.at(-1) !== state) states.push(state);
    },
  });
  t.equal(bytes, content.length);
  t.ok(readFileSync(device).subarray(0, content.length).equals(content), 'every byte arrived');
  t.same(states, ['checking', 'confirming', 'writing', 'syncing', 'verifying', 'done']);
  t.same(log, ['write 0', 'sync', 'write 1', 'write 5', 'write 9', 'sync', 'write 0', 'sync', 'close', 'flush', 'close', 'reread']);
});

t.test('a kernel that does not look at the new table is told, and no failure', async (t) => {
  const { image, device, view } = machine(t);
  const io = {
    ...fakeIo(device, []),
    rereadTable: async (): Promise<void> => {
      throw new Error('Invalid argument');
    },
  };
  const { isTableSeen } = await flash({ image, device: '/dev/sdb', view, io, confirm: async () => 'sdb' });
  t.equal(isTableSeen, false);
});

t.test('without the name, nothing is written', async (t) => {
  const { image, device, view } = machine(t);
  for (const typed of ['', 'y', '/dev/sda', '/dev/sdb1']) {
    const log: string[] = [];
    await t.rejects(flash({ image, device: '/dev/sdb', view, io: fakeIo(device, log), confirm: async () => typed }), { code: 'FLASH_NOT_CONFIRMED' });
    t.same(log, []);
  }
});

t.test('a disk that is mounted while the question stands is refused', async (t) => {
  const { root, image, device, view } = machine(t);
  const log: string[] = [];
  const confirm = async (): Promise<string> => {
    writeFileSync(join(root, '/proc/self/mountinfo'), '30 22 8:16 / /mnt rw - vfat /dev/sdb rw');
    return 'sdb';
  };
  await t.rejects(flash({ image, device: '/dev/sdb', view, io: fakeIo(device, log), confirm }), { code: 'FLASH_MOUNTED' });
  t.same(log, []);
});

t.test('an interrupted disk starts nothing', async (t) => {
  const { image, device, view } = machine(t);
  const controller = new AbortController();
  const stopped = fakeIo(device, [], { onWrite: (offset) => offset === 5 * MIB && controller.abort() });
  const common = { image, device: '/dev/sdb', view, confirm: async () => 'sdb' };
  await t.rejects(flash({ ...common, io: stopped, signal: controller.signal }), { code: 'FLASH_INTERRUPTED' });
  t.ok(readFileSync(device).subarray(0, MIB).equals(Buffer.alloc(MIB)), 'no table');
  const full = fakeIo(device, [], {
    onWrite: (offset) => {
      if (offset === 9 * MIB) throw new Error('I/O error');
    },
  });
  await t.rejects(flash({ ...common, io: full }), { code: 'FLASH_INTERRUPTED', found: 'I/O error' });
  t.ok(readFileSync(device).subarray(0, MIB).equals(Buffer.alloc(MIB)), 'no table');
  await flash({ ...common, io: fakeIo(device, []) });
  t.pass('the next attempt succeeds');
});

t.test('a disk that does not keep what it was given is found', async (t) => {
  const { image, device, view } = machine(t);
  for (const rotAt of [0, 5 * MIB + 3, IMAGE_MIB * MIB - 1]) {
    const io = fakeIo(device, [], { rotAt });
    await t.rejects(flash({ image, device: '/dev/sdb', view, io, confirm: async () => 'sdb' }), { code: 'FLASH_VERIFY_FAILED' }, String(rotAt));
  }
});

t.test('what is no image is refused before anything is asked', async (t) => {
  const { root, device, view } = machine(t);
  writeFileSync(join(root, 'text'), 'x'.repeat(4096));
  for (const image of ['text', 'absent', '.']) {
    const confirm = async (): Promise<string> => t.fail('asked') as never;
    await t.rejects(
      flash({ image: join(root, image), device: '/dev/sdb', view, io: fakeIo(device, []), confirm }),
      { code: 'IMAGE_INPUT_INVALID' },
      image,
    );
  }
});

t.test('a device that cannot be opened says what to do', async (t) => {
  await t.rejects(realDevices.open(join(t.testdir({}), 'absent'), 'write'), { code: 'FLASH_BUSY', found: 'ENOENT' });
});

t.test('the command asks, or takes the name from its option', async (t) => {
  const { image, device, view } = machine(t);
  const [out, err]: [string[], string[]] = [[], []];
  const sink = (lines: string[]) => ({ write: (text: string) => void lines.push(text) });
  const context = {
    out: sink(out),
    err: sink(err),
    loadPolicy: () => t.fail('not needed') as never,
    loadNative: () => t.fail('not needed') as never,
    signal: new AbortController().signal,
  };
  const questions: string[] = [];
  const ask = async (text: string): Promise<string> => {
    questions.push(text);
    return 'sdb';
  };
  const parts = { view, io: fakeIo(device, []), ask };
  await runFlash(image, '/dev/sdb', { json: false }, context, parts);
  t.match(questions[0], /Everything on \/dev\/sdb \(unknown model, 16.0 MiB\) will be lost/);
  t.match(out.join(''), /written and read back/);
  await runFlash(image, '/dev/sdb', { json: true, yesIMean: '/dev/sdb' }, context, parts);
  t.equal(questions.length, 1, 'not asked again');
  t.equal(JSON.parse(out.at(-1) ?? '').bytes, statSync(image).size);
  await t.rejects(runFlash(image, '/dev/sdb', { json: false, yesIMean: '/dev/sda' }, context, parts), { code: 'FLASH_NOT_CONFIRMED' });
});
