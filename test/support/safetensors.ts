/** Reads a whole safetensors file for tests: floats as float32, integers as they are. It trusts the file: these are the project's own fixtures. */
import { readFileSync } from 'node:fs';
import type { TraceTensor } from '../../src/policy/contract.js';

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

export function readSafetensors(path: string): Map<string, TraceTensor> {
  const bytes = readFileSync(path);
  const headerLength = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength)) as Record<string, Entry>;
  const tensors = new Map<string, TraceTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [begin, end] = entry.data_offsets;
    const raw = Uint8Array.from(bytes.subarray(8 + headerLength + begin, 8 + headerLength + end)); // a copy is aligned
    tensors.set(name, { ...valuesOf(entry.dtype, raw, name), shape: entry.shape });
  }
  return tensors;
}

function valuesOf(dtype: string, raw: Uint8Array, name: string): Pick<TraceTensor, 'dtype' | 'data'> {
  switch (dtype) {
    case 'F32':
      return { dtype: 'float32', data: new Float32Array(raw.buffer) };
    case 'BF16': {
      // A bfloat16 is the upper half of a float32.
      const wide = Uint32Array.from(new Uint16Array(raw.buffer), (half) => half << 16);
      return { dtype: 'float32', data: new Float32Array(wide.buffer) };
    }
    case 'I32':
      return { dtype: 'int32', data: new Int32Array(raw.buffer) };
    case 'U8':
    case 'BOOL':
      return { dtype: 'uint8', data: raw };
    default:
      throw new Error(`${name}: no test needs dtype ${dtype}`);
  }
}
