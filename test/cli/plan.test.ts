/** `premotor build`, `premotor plan` and the option `plan`: the shipped checkpoint through a plan, bit by bit, and everything that is refused. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { runCli } from '../../src/cli/main.js';
import { runExplain } from '../../src/cli/plan-explain.js';
import { loadPolicy } from '../../src/index.js';
import { loadNative } from '../../src/native.js';
import type { Frame, Policy } from '../../src/policy/contract.js';
import { readJob } from '../../src/policy/job.js';
import { errorOf } from '../support/fixtures.js';
import { fakeContext, TextSink } from './fakes.js';

const tabletop = 'models/tabletop';

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const sinks = { out: new TextSink(), err: new TextSink() };
  const code = await runCli(argv, sinks);
  return { code, out: sinks.out.text, err: sinks.err.text };
}

/** One chunk, a commit, another chunk: everything that comes out. */
async function episode(policy: Policy): Promise<Float32Array[]> {
  const frame = (camera: string, seed: number): Frame => {
    const data = Uint8Array.from({ length: 64 * 64 * 3 }, (_, index) => (index * 7 + seed) % 251);
    return { camera, width: 64, height: 64, data, capturedAtNs: 0n };
  };
  const moment = (seed: number): Frame[] => policy.job.obs_cam_keys.map((camera) => frame(camera, seed));
  try {
    await policy.reset({ prompt: 'touch the red button' });
    const first = await policy.predict({ obs: moment(0), seed: 5 });
    const obs = Array.from({ length: 4 * (policy.job.frame_chunk_size - 1) }, (_, index) => moment(index));
    const committed = await policy.commit({ obs, actions: first.actions });
    const second = await policy.predict({ seed: 6 });
    return [first.actions, first.latents, committed.latents, second.actions, second.latents];
  } finally {
    await policy.close();
  }
}

t.test('the shipped checkpoint: built, explained, opened, bit by bit', async (t) => {
  const dir = t.testdir();
  const plan = join(dir, 'tabletop.plan');
  const built = await run('build', tabletop, '-o', plan, '--threads', '2', '--json');
  t.equal(built.code, 0, built.err);
  const document = JSON.parse(built.out) as Record<string, unknown>;
  t.match(document, { precision: 'f32', rounding: 'none', device: 'cpu', bytes: readFileSync(plan).length });
  t.match(built.err, /packing weights .*\n.*tuning products.*\n.*computing tables/s);
  t.same(readdirSync(dir), ['tabletop.plan'], 'nothing else is left');
  const options = { checkpoint: tabletop, job: join(tabletop, 'job.json'), threads: 2, promptCache: false } as const;
  const expected = await episode(await loadPolicy(options));
  for (const isolate of [false, true]) {
    const policy = await loadPolicy({ ...options, plan, isolate });
    t.equal(policy.info.checkpointHash, document['checkpointHash']);
    t.same(await episode(policy), expected, isolate ? 'in a process of its own' : 'in this process');
  }
  const verified = await run('plan', 'verify', plan);
  t.equal(verified.code, 0, verified.err);
  t.match(verified.out, /every byte as it was written/);
  const refused = async (changes: object) => (await errorOf(loadPolicy({ ...options, plan, ...changes }))).code;
  t.equal(await refused({ precision: 'bf16' }), 'PLAN_PRECISION');
  t.equal(await refused({ plan: join(dir, 'none') }), 'PLAN_MISSING');
  t.equal(await refused({ plan: join(tabletop, 'job.json') }), 'PLAN_FOREIGN');
  const bytes = readFileSync(plan);
  const changed = join(dir, 'changed.plan');
  writeFileSync(changed, bytes.subarray(0, -1));
  t.equal(await refused({ plan: changed }), 'PLAN_TRUNCATED');
  bytes[100_000] = (bytes[100_000] ?? 0) ^ 4;
  writeFileSync(changed, bytes);
  t.equal(await refused({ plan: changed }), 'PLAN_DAMAGED');
  const damaged = await run('plan', 'verify', changed, '--json');
  t.equal(damaged.code, 1);
  t.match(JSON.parse(damaged.out), { error: { code: 'PLAN_DAMAGED', file: changed } });
});

