/** Certificates of precisions: which are believed, and what loadPolicy does without one. */
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { certificateFile, checkCertificate, findCertificate, type PrecisionCertificate } from '../../src/policy/certificate.js';
import { openLocal } from '../../src/policy/load.js';
import { formOf, type PrecisionPair, pairName, precisionPair, WEIGHT_FORMS } from '../../src/policy/precision.js';
import { checkpointHash } from '../../src/text/checkpoint-hash.js';
import { FakeNative } from '../support/fake-native.js';
import { checkpoint, errorOf, smallJob } from '../support/fixtures.js';

const HASH = 'ab'.repeat(32);
const certificate: PrecisionCertificate = {
  format: 1,
  precision: 'int8',
  weights: WEIGHT_FORMS.int8,
  base_precision: 'f32',
  checkpoint: HASH,
  date: '2026-01-02T03:04:05.000Z',
  tool: '0.1.0',
  commit: null,
  backend: 'cpu-avx2',
  job: 'cd'.repeat(32),
  mode: 'sync',
  video_steps: 5,
  action_steps: 10,
  tasks: ['touch'],
  episodes: 200,
  seed: 1,
  pairs: 200,
  only_base: 3,
  only_this: 2,
  success: 0.895,
  base_success: 0.9,
  difference_points: -0.5,
  interval_points: [-3.2, 2.1],
  mcnemar_p: 1,
  margin_points: 5,
};

const INT8 = precisionPair('int8');
const INT8_KV8 = precisionPair('int8', 'int8');
/** Of the same weights over a cache in int8. */
const pairCertificate: PrecisionCertificate = { ...certificate, kv_cache: 'int8', weights: formOf(INT8_KV8) };

function write(folder: string, content: unknown, pair: PrecisionPair = INT8): void {
  mkdirSync(join(folder, 'certificates'), { recursive: true });
  writeFileSync(certificateFile(folder, pair), typeof content === 'string' ? content : JSON.stringify(content));
}

t.test('what makes a certificate valid, and what does not', async (t) => {
  const folder = t.testdir();
  const problem = async (content?: unknown): Promise<string | undefined> => {
    if (content !== undefined) write(folder, content);
    const state = await findCertificate(folder, INT8, HASH);
    return state.kind === 'valid' ? undefined : state.problem;
  };
  t.equal(await problem(), 'none');
  t.equal(await problem(certificate), undefined);
  t.equal(await problem({ ...certificate, interval_points: [-5, 1] }), undefined, 'the bound may touch the margin');
  const wrong: [unknown, RegExp][] = [
    ['{ "format": 1', /no JSON/],
    [[], /form is wrong/],
    [{ ...certificate, format: 2 }, /whose format is wrong/],
    [{ ...certificate, pairs: undefined }, /whose pairs is wrong/],
    [{ ...certificate, extra: 1 }, /form is wrong/],
    [{ ...certificate, precision: 'int4', weights: WEIGHT_FORMS.int4 }, /of int4/],
    [pairCertificate, /of a KV cache in int8/],
    [{ ...certificate, kv_cache: 'int4' }, /whose kv_cache is wrong/],
    [{ ...certificate, checkpoint: 'cd'.repeat(32) }, /another checkpoint \(cdcdcdcdcdcd\.\.\.\)/],
    [{ ...certificate, weights: 'int8 per block' }, /held otherwise \("int8 per block"\)/],
    [{ ...certificate, pairs: 199 }, /of 199 paired episodes, fewer than 200/],
    [{ ...certificate, margin_points: 6 }, /a margin of 6 points, above 5/],
    [{ ...certificate, interval_points: [-5.01, 2] }, /up to 5\.01 points worse .* 5 are allowed/],
  ];
  for (const [content, expected] of wrong) t.match(await problem(content), expected);
  t.equal(await problem(certificate), undefined, 'and valid again');
  mkdirSync(join(folder, 'other', 'certificates', 'int8.json'), { recursive: true });
  t.match(await findCertificate(join(folder, 'other'), INT8, HASH), { kind: 'invalid', problem: /cannot be read/ });
});

