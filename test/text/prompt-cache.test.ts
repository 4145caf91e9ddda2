import { mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import t from 'tap';
import * as store from '../../src/text/prompt-cache.js';
import { decodeSafetensors, encodeSafetensors } from '../../src/text/safetensors.js';

const mode = store.textMode('f32', 'float32');
const identity = { cleaned: 'pick up the cube', mode, textHash: 'a'.repeat(64), checkpointHash: 'b'.repeat(64) };
const prompt: store.StoredPrompt = {
  cleaned: identity.cleaned,
  rows: Float32Array.from({ length: 12 }, (_, i) => i / 7 - 1),
  count: 3,
  ids: Int32Array.from([3, 48, 1]),
};

async function writeBoth(folder: string): Promise<{ cached: string; precomputed: string }> {
  const cached = store.cacheFile(folder, identity.cleaned, mode, identity.textHash);
  const precomputed = store.precomputedFile(folder, identity.cleaned, mode);
  for (const file of [cached, precomputed]) await store.writePrompt(file, folder, prompt, identity);
  return { cached, precomputed };
}

t.test('modes', async (t) => {
  t.same(store.textMode('bf16', 'bfloat16'), { precision: 'bf16', deployedBf16: true });
  t.same(store.textMode('bf16', 'float32'), { precision: 'bf16', deployedBf16: false });
  t.same(store.textMode('f32', 'bfloat16'), { precision: 'f32', deployedBf16: false }, 'parity arithmetic never rounds');
  const names = new Set((['f32', 'bf16'] as const).flatMap((p) => [false, true].map((d) => store.modeName({ precision: p, deployedBf16: d }))));
  t.equal(names.size, 4, 'every mode has its own name');
});

t.test('where the cache is', async (t) => {
  t.intercept(process, 'env', { value: { XDG_CACHE_HOME: '/x/cache', HOME: '/h' } });
  t.equal(store.defaultCacheDir(), join('/x/cache', 'premotor', 'prompts'));
  t.intercept(process, 'env', { value: { XDG_CACHE_HOME: 'relative', HOME: '/h' } });
  t.equal(basename(join(store.defaultCacheDir(), '..', '..')), '.cache', 'a relative XDG_CACHE_HOME is ignored, as its specification says');
});

t.test('what is written is found again', async (t) => {
  const folder = join(t.testdir({}), 'new', 'folder');
  const { cached, precomputed } = await writeBoth(folder);
  t.same(readdirSync(folder).sort(), [basename(cached), basename(precomputed)].sort(), 'no temporary file is left');
  for (const lookup of [await store.findCached(folder, identity), await store.findPrecomputed(folder, identity)]) {
    if (lookup.kind !== 'found') throw new Error(`kind ${lookup.kind}`);
    t.same([...lookup.prompt.rows], [...prompt.rows]);
    t.same([...lookup.prompt.ids], [...prompt.ids]);
    t.equal(lookup.prompt.count, 3);
  }
});

t.test('a file for something else is not there', async (t) => {
  const folder = t.testdir({});
  await writeBoth(folder);
  const others = [{ cleaned: 'pick up the ball' }, { mode: store.textMode('bf16', 'bfloat16') }, { textHash: 'c'.repeat(64) }];
  for (const other of others) t.match(await store.findCached(folder, { ...identity, ...other }), { kind: 'absent' }, JSON.stringify(other));
  t.match(await store.findCached(join(folder, 'nowhere'), identity), { kind: 'absent' });
  t.match(await store.findPrecomputed(folder, { ...identity, cleaned: '' }), { kind: 'absent' });
});

t.test('a precomputed file for another checkpoint is an error, and a robot without text hash accepts its own', async (t) => {
  const folder = t.testdir({});
  const { precomputed } = await writeBoth(folder);
  await t.rejects(store.findPrecomputed(folder, { ...identity, checkpointHash: 'd'.repeat(64) }), {
    code: 'PROMPT_FOREIGN',
    file: precomputed,
    expected: 'd'.repeat(64),
    found: identity.checkpointHash,
  });
  t.match(await store.findPrecomputed(folder, { ...identity, textHash: null }), { kind: 'found' });
  t.match(await store.findPrecomputed(folder, { ...identity, textHash: 'e'.repeat(64) }), { kind: 'damaged' }, 'made by another encoder');
});

t.test('damage of every kind is noticed', async (t) => {
  const folder = t.testdir({});
  const { cached } = await writeBoth(folder);
  const whole = readFileSync(cached);
  const { metadata, tensors } = decodeSafetensors(whole);
  const rows = tensors.get('rows');
  const ids = tensors.get('token_ids');
  if (rows === undefined || ids === undefined) throw new Error('the file has no rows or token_ids');
  const withRows = (change: Partial<typeof rows>): Buffer =>
    encodeSafetensors(
      metadata,
      new Map([
        ['rows', { ...rows, ...change }],
        ['token_ids', ids],
      ]),
    );
  const flipped = Buffer.from(whole);
  flipped[flipped.length - 5] = (flipped[flipped.length - 5] ?? 0) ^ 4;
  const damaged: Record<string, Buffer> = {
    empty: Buffer.alloc(0),
    'a header alone': whole.subarray(0, 40),
    'cut short': whole.subarray(0, whole.length - 1),
    'too long': Buffer.concat([whole, Buffer.alloc(1)]),
    'one bit': flipped,
    'not safetensors': Buffer.from('hello, world'.repeat(20)),
    'another version': encodeSafetensors({ ...metadata, format_version: '2' }, tensors),
    'another prompt': encodeSafetensors({ ...metadata, cleaned_prompt: 'pick up the ball' }, tensors),
    'another mode': encodeSafetensors({ ...metadata, mode: 'bf16' }, tensors),
    'another encoder': encodeSafetensors({ ...metadata, text_hash: '' }, tensors),
    'no checksum': encodeSafetensors({}, tensors),
    'no rows': encodeSafetensors(metadata, new Map([['token_ids', ids]])),
    'rows of integers': withRows({ dtype: 'I32' }),
    'flat rows': withRows({ shape: [12] }),
    'more rows than tokens': withRows({ shape: [4, 3] }),
    'no bytes for its shape': withRows({ shape: [3, 5] }),
  };
  for (const [name, bytes] of Object.entries(damaged)) {
    writeFileSync(cached, bytes);
    t.match(await store.findCached(folder, identity), { kind: 'damaged', file: cached, reason: /./ }, name);
  }
  writeFileSync(cached, whole);
  t.match(await store.findCached(folder, identity), { kind: 'found' }, 'and the whole file is good again');
});

t.test('a folder that cannot be written', async (t) => {
  const folder = join(t.testdir({ file: 'x' }), 'file');
  await t.rejects(store.writePrompt(join(folder, 'a.safetensors'), folder, prompt, identity), { code: 'PROMPT_WRITE' });
});

t.test('the cache keeps what was used last', async (t) => {
  const folder = t.testdir({});
  const files: string[] = [];
  for (let i = 0; i < 5; i++) {
    const cleaned = `prompt ${i}`;
    const file = store.cacheFile(folder, cleaned, mode, identity.textHash);
    await store.writePrompt(file, folder, { ...prompt, cleaned }, { ...identity, cleaned });
    utimesSync(file, 1000 + i, 1000 + i);
    files.push(basename(file));
  }
  t.match(await store.findCached(folder, { ...identity, cleaned: 'prompt 0' }), { kind: 'found' });
  t.ok(statSync(join(folder, files[0] ?? '')).mtimeMs > 1_000_000_000, 'a hit is marked');
  const stale = `${files[1]}.123.abcdef.tmp`;
  const fresh = `${files[1]}.124.abcdef.tmp`;
  mkdirSync(join(folder, 'own folder'));
  for (const name of [stale, fresh, 'notes.txt']) writeFileSync(join(folder, name), 'x');
  utimesSync(join(folder, stale), 1000, 1000);
  await store.pruneCache(folder, 2);
  t.same(readdirSync(folder).sort(), [files[0], files[4], fresh, 'notes.txt', 'own folder'].sort());
});
