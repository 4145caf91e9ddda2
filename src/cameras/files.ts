/**
 * Pictures from files: one picture, a folder of pictures in the order of their names, or an animated GIF, WebP or PNG. Reads; never writes, never
 * resizes.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import sharp from 'sharp';
import { PremotorError } from '../errors.js';
import { pagesOfAnimatedPng } from './animated-png.js';
import { type DecodedPicture, decodePicture, PIXELS_MAX } from './pictures.js';
import type { PictureList } from './played.js';

const PICTURE_ENDINGS: readonly string[] = ['.png', '.jpg', '.jpeg', '.webp', '.tif', '.tiff', '.avif', '.gif'];
const VIDEO_ENDINGS: readonly string[] = [
  '.mp4',
  '.m4v',
  '.mkv',
  '.webm',
  '.avi',
  '.mov',
  '.mpg',
  '.mpeg',
  '.ts',
  '.wmv',
  '.flv',
  '.ogv',
  '.h264',
  '.hevc',
];
/** Decoded pages of an animation, all together, which stay in memory. */
const ANIMATION_BYTES_MAX = 512 * 2 ** 20;
const FILES_MAX = 1_000_000;

const byName = new Intl.Collator('en', { numeric: true });

function fileError(path: string, expected: string, found: string, advice: string, cause?: unknown): PremotorError {
  return new PremotorError('CAMERA_FILE', `The pictures ${path} cannot be played: expected ${expected}, found ${found}. ${advice}`, {
    file: path,
    expected,
    found,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Errors: CAMERA_FILE. */
export async function openPictureFiles(path: string): Promise<PictureList> {
  let isFolder: boolean;
  try {
    isFolder = (await stat(path)).isDirectory();
  } catch (cause) {
    throw fileError(path, 'a picture, a folder of pictures or an animation', (cause as Error).message, 'Check the path.', cause);
  }
  if (isFolder) return openFolder(path);
  if (VIDEO_ENDINGS.includes(extname(path).toLowerCase())) {
    const advice = `Make a folder of pictures of it: ffmpeg -i ${path} -vf fps=12.5 FOLDER/%06d.png, with the rate of the camera.`;
    throw fileError(path, 'pictures, or an animated GIF, WebP or PNG', `a video (${extname(path)})`, advice);
  }
  const { pages, isPng } = await kindOf(path);
  if (pages > 1) return openAnimation(path, pages);
  if (isPng) {
    const animated = await openAnimatedPng(path);
    if (animated) return animated;
  }
  const only = await decoded(path);
  return { count: 1, width: only.width, height: only.height, picture: async () => only };
}

async function decoded(path: string): Promise<DecodedPicture> {
  try {
    return await decodePicture(path);
  } catch (cause) {
    throw fileError(path, 'a PNG, JPEG, WebP, TIFF, GIF or AVIF file', (cause as Error).message, 'Remove it, or make it anew.', cause);
  }
}

/** Pages of an animation that sharp knows; 1 for a still picture. */
async function kindOf(path: string): Promise<{ pages: number; isPng: boolean }> {
  try {
    const { pages, format } = await sharp(path, { limitInputPixels: PIXELS_MAX }).metadata();
    return { pages: format === 'gif' || format === 'webp' ? (pages ?? 1) : 1, isPng: format === 'png' };
  } catch (cause) {
    const advice = 'Give a PNG, JPEG, WebP, TIFF, GIF or AVIF file; of a video make a folder with ffmpeg -i VIDEO FOLDER/%06d.png.';
    throw fileError(path, 'a picture', (cause as Error).message, advice, cause);
  }
}

async function openFolder(path: string): Promise<PictureList> {
  const names = (await readdir(path)).filter((name) => PICTURE_ENDINGS.includes(extname(name).toLowerCase()));
  if (names.length === 0 || names.length > FILES_MAX) {
    const found = names.length === 0 ? 'no picture' : `${names.length} pictures`;
    throw fileError(path, `1 to ${FILES_MAX} files that end in ${PICTURE_ENDINGS.join(' ')}`, found, 'Check the path.');
  }
  names.sort((a, b) => byName.compare(a, b) || (a < b ? -1 : 1));
  const files = names.map((name) => join(path, name));
  const { width, height } = await decoded(files[0] ?? path);
  return { count: files.length, width, height, picture: (index) => decoded(files[index] ?? path) };
}

/** Undefined: it does not move. */
async function openAnimatedPng(path: string): Promise<PictureList | undefined> {
  let pages: readonly Buffer[] | undefined;
  try {
    pages = pagesOfAnimatedPng(await readFile(path));
  } catch (cause) {
    const advice = `Make a folder of pictures of it: ffmpeg -i ${path} FOLDER/%06d.png.`;
    throw fileError(path, 'an animated PNG of whole pictures', (cause as Error).message, advice, cause);
  }
  if (pages === undefined) return undefined;
  const files = pages;
  const picture = async (index: number): Promise<DecodedPicture> => {
    try {
      return await decodePicture(files[index] ?? Buffer.alloc(0));
    } catch (cause) {
      throw fileError(path, `a picture as page ${index}`, (cause as Error).message, 'Make it anew.', cause);
    }
  };
  const { width, height } = await picture(0);
  return { count: files.length, width, height, picture };
}

/** All pages at once: an animation's page builds on those before it. */
async function openAnimation(path: string, pages: number): Promise<PictureList> {
  try {
    const { width = 0, pageHeight = 0 } = await sharp(path, { animated: true, limitInputPixels: false }).metadata();
    const bytes = width * pageHeight * 3;
    if (bytes * pages > ANIMATION_BYTES_MAX) {
      const advice = `Make a folder of pictures of it: ffmpeg -i ${path} FOLDER/%06d.png.`;
      throw fileError(path, `an animation of at most ${ANIMATION_BYTES_MAX} bytes unpacked`, `${bytes * pages}`, advice);
    }
    const { data } = await decodePicture(path, { animated: true, limitInputPixels: false });
    const page = (index: number): DecodedPicture => ({ width, height: pageHeight, data: data.subarray(index * bytes, (index + 1) * bytes) });
    return { count: pages, width, height: pageHeight, picture: async (index) => page(index) };
  } catch (cause) {
    if (cause instanceof PremotorError) throw cause;
    throw fileError(path, 'an animated GIF or WebP', (cause as Error).message, 'Make it anew.', cause);
  }
}
