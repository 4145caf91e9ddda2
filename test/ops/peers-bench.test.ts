/**
 * bench/peers.ts on the smallest size: contestants that are absent are named and skipped, a result that is off ends the run, and the arithmetic of
 * its tables. With PyTorch (PREMOTOR_PEERS_PYTHON, else python3) the engine's passes are compared with the reference form. No time is asserted.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ggmlMarkdown } from '../../bench/peers/ggml.js';
import { errorMax, groupsOf, median, ratiosOf, relativeRms, tasksOf } from '../../bench/peers/tasks.js';
import { Worker } from '../../bench/peers/worker.js';
import { benchPeers, type PeersOptions, peersMarkdown } from '../../bench/peers.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const programs = process.env['PREMOTOR_NATIVE_TESTS'] ?? join(root, 'build', 'tests', 'bin');
const folder = mkdtempSync(join(tmpdir(), 'premotor-peers-test-'));
t.teardown(() => rmSync(folder, { recursive: true }));

function options(python: string, more: Partial<PeersOptions> = {}): PeersOptions {
  return {
    sizes: ['micro'],
    precisions: ['f32', 'bf16'],
    threads: 1,
    turns: 2,
    chunkTurns: 1,
    python,
    onnxruntime: folder,
    only: '',
    program: join(programs, 'passes'),
    models: join(root, 'models', 'tabletop'),
    cache: join(folder, 'cache'),
    onMessage: () => undefined,
    ...more,
  };
}

t.test('without Python the engine runs alone and the peers are named', async (t) => {
  const messages: string[] = [];
  const bench = await benchPeers(options(join(folder, 'no-python'), { onMessage: (text) => messages.push(text) }));
  t.match(bench.skipped.join('\n'), /PyTorch: .*requirements\.txt[\s\S]*ONNX Runtime: .*npm install[\s\S]*ggml: .*--ggml/);
  t.match(messages[0], /^skipped PyTorch/);
  const contestants = ['engine f32', 'engine bf16'];
  t.same(
    bench.measurements.map(({ task, contestant, ms }) => `${contestant}: ${task}, ${ms.length}`),
    contestants.flatMap((name) => tasksOf(true).map((task) => `${name}: ${task.name}, ${task.isChunk ? 1 : 2}`)),
  );
  t.same(bench.ratios, []);
  const text = peersMarkdown(bench);
  t.match(text, /Skipped: PyTorch/);
  t.match(text, /\| micro \| chunk 5V\/10A \| engine bf16 \| [\d.]+ \|/);
});

t.test('a result that is off ends the run', async (t) => {
  const liar = join(folder, 'liar');
  const answers = `for (const line of require('readline').createInterface({ input: process.stdin }).on('line', answer) && []) ;
function answer(line) {
  const file = line.split(' ').at(-1);
  if (file.startsWith('/')) require('fs').writeFileSync(file, new Uint8Array(new Float32Array(8 * 30).fill(1).buffer));
  console.log('{"ms": 1}');
}`;
  writeFileSync(
    liar,
    `#!/usr/bin/env node\nif (process.argv[2] === '-c') { console.log('liar 1'); process.exit(0); }\nconsole.log('{}');\n${answers}\n`,
  );
  chmodSync(liar, 0o755);
  const run = benchPeers(options(liar, { precisions: ['f32'], only: 'action' }));
  await t.rejects(run, /^FAILED: micro, action: the result of engine f32 is off by .*at most 0.0001/);
});

t.test('a contestant that dies says why', async (t) => {
  const start = Worker.start('mute', process.execPath, ['-e', 'console.error("no weights"); process.exit(3)']);
  await t.rejects(start, /^mute ended: no weights/);
  await t.rejects(Worker.start('absent', join(folder, 'nothing'), []), /^absent ended/);
});

const python = process.env['PREMOTOR_PEERS_PYTHON'] ?? 'python3';
const hasTorch = spawnSync(python, ['-c', 'import torch, numpy, safetensors']).status === 0;
const skip = hasTorch ? false : `${python} has no torch: the engine is not compared with the reference form`;
t.test('the engine computes what the reference form computes', { skip }, async (t) => {
  const bench = await benchPeers(options(python));
  const compared = bench.measurements.filter(({ contestant, error }) => contestant.startsWith('engine') && error !== undefined);
  t.equal(compared.length, 10, 'two precisions, all tasks but the short chunk, which has no counterpart');
  t.ok(
    compared.every(({ contestant, error }) => error !== 0 && (contestant !== 'engine f32' || (error as number) < 1e-5)),
    compared.map(({ task, contestant, error }) => `${contestant} ${task} ${error}`).join(', '),
  );
  t.ok(bench.ratios.some(({ what }) => what === 'engine bf16 2V/4A against reference bf16 5V/10A'));
});

t.test('the arithmetic of the tables', (t) => {
  t.same(groupsOf(['f32', 'bf16', 'int8'], ['f32', 'int8', 'int4']), [
    { torch: 'f32', engine: ['f32'], onnx: 'f32' },
    { torch: 'bf16', engine: ['int8'], onnx: 'int8' },
  ]);
  t.equal(median([3, 1, 2]), 2);
  t.equal(median([4, 1, 2, 3]), 2.5);
  t.equal(relativeRms(Float32Array.of(3, 4.5), Float32Array.of(3, 4), false), 0.1);
  t.equal(relativeRms(Float32Array.of(3), Float32Array.of(3, 4), true), 0, 'the first row alone');
  t.equal(relativeRms(Float32Array.of(3), Float32Array.of(3, 4), false), Number.POSITIVE_INFINITY);
  t.equal(relativeRms(Float32Array.of(Number.NaN, 4), Float32Array.of(3, 4), false), Number.POSITIVE_INFINITY);
  t.ok(errorMax('engine f32', true) <= 1e-4);
  t.ok(errorMax('engine int4', true) < 1.4, 'less than two results that have nothing to do with one another');
  const of = (task: string, contestant: string, ...ms: number[]) => ({ size: 'mid', task, contestant, ms });
  const ratios = ratiosOf([
    of('chunk 5V/10A', 'engine bf16', 10, 12),
    of('chunk 2V/4A', 'engine bf16', 4, 6),
    of('chunk 5V/10A', 'reference bf16', 33, 33),
    of('action', 'engine f32', 2),
    of('action', 'ONNX Runtime f32', 5),
    of('action', 'ONNX Runtime int8', 5),
  ]);
  t.same(ratios, [
    { size: 'mid', what: 'chunk 5V/10A: engine bf16 against reference bf16', ratio: 3, goal: 2.8 },
    { size: 'mid', what: 'engine bf16 2V/4A against reference bf16 5V/10A', ratio: 6.6, goal: 4.8 },
    { size: 'mid', what: 'action: engine f32 against ONNX Runtime f32', ratio: 2.5, goal: 1.3 },
  ]);
  const product = { type: 'q8_0', kernel: 'packed int8', m: 32, n: 1000, k: 1000, ggmlMs: 4, kernelMs: 1, buffer: 'CPU', goal: 3 };
  t.match(ggmlMarkdown([product]), '| q8_0 | 32 | 1000 | 1000 | CPU | 16 | packed int8 | 64 | 4.00 | 3 |');
  t.match(ggmlMarkdown([{ ...product, kernelMs: undefined as never }]), '| packed int8 | none |  | 3 |');
  t.end();
});