t.test('quantised precisions need one, or a word; the others do not', async (t) => {
  const folder = t.testdir();
  t.equal(await checkCertificate(folder, precisionPair('f32'), HASH, false), undefined);
  t.equal(await checkCertificate(folder, precisionPair('bf16'), HASH, false), undefined);
  for (const precision of ['int8', 'int4'] as const) {
    const pair = precisionPair(precision);
    const error = await errorOf(checkCertificate(folder, pair, HASH, false));
    t.match(error, { code: 'PRECISION_NOT_CERTIFIED', field: 'precision', file: join(folder, 'certificates', `${precision}.json`), found: 'none' });
    t.match(error.message, new RegExp(`eval certify-precision --precision ${precision} --checkpoint .* --write.*allowUncertified`));
    t.match(await checkCertificate(folder, pair, HASH, true), new RegExp(`Precision ${precision} is not certified`));
  }
  write(folder, certificate);
  t.equal(await checkCertificate(folder, INT8, HASH, false), undefined);
  t.equal(await checkCertificate(folder, INT8, HASH, true), undefined, 'no warning either');
  write(folder, { ...certificate, kv_cache: 'bf16' });
  t.equal(await checkCertificate(folder, INT8, HASH, false), undefined, 'it may name its own cache');
});

t.test('another KV cache than the own one needs a certificate of the pair', async (t) => {
  const folder = t.testdir();
  write(folder, certificate);
  for (const pair of [INT8_KV8, precisionPair('int8', 'f32'), precisionPair('f32', 'bf16'), precisionPair('bf16', 'int8')]) {
    const { precision, kvCache } = pair;
    const file = join(folder, 'certificates', `${precision}-kv-${kvCache}.json`);
    const error = await errorOf(checkCertificate(folder, pair, HASH, false));
    t.match(error, { code: 'PRECISION_NOT_CERTIFIED', field: 'kvCache', file, found: 'none' }, pairName(pair));
    t.match(error.message, new RegExp(`--precision ${precision} --kv-cache ${kvCache} --checkpoint .* --write.*leave kvCache.*allowUncertified`));
    t.match(await checkCertificate(folder, pair, HASH, true), new RegExp(`Precision ${pairName(pair)} is not certified`));
  }
  write(folder, certificate, INT8_KV8);
  t.match(await findCertificate(folder, INT8_KV8, HASH), { problem: 'one of a KV cache in bf16' }, 'that of the weights alone is none');
  write(folder, { ...pairCertificate, weights: WEIGHT_FORMS.int8 }, INT8_KV8);
  t.match(await findCertificate(folder, INT8_KV8, HASH), { problem: /held otherwise/ }, 'nor is one that does not say how entries are held');
  write(folder, pairCertificate, INT8_KV8);
  t.equal(await checkCertificate(folder, INT8_KV8, HASH, false), undefined);
  t.match(await errorOf(checkCertificate(folder, precisionPair('int4', 'int8'), HASH, false)), { found: 'none' });
});

t.test('loadPolicy looks beside the checkpoint', async (t) => {
  const folder = join(t.testdir(), 'ckpt');
  cpSync(checkpoint, folder, { recursive: true });
  const open = (extra: object) => openLocal({ checkpoint: folder, job: smallJob(), precision: 'int8', ...extra }, { native: new FakeNative() });
  t.match(await errorOf(open({})), { code: 'PRECISION_NOT_CERTIFIED' });
  const knowingly = await open({ allowUncertified: true });
  t.match(knowingly.info, { precision: 'int8', warnings: [/not certified/] });
  await knowingly.close();
  write(folder, { ...certificate, checkpoint: await checkpointHash(folder) });
  const policy = await open({});
  t.same(policy.info.warnings, []);
  t.equal(policy.info.checkpointHash, await checkpointHash(folder), 'a certificate does not change the identity of its checkpoint');
  await policy.close();
  t.match(await errorOf(open({ kvCache: 'int8' })), { code: 'PRECISION_NOT_CERTIFIED', field: 'kvCache', found: 'none' });
  const bold = await open({ kvCache: 'int8', allowUncertified: true });
  t.match(bold.info, { precision: 'int8', kvCache: 'int8', warnings: [/Precision int8-kv-int8 is not certified/] });
  await bold.close();
  write(folder, { ...pairCertificate, checkpoint: await checkpointHash(folder) }, INT8_KV8);
  const narrow = await open({ kvCache: 'int8' });
  t.match(narrow.info, { precision: 'int8', kvCache: 'int8' });
  t.same(narrow.info.warnings, []);
  await narrow.close();
  writeFileSync(certificateFile(folder, INT8), JSON.stringify({ ...certificate, checkpoint: HASH }));
  t.match(await errorOf(open({})), { code: 'PRECISION_NOT_CERTIFIED', found: /another checkpoint/ });
});
