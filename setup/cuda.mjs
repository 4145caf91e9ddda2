/**
 * `node setup/cuda.mjs`: compiles every kernel of cuda/ with nvcc for every target, reads what each uses from ptxas and writes
 * cuda/RESOURCES.md. With --check nothing is written, and a table that is out of date, a spill or an exceeded limit is a failure. Needs no GPU. What
 * was compiled once is kept in build/cuda under a digest of the sources, so a second run takes no time. test/cuda.test.ts does the same with the
 * functions below.
 *
 * With --library (npm run build:cuda) it also links premotor-cuda.so, the backend that the engine loads for device "cuda", beside the addon.
 *
 * With --run it also builds the kernels' tests (test/cuda) for a GPU and runs them on the one of this machine, against the same results of the CPU.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureNative, filesBelow, root, run, runMain, SetupError, say } from './steps.mjs';

/**
 * The targets and what one multiprocessor of each has: threads, blocks, 32-bit registers, shared memory in all, and the most of it that one block may
 * have. Jetson AGX Orin, RTX 40, H100 and Jetson Thor.
 */
export const targets = [
  {
    name: 'sm_87',
    gencode: 'arch=compute_87,code=sm_87',
    threads: 1536,
    blocks: 16,
    registers: 65536,
    shared: 164 * 1024,
    sharedOfBlock: 163 * 1024,
  },
  { name: 'sm_89', gencode: 'arch=compute_89,code=sm_89', threads: 1536, blocks: 24, registers: 65536, shared: 100 * 1024, sharedOfBlock: 99 * 1024 },
  {
    name: 'sm_90a',
    gencode: 'arch=compute_90a,code=sm_90a',
    threads: 2048,
    blocks: 32,
    registers: 65536,
    shared: 228 * 1024,
    sharedOfBlock: 227 * 1024,
  },
  {
    name: 'sm_110',
    gencode: 'arch=compute_110,code=sm_110',
    threads: 1536,
    blocks: 24,
    registers: 65536,
    shared: 228 * 1024,
    sharedOfBlock: 227 * 1024,
  },
];

/** What every block takes of shared memory beside its own, and what memory and registers are handed out in. */
const sharedReserved = 1024;
const sharedStep = 128;
const registersStep = 256;
const warpsStep = 4;

export const tablePath = join(root, 'cuda', 'RESOURCES.md');

/** cuda/kernels.json: per kernel its name, source, what its symbol contains, threads and dynamic shared memory of a block, and the most registers. */
export function readKernels() {
  return JSON.parse(readFileSync(join(root, 'cuda', 'kernels.json'), 'utf8'));
}

/** The nvcc to use: NVCC, the one in PATH, or the toolkit's usual place; undefined without one. */
export function findNvcc() {
  for (const command of [process.env.NVCC, 'nvcc', '/usr/local/cuda/bin/nvcc'].filter(Boolean)) {
    const result = spawnSync(command, ['--version'], { encoding: 'utf8' });
    const version = result.status === 0 ? /release [\d.]+, V([\d.]+)/.exec(result.stdout)?.[1] : undefined;
    if (version !== undefined) return { command, version };
  }
  return undefined;
}

const steady = (paths) => paths.map((path) => relative(root, path).replaceAll('\\', '/')).sort();

/** Digest of all that decides what a kernel becomes: device sources, targets and flags, not the compiler. */
export function sourcesDigest() {
  const sources = filesBelow(join(root, 'cuda')).filter((path) => /\.(cu|h)$/.test(path) && !/cuda.(host|backend).[^/]*$/.test(path));
  const hash = createHash('sha256').update(JSON.stringify([targets, flags]));
  const others = [join(root, 'cpp', 'base', 'half.h'), join(root, 'cpp', 'ops', 'device.h'), join(root, 'cuda', 'kernels.json')];
  for (const path of steady([...sources, ...others])) {
    hash.update(`\n${path}\n`).update(readFileSync(join(root, path)));
  }
  return hash.digest('hex');
}

const flags = ['-std=c++20', '-O3', '-Icpp', '-I.', '-Xcompiler', '-fPIC', '-Xptxas', '-v'];

