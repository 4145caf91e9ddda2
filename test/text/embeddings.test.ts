import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { checkpointHash, textHash } from '../../src/text/checkpoint-hash.js';
import { type EmbedPromptOptions, embedPrompt } from '../../src/text/embeddings.js';
import * as store from '../../src/text/prompt-cache.js';
import { TextTokenizer } from '../../src/text/tokenizer.js';
import { fakeEncoder, WIDTH, writeCheckpoint } from './fixtures.js';

const mode = store.textMode('f32', 'float32');

interface Setup {
  readonly options: Omit<EmbedPromptOptions, 'native'> & { readonly cacheDir: string };
  readonly folder: string;
}

function setUp(t: Test): Setup {
  const base = t.testdir({});
  const checkpoint = writeCheckpoint(join(base, 'checkpoint'));
  return { folder: base, options: { checkpoint, prompt: ' Pick up  the cube ', mode, threads: 3, cacheDir: join(base, 'cache') } };
}

/** Puts a prompt into the checkpoint's folder, as a workstation would. */
async function precompute(options: Setup['options'], cleaned: string, change: Partial<store.PromptIdentity> = {}): Promise<string> {
  const { checkpoint } = options;
  const identity = { cleaned, mode, textHash: await textHash(checkpoint), checkpointHash: await checkpointHash(checkpoint), ...change };
  const file = store.precomputedFile(store.promptsFolder(checkpoint), cleaned, mode);
  const prompt = { cleaned, rows: new Float32Array(2 * WIDTH).fill(9), count: 2, ids: Int32Array.from([7, 1]) };
  await store.writePrompt(file, store.promptsFolder(checkpoint), prompt, identity);
  return file;
}

t.test('the encoder first, then the cache', async (t) => {
  const { options } = setUp(t);
  const native = fakeEncoder();
  const first = await embedPrompt({ ...options, native });
  const ids = (await TextTokenizer.open(join(options.checkpoint, 'tokenizer'))).encode('Pick up the cube');
  t.match(first, { source: 'encoder', cleaned: 'Pick up the cube', count: ids.length, warnings: [] });
  t.same([...first.ids], [...ids, ...Array(512 - ids.length).fill(0)]);
  t.same([...first.mask], [...Array(ids.length).fill(1), ...Array(512 - ids.length).fill(0)]);
  t.equal(first.rows.length, ids.length * WIDTH);
  t.match(native.calls, [{ folder: join(options.checkpoint, 'text_encoder'), precision: 'f32', deployedBf16: false, threads: 3 }]);
  t.same([...(native.calls[0]?.ids ?? [])], [...ids], 'the encoder gets the real tokens only');

  const second = await embedPrompt({ ...options, prompt: 'Pick up the cube', native });
  t.equal(second.source, 'cache');
  t.same([...second.rows], [...first.rows]);
  t.same([...second.ids], [...first.ids]);
  t.equal(native.calls.length, 1, 'not computed twice');
});

t.test('another mode, another encoder and no cache compute again', async (t) => {
  const { options } = setUp(t);
  const native = fakeEncoder();
  await embedPrompt({ ...options, native });
  const deployed = store.textMode('bf16', 'bfloat16');
  t.equal((await embedPrompt({ ...options, native, mode: deployed })).source, 'encoder', 'mode');
  t.match(native.calls[1], { precision: 'bf16', deployedBf16: true });
  t.equal((await embedPrompt({ ...options, native, cacheDir: false })).source, 'encoder', 'no cache');
  writeFileSync(join(options.checkpoint, 'text_encoder', 'config.json'), '{"width": 8, "x": 1}');
  t.equal((await embedPrompt({ ...options, native })).source, 'encoder', 'encoder changed');
  t.equal(readdirSync(options.cacheDir).length, 3, 'one entry for each but the one without cache');
});

t.test('a damaged cache entry is computed again and repaired', async (t) => {
  const { options } = setUp(t);
  const native = fakeEncoder();
  const good = await embedPrompt({ ...options, native });
  const file = join(options.cacheDir, readdirSync(options.cacheDir)[0] ?? '');
  const whole = readFileSync(file);
  writeFileSync(file, whole.subarray(0, 100));
  const again = await embedPrompt({ ...options, native });
  t.equal(again.source, 'encoder');
  t.same([...again.rows], [...good.rows]);
  t.same(readFileSync(file), whole, 'repaired');
  t.equal((await embedPrompt({ ...options, native })).source, 'cache');
});

t.test('a cache that cannot be written costs a warning', async (t) => {
  const { options, folder } = setUp(t);
  writeFileSync(join(folder, 'file'), '');
  const result = await embedPrompt({ ...options, native: fakeEncoder(), cacheDir: join(folder, 'file') });
  t.equal(result.source, 'encoder');
  t.match(result.warnings, [/cannot be written/]);
});