interface Explained {
  readonly ceilings: { readonly gigaflops: Record<string, number> } | null;
  readonly passes: readonly {
    readonly name: string;
    readonly perChunk: number;
    readonly total: { readonly flops: number; readonly ms?: number };
    readonly groups: readonly { readonly times: number; readonly steps: readonly { readonly weight?: string; readonly flops: number }[] }[];
  }[];
  readonly chunk: { readonly flops: number; readonly ms?: number };
}

t.test('explain', async (t) => {
  const dir = t.testdir();
  const plan = join(dir, 'tabletop.plan');
  t.equal((await run('build', tabletop, '-o', plan)).code, 0);
  const given = 'bandwidth=10,f32=50,bf16_dot=100';
  const { code, out, err } = await run('plan', 'explain', plan, '--ceilings', given, '--json');
  t.equal(code, 0, err);
  const { passes, chunk, ceilings } = JSON.parse(out) as Explained;
  const { job } = await readJob(join(tabletop, 'job.json'));
  t.same(
    passes.map(({ name, perChunk }) => [name, perChunk]),
    [
      ['video', job.num_inference_steps],
      ['video (cache)', 1],
      ['action', job.action_num_inference_steps],
      ['commit', 1],
      ['encode', job.obs_cam_keys.length],
    ],
  );
  t.same(ceilings, { name: 'given', gigabytesPerSecond: 10, gigaflops: { f32: 50, bf16_dot: 100 } });
  for (const { name, groups, total } of passes) {
    const sum = groups.reduce((all, { times, steps }) => all + times * steps.reduce((one, { flops }) => one + flops, 0), 0);
    t.equal(total.flops, sum, name);
    const expected = name === 'encode' ? 'encoder.down_blocks.0.resnets.0.conv1.weight' : 'blocks.*.ffn.net.0.proj.weight';
    t.ok(
      groups.some(({ steps }) => steps.some(({ weight, flops }) => weight === expected && flops > 0)),
      `${name}: ${expected}`,
    );
  }
  t.equal(
    chunk.flops,
    passes.reduce((all, { perChunk, total }) => all + perChunk * total.flops, 0),
  );
  const seconds = chunk.flops / 50e9;
  t.ok((chunk.ms ?? 0) >= 1000 * seconds, 'no faster than its arithmetic');
  const text = await run('plan', 'explain', plan);
  t.equal(text.code, 0);
  t.match(text.out, /^linear blocks\.\*\.attn1\.to_q\+to_k\+to_v\.weight \+ layer_norm, modulation, bias +\d+ x/m);
  t.match(text.out, /^encode: \d+ a chunk, \d+ pictures of \d+ x \d+$/m);
  t.match(text.out, /Add --measure/);
  t.notMatch(text.out, 'ms at least');
  t.match((await run('plan', 'explain', plan, '--ceilings', given)).out, /ms at least.*\n(.*\n)*.*arithmetic/);
  const sinks = fakeContext({ loadNative });
  await runExplain(plan, { measure: true, threads: 1, json: true, measureBytes: 1 << 20 }, sinks.context);
  const measured = JSON.parse(sinks.out.text) as Explained;
  t.ok((measured.ceilings?.gigaflops['f32'] ?? 0) > 0.1, 'ceilings of this machine');
  t.ok((measured.chunk.ms ?? 0) > 0);
});

