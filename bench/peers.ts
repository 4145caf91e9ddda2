/**
 * The engine and its peers on the same passes, side by side in one run: turn by turn every contestant runs the same pass on the same weights and
 * inputs, after its result was compared. Peers are the reference form in PyTorch, the same with text keys and values kept, and ONNX Runtime; who is
 * not installed is skipped with a message. Usage (bench/README.md has the whole):
 *   npx tsx bench/peers.ts [--sizes mid,tiny,block5b] [--precision f32,bf16,int8,int4] [--python FILE] [--onnxruntime DIR] [--ggml DIR] [--threads N]
 *   [--turns 3] [--chunk-turns 2] [--only "chunk 5V"] [--json] [--out FILE.md]
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, loadavg, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { benchGgml, ggmlMarkdown, type Product } from './peers/ggml.js';
import { errorMax, type Group, groupsOf, type Measurement, median, type Peer, ratiosOf, relativeRms, type Task, tasksOf } from './peers/tasks.js';
import { Worker } from './peers/worker.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const peers = join(root, 'bench', 'peers');
/** Between turns: threads of the last contestant stop spinning for work (OpenMP's and ONNX Runtime's do so for tens of milliseconds and more). */
const PAUSE_MS = 300;
/** A turn of short passes has as many as fit into this. */
const TURN_MS = 400;
const TURN_RUNS_MAX = 100;
/** PyTorch's threads wait for one another actively, so that another program on the same cores slows it many times over. */
const QUIET_LOAD_MAX = 0.7;

export interface PeersOptions {
  readonly sizes: readonly string[];
  readonly precisions: readonly string[];
  readonly threads: number;
  readonly turns: number;
  readonly chunkTurns: number;
  readonly python: string;
  /** The folder whose node_modules has onnxruntime-node. */
  readonly onnxruntime: string;
  /** A checkout of ggml; absent: not measured. */
  readonly ggml?: string;
  /** Tasks whose name contains this. */
  readonly only: string;
  readonly program: string;
  readonly models: string;
  readonly cache: string;
  readonly onMessage: (text: string) => void;
}

export interface PeersBench {
  readonly machine: string;
  readonly date: string;
  readonly commit: string;
  readonly threads: number;
  readonly load: readonly [start: number, end: number];
  readonly versions: Readonly<Record<string, string>>;
  readonly skipped: readonly string[];
  readonly measurements: readonly Measurement[];
  readonly ratios: ReturnType<typeof ratiosOf>;
  readonly products: readonly Product[];
}

interface Contestant {
  readonly name: string;
  readonly peer: Peer;
  readonly worker: Worker;
  /** Whose result its own must be near: the name of another one. */
  readonly judge?: string;
}

/** Which peers there are, with their versions, and why the others are not. */
function findPeers({ python, onnxruntime }: PeersOptions): { versions: Record<string, string>; skipped: string[] } {
  const versions: Record<string, string> = {};
  const skipped: string[] = [];
  const asked = spawnSync(python, ['-c', 'import torch, numpy, safetensors; print(torch.__version__)'], { encoding: 'utf8' });
  if (asked.status === 0) versions['PyTorch'] = asked.stdout.trim();
  else skipped.push(`PyTorch: ${python} has no torch, numpy or safetensors; pip install -r bench/peers/requirements.txt and give --python`);
  const graphs = spawnSync(python, ['-c', 'import onnx; print(onnx.__version__)'], { encoding: 'utf8' });
  try {
    const found: { version: string } = createRequire(resolve(onnxruntime, 'package.json'))('onnxruntime-node/package.json');
    if (asked.status === 0 && graphs.status === 0) versions['ONNX Runtime'] = found.version;
    else skipped.push(`ONNX Runtime: its graphs need torch and onnx in ${python}; pip install -r bench/peers/requirements.txt`);
  } catch {
    skipped.push('ONNX Runtime: no onnxruntime-node; ONNXRUNTIME_NODE_INSTALL=skip npm install --no-save onnxruntime-node, or give --onnxruntime');
  }
  return { versions, skipped };
}

class Match {
  readonly #options: PeersOptions;
  readonly #size: string;
  readonly #group: Group;
  readonly #versions: Readonly<Record<string, string>>;
  readonly #results = mkdtempSync(join(tmpdir(), 'premotor-peers-'));
  #contestants: Contestant[] = [];

  constructor(options: PeersOptions, size: string, group: Group, versions: Readonly<Record<string, string>>) {
    this.#options = options;
    this.#size = size;
    this.#group = group;
    this.#versions = versions;
  }

