/**
 * The pages of an animated PNG as single PNGs, for sharp, which reads the first alone (PNG specification, third edition, 11.3.6). Pages that replace
 * the whole picture, as premotor writes them; one that changes a part builds on those before it and is refused. Pure functions.
 */
import { pngChunk } from '../recording/apng.js';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const PAGES_MAX = 100_000;

interface Chunk {
  readonly type: string;
  readonly data: Buffer;
}

function* chunksOf(file: Buffer): Generator<Chunk> {
  for (let at = SIGNATURE.length; at + 12 <= file.length; ) {
    const end = at + 12 + file.readUInt32BE(at);
    if (end > file.length) return;
    yield { type: file.toString('latin1', at + 4, at + 8), data: file.subarray(at + 8, end - 4) };
    at = end;
  }
}

/** Undefined: no PNG, or one that does not move. Throws what was found instead of whole pages. */
export function pagesOfAnimatedPng(file: Buffer): readonly Buffer[] | undefined {
  if (!file.subarray(0, SIGNATURE.length).equals(SIGNATURE)) return undefined;
  const chunks = [...chunksOf(file)];
  if (!chunks.some(({ type }) => type === 'acTL')) return undefined;
  const head = chunks.find(({ type }) => type === 'IHDR')?.data;
  if (head === undefined || head.length < 13) throw new Error('no header');
  const size = head.subarray(0, 8);
  // What colours mean is said once, before the first page.
  const shared = chunks.filter(({ type }) => ['PLTE', 'tRNS', 'gAMA', 'sRGB', 'iCCP', 'cHRM'].includes(type));
  const pages: Buffer[][] = [];
  for (const { type, data } of chunks) {
    if (type === 'fcTL') {
      const isWhole = data.length >= 26 && data.subarray(4, 12).equals(size) && data.readUInt32BE(12) === 0 && data.readUInt32BE(16) === 0;
      if (!isWhole) throw new Error('a page that is smaller than the picture');
      pages.push([]);
      if (pages.length > PAGES_MAX) throw new Error(`more than ${PAGES_MAX} pages`);
    } else if (type === 'IDAT') pages.at(-1)?.push(data);
    else if (type === 'fdAT') pages.at(-1)?.push(data.subarray(4));
  }
  const wrap = (parts: readonly Buffer[]): Buffer =>
    Buffer.concat([
      SIGNATURE,
      pngChunk('IHDR', head),
      ...shared.map(({ type, data }) => pngChunk(type, data)),
      pngChunk('IDAT', Buffer.concat(parts)),
      pngChunk('IEND', Buffer.alloc(0)),
    ]);
  return pages.filter((parts) => parts.length > 0).map(wrap);
}