function compile(nvcc, source, folder) {
  const gencodes = targets.flatMap((target) => ['-gencode', target.gencode]);
  const args = [...flags, ...gencodes, '-c', join('cuda', source), '-o', join(folder, source.replace(/\.cu$/, '.o'))];
  return new Promise((resolve, reject) => {
    const child = spawn(nvcc.command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    child.stdout.on('data', (data) => (text += data));
    child.stderr.on('data', (data) => (text += data));
    child.on('error', (error) => reject(new SetupError(`nvcc cannot be started: ${error.message}`)));
    child.on('close', (code) => (code === 0 ? resolve(text) : reject(new SetupError(`nvcc failed on cuda/${source}:\n${text.trim()}`))));
  });
}

/** What ptxas -v says: one entry per kernel and target. */
export function parsePtxas(text) {
  const found = [];
  for (const part of text.split(/(?=ptxas info\s*: Compiling entry function)/)) {
    const head = /Compiling entry function '(\w+)' for '(\w+)'/.exec(part);
    if (head === null) continue;
    const number = (pattern) => Number(pattern.exec(part)?.[1] ?? Number.NaN);
    found.push({
      symbol: head[1],
      target: head[2],
      registers: number(/Used (\d+) registers/),
      stack: number(/(\d+) bytes stack frame/),
      spillStores: number(/(\d+) bytes spill stores/),
      spillLoads: number(/(\d+) bytes spill loads/),
      staticShared: Number(/(\d+) bytes smem/.exec(part)?.[1] ?? 0),
    });
  }
  return found;
}

/** Where the objects of these sources and this compiler lie, and what ptxas said of them. */
const outputFolder = (nvcc) => join(root, 'build', 'cuda', `${nvcc.version}-${sourcesDigest().slice(0, 16)}`);

/** Compiles all sources, as many at a time as there are processors; from build/cuda when nothing changed since. */
export async function compileAll(nvcc) {
  const folder = outputFolder(nvcc);
  const cache = join(folder, 'ptxas.json');
  if (existsSync(cache)) return JSON.parse(readFileSync(cache, 'utf8'));
  mkdirSync(folder, { recursive: true });
  const waiting = [...new Set(readKernels().map((kernel) => kernel.source))];
  const found = [];
  const work = async () => {
    for (let source = waiting.shift(); source !== undefined; source = waiting.shift()) {
      const entries = parsePtxas(await compile(nvcc, source, folder));
      found.push(...entries.map((entry) => ({ source, ...entry })));
    }
  };
  await Promise.all(Array.from({ length: Math.max(2, Math.min(4, availableParallelism())) }, work));
  writeFileSync(cache, JSON.stringify(found));
  return found;
}

const roundUp = (value, step) => Math.ceil(value / step) * step;

/** How many blocks of a kernel one multiprocessor holds. */
export function residentBlocks({ registers, threads, shared }, target) {
  const warps = roundUp(Math.ceil(threads / 32), 1);
  const warpsByRegisters = Math.floor(target.registers / roundUp(registers * 32, registersStep) / warpsStep) * warpsStep;
  return Math.min(
    target.blocks,
    Math.floor(target.threads / 32 / warps),
    Math.floor(warpsByRegisters / warps),
    Math.floor(target.shared / (roundUp(shared, sharedStep) + sharedReserved)),
  );
}

/** Pairs what was compiled with what kernels.json names; a kernel on one side only is a problem. */
export function resourceRows(kernels, compiled) {
  const problems = [];
  const rows = kernels.flatMap((kernel) =>
    targets.flatMap((target) => {
      const matching = compiled.filter(
        (entry) => entry.target === target.name && entry.source === kernel.source && entry.symbol.includes(kernel.symbol),
      );
      if (matching.length !== 1) {
        problems.push(
          `${kernel.name}: expected one kernel like ${kernel.symbol} for ${target.name} in cuda/${kernel.source}, found ${matching.length}`,
        );
        return [];
      }
      const entry = matching[0];
      const blocks = residentBlocks({ ...entry, threads: kernel.threads, shared: entry.staticShared + kernel.shared_bytes }, target);
      return [{ kernel, target, entry, blocks }];
    }),
  );
  for (const entry of compiled) {
    if (!kernels.some((kernel) => kernel.source === entry.source && entry.symbol.includes(kernel.symbol)))
      problems.push(`${entry.symbol} of cuda/${entry.source} is not in cuda/kernels.json`);
  }
  return { rows, problems };
}

/** What no kernel may do: spill, keep a stack, use more registers or shared memory than it may, or not fit a multiprocessor. */
export function exceededLimits(rows) {
  return rows.flatMap(({ kernel, target, entry, blocks }) => {
    const at = `${kernel.name} for ${target.name}`;
    const shared = entry.staticShared + kernel.shared_bytes;
    const problems = [];
    const numbers = [entry.registers, entry.stack, entry.spillStores, entry.spillLoads];
    if (!numbers.every(Number.isFinite)) problems.push(`${at}: ptxas did not say what it uses`);
    if (entry.spillStores > 0 || entry.spillLoads > 0) problems.push(`${at}: spills ${entry.spillStores} bytes out, ${entry.spillLoads} in`);
    if (entry.stack > 0) problems.push(`${at}: keeps ${entry.stack} bytes in local memory`);
    if (entry.registers > kernel.registers_max) problems.push(`${at}: ${entry.registers} registers, at most ${kernel.registers_max} are allowed`);
    if (shared > target.sharedOfBlock) problems.push(`${at}: ${shared} bytes of shared memory, a block has ${target.sharedOfBlock}`);
    if (!(blocks >= 1)) problems.push(`${at}: not one block fits a multiprocessor`);
    return problems;
  });
}

export function renderTable(rows, version, digest) {
  const lines = rows.map(({ kernel, target, entry, blocks }) => {
    const warps = (blocks * Math.ceil(kernel.threads / 32) * 32) / target.threads;
    return `| ${[
      kernel.name,
      target.name,
      entry.registers,
      entry.staticShared,
      kernel.shared_bytes,
      `${entry.spillStores} / ${entry.spillLoads}`,
      kernel.threads,
      blocks,
      `${Math.round(warps * 100)} %`,
    ].join(' | ')} |`;
  });
  return `${[
    '# What the kernels use',
    '',
    'Written by `node setup/cuda.mjs` from what ptxas says; test/cuda.test.ts fails when it is out of date, when a kernel spills, and when one',
    'uses more than cuda/kernels.json allows. Blocks and occupancy are computed for one multiprocessor, from registers, shared memory and threads:',
    'how many fit, not how fast they are. Nothing here was run on a GPU.',
    '',
    `Compiler: nvcc ${version}`,
    '',
    `Sources: ${digest}`,
    '',
    '| kernel | target | registers | static shared | dynamic shared | spill stores / loads | threads | blocks | occupancy |',
    '|---|---|---|---|---|---|---|---|---|',
    ...lines,
  ].join('\n')}\n`;
}

/** The compiler and the digest that a table was made with. */
export function tableOrigin(table) {
  return { version: /^Compiler: nvcc (\S+)$/m.exec(table)?.[1], digest: /^Sources: (\w+)$/m.exec(table)?.[1] };
}

/** The kernels' tests, built for a device and run on it; each says itself when there is none. Returns how many failed. */
function runOnDevice(nvcc) {
  const libraries = join(ensureNative('tests', { PREMOTOR_TESTS: 'ON' }, ['premotor_ops']), '..');
  const objects = filesBelow(outputFolder(nvcc)).filter((path) => path.endsWith('.o'));
  const tests = filesBelow(join(root, 'test', 'cuda')).filter((path) => path.endsWith('_test.cpp') && !path.includes('machine'));
  let failed = 0;
  for (const test of tests) {
    const program = join(outputFolder(nvcc), basename(test, '.cpp'));
    const linked = [...objects, join(libraries, 'libpremotor_ops.a'), join(libraries, 'libpremotor_base.a'), '-lpthread'];
    const includes = ['-Icpp', '-I.', '-Itest/cpp', '-Itest/cuda'];
    run(`building ${basename(test)}`, nvcc.command, ['-std=c++20', '-O2', '-DPREMOTOR_ON_DEVICE', ...includes, test, ...linked, '-o', program]);
    say(`running ${basename(test)} on the device`);
    if (spawnSync(program, [], { cwd: root, stdio: 'inherit' }).status !== 0) failed += 1;
  }
  return failed;
}

/** Links the backend that cpp/engine/device_library.cpp loads; the CUDA runtime is inside. Returns its path. */
export function buildLibrary(nvcc) {
  const folder = outputFolder(nvcc);
  const objects = readKernels().map((kernel) => join(folder, kernel.source.replace(/\.cu$/, '.o')));
  const device = join(folder, 'cuda_device.o');
  run('compiling the GPU backend', nvcc.command, [...flags, '-c', join('cuda', 'backend', 'cuda_device.cu'), '-o', device]);
  const library = join(root, 'build', 'Release', 'premotor-cuda.so');
  mkdirSync(join(root, 'build', 'Release'), { recursive: true });
  run('linking premotor-cuda.so', nvcc.command, ['-shared', '-cudart', 'static', ...new Set(objects), device, '-o', library]);
  return library;
}

async function main() {
  const nvcc = findNvcc();
  if (nvcc === undefined) {
    say('SKIPPED: nvcc is not installed (CUDA toolkit 13): the kernels are not compiled for a GPU. Their tests on the host need none.');
    return 0;
  }
  const { rows, problems } = resourceRows(readKernels(), await compileAll(nvcc));
  problems.push(...exceededLimits(rows));
  const table = renderTable(rows, nvcc.version, sourcesDigest());
  if (!process.argv.includes('--check')) writeFileSync(tablePath, table);
  else if (!existsSync(tablePath) || readFileSync(tablePath, 'utf8') !== table)
    problems.push('cuda/RESOURCES.md is out of date: run node setup/cuda.mjs');
  for (const problem of problems) say(problem);
  say(`${rows.length} kernels compiled: ${problems.length === 0 ? 'ok' : 'failed'}`);
  if (process.argv.includes('--library') && problems.length === 0) say(`built ${relative(root, buildLibrary(nvcc))}`);
  if (process.argv.includes('--run') && runOnDevice(nvcc) > 0) problems.push('a test failed on the device');
  return problems.length === 0 ? 0 : 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await runMain(main);
