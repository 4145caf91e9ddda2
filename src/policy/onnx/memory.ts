/**
 * The little that an exported policy keeps between predictions: the newest pictures, fitted to the model, and how far the episode is. Written and
 * read as the contract's encoder state, so that a policy in a new process goes on with the same bytes. Pure.
 */
import { createHash } from 'node:crypto';
import { PremotorError } from '../../errors.js';
import { pack, unpack } from '../../journal/pack.js';
import type { Feed } from './match.js';
import type { Picture } from './picture.js';

export interface Memory {
  /** Latent frames that were committed. */
  readonly frameIndex: number;
  /** By input. */
  readonly pictures: ReadonlyMap<string, Picture>;
}

/** 16 hexadecimal digits, equal for equal memories. */
export function memoryChecksum({ frameIndex, pictures }: Memory): string {
  const hash = createHash('sha256').update(String(frameIndex));
  for (const [name, { data }] of pictures) hash.update(name).update(data);
  return hash.digest('hex').slice(0, 16);
}

/** `identity` is the policy's: its model and mapping. */
export function packMemory({ frameIndex, pictures }: Memory, identity: string): Uint8Array {
  return pack({ identity, frameIndex, pictures: Object.fromEntries([...pictures].map(([name, { data }]) => [name, data])) });
}

/** Errors: RESTORE_STATE. */
export function unpackMemory(bytes: Uint8Array, identity: string, feeds: readonly Feed[]): Memory {
  let found: { readonly identity?: unknown; readonly frameIndex?: unknown; readonly pictures?: Readonly<Record<string, unknown>> };
  try {
    found = unpack(bytes) as typeof found;
  } catch (cause) {
    throw foreign('a state of this policy', 'something else', cause);
  }
  if (found?.identity !== identity) throw foreign('a state of this model and mapping', 'that of another');
  if (!Number.isInteger(found.frameIndex)) throw foreign('how far the episode is', 'nothing');
  const pictures = new Map<string, Picture>();
  for (const { name, input } of feeds) {
    if (input.from !== 'camera') continue;
    const data = found.pictures?.[name];
    const { width, height } = input;
    if (!(data instanceof Uint8Array) || data.length !== width * height * 3) throw foreign(`a picture for ${name}`, 'none of its size');
    pictures.set(name, { width, height, data });
  }
  return { frameIndex: found.frameIndex as number, pictures };
}

function foreign(expected: string, found: string, cause?: unknown): PremotorError {
  const message = `The episode cannot be restored: expected ${expected}, found ${found}. Restore with the model that it was run with, or begin anew.`;
  return new PremotorError('RESTORE_STATE', message, { field: 'encoder', expected, found, ...(cause === undefined ? {} : { cause }) });
}
