/**
 * ggml's matrix products beside those of bench/kernels.cpp: builds ggml from a checkout that the user points at (none of it is part of this project)
 * and times both in turns, weights cold in both.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Worker } from './worker.js';

const SHAPES = [
  [3072, 3072],
  [14336, 3072],
] as const;
const ROWS = [32, 240] as const;
const TURNS = 2;

/** A type of ggml, and the kernel of the same width whose name begins so. 4-bit kernels are compared once there are any. */
const TYPES = [
  { type: 'f32', kernel: 'packed f32', errorMax: 1e-4, goal: 3 },
  { type: 'bf16', kernel: 'packed bf16_dot', errorMax: 1e-2, goal: 3 },
  { type: 'q8_0', kernel: 'packed int8', errorMax: 3e-2, goal: 3 },
  { type: 'q4_0', kernel: 'packed int4', errorMax: 0.2, goal: 2 },
  { type: 'q4_K', kernel: 'packed int4', errorMax: 0.2, goal: 2 },
] as const;

export interface Product {
  readonly type: string;
  readonly kernel: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly ggmlMs: number;
  /** What ggml chose to keep the weights in. */
  readonly buffer: string;
  /** Absent where bench/kernels.cpp has no such kernel. */
  readonly kernelMs?: number;
  readonly goal: number;
}

export interface GgmlOptions {
  readonly root: string;
  readonly source: string;
  readonly program: string;
  readonly threads: number;
  readonly onMessage: (text: string) => void;
}

interface KernelRow {
  readonly kernel: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly p50_ms: number;
}

function build(root: string, source: string, onMessage: (text: string) => void): string {
  const folder = join(root, 'build', 'peers-ggml');
  if (!existsSync(join(source, 'CMakeLists.txt'))) throw new Error(`--ggml: expected a checkout of ggml, found no CMakeLists.txt in ${source}`);
  onMessage('building ggml (minutes the first time)');
  const stdio = ['ignore', 'ignore', 'inherit'] as const;
  execFileSync('cmake', ['-S', join(root, 'bench', 'peers', 'ggml'), '-B', folder, `-DGGML_SOURCE=${resolve(source)}`], { stdio: [...stdio] });
  execFileSync('cmake', ['--build', folder, '--parallel', String(availableParallelism()), '--target', 'ggml_products'], { stdio: [...stdio] });
  return join(folder, 'ggml_products');
}

export async function benchGgml({ root, source, program, threads, onMessage }: GgmlOptions): Promise<Product[]> {
  const ggml = await Worker.start('ggml', build(root, source, onMessage), [String(threads)]);
  const best = new Map<string, Product>();
  try {
    for (const [n, k] of SHAPES) {
      for (let turn = 0; turn < TURNS; turn++) {
        const args = ['--json', '--threads', String(threads), '--seconds', '0.2', '--only', `n ${n} k ${k}`];
        const { rows }: { rows: KernelRow[] } = JSON.parse(execFileSync(join(dirname(program), 'kernels'), args, { encoding: 'utf8' }));
        for (const m of ROWS) for (const entry of TYPES) keep(best, await product(ggml, entry, rows, m, n, k));
        onMessage(`ggml: n ${n}, k ${k}, turn ${turn + 1} of ${TURNS}`);
      }
    }
  } finally {
    ggml.close();
  }
  return [...best.values()];
}

async function product(ggml: Worker, entry: (typeof TYPES)[number], rows: readonly KernelRow[], m: number, n: number, k: number): Promise<Product> {
  const { type, kernel, errorMax, goal } = entry;
  const repeats = m > 100 ? 7 : 20;
  const { ms, error, buffer } = (await ggml.run(`${type} ${m} ${n} ${k} ${repeats}`)) as { ms: number; error: number; buffer: string };
  if (!(error <= errorMax)) throw new Error(`FAILED: ggml's ${type} product, ${m} x ${n} x ${k}, is off by ${error}, more than ${errorMax}`);
  const own = rows.filter((row) => row.kernel.startsWith(kernel) && row.m === m && row.n === n && row.k === k).map((row) => row.p50_ms);
  return { type, kernel, m, n, k, ggmlMs: ms, buffer, goal, ...(own.length > 0 ? { kernelMs: Math.min(...own) } : {}) };
}

/** Of each side the better turn: what else happens on a machine only adds. */
function keep(best: Map<string, Product>, found: Product): void {
  const key = `${found.type} ${found.m} ${found.n} ${found.k}`;
  const known = best.get(key);
  const kernelMs = Math.min(known?.kernelMs ?? Number.POSITIVE_INFINITY, found.kernelMs ?? Number.POSITIVE_INFINITY);
  const ggmlMs = Math.min(known?.ggmlMs ?? Number.POSITIVE_INFINITY, found.ggmlMs);
  best.set(key, { ...found, ggmlMs, ...(Number.isFinite(kernelMs) ? { kernelMs } : {}) });
}

export function ggmlMarkdown(products: readonly Product[]): string {
  const rate = ({ m, n, k }: Product, ms: number): string => ((2 * m * n * k) / ms / 1e6).toFixed(0);
  return [
    "ggml's matrix products, GFLOP/s, cold weights, the better of two turns:",
    '',
    '| type | m | n | k | its buffer | ggml | kernel | ours | times as fast | asked for |',
    '|---|---:|---:|---:|---|---:|---|---:|---:|---:|',
    ...products.map((product) => {
      const { type, m, n, k, buffer, ggmlMs, kernel, kernelMs, goal } = product;
      const own = kernelMs === undefined ? ['none', ''] : [rate(product, kernelMs), (ggmlMs / kernelMs).toFixed(2)];
      return `| ${[type, m, n, k, buffer, rate(product, ggmlMs), kernel, ...own, goal].join(' | ')} |`;
    }),
    '',
  ].join('\n');
}
