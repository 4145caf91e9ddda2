/**
 * What is compared: the tasks of a size, what each contestant is asked for it, and whose result its own must equal. Pure data and arithmetic.
 */

/** The contestants of one precision of the peers, PyTorch's. */
export interface Group {
  readonly torch: 'f32' | 'bf16';
  /** The engine's precisions that are set beside it. */
  readonly engine: readonly string[];
  /** ONNX Runtime has no bfloat16 products on a CPU; int8 stands beside the engine's. */
  readonly onnx: 'f32' | 'int8';
}

export function groupsOf(offered: readonly string[], wanted: readonly string[]): Group[] {
  const has = (name: string): boolean => offered.includes(name) && wanted.includes(name);
  const reduced = offered.filter((name) => name !== 'f32' && has(name));
  return [
    ...(has('f32') ? [{ torch: 'f32', engine: ['f32'], onnx: 'f32' } as const] : []),
    ...(reduced.length > 0 ? [{ torch: 'bf16', engine: reduced, onnx: 'int8' } as const] : []),
  ];
}

export type Peer = 'engine' | 'reference' | 'kept' | 'onnx';

export interface Task {
  readonly name: string;
  readonly isChunk: boolean;
  /** The line that asks for it; a peer without one sits out. */
  readonly requests: Readonly<Partial<Record<Peer, string>>>;
}

function both(request: string): Pick<Task['requests'], 'reference' | 'kept'> {
  return { reference: `reference ${request}`, kept: `kept ${request}` };
}

/** The reference denoises actions at batch two and reads one row; the engine runs that row. */
export function tasksOf(hasChunks: boolean): Task[] {
  const passes: Task[] = [
    { name: 'video, 1 row', isChunk: false, requests: { engine: 'video 1', ...both('video 1'), onnx: 'video' } },
    { name: 'video, guided', isChunk: false, requests: { engine: 'video 2', ...both('video 2') } },
    { name: 'action', isChunk: false, requests: { engine: 'action 1', ...both('action 2'), onnx: 'action' } },
    { name: 'commit', isChunk: false, requests: { engine: 'commit', ...both('commit') } },
  ];
  if (!hasChunks) return passes;
  return [
    ...passes,
    { name: 'chunk 5V/10A', isChunk: true, requests: { engine: 'chunk 5 10', ...both('chunk 5 10') } },
    { name: 'chunk 2V/4A', isChunk: true, requests: { engine: 'chunk 2 4' } },
  ];
}

/**
 * How far a result may be from PyTorch's at the group's precision, relative RMS, by the contestant's own. In float32 the same sums in another order;
 * in bfloat16 two roundings of everything; int8 and int4 quantise besides. Guidance multiplies what is reduced by up to nine, and steps add up.
 */
const ERROR_MAX: Readonly<Record<string, number>> = { f32: 1e-4, bf16: 0.05, int8: 0.1 };
const ERROR_MAX_OTHERS = 0.3;

export function errorMax(contestant: string, isChunk: boolean): number {
  const precision = contestant.split(' ').at(-1) ?? '';
  const limit = ERROR_MAX[precision] ?? ERROR_MAX_OTHERS;
  return isChunk && precision !== 'f32' ? Math.min(6 * limit, 0.9) : limit;
}

/** Relative RMS of the difference over what both have: the reference's second row of an action pass has no counterpart. */
export function relativeRms(found: Float32Array, wanted: Float32Array, mayBePrefix: boolean): number {
  if (found.length === 0 || (found.length !== wanted.length && !(mayBePrefix && found.length < wanted.length))) return Number.POSITIVE_INFINITY;
  let wrong = 0;
  let all = 0;
  found.forEach((value, index) => {
    const other = wanted[index] as number;
    wrong += (value - other) ** 2;
    all += other ** 2;
  });
  const relative = Math.sqrt(wrong / all);
  return Number.isFinite(relative) ? relative : Number.POSITIVE_INFINITY;
}

export interface Measurement {
  readonly size: string;
  readonly task: string;
  readonly contestant: string;
  /** In the order of the turns. */
  readonly ms: readonly number[];
  /** Against PyTorch's result at the same precision; of PyTorch's own and without it absent. */
  readonly error?: number;
}

export interface Ratio {
  readonly size: string;
  readonly what: string;
  readonly ratio: number;
  /** Of issue and documents; absent where none is named. */
  readonly goal?: number;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

const GOALS: Readonly<Record<string, number>> = {
  'mid chunk 5V/10A: engine f32 against reference f32': 2.7,
  'mid chunk 5V/10A: engine bf16 against reference bf16': 2.8,
  'mid chunk 5V/10A: engine int8 against reference bf16': 5,
  'mid action: engine f32 against reference f32': 9,
  'mid action: engine bf16 against reference bf16': 9,
  'mid: engine bf16 2V/4A against reference bf16 5V/10A': 4.8,
};

function goalOf(size: string, what: string): Pick<Ratio, 'goal'> {
  const goal = GOALS[`${size} ${what}`] ?? GOALS[`${size}: ${what}`];
  if (goal !== undefined) return { goal };
  return /: engine (f32 against ONNX Runtime f32|int8 against ONNX Runtime int8)$/.test(what) ? { goal: 1.3 } : {};
}

/** How many times as long everybody else took, the engine's contestants being one. */
export function ratiosOf(measurements: readonly Measurement[]): Ratio[] {
  const found: Ratio[] = [];
  const add = (size: string, what: string, ratio: number): void => {
    found.push({ size, what, ratio, ...goalOf(size, what) });
  };
  for (const own of measurements.filter(({ contestant }) => contestant.startsWith('engine'))) {
    for (const other of measurements) {
      if (other.size !== own.size || other.contestant.startsWith('engine')) continue;
      // Full precision has its own peers; what is reduced is set beside every peer that is.
      if (own.contestant.endsWith('f32') !== other.contestant.endsWith('f32')) continue;
      const ratio = median(other.ms) / median(own.ms);
      if (other.task === own.task) add(own.size, `${own.task}: ${own.contestant} against ${other.contestant}`, ratio);
      else if (own.task === 'chunk 2V/4A' && other.task === 'chunk 5V/10A' && other.contestant.startsWith('reference'))
        add(own.size, `${own.contestant} 2V/4A against ${other.contestant} 5V/10A`, ratio);
    }
  }
  return found;
}
