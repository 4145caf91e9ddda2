/**
 * What the GPU's kernels use (cuda/RESOURCES.md): the committed table was made from these sources and keeps its limits; and, where nvcc is installed,
 * every kernel compiles for every target and uses what the table says. What kernels compute is tested on the host: test/cuda, run by
 * test/native.test.ts.
 */
import { existsSync, readFileSync } from 'node:fs';
import t from 'tap';
// @ts-expect-error: the set-up scripts are plain JavaScript without types.
import * as untyped from '../setup/cuda.mjs';

interface Target {
  readonly name: string;
  readonly threads: number;
  readonly blocks: number;
  readonly registers: number;
  readonly shared: number;
  readonly sharedOfBlock: number;
}
interface Kernel {
  readonly name: string;
  readonly source: string;
  readonly symbol: string;
  readonly threads: number;
  readonly shared_bytes: number;
  readonly registers_max: number;
}
interface Used {
  readonly source: string;
  readonly symbol: string;
  readonly target: string;
  readonly registers: number;
  readonly stack: number;
  readonly spillStores: number;
  readonly spillLoads: number;
  readonly staticShared: number;
}
interface Row {
  readonly kernel: Kernel;
  readonly target: Target;
  readonly entry: Used;
  readonly blocks: number;
}
interface CudaScript {
  readonly targets: readonly Target[];
  readonly tablePath: string;
  readKernels(): Kernel[];
  findNvcc(): { command: string; version: string } | undefined;
  sourcesDigest(): string;
  parsePtxas(text: string): Omit<Used, 'source'>[];
  compileAll(nvcc: { command: string; version: string }): Promise<Used[]>;
  residentBlocks(use: { registers: number; threads: number; shared: number }, target: Target): number;
  resourceRows(kernels: readonly Kernel[], compiled: readonly Used[]): { rows: Row[]; problems: string[] };
  exceededLimits(rows: readonly Row[]): string[];
  renderTable(rows: readonly Row[], version: string, digest: string): string;
  tableOrigin(table: string): { version: string | undefined; digest: string | undefined };
}
const cuda = untyped as CudaScript;

const ptxas = (target: string, registers: number, spills: number): string => `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z6kernelILi4EEvv' for '${target}'
ptxas info    : Function properties for _Z6kernelILi4EEvv
    ${spills * 2} bytes stack frame, ${spills} bytes spill stores, ${spills} bytes spill loads
ptxas info    : Used ${registers} registers, used 1 barriers, 96 bytes smem, 528 bytes cmem[0]
`;
const kernel: Kernel = { name: 'sample', source: 'a.cu', symbol: 'kernelILi4E', threads: 256, shared_bytes: 4096, registers_max: 64 };
const sample = (registers: number, spills: number): Used[] =>
  cuda.targets.flatMap((target) => cuda.parsePtxas(ptxas(target.name, registers, spills)).map((entry) => ({ source: 'a.cu', ...entry })));

t.test('what ptxas says is read', async (t) => {
  t.same(cuda.parsePtxas(ptxas('sm_87', 40, 0) + ptxas('sm_90a', 255, 16)), [
    { symbol: '_Z6kernelILi4EEvv', target: 'sm_87', registers: 40, stack: 0, spillStores: 0, spillLoads: 0, staticShared: 96 },
    { symbol: '_Z6kernelILi4EEvv', target: 'sm_90a', registers: 255, stack: 32, spillStores: 16, spillLoads: 16, staticShared: 96 },
  ]);
  t.same(cuda.parsePtxas('nvcc warning : nothing of interest'), []);
});

t.test('limits', async (t) => {
  const problemsOf = (kernels: Kernel[], used: Used[]): string[] => {
    const { rows, problems } = cuda.resourceRows(kernels, used);
    return [...problems, ...cuda.exceededLimits(rows)];
  };
  t.same(problemsOf([kernel], sample(64, 0)), [], 'a kernel within its limits');
  t.match(problemsOf([kernel], sample(64, 8)), [/spills 8 bytes out, 8 in/, /keeps 16 bytes in local memory/], 'a spill');
  t.match(problemsOf([kernel], sample(65, 0)), [/65 registers, at most 64 are allowed/], 'a register too many');
  t.match(
    problemsOf([{ ...kernel, shared_bytes: 99 * 1024 }], sample(64, 0)),
    [/a block has 101376/],
    'more shared memory than the least target has',
  );
  t.match(problemsOf([kernel], sample(64, 0).slice(1)), [/for sm_87 in cuda\/a.cu, found 0/], 'a kernel that a target lacks');
  t.match(problemsOf([], sample(64, 0).slice(0, 1)), [/is not in cuda\/kernels.json/], 'a kernel that nobody named');
  t.match(problemsOf([kernel], sample(Number.NaN, 0)), [/ptxas did not say/], 'output that is not understood');
});

t.test('how many blocks fit a multiprocessor', async (t) => {
  const orin = cuda.targets.find((target) => target.name === 'sm_87');
  if (orin === undefined) throw new Error('sm_87 is no target');
  t.equal(cuda.residentBlocks({ registers: 32, threads: 256, shared: 0 }, orin), 6, 'bound by threads');
  t.equal(cuda.residentBlocks({ registers: 128, threads: 256, shared: 0 }, orin), 2, 'bound by registers');
  t.equal(cuda.residentBlocks({ registers: 129, threads: 256, shared: 0 }, orin), 1, 'registers are handed out in steps');
  t.equal(cuda.residentBlocks({ registers: 32, threads: 128, shared: 54 * 1024 }, orin), 2, 'bound by shared memory, with what a block takes itself');
  t.equal(cuda.residentBlocks({ registers: 16, threads: 32, shared: 0 }, orin), 16, 'bound by blocks');
});

t.test('the committed table was made from these sources', async (t) => {
  const table = existsSync(cuda.tablePath) ? readFileSync(cuda.tablePath, 'utf8') : '';
  t.equal(cuda.tableOrigin(table).digest, cuda.sourcesDigest(), 'cuda/RESOURCES.md is out of date: run node setup/cuda.mjs');
  const rows = table.split('\n').filter((line) => /^\| .* \| sm_/.test(line));
  t.equal(rows.length, cuda.readKernels().length * cuda.targets.length, 'a row for each kernel and target');
  for (const row of rows) t.match(row, / \| 0 \/ 0 \| /, `no spills: ${row}`);
});

t.test('every kernel compiles for every target within its limits', { timeout: 600_000 }, async (t) => {
  const nvcc = cuda.findNvcc();
  if (nvcc === undefined) return t.pass('nvcc', { skip: 'SKIPPED: nvcc is not installed (CUDA toolkit 13), so nothing is compiled for a GPU' });
  const { rows, problems } = cuda.resourceRows(cuda.readKernels(), await cuda.compileAll(nvcc));
  t.same([...problems, ...cuda.exceededLimits(rows)], []);
  const table = readFileSync(cuda.tablePath, 'utf8');
  if (cuda.tableOrigin(table).version === nvcc.version) t.equal(cuda.renderTable(rows, nvcc.version, cuda.sourcesDigest()), table, 'the table');
  else t.comment(`the table is of nvcc ${cuda.tableOrigin(table).version}, this is ${nvcc.version}: registers may differ, limits hold`);
});
