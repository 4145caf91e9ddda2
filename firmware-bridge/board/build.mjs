/**
 * Builds the firmware for its boards into build/firmware/BOARD: the boot loader, the firmware linked for slot A and for slot B, and BOARD.pmfw, the
 * file that `premotor firmware update` takes, with both. Prints what they take of flash, memory and stack. Fails when an image needs a heap. Skips
 * loudly,
 * with 0, when the cross compiler is missing.
 *
 * node firmware-bridge/board/build.mjs [--version X.Y.Z] [board...]     npm run build:firmware
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const prefix = 'arm-none-eabi-';

/**
 * A board's processor, its own sources beside those that all share, its four letters (pm_board_id), and where its three images go: flash and memory
 * as in its link.ld, which has the origins of the slots too.
 */
export const boards = {
  mps2_an500: {
    cpu: ['-mcpu=cortex-m7', '-mfpu=fpv5-sp-d16'],
    shared: ['slcan_port.c'],
    letters: 'MP25',
    boot: { flash: 0x00000000, bytes: 0xc000, memory: 0x20100000, memoryBytes: 0x18000 },
    a: { flash: 0x00010000, bytes: 0x20000, memory: 0x20000000, memoryBytes: 0x18000 },
    b: { flash: 0x00030000, bytes: 0x20000, memory: 0x20000000, memoryBytes: 0x18000 },
  },
  stm32g4: {
    cpu: ['-mcpu=cortex-m4', '-mfpu=fpv4-sp-d16'],
    shared: [],
    letters: 'S2G4',
    boot: { flash: 0x08000000, bytes: 0x6000, memory: 0x20018000, memoryBytes: 0x8000 },
    a: { flash: 0x08008000, bytes: 0x38000, memory: 0x20000000, memoryBytes: 0x18000 },
    b: { flash: 0x08040000, bytes: 0x38000, memory: 0x20000000, memoryBytes: 0x18000 },
  },
};

/** Of an image (firmware-bridge/slots.h). */
const HEADER_BYTES = 512;
const FIELD_BYTES = 40;
const UNIT_BYTES = 8;

const language = '-std=c11 -Wall -Wextra -Wpedantic -Werror -O2 -g -fno-math-errno -fstack-usage -ffunction-sections -fdata-sections';
/** What an allocator would bring along. */
const heap = /^(_?malloc|_?free|_?calloc|_?realloc|_?sbrk|_?malloc_r|_?free_r|_sbrk_r)$/;

export const hasCompiler = () => spawnSync(`${prefix}gcc`, ['--version']).status === 0;

function run(tool, args) {
  const { status, stdout, stderr, error } = spawnSync(`${prefix}${tool}`, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`${prefix}${tool} ${args.join(' ')} failed: ${error ?? ''}${stderr}${stdout}`);
  return stdout;
}

