/**
 * Reads every stored float of safetensors files and counts those that are no numbers, which headers cannot show: a damaged copy or a diverged
 * training run. Owned by `premotor inspect --values`; it keeps one piece in memory and changes nothing.
 */
import type { StoredDtype } from './dtypes.js';
import { SafetensorsFile, type StoredTensor } from './safetensors.js';

/** What is odd about one tensor. */
export interface OddTensor {
  readonly file: string;
  readonly name: string;
  /** Values that are infinite or NaN. */
  readonly notFinite: number;
  /** A matrix of zeros only: what an interrupted download leaves. */
  readonly allZero: boolean;
}

export interface ScanOptions {
  readonly signal?: AbortSignal;
  /** Called after each piece with the bytes read since the last call. */
  readonly onBytes?: (bytes: number) => void;
  /** Bytes per piece, a multiple of 8. */
  readonly pieceBytes?: number;
}

const PIECE_BYTES = 16 << 20;

interface PieceCount {
  readonly notFinite: number;
  readonly nonZero: boolean;
}

/** Odd tensors of one file, in file order. Integer tensors are not looked at. Errors: those of SafetensorsFile, ABORTED (the signal's reason). */
export async function scanValues(path: string, options: ScanOptions = {}): Promise<OddTensor[]> {
  const file = SafetensorsFile.open(path);
  try {
    const odd: OddTensor[] = [];
    for (const tensor of file.tensors.values()) {
      const { notFinite, nonZero } = await scanTensor(file, tensor, options);
      const isMatrix = tensor.shape.filter((size) => size > 1).length > 1;
      if (notFinite > 0 || (isMatrix && !nonZero)) odd.push({ file: path, name: tensor.name, notFinite, allZero: isMatrix && !nonZero });
    }
    return odd;
  } finally {
    file.close();
  }
}

async function scanTensor(file: SafetensorsFile, tensor: StoredTensor, options: ScanOptions): Promise<PieceCount> {
  let notFinite = 0;
  let nonZero = false;
  for (const piece of file.pieces(tensor.name, options.pieceBytes ?? PIECE_BYTES)) {
    const count = countPiece(tensor.dtype, piece);
    notFinite += count.notFinite;
    nonZero ||= count.nonZero;
    options.onBytes?.(piece.length);
    // Between pieces the event loop turns, so that an interrupt is heard.
    await new Promise<void>((resolve) => setImmediate(resolve));
    options.signal?.throwIfAborted();
  }
  return { notFinite, nonZero };
}

/** A float whose exponent bits are all ones is infinite or NaN. */
function countPiece(dtype: StoredDtype, piece: Uint8Array): PieceCount {
  const { buffer, byteLength } = piece;
  if (dtype === 'F32') return countBits(new Uint32Array(buffer, 0, byteLength / 4), 0x7f800000, 0x7fffffff);
  if (dtype === 'BF16') return countBits(new Uint16Array(buffer, 0, byteLength / 2), 0x7f80, 0x7fff);
  if (dtype === 'F16') return countBits(new Uint16Array(buffer, 0, byteLength / 2), 0x7c00, 0x7fff);
  if (dtype !== 'F64') return { notFinite: 0, nonZero: true };
  const values = new Float64Array(buffer, 0, byteLength / 8);
  return { notFinite: values.filter((value) => !Number.isFinite(value)).length, nonZero: values.some((value) => value !== 0) };
}

function countBits(bits: Uint32Array | Uint16Array, exponent: number, magnitude: number): PieceCount {
  let notFinite = 0;
  let any = 0;
  for (let i = 0; i < bits.length; i++) {
    const value = bits[i] as number;
    any |= value & magnitude;
    if ((value & exponent) === exponent) notFinite++;
  }
  return { notFinite, nonZero: any !== 0 };
}