t.test('other checkpoints, other forms, other jobs', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'mot');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  copyFileSync(join(tabletop, 'job.json'), join(checkpoint, 'job.json'));
  const plan = join(dir, 'a.plan');
  const built = await run('build', checkpoint, '-o', plan, '--precision', 'bf16');
  t.equal(built.code, 0, built.err);
  t.match(built.out, /a\.plan: .*bf16, \d+ tensors/);
  const options = { job: join(checkpoint, 'job.json'), precision: 'bf16', threads: 1, promptCache: false, plan } as const;
  await (await loadPolicy({ ...options, checkpoint })).close();
  t.equal((await errorOf(loadPolicy({ ...options, checkpoint: tabletop }))).code, 'PLAN_CHECKPOINT');
  const { param_dtype: _, ladder: __, ...job } = (await readJob(options.job)).job;
  const rounded = { ...options, checkpoint, job: { ...job, param_dtype: 'bfloat16' } };
  t.match(await errorOf(loadPolicy(rounded)), { code: 'PLAN_PRECISION', expected: /rounded/ });
  const smaller = await loadPolicy({ ...options, checkpoint, job: { ...job, param_dtype: 'float32', attn_window: 4 } });
  await smaller.close();
});

t.test('the mixture-of-transformers form', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'mot');
  const transformer = { architecture: 'mot', action_inner_dim: 20, action_ffn_dim: 34, num_attention_heads: 2, attention_head_dim: 24 } as const;
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny', overrides: { transformer } });
  copyFileSync(join(tabletop, 'job.json'), join(checkpoint, 'job.json'));
  const plan = join(dir, 'a.plan');
  t.equal((await run('build', checkpoint, '-o', plan)).code, 0);
  const options = { checkpoint, job: join(checkpoint, 'job.json'), threads: 2, promptCache: false } as const;
  const expected = await episode(await loadPolicy(options));
  t.same(await episode(await loadPolicy({ ...options, plan })), expected, 'bit by bit');
  const { passes } = JSON.parse((await run('plan', 'explain', plan, '--json')).out) as Explained;
  const names = passes.map(({ name }) => name);
  t.same(names, ['video', 'video (cache)', 'action', 'commit video', 'commit action', 'encode'], 'two passes commit: they share no blocks');
});

interface Tuned {
  readonly tuning: {
    readonly processor: string;
    readonly threads: number;
    readonly used: boolean;
    readonly products: readonly { readonly tactics: readonly { rows: number; split: string; tiles: number }[] }[];
  };
}

t.test('tactics: kept in a file, the same plan again, ignored elsewhere', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'tiny');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  copyFileSync(join(tabletop, 'job.json'), join(checkpoint, 'job.json'));
  const file = (name: string): string => join(dir, name);
  const build = async (name: string, ...more: string[]): Promise<Buffer> => {
    const built = await run('build', checkpoint, '-o', file(name), '--threads', '1', ...more);
    t.equal(built.code, 0, built.err);
    return readFileSync(file(name));
  };
  const explain = async (name: string, ...more: string[]): Promise<Tuned['tuning']> =>
    (JSON.parse((await run('plan', 'explain', file(name), '--json', ...more)).out) as Tuned).tuning;
  const first = await build('a.plan', '--tactics', file('tactics.json'));
  const found = await explain('a.plan', '--threads', '1');
  t.match(found, { processor: /cpu-/, threads: 1, used: true });
  t.ok(found.products.length > 3);
  const known = readFileSync(file('tactics.json'), 'utf8');
  t.ok((await build('b.plan', '--tactics', file('tactics.json'))).equals(first), 'built again: the same bytes');
  t.equal(readFileSync(file('tactics.json'), 'utf8'), known, 'nothing was new');
  t.ok((await build('c.plan', '--tactics', file('tactics.json'), '--no-tune')).equals(first), 'without measuring, too');
  // Whatever a file says is what is built, and shown.
  const cache = JSON.parse(known) as { tunings: Tuned['tuning'][] };
  for (const { tactics } of cache.tunings.flatMap(({ products }) => products))
    for (const tactic of tactics) Object.assign(tactic, { split: 'alone', tiles: 5 });
  writeFileSync(file('other.json'), JSON.stringify(cache));
  t.notOk((await build('d.plan', '--tactics', file('other.json'), '--no-tune')).equals(first));
  const shown = (await run('plan', 'explain', file('d.plan'), '--threads', '1')).out;
  t.match(shown, /^tactics {4}tuned for .* with 1 threads: (\d+), of which \1 differ/m);
  t.match(shown, /^ {11}\d+ x \d+ x \d+ \w+: on one thread, tasks of 5 tiles of rows$/m);
  t.notMatch(shown, /ignored here/);
  const options = { checkpoint, job: join(checkpoint, 'job.json'), threads: 1, promptCache: false } as const;
  t.same(await episode(await loadPolicy({ ...options, plan: file('d.plan') })), await episode(await loadPolicy(options)), 'bit by bit');
  // As if it had been tuned elsewhere: a hint, and no error.
  const away = JSON.parse(known) as { tunings: Tuned['tuning'][] };
  writeFileSync(file('away.json'), JSON.stringify({ tunings: away.tunings.map((tuning) => ({ ...tuning, processor: 'another' })) }));
  await build('e.plan', '--tactics', file('away.json'), '--no-tune');
  t.match((await run('plan', 'explain', file('e.plan'))).out, /^tactics {4}none/m);
  await build('f.plan', '--tactics', file('away.json'));
  const extended = JSON.parse(readFileSync(file('away.json'), 'utf8')) as { tunings: Tuned['tuning'][] };
  t.same(
    extended.tunings.map(({ processor }) => processor),
    ['another', found.processor],
    'a cache of several processors',
  );
  const sinks = fakeContext({ loadNative: () => ({ ...loadNative(), tunedFor: () => ({ processor: 'another', threads: 1 }) }) });
  await runExplain(file('a.plan'), { measure: false, json: false }, sinks.context);
  t.match(sinks.out.text, /^ {11}ignored here: another with 1 threads/m);
  await build('g.plan', '--no-tune');
  t.match(await explain('g.plan'), { processor: '', products: [], used: false });
});