const cFiles = (folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.c'))
    .map((name) => join(folder, name));

const board = 'firmware-bridge/board';

function sourcesOf(name) {
  const shared = ['startup.c', ...boards[name].shared].map((file) => join(board, file));
  return [...shared, ...cFiles(join(board, name)), 'protocol/frames.c', 'protocol/motor/damiao.c'];
}

/** What an image has beside what all have. */
const ownSources = {
  boot: ['bootloader/main.c'].map((file) => join(board, file)).concat(['slots.c', 'update.c', 'led.c'].map((file) => join('firmware-bridge', file))),
  slot: [...['main.c', 'loop.c'].map((file) => join(board, file)), ...cFiles('firmware-bridge'), ...cFiles('firmware-bridge/drives')],
};

/** The largest frames of single functions, from gcc's .su files: bytes, function. A call chain is the sum of its functions. */
function stackUsage(folder) {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.su'))
    .flatMap((name) => readFileSync(join(folder, name), 'utf8').trim().split('\n'))
    .map((line) => line.split('\t'))
    .filter((fields) => fields.length === 3)
    .map(([place, bytes]) => ({ name: place.split(':').at(-1), bytes: Number(bytes) }))
    .sort((a, b) => b.bytes - a.bytes);
}

/** CRC-32/ISO-HDLC. */
export function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** `1.2.3` as the header has it. */
export function versionWord(text) {
  const [major, minor, patch] = /^(\d+)\.(\d+)\.(\d+)/.exec(text)?.slice(1).map(Number) ?? [];
  if (!(major <= 255 && minor <= 255 && patch <= 65535)) throw new Error(`a version is like 1.2.3, found ${text}`);
  return major * 2 ** 24 + minor * 2 ** 16 + patch;
}

/** The first 32 bits of the commit's name; 0 outside a repository. */
function sourceWord() {
  const { status, stdout } = spawnSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' });
  return status === 0 ? Number.parseInt(stdout.slice(0, 8), 16) : 0;
}

/** A body with its header, as it stands in its slot and travels over the bus (firmware-bridge/slots.h). `slot` is 0 or 1. */
export function packImage({ body: given, letters, version, source, address, slot }) {
  const body = Buffer.alloc(Math.ceil(given.length / UNIT_BYTES) * UNIT_BYTES, 0xff);
  body.set(given);
  const header = Buffer.alloc(HEADER_BYTES, 0xff);
  header.write('PMFW', 0, 'latin1');
  [1, Buffer.from(letters, 'latin1').readUInt32LE(), versionWord(version), source, body.length, crc32(body), address + HEADER_BYTES, slot].forEach(
    (word, index) => header.writeUInt32LE(word, 4 + 4 * index),
  );
  header.writeUInt32LE(crc32(header.subarray(0, FIELD_BYTES - 4)), FIELD_BYTES - 4);
  return Buffer.concat([header, body]);
}

function compile(target, definitions, folder, source) {
  const object = join(folder, `${source.replaceAll(/[/.]/g, '-')}.o`);
  if (!existsSync(object)) run('gcc', [...target, ...language.split(' '), ...definitions, '-I.', '-c', source, '-o', object]);
  return object;
}

/** Links one image, `boot`, `a` or `b`, and says what it takes. */
function linkImage(name, image, objects, target, folder) {
  const place = boards[name][image];
  const header = image === 'boot' ? 0 : HEADER_BYTES;
  const elf = join(folder, `${name}-${image}.elf`);
  const binary = join(folder, `${name}-${image}.bin`);
  const places = { FLASH_ORIGIN: place.flash + header, FLASH_LENGTH: place.bytes - header, RAM_ORIGIN: place.memory, RAM_LENGTH: place.memoryBytes };
  const symbols = Object.entries(places).map(([symbol, value]) => `-Wl,--defsym=PM_${symbol}=${value}`);
  const scripts = ['-L', board, '-T', `${board}/${name}/link.ld`];
  const linking = ['--specs=nano.specs', '-nostartfiles', '-Wl,--gc-sections', '-Wl,--fatal-warnings', ...symbols, ...scripts];
  run('gcc', [...target, ...linking, ...objects, '-lm', '-o', elf]);
  run('objcopy', ['-O', 'binary', elf, binary]);
  const allocators = (run('nm', [elf]).match(/\S+$/gm) ?? []).filter((symbol) => heap.test(symbol));
  if (allocators.length > 0) throw new Error(`${name} needs a heap: ${allocators.join(', ')}`);
  const sections = Object.fromEntries(
    [...run('size', ['-A', '-d', elf]).matchAll(/^(\.\S+)\s+(\d+)/gm)].map(([, section, bytes]) => [section, Number(bytes)]),
  );
  const of = (...names) => names.reduce((sum, section) => sum + (sections[section] ?? 0), 0);
  return { elf, binary, flash: of('.text', '.ARM.exidx', '.data'), memory: of('.data', '.bss', '.noinit'), stack: of('.stack') };
}

/**
 * Builds one board. Returns the paths and the sizes in bytes, of the firmware and as `boot` of the boot loader: code and constants, initialised and
 * zeroed memory, the stack that is set aside. `image` is slot A with its header, `update` the file with both.
 */
export function buildFirmware(name, { version, defines = [], folder = join(root, 'build', 'firmware', name) } = {}) {
  const { cpu, letters } = boards[name];
  const named = version ?? JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const target = [...cpu, '-mthumb', '-mfloat-abi=hard'];
  const definitions = defines.map((define) => `-D${define}`);
  const objectsOf = (kind) => [...sourcesOf(name), ...ownSources[kind]].map((source) => compile(target, definitions, folder, source));
  const boot = linkImage(name, 'boot', objectsOf('boot'), target, folder);
  const slots = ['a', 'b'].map((image, slot) => {
    const linked = linkImage(name, image, objectsOf('slot'), target, folder);
    const body = readFileSync(linked.binary);
    const packed = packImage({ body, letters, version: named, source: sourceWord(), address: boards[name][image].flash, slot });
    const file = join(folder, `${name}-${image}.img`);
    writeFileSync(file, packed);
    return { ...linked, image: file, packed };
  });
  const update = join(folder, `${name}.pmfw`);
  writeFileSync(update, Buffer.concat(slots.map(({ packed }) => packed)));
  return { ...slots[0], boot, update, version: named, frames: stackUsage(folder).slice(0, 3) };
}

/** Arguments: `--version X.Y.Z` and the boards. */
function parseArguments(given) {
  const at = given.indexOf('--version');
  const version = at < 0 ? undefined : given[at + 1];
  const names = at < 0 ? given : given.toSpliced(at, 2);
  return { version, names: names.length > 0 ? names : Object.keys(boards) };
}

if (process.argv[1] !== undefined && existsSync(process.argv[1]) && fileURLToPath(import.meta.url) === process.argv[1]) {
  const { version, names } = parseArguments(process.argv.slice(2));
  if (!hasCompiler()) console.log(`SKIPPED: ${prefix}gcc is not installed (Debian packages gcc-arm-none-eabi, libnewlib-arm-none-eabi)`);
  else
    for (const name of names) {
      const { boot, update, flash, memory, stack, frames, version: built } = buildFirmware(name, version === undefined ? {} : { version });
      const deepest = frames.map(({ name: label, bytes }) => `${label} ${bytes}`).join(', ');
      console.log(`${name}: flash ${flash}, memory ${memory} and a stack of ${stack} bytes; version ${built}: ${update.slice(root.length + 1)}`);
      console.log(`  boot loader: flash ${boot.flash}, memory ${boot.memory} bytes; ${boot.binary.slice(root.length + 1)}`);
      console.log(`  largest stack frames: ${deepest}`);
    }
}
