/**
 * Pictures as an exported policy wants them: brought to the model's size as RGB bytes, then laid out as a tensor's values. Pure functions of arrays;
 * the policy keeps what `fitted` gives as its newest observation, so that a restored episode sees the same bytes.
 */
import type { CameraInput } from './job.js';

/** RGB, 8 bits, row by row. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** The picture in the input's size; undefined when it has another one and the input does not say how to resize. The bytes are a copy. */
export function fitted(picture: Picture, { width, height, resize }: Pick<CameraInput, 'width' | 'height' | 'resize'>): Picture | undefined {
  if (picture.width === width && picture.height === height) return { width, height, data: picture.data.slice() };
  if (resize === 'none') return undefined;
  const [columns, rows] = [weightsOf(picture.width, width, resize), weightsOf(picture.height, height, resize)];
  const narrow = new Float64Array(picture.height * width * 3);
  for (let row = 0; row < picture.height; row++) {
    for (let column = 0; column < width; column++) {
      const { first, weights } = columns[column] as Taps;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (const [tap, weight] of weights.entries()) sum += weight * (picture.data[(row * picture.width + first + tap) * 3 + channel] ?? 0);
        narrow[(row * width + column) * 3 + channel] = sum;
      }
    }
  }
  const data = new Uint8Array(height * width * 3);
  for (let row = 0; row < height; row++) {
    const { first, weights } = rows[row] as Taps;
    for (let at = 0; at < width * 3; at++) {
      let sum = 0;
      for (const [tap, weight] of weights.entries()) sum += weight * (narrow[(first + tap) * width * 3 + at] ?? 0);
      data[row * width * 3 + at] = Math.round(sum);
    }
  }
  return { width, height, data };
}

/** The source pixels that make one pixel, and how much each counts; the weights' sum is 1. */
interface Taps {
  readonly first: number;
  readonly weights: readonly number[];
}

/**
 * Along one axis of `from` pixels to `to`. Pixel centres lie at i + 0.5. 'bilinear' looks at the two nearest source pixels (edges repeat); 'area'
 * takes the mean of what a pixel covers, which is the better one for making pictures smaller.
 */
function weightsOf(from: number, to: number, resize: 'bilinear' | 'area'): Taps[] {
  const step = from / to;
  return Array.from({ length: to }, (_, index) => {
    if (resize === 'area') {
      const [low, high] = [index * step, (index + 1) * step];
      const first = Math.floor(low);
      const last = Math.min(from, Math.ceil(high)) - 1;
      const weights = Array.from({ length: last - first + 1 }, (_, tap) => (Math.min(high, first + tap + 1) - Math.max(low, first + tap)) / step);
      return { first, weights };
    }
    const centre = Math.min(from - 1, Math.max(0, (index + 0.5) * step - 0.5));
    const first = Math.floor(centre);
    const share = centre - first;
    return { first, weights: share === 0 ? [1] : [1 - share, share] };
  });
}

/** A fitted picture as the values of a tensor in the input's layout and type. */
export function pictureValues({ width, height, data }: Picture, input: CameraInput): Float32Array | Uint8Array {
  const { layout, dtype, order, scale = 1, mean = [0, 0, 0], std = [1, 1, 1] } = input;
  const pixels = width * height;
  const values = dtype === 'u8' ? new Uint8Array(pixels * 3) : new Float32Array(pixels * 3);
  const planes = layout === 'NCHW' || layout === 'CHW';
  for (let channel = 0; channel < 3; channel++) {
    const source = order === 'bgr' ? 2 - channel : channel;
    const [middle, spread] = [mean[channel] ?? 0, std[channel] ?? 1];
    for (let pixel = 0; pixel < pixels; pixel++) {
      const byte = data[pixel * 3 + source] ?? 0;
      values[planes ? channel * pixels + pixel : pixel * 3 + channel] = dtype === 'u8' ? byte : (byte * scale - middle) / spread;
    }
  }
  return values;
}

/** The sizes of such a tensor's axes. */
export function pictureShape({ layout, width, height }: CameraInput): number[] {
  const shape = layout.endsWith('CHW') ? [3, height, width] : [height, width, 3];
  return layout.startsWith('N') ? [1, ...shape] : shape;
}