t.test('quantised: whoever opens it needs the certificate', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'tiny');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  copyFileSync(join(tabletop, 'job.json'), join(checkpoint, 'job.json'));
  for (const [precision, product] of [
    ['int8', 'int8'],
    ['int4', 'int4'],
  ] as const) {
    const plan = join(dir, `${precision}.plan`);
    const built = await run('build', checkpoint, '-o', plan, '--precision', precision);
    t.equal(built.code, 0, built.err);
    t.match(built.err, /warning: Precision int\d is not certified .*--allow-uncertified/);
    const options = { checkpoint, job: join(checkpoint, 'job.json'), precision, threads: 2, promptCache: false } as const;
    t.match(await errorOf(loadPolicy({ ...options, plan })), { code: 'PRECISION_NOT_CERTIFIED', found: 'none' });
    const policy = await loadPolicy({ ...options, plan, allowUncertified: true });
    t.match(policy.info.warnings.join(), /is not certified/);
    t.same(await episode(policy), await episode(await loadPolicy({ ...options, allowUncertified: true })), `${precision}: bit by bit`);
    t.equal((await errorOf(loadPolicy({ ...options, plan, precision: 'f32' }))).code, 'PLAN_PRECISION');
    const explained = await run('plan', 'explain', plan);
    t.match(explained.out, new RegExp(`^linear blocks.*ffn.*weight .* ${product} `, 'm'));
    const foreign = await errorOf(loadPolicy({ ...options, checkpoint: tabletop, plan, allowUncertified: true }));
    t.equal(foreign.code, 'PLAN_CHECKPOINT');
  }
});