t.test('precomputed prompts come first and need no encoder, no tokenizer and no addon', async (t) => {
  const { options } = setUp(t);
  await precompute(options, 'Pick up the cube');
  const native = (): never => t.fail('the addon is not loaded') as never;
  const withEncoder = await embedPrompt({ ...options, native });
  t.match(withEncoder, { source: 'checkpoint', count: 2, cleaned: 'Pick up the cube' });
  for (const name of ['text_encoder', 'tokenizer']) rmSync(join(options.checkpoint, name), { recursive: true });
  const without = await embedPrompt({ ...options, native });
  t.match(without, { source: 'checkpoint', count: 2 });
  t.same([...without.ids.subarray(0, 3)], [7, 1, 0]);
  t.notOk(readdirSync(join(options.checkpoint, '..')).includes('cache'), 'and write nothing');
});

t.test('an unknown prompt on a robot without encoder', async (t) => {
  const { options } = setUp(t);
  await precompute(options, 'Pick up the cube');
  rmSync(join(options.checkpoint, 'text_encoder'), { recursive: true });
  const native = fakeEncoder();
  await t.rejects(embedPrompt({ ...options, prompt: 'Drop it', native }), {
    code: 'TEXT_ENCODER_MISSING',
    message: /premotor prompt --checkpoint.*workstation/,
  });
  const file = store.precomputedFile(store.promptsFolder(options.checkpoint), 'Pick up the cube', mode);
  writeFileSync(file, 'x');
  await t.rejects(embedPrompt({ ...options, native }), { code: 'TEXT_ENCODER_MISSING', message: /cannot be used/ }, 'a damaged file is named');
  t.equal(native.calls.length, 0);
});

t.test('precomputed prompts of another checkpoint are refused', async (t) => {
  const { options } = setUp(t);
  await precompute(options, 'Pick up the cube', { checkpointHash: 'f'.repeat(64) });
  await t.rejects(embedPrompt({ ...options, native: fakeEncoder() }), { code: 'PROMPT_FOREIGN' });
  const making = await embedPrompt({ ...options, native: fakeEncoder(), precomputed: false });
  t.equal(making.source, 'encoder', 'but not looked at while making new ones');
});

t.test('precomputed prompts of another encoder are not used where the right one can be run', async (t) => {
  const { options } = setUp(t);
  const file = await precompute(options, 'Pick up the cube', { textHash: 'f'.repeat(64) });
  const result = await embedPrompt({ ...options, native: fakeEncoder() });
  t.equal(result.source, 'encoder');
  t.match(result.warnings, [new RegExp(`${file} was not used: its text_hash`)]);
});

t.test('what the encoder returns is checked', async (t) => {
  const { options } = setUp(t);
  const results = {
    'too few rows': { rows: new Float32Array(WIDTH), count: 1 },
    'no rows': { rows: new Float32Array(0), count: 0 },
    'uneven rows': { rows: new Float32Array(19), count: 9 },
    NaN: { rows: new Float32Array(10 * WIDTH).fill(Number.NaN), count: 10 },
  };
  const { count } = await embedPrompt({ ...options, native: fakeEncoder(), cacheDir: false });
  for (const [name, result] of Object.entries(results)) {
    const sized = name === 'NaN' ? { rows: new Float32Array(count * WIDTH).fill(Number.NaN), count } : result;
    await t.rejects(embedPrompt({ ...options, native: { encodeText: async () => sized } }), { code: 'TEXT_RESULT' }, name);
  }
  t.throws(() => readdirSync(options.cacheDir), 'and nothing of it is cached');
});

t.test('errors of the engine keep their code', async (t) => {
  const { options } = setUp(t);
  const error = Object.assign(new Error('bad tensor'), { code: 'CHECKPOINT_SHAPE', tensor: 'x' });
  const native = { encodeText: async (): Promise<never> => Promise.reject(error) };
  await t.rejects(embedPrompt({ ...options, native }), { name: 'PremotorError', code: 'CHECKPOINT_SHAPE', tensor: 'x' });
});

t.test('mojibake is a warning', async (t) => {
  const { options } = setUp(t);
  const { warnings } = await embedPrompt({ ...options, prompt: 'donâ€™t move', native: fakeEncoder() });
  t.match(warnings, [/wrongly decoded UTF-8/]);
});

t.test('a read-only cache still answers', { skip: process.getuid?.() === 0 && 'root writes everywhere' }, async (t) => {
  const { options } = setUp(t);
  mkdirSync(options.cacheDir, { recursive: true });
  const native = fakeEncoder();
  await embedPrompt({ ...options, native });
  chmodSync(options.cacheDir, 0o555);
  t.teardown(() => chmodSync(options.cacheDir, 0o755));
  t.equal((await embedPrompt({ ...options, native })).source, 'cache');
});
