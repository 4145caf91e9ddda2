/**
 * The pictures of a page: the newest of every camera, and what the policy imagined for the same moment. Compresses only what somebody looks at, one
 * round at a time; a round that is still under way when the next is due is the only one. Owned by the dashboard; it keeps no more than the newest.
 */
import sharp from 'sharp';
import type { Frame } from '../policy/contract.js';
import type { PictureHead } from './messages.js';

/** Wider pictures are made smaller. */
const PIXELS_MAX = 480;
const JPEG_QUALITY = 80;
/** The head's length, before the head. */
const LENGTH_BYTES = 2;

export type Picture = Pick<Frame, 'width' | 'height' | 'data'>;

interface Slot {
  readonly head: Omit<PictureHead, 'timeS'>;
  readonly picture: Picture;
  readonly timeS: number;
  message?: Buffer;
}

export class Pictures {
  readonly #slots = new Map<string, Slot>();
  #isCompressing = false;

  /** The newest of one place. */
  put(kind: PictureHead['kind'], camera: number, picture: Picture, timeS: number): void {
    const key = `${kind} ${camera}`;
    if (this.#slots.get(key)?.timeS === timeS) return;
    this.#slots.set(key, { head: { kind, camera }, picture, timeS });
  }

  /**
   * Compresses what is newer than what some viewer has; `seen`: place -> time, one for each viewer. Does nothing while another round runs. Returns
   * why a picture could not be compressed; it is not tried again.
   */
  async compress(seen: readonly ReadonlyMap<string, number>[]): Promise<Error | undefined> {
    if (this.#isCompressing) return undefined;
    this.#isCompressing = true;
    let problem: Error | undefined;
    for (const [key, slot] of [...this.#slots]) {
      if (slot.message || seen.every((one) => one.get(key) === slot.timeS)) continue;
      try {
        slot.message = await messageOf(slot);
      } catch (error) {
        problem = error as Error;
        if (this.#slots.get(key) === slot) this.#slots.delete(key);
      }
    }
    this.#isCompressing = false;
    return problem;
  }

  /** What is compressed and newer than what this viewer has; notes it as seen. */
  take(seen: Map<string, number>): Buffer[] {
    const found: Buffer[] = [];
    for (const [key, { message, timeS }] of this.#slots) {
      if (!message || seen.get(key) === timeS) continue;
      seen.set(key, timeS);
      found.push(message);
    }
    return found;
  }
}

async function messageOf({ head, picture: { width, height, data }, timeS }: Slot): Promise<Buffer> {
  const jpeg = await sharp(Buffer.from(data), { raw: { width, height, channels: 3 } })
    .resize({ width: PIXELS_MAX, height: PIXELS_MAX, fit: 'inside', withoutEnlargement: true })
    .jpeg({ quality: JPEG_QUALITY })
    .toBuffer();
  const text = Buffer.from(JSON.stringify({ ...head, timeS } satisfies PictureHead));
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt16LE(text.length);
  return Buffer.concat([length, text, jpeg]);
}

/** Cuts a picture into equal columns, one per camera. */
export function columnsOf({ width, height, data }: Picture, count: number): Picture[] {
  const part = Math.floor(width / count);
  return Array.from({ length: count }, (_, column) => {
    const cut = new Uint8Array(part * height * 3);
    for (let row = 0; row < height; row++) {
      const from = (row * width + column * part) * 3;
      cut.set(data.subarray(from, from + part * 3), row * part * 3);
    }
    return { width: part, height, data: cut };
  });
}
