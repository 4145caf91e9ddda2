/** Reads a whole safetensors file for tests: floats as float32, integers as they are. */
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import type { TraceTensor } from '../../src/policy/contract.js';

export function readSafetensors(path: string): Map<string, TraceTensor> {
  const file = SafetensorsFile.open(path);
  try {
    return new Map([...file.tensors].map(([name, { dtype, shape }]) => [name, { shape, ...valuesOf(file, name, dtype) }]));
  } finally {
    file.close();
  }
}

function valuesOf(file: SafetensorsFile, name: string, dtype: string): Pick<TraceTensor, 'dtype' | 'data'> {
  if (dtype === 'I32') return { dtype: 'int32', data: file.int32(name) };
  if (dtype === 'U8' || dtype === 'BOOL') return { dtype: 'uint8', data: file.bytes(name) };
  if (dtype === 'F32' || dtype === 'BF16') return { dtype: 'float32', data: file.float32(name) };
  throw new Error(`${name}: no test needs dtype ${dtype}`);
}
