/**
 * Arrays that know their shape: the Tensor of the contract, and the joining of latent chunks into one film. Owned by the policy; it copies and
 * labels values and never computes with them.
 */
import { PremotorError } from '../errors.js';
import type { DecodedVideo, Frame, Tensor } from './contract.js';

/** Labels `data` (not a copy) with a shape. The labels are not enumerable, so that the array still compares and prints as an array. */
export function toTensor(data: Float32Array, shape: readonly number[]): Tensor {
  const label = (value: unknown): PropertyDescriptor => ({ value, enumerable: false, configurable: true, writable: false });
  return Object.defineProperties(data, {
    shape: label(Object.freeze([...shape])),
    dtype: label('float32'),
    data: label(data),
  }) as Tensor;
}

/** Number of values in a shape. */
export function countOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Joins latents [1, C, F_i, h, w] along the frames: [1, C, sum F_i, h, w], which decode turns into one film. */
export function joinLatents(chunks: readonly Tensor[]): Tensor {
  const first = chunks[0];
  if (first === undefined) {
    throw new PremotorError('ARGUMENT_INVALID', 'joinLatents needs at least one chunk, found none.', {
      field: 'chunks',
      expected: '>= 1 chunk',
      found: '0',
    });
  }
  const [, channels = 0, , height = 0, width = 0] = first.shape;
  const plane = height * width;
  const framesOf = (chunk: Tensor): number => chunk.shape[2] ?? 0;
  for (const chunk of chunks) {
    const same = chunk.shape.length === 5 && chunk.shape[1] === channels && chunk.shape[3] === height && chunk.shape[4] === width;
    if (!same) {
      const expected = `[1, ${channels}, F, ${height}, ${width}]`;
      const found = `[${chunk.shape.join(', ')}]`;
      throw new PremotorError('ARGUMENT_INVALID', `joinLatents: every chunk must be ${expected}, found ${found}.`, {
        field: 'chunks',
        expected,
        found,
      });
    }
  }
  const total = chunks.reduce((sum, chunk) => sum + framesOf(chunk), 0);
  const joined = new Float32Array(channels * total * plane);
  let start = 0;
  for (const chunk of chunks) {
    const length = framesOf(chunk) * plane;
    for (let channel = 0; channel < channels; channel++) {
      joined.set(chunk.subarray(channel * length, (channel + 1) * length), (channel * total + start) * plane);
    }
    start += framesOf(chunk);
  }
  return toTensor(joined, [1, channels, total, height, width]);
}

/** Single frames, [C, plane] each, as latents [1, C, F, h, w]; `shape` is that of any latents of the same model. */
export function framesOf(frames: readonly Float32Array[], shape: readonly number[]): Tensor {
  const [, channels = 0, , height = 0, width = 0] = shape;
  const plane = height * width;
  const joined = new Float32Array(channels * frames.length * plane);
  for (let channel = 0; channel < channels; channel++) {
    frames.forEach((frame, index) => {
      joined.set(frame.subarray(channel * plane, (channel + 1) * plane), (channel * frames.length + index) * plane);
    });
  }
  return toTensor(joined, [1, channels, frames.length, height, width]);
}

/** The frames of latents [1, C, F, h, w], [C, plane] each. */
export function splitFrames(latents: Tensor): Float32Array[] {
  const [, channels = 0, frames = 0, height = 0, width = 0] = latents.shape;
  const plane = height * width;
  return Array.from({ length: frames }, (_, frame) => {
    const one = new Float32Array(channels * plane);
    for (let channel = 0; channel < channels; channel++) {
      const start = (channel * frames + frame) * plane;
      one.set(latents.subarray(start, start + plane), channel * plane);
    }
    return one;
  });
}

/**
 * Pictures of a decoded film, [pictures, height, width, 3] in [0, 1]. The 8-bit values are round(v * 255). It lets the event loop turn after each
 * picture, because a film has millions of values.
 */
export async function toVideo(film: Tensor): Promise<DecodedVideo> {
  const [pictures = 0, height = 0, width = 0] = film.shape;
  const size = height * width * 3;
  const frames: Frame[] = [];
  for (let picture = 0; picture < pictures; picture++) {
    const data = new Uint8Array(size);
    const offset = picture * size;
    for (let i = 0; i < size; i++) data[i] = Math.round(Math.min(1, Math.max(0, film[offset + i] ?? 0)) * 255);
    frames.push({ camera: 'imagined', width, height, data, capturedAtNs: 0n });
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  return Object.defineProperty(frames, 'video', { value: film, enumerable: false, configurable: true }) as unknown as DecodedVideo;
}