  async run(): Promise<Measurement[]> {
    try {
      await this.#open();
      const measured: Measurement[] = [];
      // A chunk of one block is no chunk.
      const tasks = tasksOf(this.#size !== 'block5b').filter(({ name }) => name.includes(this.#options.only));
      for (const task of tasks) measured.push(...(await this.#measure(task)));
      return measured;
    } finally {
      for (const { worker } of this.#contestants) worker.close();
      rmSync(this.#results, { recursive: true });
    }
  }

  /** The engine first: it writes the files that the others read. */
  async #open(): Promise<void> {
    const { program, models, cache, threads, python, onnxruntime } = this.#options;
    const { torch, engine, onnx } = this.#group;
    const add = async (name: string, peer: Peer, worker: Worker | Promise<Worker>, judge?: string): Promise<void> => {
      this.#contestants.push({ name, peer, worker: await worker, ...(judge === undefined ? {} : { judge }) });
    };
    const hasTorch = 'PyTorch' in this.#versions;
    for (const precision of engine) {
      const args = ['--serve', this.#size, precision, '--threads', String(threads), '--models', models, '--cache', cache];
      await add(`engine ${precision}`, 'engine', Worker.start(`engine ${precision}`, program, args), hasTorch ? `reference ${torch}` : undefined);
    }
    if (!hasTorch) return;
    const files = join(cache, `${this.#size}-1`);
    const transformer = join(this.#size === 'tiny' ? models : files, 'transformer');
    const served = await Worker.start(`PyTorch ${torch}`, python, [join(peers, 'serve.py'), transformer, files, torch, String(threads)]);
    await add(`reference ${torch}`, 'reference', served);
    await add(`text kept ${torch}`, 'kept', served, `reference ${torch}`);
    if (!('ONNX Runtime' in this.#versions)) return;
    const graphs = join(files, 'onnx');
    const written = spawnSync(python, [join(peers, 'serve.py'), transformer, files, '--graph', graphs], { encoding: 'utf8' });
    if (written.status !== 0) throw new Error(`writing ${graphs} failed: ${written.stderr}`);
    const args = ['--import', 'tsx', join(peers, 'onnx-worker.ts'), graphs, onnx, String(threads), onnxruntime];
    await add(`ONNX Runtime ${onnx}`, 'onnx', Worker.start(`ONNX Runtime ${onnx}`, process.execPath, args), `reference ${torch}`);
  }

  async #measure(task: Task): Promise<Measurement[]> {
    const { turns, chunkTurns, onMessage } = this.#options;
    const entered = this.#contestants.flatMap((contestant) => {
      const request = task.requests[contestant.peer];
      return request === undefined ? [] : [{ contestant, request, ms: [] as number[] }];
    });
    const file = ({ contestant }: (typeof entered)[number]): string => join(this.#results, contestant.name.replaceAll(' ', '-'));
    // The first run of each is compared; it counts only where another would take too long.
    for (const entry of entered) {
      const { ms } = await entry.contestant.worker.run(entry.request, file(entry));
      if (task.isChunk) entry.ms.push(ms);
      await sleep(PAUSE_MS);
    }
    const errors = entered.map((entry) => {
      const judge = entered.find(({ contestant }) => contestant.name === entry.contestant.judge);
      return judge === undefined ? undefined : this.#compare(entry.contestant, task, file(entry), file(judge));
    });
    for (let turn = task.isChunk ? 1 : 0; turn < (task.isChunk ? chunkTurns : turns); turn++) {
      for (const { contestant, request, ms } of entered) {
        // Whole chunks take minutes: of what is no contestant of its own, one is enough.
        if (task.isChunk && contestant.peer === 'kept') continue;
        ms.push(await this.#turn(contestant.worker, request));
        await sleep(PAUSE_MS);
      }
    }
    const shown = entered.map(({ contestant, ms }) => `${contestant.name} ${median(ms).toFixed(1)}`).join(', ');
    onMessage(`${this.#size}, ${task.name}, ms: ${shown}`);
    return entered.map(({ contestant, ms }, index) => {
      const error = errors[index];
      return { size: this.#size, task: task.name, contestant: contestant.name, ms, ...(error === undefined ? {} : { error }) };
    });
  }

  /** The median of the runs of one turn. The first one, which finds cold caches and sleeping threads, counts only where it is the only one. */
  async #turn(worker: Worker, request: string): Promise<number> {
    const first = (await worker.run(request)).ms;
    const runs: number[] = [];
    for (let sum = first; sum < TURN_MS && runs.length < TURN_RUNS_MAX; sum += runs.at(-1) as number) runs.push((await worker.run(request)).ms);
    return runs.length === 0 ? first : median(runs);
  }

  #compare({ name }: Contestant, task: Task, found: string, wanted: string): number {
    const read = (path: string): Float32Array => {
      const file = readFileSync(path);
      return new Float32Array(file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength));
    };
    const error = relativeRms(read(found), read(wanted), task.name === 'action');
    const limit = errorMax(name, task.isChunk);
    if (error <= limit) return error;
    throw new Error(`FAILED: ${this.#size}, ${task.name}: the result of ${name} is off by ${error.toExponential(1)}, at most ${limit} is allowed`);
  }
}

export async function benchPeers(options: PeersOptions): Promise<PeersBench> {
  if (!existsSync(options.program)) throw new Error(`bench/passes.cpp is not built: expected ${options.program}; run npm test, which builds it`);
  mkdirSync(options.cache, { recursive: true });
  const start = loadavg()[0] as number;
  const { versions, skipped } = findPeers(options);
  for (const text of skipped) options.onMessage(`skipped ${text}`);
  const offered: { precisions: string[] } = JSON.parse(execFileSync(options.program, ['--list'], { encoding: 'utf8' }));
  const measurements: Measurement[] = [];
  for (const size of options.sizes) {
    for (const group of groupsOf(offered.precisions, options.precisions)) {
      measurements.push(...(await new Match(options, size, group, versions).run()));
    }
  }
  const products = options.ggml === undefined ? [] : await benchGgml({ ...options, source: options.ggml, root });
  if (options.ggml === undefined) skipped.push('ggml: no checkout of it; give --ggml DIR');
  const commit = spawnSync('git', ['describe', '--always', '--dirty'], { cwd: root, encoding: 'utf8' });
  return {
    machine: `${cpus()[0]?.model.trim()}, ${cpus().length} cores`,
    date: new Date().toISOString().slice(0, 10),
    commit: commit.stdout?.trim() || 'unknown',
    threads: options.threads,
    load: [start, loadavg()[0] as number],
    versions,
    skipped,
    measurements,
    ratios: ratiosOf(measurements),
    products,
  };
}

export function peersMarkdown({ machine, date, commit, threads, load, versions, skipped, measurements, ratios, products }: PeersBench): string {
  const named = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const rows = measurements.map(({ size, task, contestant, ms, error }) => {
    const spread = [median(ms), Math.min(...ms), Math.max(...ms)].map((value) => value.toFixed(2)).join(' | ');
    return `| ${size} | ${task} | ${contestant} | ${spread} | ${ms.length} | ${error?.toExponential(1) ?? ''} |`;
  });
  return [
    `${date}, commit ${commit}; ${machine}, ${threads} threads, load ${load[0].toFixed(1)} at the start and ${load[1].toFixed(1)} at the end. ` +
      `Peers: ${named.join(', ') || 'none'}.`,
    ...(load[0] > QUIET_LOAD_MAX ? ['\nThe machine was not quiet: these are no figures.'] : []),
    ...skipped.map((text) => `\nSkipped: ${text}.`),
    '',
    '| size | what | times as fast | asked for |',
    '|---|---|---:|---:|',
    ...ratios.map(({ size, what, ratio, goal }) => `| ${size} | ${what} | ${ratio.toFixed(2)} | ${goal ?? ''} |`),
    '',
    '| size | pass | contestant | median ms | min | max | turns | relative RMS to PyTorch |',
    '|---|---|---|---:|---:|---:|---:|---:|',
    ...rows,
    '',
    ...(products.length > 0 ? [ggmlMarkdown(products)] : []),
  ].join('\n');
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({
    options: {
      sizes: { type: 'string', default: 'mid,tiny,block5b' },
      precision: { type: 'string', default: 'f32,bf16,int8,int4' },
      threads: { type: 'string', default: String(cpus().length) },
      turns: { type: 'string', default: '3' },
      'chunk-turns': { type: 'string', default: '2' },
      python: { type: 'string', default: 'python3' },
      onnxruntime: { type: 'string', default: root },
      ggml: { type: 'string' },
      only: { type: 'string', default: '' },
      program: { type: 'string', default: join(root, 'build', 'tests', 'bin', 'passes') },
      models: { type: 'string', default: join(root, 'models', 'tabletop') },
      cache: { type: 'string', default: join(root, 'build', 'bench-cache') },
      json: { type: 'boolean', default: false },
      out: { type: 'string' },
    },
  });
  const begun = performance.now();
  const bench = await benchPeers({
    sizes: values.sizes.split(',').filter(Boolean),
    precisions: values.precision.split(','),
    threads: Number(values.threads),
    turns: Number(values.turns),
    chunkTurns: Number(values['chunk-turns']),
    python: values.python,
    onnxruntime: values.onnxruntime,
    ...(values.ggml === undefined ? {} : { ggml: values.ggml }),
    only: values.only,
    program: values.program,
    models: values.models,
    cache: values.cache,
    onMessage: (text) => process.stderr.write(`${text}\n`),
  });
  const text = `# The engine beside its peers, ${bench.date}\n\n${peersMarkdown(bench)}`;
  const json = `${JSON.stringify(bench, null, 2)}\n`;
  if (values.out !== undefined) {
    writeFileSync(values.out, text);
    writeFileSync(`${values.out.replace(/\.md$/, '')}.json`, json);
  }
  process.stdout.write(values.json ? json : text);
  process.stderr.write(`${((performance.now() - begun) / 1000).toFixed(0)} s\n`);
}
