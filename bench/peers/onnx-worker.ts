/**
 * Runs the graphs of onnx_graph.py with onnxruntime-node on request, for bench/peers.ts:
 *   npx tsx bench/peers/onnx-worker.ts GRAPHS f32|int8 THREADS NODE-MODULES
 * Lines `video` and `action`, each with an optional file for the velocity in float32. Inputs are made once; a pass allocates its output only.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

/** What this uses of onnxruntime-node, which is not installed with this project. */
interface Runtime {
  readonly Tensor: new (type: 'float32', data: Float32Array, shape: readonly number[]) => unknown;
  readonly InferenceSession: { create(path: string, options: Readonly<Record<string, unknown>>): Promise<Session> };
}
interface Session {
  run(feeds: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, { readonly data: Float32Array }>>>;
}

const [graphs = '', precision = '', threads = '', modules = ''] = process.argv.slice(2);
const runtime: Runtime = createRequire(resolve(modules, 'package.json'))('onnxruntime-node');

/** The float32 tensors of a safetensors file, read in place. */
function tensorsOf(path: string): Record<string, unknown> {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header: Record<string, { shape: number[]; data_offsets: [number, number] }> = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
  const entries = Object.entries(header).filter(([name]) => name !== '__metadata__');
  const tensors: Record<string, unknown> = {};
  for (const [name, tensor] of entries) {
    const [begin, end] = tensor.data_offsets;
    const data = new Float32Array(file.buffer, file.byteOffset + 8 + headerBytes + begin, (end - begin) / 4);
    tensors[name] = new runtime.Tensor('float32', data, tensor.shape);
  }
  return tensors;
}

const options = {
  executionProviders: ['cpu'],
  intraOpNumThreads: Number(threads),
  interOpNumThreads: 1,
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
};
const cache = tensorsOf(join(graphs, 'cache.safetensors'));
const passes = new Map<string, () => Promise<Float32Array>>();
for (const modality of ['video', 'action']) {
  const session = await runtime.InferenceSession.create(join(graphs, `${modality}-${precision}.onnx`), options);
  const own = tensorsOf(join(graphs, `${modality}.safetensors`));
  const feeds = { ...cache, ...own };
  passes.set(modality, async () => (await session.run(feeds))['velocity']?.data as Float32Array);
}
process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const [what = '', file] = line.split(' ');
  const pass = passes.get(what);
  if (pass === undefined) throw new Error(`expected video or action, found "${what}"`);
  const begun = performance.now();
  const velocity = await pass();
  const ms = performance.now() - begun;
  if (file !== undefined) writeFileSync(file, new Uint8Array(velocity.buffer, velocity.byteOffset, velocity.byteLength));
  process.stdout.write(`${JSON.stringify({ ms })}\n`);
}
