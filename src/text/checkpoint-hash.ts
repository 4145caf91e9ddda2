/**
 * The identity of a checkpoint, cheap even at 10 GB: SHA-256 over config files, safetensors headers, file sizes and the first and last 4 KiB of every
 * tensor (docs/TEXT.md, "Identity"). It tells checkpoints apart; it does not prove that every byte is intact. Owned by everyone who keys data by
 * checkpoint; reads files, writes none.
 */
import { createHash, type Hash } from 'node:crypto';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PremotorError } from '../errors.js';
import { parseHeader, readExactly, readHeaderBytes } from './safetensors.js';

const SAMPLE_BYTES = 4096;

/** Every item is preceded by its label and length, so that no two different checkpoints feed the hash the same bytes. */
function addItem(hash: Hash, label: string, bytes: Uint8Array | string): void {
  const data = Buffer.from(bytes);
  hash.update(`${label}\0${data.length}\0`).update(data);
}

function missing(file: string, cause: unknown): PremotorError {
  const found = (cause as Error).message;
  const message = `${file} cannot be read (${found}). Expected a checkpoint in the released layout: copy it again.`;
  return new PremotorError('CHECKPOINT_MISSING_FILE', message, { file, expected: 'a readable file', found, cause });
}

async function readOptional(path: string): Promise<Buffer | null> {
  try {
    return await readFile(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw missing(path, cause);
  }
}

async function addTensors(hash: Hash, path: string): Promise<void> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const header = await readHeaderBytes(file, size);
    addItem(hash, 'size', String(size));
    addItem(hash, 'header', header);
    const dataStart = 8 + header.length;
    for (const { begin, end } of parseHeader(header.toString('utf8')).tensors) {
      const length = Math.min(SAMPLE_BYTES, end - begin);
      addItem(hash, 'first', await readExactly(file, dataStart + begin, length));
      addItem(hash, 'last', await readExactly(file, dataStart + end - length, length));
    }
  } finally {
    await file.close();
  }
}

/** Hashes one component: config.json and every .safetensors file, by name. Errors: CHECKPOINT_MISSING_FILE, CHECKPOINT_HEADER. */
async function addComponent(hash: Hash, folder: string): Promise<void> {
  let names: string[];
  try {
    names = (await readdir(folder)).filter((name) => name.endsWith('.safetensors')).sort();
    addItem(hash, 'config.json', await readFile(join(folder, 'config.json')));
  } catch (cause) {
    throw missing(join(folder, 'config.json'), cause);
  }
  if (names.length === 0) throw missing(join(folder, '*.safetensors'), new Error('no such file'));
  for (const name of names) {
    const path = join(folder, name);
    addItem(hash, 'file', name);
    try {
      await addTensors(hash, path);
    } catch (cause) {
      const found = (cause as Error).message;
      if ((cause as NodeJS.ErrnoException).code !== undefined) throw missing(path, cause);
      const expected = 'a whole safetensors file';
      throw new PremotorError('CHECKPOINT_HEADER', `${path}: expected ${expected}, found that ${found}. Copy the checkpoint again.`, {
        file: path,
        expected,
        found,
        cause,
      });
    }
  }
}

/** 64 hexadecimal digits that identify what the policy computes: transformer and VAE. Errors: CHECKPOINT_MISSING_FILE, CHECKPOINT_HEADER. */
export async function checkpointHash(checkpoint: string): Promise<string> {
  const hash = createHash('sha256').update('premotor checkpoint 1\0');
  for (const component of ['transformer', 'vae']) {
    addItem(hash, 'component', component);
    await addComponent(hash, join(checkpoint, component));
  }
  return hash.digest('hex');
}

/**
 * The same for what turns a prompt into embeddings: tokenizer and text encoder. Null when the checkpoint has no text encoder or no tokenizer, as on a
 * robot that gets its embeddings precomputed. Errors: CHECKPOINT_MISSING_FILE, CHECKPOINT_HEADER (there, but broken).
 */
export async function textHash(checkpoint: string): Promise<string | null> {
  const tokenizer = await readOptional(join(checkpoint, 'tokenizer', 'tokenizer.json'));
  const config = await readOptional(join(checkpoint, 'text_encoder', 'config.json'));
  if (tokenizer === null || config === null) return null;
  const hash = createHash('sha256').update('premotor text 1\0');
  addItem(hash, 'tokenizer.json', tokenizer);
  addItem(hash, 'tokenizer_config.json', (await readOptional(join(checkpoint, 'tokenizer', 'tokenizer_config.json'))) ?? '');
  await addComponent(hash, join(checkpoint, 'text_encoder'));
  return hash.digest('hex');
}
