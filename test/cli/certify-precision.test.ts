/** `premotor eval certify-precision` from the command line to the file that loadPolicy reads, with the scripted expert as policy. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { type CertifyPrecisionOptions, precisionTable, runCertifyPrecision } from '../../src/cli/eval-certify-precision.js';
import { runCli } from '../../src/cli/main.js';
import { certifyPrecision } from '../../src/evaluation/certify-precision.js';
import type { EpisodeResult } from '../../src/evaluation/configuration.js';
import { type Evaluation, machine, summarise } from '../../src/evaluation/evaluation.js';
import { WorkerPool } from '../../src/evaluation/workers.js';
import { certificateFile, findCertificate, problemOf } from '../../src/policy/certificate.js';
import { type CpuPrecision, precisionPair } from '../../src/policy/precision.js';
import { checkpointHash } from '../../src/text/checkpoint-hash.js';
import { TextSink } from './fakes.js';

const FAKE = fileURLToPath(new URL('../evaluation/fake-worker-process.ts', import.meta.url));
const never = new AbortController().signal;
const sinks = () => ({ out: new TextSink(), err: new TextSink() });
const HASH = 'ab'.repeat(32);
const INT8 = precisionPair('int8');
const INT8_KV8 = precisionPair('int8', 'int8');

/** 400 seeds of one task, those of `done` done. */
function evaluationOf(precision: CpuPrecision, done: (seed: number) => boolean): Evaluation {
  const episodes = Array.from({ length: 400 }, (_, seed) => ({ task: 'touch', seed: 7 + seed, verdict: done(seed) ? 'succeeded' : 'timeout' }));
  const results = episodes.map((one) => ({ ...one, predictMs: [], commitMs: [] })) as unknown as EpisodeResult[];
  return {
    configuration: { precision, memory: 'episode', disturbances: {}, pace: 'virtual' },
    mode: 'sync',
    checkpoint: { name: 'sample', hash: HASH, parameters: 1, backend: 'cpu' },
    job: { videoSteps: 5, actionSteps: 10, videoExecStep: -1, hash: 'cd'.repeat(32) },
    tasks: [summarise('touch', results)],
    episodes: results,
    workers: 1,
    wallS: 1,
    date: '2026-01-02T03:04:05.000Z',
    versions: { premotor: '0.1.0', commit: null },
    machine: machine(),
  };
}

const compared = (done: (seed: number) => boolean, marginPoints = 5, pair = INT8) => {
  const base = evaluationOf('f32', (seed) => seed < 360);
  return certifyPrecision({ pair, marginPoints, base, evaluation: evaluationOf('int8', done) });
};

t.test('as good, worse, and surely better than the margin', async (t) => {
  const same = compared((seed) => seed < 360);
  t.match(same, { pairs: 400, success: 0.9, base_success: 0.9, only_base: 0, only_this: 0, difference_points: 0, mcnemar_p: 1, seed: 7 });
  t.equal(problemOf(same, INT8, HASH), undefined);
  const worse = compared((seed) => seed < 340);
  t.match(worse, { only_base: 20, only_this: 0, difference_points: -5 });
  t.ok(worse.mcnemar_p < 1e-5 && (worse.interval_points[0] ?? 0) < -5);
  t.match(problemOf(worse, INT8, HASH), /that it fails/);
  t.match(
    problemOf(
      compared((seed) => seed < 340, 20),
      INT8,
      HASH,
    ),
    /a margin of 20 points/,
    'a wide margin opens nothing',
  );
  const mixed = compared((seed) => seed >= 8 && seed < 365);
  t.match(mixed, { only_base: 8, only_this: 5, difference_points: -0.75 });
  t.equal(problemOf(mixed, INT8, HASH), undefined);
  t.match(
    precisionTable(same, undefined),
    /^int8 +90\.0 % +90\.0 % +0 .*0\/0 +1\.000\n\n400 paired episodes, 5 video and 10 action steps; certified\.$/m,
  );
  t.match(precisionTable(worse, 'one that it fails'), /not certified: found one that it fails\.$/);
  t.notOk('kv_cache' in same, "the precision's own KV cache goes without saying");
  const narrow = compared((seed) => seed < 360, 5, INT8_KV8);
  t.match(narrow, { precision: 'int8', kv_cache: 'int8', weights: /^blocks in int8 .*; keys and values in int8 / });
  t.equal(problemOf(narrow, INT8_KV8, HASH), undefined);
  t.match([problemOf(narrow, INT8, HASH), problemOf(same, INT8_KV8, HASH)], ['one of a KV cache in int8', 'one of a KV cache in bf16']);
  t.match(precisionTable(narrow, undefined), /^int8-kv-int8 +90\.0 %/m);
});

