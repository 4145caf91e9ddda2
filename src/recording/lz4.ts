/**
 * LZ4 frames, unpacked: what other programs compress the chunks of an MCAP file with. Pure and bounded by the size that the caller expects; a damaged
 * frame is a RangeError and never a read or write outside the bytes. Checksums are left to the CRC of the chunk. It compresses nothing.
 *
 * ```
 * magic u32 | FLG | BD | [content size u64] | [dictionary id u32] | HC | blocks: u32 size (bit 31: stored) + bytes [+ checksum] | 0 u32 | [checksum]
 * a block:  token (literals << 4 | match - 4) | more literals' length | literals | distance u16 | more match's length | ...
 * ```
 */

const MAGIC = 0x184d2204;
const STORED = 0x8000_0000;
const FLAGS = { dictionary: 0x01, contentChecksum: 0x04, contentSize: 0x08, blockChecksum: 0x10 } as const;
const MATCH_MIN = 4;
/** No frame grows by more than this when it is unpacked. */
const RATIO_MAX = 256;

/** Errors: RangeError. */
export function unpackLz4(packed: Uint8Array, bytes: number): Uint8Array {
  if (bytes > packed.length * RATIO_MAX) throw new RangeError(`${packed.length} bytes cannot unpack to ${bytes}`);
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw new RangeError('no LZ4 frame');
  const flags = view.getUint8(4);
  if (flags >> 6 !== 1 || flags & FLAGS.dictionary) throw new RangeError(`an LZ4 frame of kind ${flags}`);
  let at = 7 + (flags & FLAGS.contentSize ? 8 : 0);
  const out = new Uint8Array(bytes);
  let end = 0;
  for (;;) {
    const size = view.getUint32(at, true);
    at += 4;
    if (size === 0) break;
    const length = size & ~STORED;
    if (length > packed.length - at) throw new RangeError('an LZ4 block that the bytes end in');
    const block = packed.subarray(at, at + length);
    end = size & STORED ? stored(block, out, end) : unpackBlock(block, out, end);
    at += length + (flags & FLAGS.blockChecksum ? 4 : 0);
  }
  if (end !== bytes) throw new RangeError(`${end} bytes where ${bytes} were packed`);
  return out;
}

function stored(block: Uint8Array, out: Uint8Array, at: number): number {
  // Throws a RangeError by itself where it does not fit.
  out.set(block, at);
  return at + block.length;
}

/** Matches may begin in the blocks before. */
function unpackBlock(block: Uint8Array, out: Uint8Array, start: number): number {
  let at = 0;
  let end = start;
  const byte = (): number => {
    const value = block[at++];
    if (value === undefined) throw new RangeError('an LZ4 block that ends too early');
    return value;
  };
  const more = (length: number): number => {
    let total = length;
    if (length < 15) return total;
    for (let next = 255; next === 255; ) {
      next = byte();
      total += next;
    }
    return total;
  };
  while (at < block.length) {
    const token = byte();
    const literals = more(token >> 4);
    if (literals > block.length - at || literals > out.length - end) throw new RangeError('LZ4 literals that do not fit');
    out.set(block.subarray(at, at + literals), end);
    at += literals;
    end += literals;
    // The last sequence is literals alone.
    if (at === block.length) break;
    const distance = byte() | (byte() << 8);
    const length = more(token & 15) + MATCH_MIN;
    if (distance === 0 || distance > end || length > out.length - end) throw new RangeError('an LZ4 match that does not fit');
    // Byte by byte where a match overlaps what it writes: that is how LZ4 repeats.
    if (distance >= length) out.copyWithin(end, end - distance, end - distance + length);
    else for (let count = 0; count < length; count++) out[end + count] = out[end + count - distance] ?? 0;
    end += length;
  }
  return end;
}