t.test('another KV cache: counted as it was built for, and run through any plan', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'tiny');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  copyFileSync(join(tabletop, 'job.json'), join(checkpoint, 'job.json'));
  const plans = { bf16: join(dir, 'a.plan'), int8: join(dir, 'b.plan') } as const;
  const cacheBytes: Record<string, number> = {};
  for (const [kvCache, plan] of Object.entries(plans)) {
    const built = await run('build', checkpoint, '-o', plan, '--precision', 'int8', '--kv-cache', kvCache, '--json');
    t.equal(built.code, 0, built.err);
    t.match(JSON.parse(built.out), { precision: 'int8', kvCache });
    t.match(built.err, kvCache === 'int8' ? /Precision int8-kv-int8 is not certified/ : /Precision int8 is not certified/);
    t.match((await run('plan', 'explain', plan)).out, new RegExp(`^video: .* over \\d+ cache entries in ${kvCache}$`, 'm'));
    const { chunk } = JSON.parse((await run('plan', 'explain', plan, '--json')).out) as { chunk: { cacheBytes: number } };
    cacheBytes[kvCache] = chunk.cacheBytes;
  }
  const { attention_head_dim: width } = JSON.parse(readFileSync(join(checkpoint, 'transformer', 'config.json'), 'utf8')) as Record<string, number>;
  t.equal((cacheBytes['int8'] ?? 0) / (cacheBytes['bf16'] ?? 0), ((width ?? 0) + 4) / (2 * (width ?? 0)), 'a byte a value and a scale a head');
  const job = join(checkpoint, 'job.json');
  const options = { checkpoint, job, precision: 'int8', kvCache: 'int8', allowUncertified: true, threads: 2, promptCache: false } as const;
  const expected = await episode(await loadPolicy(options));
  for (const plan of Object.values(plans)) t.same(await episode(await loadPolicy({ ...options, plan, isolate: true })), expected, 'bit by bit');
  t.notSame(await episode(await loadPolicy({ ...options, kvCache: 'bf16' })), expected, 'another cache, other bits');
  const refused = await run('build', checkpoint, '-o', join(dir, 'c.plan'), '--precision', 'bf16', '--kv-cache', 'int4');
  t.equal(refused.code, 2);
});

t.test('wrong command lines', async (t) => {
  const dir = t.testdir();
  const bare = join(dir, 'bare');
  mkdirSync(bare);
  for (const [argv, code, message] of [
    [['build', '-o', 'x'], 2, /missing required argument 'checkpoint'/],
    [['build', tabletop], 2, /--output/],
    [['build', bare, '-o', join(dir, 'x')], 2, /a job, found none/],
    [['build', tabletop, '-o', join(dir, 'no', 'x')], 1, /FILE_WRITE/],
    [['build', join(dir, 'none'), '--job', join(tabletop, 'job.json'), '-o', join(dir, 'x')], 1, /CHECKPOINT_MISSING_FILE/],
    [['plan', 'explain', join(dir, 'x')], 1, /PLAN_MISSING/],
    [['plan', 'explain', 'x', '--ceilings', 'f32=3'], 2, /bandwidth=GB/],
    [['plan', 'explain', 'x', '--ceilings', 'f32=3,bandwidth=0'], 2, /bandwidth=0/],
    [['plan', 'verify', join(tabletop, 'job.json')], 1, /PLAN_FOREIGN/],
    [['build', tabletop, '-o', join(dir, 'x'), '--tactics', join(tabletop, 'job.json')], 1, /TACTICS_INVALID/],
    [['build', tabletop, '-o', join(dir, 'x'), '--tactics', tabletop], 1, /TACTICS_INVALID.*readable/],
  ] as const) {
    const result = await run(...argv);
    t.equal(result.code, code, argv.join(' '));
    t.match(result.err, message, argv.join(' '));
  }
  t.notOk(existsSync(join(dir, 'x')) || existsSync(join(dir, 'x.partial')), 'nothing was written');
});

t.test('a stopped build leaves nothing', async (t) => {
  const dir = t.testdir();
  const stop = new AbortController();
  stop.abort(new Error('stop'));
  const sinks = { out: new TextSink(), err: new TextSink() };
  const code = await runCli(['build', tabletop, '-o', join(dir, 'x')], { ...sinks, signal: stop.signal });
  t.equal(code, 130);
  t.same(readdirSync(dir), []);
});

t.test('the documents have every option', async (t) => {
  const document = readFileSync('docs/PLAN.md', 'utf8');
  for (const command of [['build'], ['plan', 'explain'], ['plan', 'verify']]) {
    const { out } = await run(...command, '--help');
    t.match(out, /Examples:\n {2}premotor/, command.join(' '));
    for (const [option] of out.matchAll(/--[a-z-]+/g)) if (option !== '--help') t.ok(document.includes(option), `docs/PLAN.md has ${option}`);
  }
});