t.test('from the command to the file', async (t) => {
  const checkpoint = join(t.testdir(), 'expert');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  const kept = join(checkpoint, '..', 'kept');
  const pool = new WorkerPool(2, FAKE);
  t.teardown(() => pool.close());
  const options: CertifyPrecisionOptions = {
    precision: 'int8',
    task: 'touch',
    episodes: 3,
    seed: 0,
    margin: 5,
    steps: { video: 1, action: 5 },
    checkpoint,
    workers: 2,
    out: kept,
    write: false,
    json: true,
  };
  const first = sinks();
  await runCertifyPrecision(options, pool, first, never);
  t.match(JSON.parse(first.out.text), { isCertified: false, isWritten: false, certificate: { precision: 'int8', pairs: 3, success: 2 / 3 } });
  t.match(first.err.text, /f32: running episodes 3\/3/);
  t.notOk(existsSync(certificateFile(checkpoint, INT8)));
  const hash = await checkpointHash(checkpoint);
  // The fake's checkpoint hash is not the folder's, so the kept documents get the right one.
  for (const name of ['f32', 'int8']) {
    const path = join(kept, `${name}.json`);
    const document = JSON.parse(readFileSync(path, 'utf8')) as Evaluation;
    t.match(document.configuration, { precision: name, videoSteps: 1, actionSteps: 5 });
    writeFileSync(path, JSON.stringify({ ...document, checkpoint: { ...document.checkpoint, hash } }));
  }
  const second = sinks();
  await runCertifyPrecision({ ...options, write: true, json: false }, pool, second, never);
  t.match(second.err.text, /f32: kept\nint8: kept\nWritten: .*int8\.json/);
  t.match(await findCertificate(checkpoint, INT8, hash), { kind: 'invalid', problem: 'one of 3 paired episodes, fewer than 200' });
  const third = sinks();
  await runCertifyPrecision({ ...options, precision: 'int4' }, pool, third, never);
  t.match(third.err.text, /f32: kept/, 'precisions share the float32 episodes');
  const fourth = sinks();
  await runCertifyPrecision({ ...options, kvCache: 'int8', write: true }, pool, fourth, never);
  t.match(fourth.err.text, /f32: kept\nint8-kv-int8: running.*Written: .*int8-kv-int8\.json/s, 'so do KV caches');
  t.match(JSON.parse(fourth.out.text), { isWritten: true, certificate: { precision: 'int8', kv_cache: 'int8' } });
  const path = join(kept, 'int8-kv-int8.json');
  const document = JSON.parse(readFileSync(path, 'utf8')) as Evaluation;
  t.match(document.configuration, { precision: 'int8', kvCache: 'int8' });
  writeFileSync(path, JSON.stringify({ ...document, checkpoint: { ...document.checkpoint, hash } }));
  t.match(await findCertificate(checkpoint, INT8_KV8, hash), { kind: 'invalid', problem: /./ }, 'the fake names another checkpoint');
  const fifth = sinks();
  await runCertifyPrecision({ ...options, kvCache: 'int8', write: true }, pool, fifth, never);
  t.match(fifth.err.text, /f32: kept\nint8-kv-int8: kept/);
  t.match(await findCertificate(checkpoint, INT8_KV8, hash), { kind: 'invalid', problem: 'one of 3 paired episodes, fewer than 200' });
  const sixth = sinks();
  await runCertifyPrecision({ ...options, kvCache: 'bf16' }, pool, sixth, never);
  t.match(sixth.err.text, /f32: kept\nint8: kept/, "the precision's own cache by its name is the same");
});

t.test('wrong command lines', async (t) => {
  const wrong: [string, RegExp][] = [
    ['', /--precision/],
    ['--precision f32', /f32 with its own KV cache, which is what certificates compare with/],
    ['--precision fp8', /Allowed choices are f32, bf16, int8, int4/],
    ['--precision int8 --kv-cache int4', /Allowed choices are f32, bf16, int8/],
    ['--precision int8 --margin 101', /0 \.\. 100/],
    ['--precision int8 --episodes 0', /whole number/],
    ['--precision int8 --steps 0', /VIDEO\/ACTION/],
  ];
  for (const [line, message] of wrong) {
    const context = sinks();
    t.equal(await runCli(['eval', 'certify-precision', ...line.split(' ').filter((word) => word !== '')], context), 2, line);
    t.match(context.err.text, message, line);
  }
});
