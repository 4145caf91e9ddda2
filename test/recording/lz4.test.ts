/**
 * LZ4 frames of another program, unpacked. The frames were made with python-lz4 4.4.5 (liblz4 1.10) from what stands below: plain, with block
 * and content checksums and the content's size, without a size, with stored blocks, and with blocks that refer to the ones before.
 */
import { createHash } from 'node:crypto';
import t from 'tap';
import { unpackLz4 } from '../../src/recording/lz4.js';
import { seeded } from './support.js';

const text = Buffer.concat([
  Buffer.from('premotor '.repeat(40)),
  Buffer.from(Array.from({ length: 64 }, (_, at) => at)),
  Buffer.alloc(300),
  Buffer.from(Array.from({ length: 50 }, (_, at) => (at * at * 7 + Math.floor(at / 3)) % 251)),
]);
const long = Buffer.from('premotor-%'.repeat(20_000));
const noise = createHash('sha256').update('x').digest();

const frames: readonly [string, Buffer, string][] = [
  [
    'plain',
    text,
    'BCJNGGhABgMAAAAAAADviAAAAJ9wcmVtb3RvciAJAP9N/zIAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTIzNDU2' +
      'Nzg5Ojs8PT4/AAEA/xrwIgccQHGwA17HRMlhCLd5SigUDxctUoTEGHTeXOJ7I9OWaEc0MDlQdqnqP5wMhhKnUAYAAAAA',
  ],
  [
    'checksums',
    text,
    'BCJNGHxABgMAAAAAAAAaiAAAAJ9wcmVtb3RvciAJAP9N/zIAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTIzNDU2' +
      'Nzg5Ojs8PT4/AAEA/xrwIgccQHGwA17HRMlhCLd5SigUDxctUoTEGHTeXOJ7I9OWaEc0MDlQdqnqP5wMhhKnUAYIF5QUAAAAAMZvT+Q=',
  ],
  [
    'nosize',
    text,
    'BCJNGGBAgogAAACfcHJlbW90b3IgCQD/Tf8yAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+' +
      'PwABAP8a8CIHHEBxsANex0TJYQi3eUooFA8XLVKExBh03lzieyPTlmhHNDA5UHap6j+cDIYSp1AGAAAAAA==',
  ],
  ['stored', noise, 'BCJNGGhAIAAAAAAAAAAwIAAAgC1xFkK3JrBEAWJ8qfusMvXIUw+xkDzE2wIlhxeSGkiBAAAAAA=='],
  [
    'linked',
    long,
    'BCJNGEhAQA0DAAAAAACSFAEAAK9wcmVtb3Rvci0lCgD/////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////3lByZW1vdAoBAAAP+v//////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////6FByLSVwcgoBAAAPCgD/////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////' +
      '////////////////////////6FBtb3RvchcAAAAP+v//////////////////NVB0b3ItJQAAAAA=',
  ],
];
const unpacked = (packed: Uint8Array, bytes: number): Uint8Array => unpackLz4(packed, bytes);

t.test('frames unpack to what they were made of', async (t) => {
  for (const [name, source, packed] of frames) t.ok(source.equals(unpacked(Buffer.from(packed, 'base64'), source.length)), name);
});

t.test('the size is checked', async (t) => {
  for (const [name, source, packed] of frames) {
    const bytes = Buffer.from(packed, 'base64');
    t.throws(() => unpacked(bytes, source.length - 1), RangeError, `${name}: one less`);
    t.throws(() => unpacked(bytes, source.length + 1), RangeError, `${name}: one more`);
    t.throws(() => unpacked(bytes, 2 ** 33), /cannot unpack to/, `${name}: no frame grows so much`);
  }
});

const seed = 47;
t.comment(`seed ${seed}`);

t.test('cut and changed frames are RangeErrors or other bytes, and never more bytes than asked for', async (t) => {
  const random = seeded(seed);
  let refused = 0;
  for (let round = 0; round < 20_000; round++) {
    const [, source, packed] = frames[round % 4] ?? frames[0] ?? [];
    if (!source || packed === undefined) continue;
    const bytes = Buffer.from(packed, 'base64');
    const changed = bytes.subarray(0, random() < 0.3 ? Math.floor(random() * bytes.length) : bytes.length);
    for (let count = Math.floor(random() * 4); count > 0; count--) changed[Math.floor(random() * changed.length)] = Math.floor(random() * 256);
    try {
      if (unpacked(changed, source.length).length !== source.length) t.fail(`round ${round}`);
    } catch (error) {
      refused++;
      if (!(error instanceof RangeError)) t.fail(`round ${round}: ${String(error)}`);
    }
  }
  t.ok(refused > 5000, `${refused} refused`);
});
