import { createHash } from 'node:crypto';
import { cpSync, openSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { checkpointHash, textHash } from '../../src/text/checkpoint-hash.js';
import { writeCheckpoint, writeComponent } from './fixtures.js';
import { cases, goldens } from './goldens.js';

t.test('every golden checkpoint has its own identity, twice the same', async (t) => {
  const found = new Set<string>();
  for (const name of cases) {
    const folder = join(goldens, name, 'checkpoint');
    const hash = await checkpointHash(folder);
    t.match(hash, /^[0-9a-f]{64}$/);
    t.equal(await checkpointHash(folder), hash, name);
    t.match(await textHash(folder), /^[0-9a-f]{64}$/);
    found.add(hash);
  }
  t.equal(found.size, cases.length);
});

t.test('what makes it another checkpoint', async (t) => {
  const folder = writeCheckpoint(join(t.testdir({}), 'original'));
  const before = await checkpointHash(folder);
  const copy = join(t.testdirName, 'copy');
  cpSync(folder, copy, { recursive: true });
  t.equal(await checkpointHash(copy), before, 'not its place');

  const changes: Record<string, () => void> = {
    'a config value': () => writeFileSync(join(copy, 'vae', 'config.json'), '{"width": 9}'),
    'a weight': () => writeComponent(join(copy, 'transformer'), 'diffusion_pytorch_model.safetensors', [7, 2, 3]),
    'a weight of the VAE': () => writeComponent(join(copy, 'vae'), 'diffusion_pytorch_model.safetensors', [1, 2, 4]),
    'a file name': () => renameSync(join(copy, 'vae', 'diffusion_pytorch_model.safetensors'), join(copy, 'vae', 'model.safetensors')),
    'one more file': () => writeComponent(join(copy, 'vae'), 'more.safetensors', [1]),
  };
  const seen = new Set([before]);
  for (const [name, change] of Object.entries(changes)) {
    change();
    const hash = await checkpointHash(copy);
    t.notOk(seen.has(hash), name);
    seen.add(hash);
  }
});

t.test('the first and last 4 KiB of a tensor count, its middle does not', async (t) => {
  const folder = writeCheckpoint(t.testdir({}));
  const path = join(folder, 'transformer', 'diffusion_pytorch_model.safetensors');
  writeComponent(join(folder, 'transformer'), 'diffusion_pytorch_model.safetensors', Array(4096).fill(1));
  const size = readFileSync(path).length;
  const before = await checkpointHash(folder);
  const file = openSync(path, 'r+');
  const flipped = async (position: number): Promise<string> => {
    const byte = readFileSync(path)[position] ?? 0;
    writeSync(file, Buffer.from([byte ^ 1]), 0, 1, position);
    const hash = await checkpointHash(folder);
    writeSync(file, Buffer.from([byte]), 0, 1, position);
    return hash;
  };
  t.not(await flipped(size - 1), before, 'the last byte');
  t.not(await flipped(size - 4096), before, 'the first byte of the last 4 KiB');
  t.not(await flipped(size - 4 * 4096), before, 'the first byte');
  t.not(await flipped(size - 3 * 4096 - 1), before, 'the last byte of the first 4 KiB');
  t.equal(await flipped(size - 2 * 4096), before, 'the middle: the documented limit of a cheap identity');
  t.equal(await checkpointHash(folder), before, 'and back again');
});

t.test('missing and broken files', async (t) => {
  const folder = writeCheckpoint(t.testdir({}));
  const weights = join(folder, 'vae', 'diffusion_pytorch_model.safetensors');
  const whole = readFileSync(weights);
  for (const size of [0, 4, 20, whole.length - 1]) {
    truncateSync(weights, size);
    await t.rejects(checkpointHash(folder), { code: 'CHECKPOINT_HEADER', file: weights }, `cut to ${size} bytes`);
    writeFileSync(weights, whole);
  }
  writeFileSync(weights, Buffer.concat([Buffer.from([255, 255, 255, 255, 255, 255, 255, 127]), whole]));
  await t.rejects(checkpointHash(folder), { code: 'CHECKPOINT_HEADER' }, 'an absurd header length is not allocated');
  rmSync(weights);
  await t.rejects(checkpointHash(folder), { code: 'CHECKPOINT_MISSING_FILE' }, 'no weights');
  rmSync(join(folder, 'vae'), { recursive: true });
  await t.rejects(checkpointHash(folder), { code: 'CHECKPOINT_MISSING_FILE', file: join(folder, 'vae', 'config.json') }, 'no component');
});

t.test('the text hash', async (t) => {
  const folder = writeCheckpoint(t.testdir({}));
  const before = await textHash(folder);
  t.not(before, await checkpointHash(folder));
  writeComponent(join(folder, 'transformer'), 'diffusion_pytorch_model.safetensors', [9]);
  t.equal(await textHash(folder), before, 'the transformer does not matter');
  const tokenizer = join(folder, 'tokenizer', 'tokenizer.json');
  const content = readFileSync(tokenizer, 'utf8');
  writeFileSync(tokenizer, `${content} `);
  t.not(await textHash(folder), before, 'the tokenizer does');
  writeFileSync(tokenizer, content);
  writeComponent(join(folder, 'text_encoder'), 'model.safetensors', [4, 5, 7]);
  t.not(await textHash(folder), before, 'the encoder does');
  rmSync(join(folder, 'text_encoder', 'model.safetensors'));
  await t.rejects(textHash(folder), { code: 'CHECKPOINT_MISSING_FILE' }, 'half an encoder is an error');
  rmSync(join(folder, 'text_encoder'), { recursive: true });
  t.equal(await textHash(folder), null, 'no encoder');
  cpSync(join(goldens, 'franka_tiny', 'checkpoint', 'text_encoder'), join(folder, 'text_encoder'), { recursive: true });
  rmSync(join(folder, 'tokenizer'), { recursive: true });
  t.equal(await textHash(folder), null, 'no tokenizer');
});

t.test('the recipe is fixed, because robots hold hashes made by older versions', async (t) => {
  const folder = writeCheckpoint(t.testdir({}));
  const recipe = createHash('sha256').update('premotor checkpoint 1\0');
  const add = (label: string, bytes: Uint8Array | string): void => {
    recipe.update(`${label}\0${Buffer.from(bytes).length}\0`).update(bytes);
  };
  for (const component of ['transformer', 'vae']) {
    const file = readFileSync(join(folder, component, 'diffusion_pytorch_model.safetensors'));
    const header = file.subarray(8, 8 + Number(file.readBigUInt64LE()));
    add('component', component);
    add('config.json', readFileSync(join(folder, component, 'config.json')));
    add('file', 'diffusion_pytorch_model.safetensors');
    add('size', String(file.length));
    add('header', header);
    add('first', file.subarray(8 + header.length));
    add('last', file.subarray(8 + header.length));
  }
  t.equal(await checkpointHash(folder), recipe.digest('hex'));
});
