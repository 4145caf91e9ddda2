/**
 * Decoding pictures to RGB for camera sources and the command line. sharp does it on threads of its own, never on the event loop. Nothing is resized
 * here: that is the engine's work.
 */
import sharp, { type SharpInput, type SharpOptions } from 'sharp';

/** Decoded size limit of one picture; a larger one is a mistake or an attack. */
export const PIXELS_MAX = 100_000_000;

/** RGB, 8 bits, [height, width, 3] row by row. */
export interface DecodedPicture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** Any format that sharp reads, of a file or of bytes: turned upright by its EXIF, transparency removed, grey made RGB. Throws what sharp throws. */
export async function decodePicture(input: SharpInput, options: SharpOptions = {}): Promise<DecodedPicture> {
  const image = sharp(input, { limitInputPixels: PIXELS_MAX, ...options });
  const upright = options.animated ? image : image.rotate();
  const { data, info } = await upright.toColourspace('srgb').removeAlpha().raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
  const rgb = info.channels === 3 ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : repeatGrey(data, info.channels);
  return { width: info.width, height: info.height, data: rgb };
}

function repeatGrey(data: Uint8Array, channels: number): Uint8Array {
  const rgb = new Uint8Array((data.length / channels) * 3);
  for (let pixel = 0; pixel * channels < data.length; pixel++) rgb.fill(data[pixel * channels] ?? 0, pixel * 3, pixel * 3 + 3);
  return rgb;
}
