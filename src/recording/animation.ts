/**
 * Pictures as files: single PNGs, animations (GIF, WebP, animated PNG by the file's ending) and rows of pictures side by side with labels. Owned by
 * the command line and the demonstration; it never touches the policy and nothing with a deadline waits for it.
 */
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, extname, join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { PremotorError } from '../errors.js';
import { encodeAnimatedPng } from './apng.js';

/** An RGB picture, 8 bits, [height, width, 3] row by row. A Frame of the policy contract is one. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

export interface AnimationOptions {
  /** Pictures per second. GIF keeps hundredths of a second and players treat less than 2 as 10: at most 50. */
  readonly fps: number;
  /** How often it plays; 0: for ever. Default: 0. */
  readonly loop?: number;
}

export interface RowOptions {
  /** Pixels between pictures. Default: 4. */
  readonly gap?: number;
  /** One per picture, written above it when the system has a font; else the row has no labels. */
  readonly labels?: readonly string[];
}

const GAP_PIXELS = 4;
const LABEL_PIXELS = 18;
const BACKGROUND = 24;
/** libwebp's limit for one side; GIF's is 65535. */
const SIDE_PIXELS_MAX = 16383;

const opened = ({ width, height, data }: Picture): Sharp => sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false });

/** Writes an animation; the file appears when it is complete. Errors: ANIMATION_FORMAT, PICTURE_INVALID, FILE_WRITE. */
export async function writeAnimation(path: string, frames: readonly Picture[], options: AnimationOptions): Promise<void> {
  const first = frames[0];
  if (first === undefined) throw invalid('at least one picture', 'none');
  if (!(options.fps > 0) || !Number.isFinite(options.fps)) throw invalid('a number of pictures per second above 0', String(options.fps));
  for (const frame of frames) checkPicture(frame, first);
  const loop = options.loop ?? 0;
  const ending = extname(path).toLowerCase();
  if (ending === '.png' || ending === '.apng') return replaceFile(path, await encodeAnimatedPng(frames, { delayMs: 1000 / options.fps, loop }));
  if (ending !== '.gif' && ending !== '.webp') {
    const expected = '.gif, .webp, .png or .apng';
    const message = `The animation ${path} has an unknown ending: expected ${expected}, found "${ending}". Name the file accordingly.`;
    throw new PremotorError('ANIMATION_FORMAT', message, { file: path, expected, found: ending });
  }
  const { width, height } = first;
  const film = new Uint8Array(frames.length * width * height * 3);
  for (const [index, frame] of frames.entries()) film.set(frame.data, index * width * height * 3);
  const raw = { width, height: height * frames.length, channels: 3, pageHeight: height } as const;
  const image = sharp(film, { raw, limitInputPixels: false });
  const delay = delays(frames.length, options.fps, ending === '.gif' ? 10 : 1);
  // Equal neighbours are kept in GIF, so that page n is picture n; WebP joins them and adds up their delays.
  const encoded = ending === '.gif' ? image.gif({ delay, loop, effort: 3, keepDuplicateFrames: true }) : image.webp({ delay, loop, lossless: true });
  await replaceFile(path, await encoded.toBuffer());
}

/** Milliseconds per page in multiples of `unit`, rounded so that the whole film keeps its length. */
function delays(count: number, fps: number, unit: number): number[] {
  const at = (index: number): number => Math.round((index * 1000) / fps / unit) * unit;
  return Array.from({ length: count }, (_, index) => Math.max(unit === 10 ? 20 : 1, at(index + 1) - at(index)));
}

/** Writes one PNG; the file appears when it is complete. Errors: PICTURE_INVALID, FILE_WRITE. */
export async function writePng(path: string, picture: Picture): Promise<void> {
  checkPicture(picture, picture);
  await replaceFile(path, await opened(picture).png().toBuffer());
}

/** Joins pictures side by side at the tallest one's height; smaller ones are enlarged by pixel repetition. Errors: PICTURE_INVALID. */
export async function composeRow(pictures: readonly Picture[], options: RowOptions = {}): Promise<Picture> {
  if (pictures.length === 0) throw invalid('at least one picture', 'none');
  for (const picture of pictures) checkPicture(picture, picture);
  const gap = options.gap ?? GAP_PIXELS;
  const height = Math.max(...pictures.map((picture) => picture.height));
  const scaled = pictures.map((picture) => enlarge(picture, height));
  const width = scaled.reduce((sum, picture) => sum + picture.width, gap * (scaled.length - 1));
  const labels = options.labels?.some((label) => label !== '') && (await hasFonts()) ? options.labels : undefined;
  const top = labels === undefined ? 0 : LABEL_PIXELS;
  const row = new Uint8Array(width * (height + top) * 3).fill(BACKGROUND);
  let left = 0;
  const starts: number[] = [];
  for (const picture of scaled) {
    for (let y = 0; y < height; y++)
      row.set(picture.data.subarray(y * picture.width * 3, (y + 1) * picture.width * 3), ((y + top) * width + left) * 3);
    starts.push(left);
    left += picture.width + gap;
  }
  const joined = { width, height: height + top, data: row };
  if (labels === undefined) return joined;
  return label(
    joined,
    labels,
    starts,
    scaled.map((picture) => picture.width),
  );
}

/** Nearest-neighbour scaling to a height, the width in proportion. */
function enlarge(picture: Picture, height: number): Picture {
  if (picture.height === height) return picture;
  const width = Math.max(1, Math.round((picture.width * height) / picture.height));
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const sourceRow = Math.floor(((y + 0.5) * picture.height) / height) * picture.width;
    for (let x = 0; x < width; x++) {
      const source = (sourceRow + Math.floor(((x + 0.5) * picture.width) / width)) * 3;
      const target = (y * width + x) * 3;
      for (let channel = 0; channel < 3; channel++) data[target + channel] = picture.data[source + channel] ?? 0;
    }
  }
  return { width, height, data };
}

const escapeXml = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

/** Draws each label in the strip above its picture, cut off at the picture's width. */
async function label(row: Picture, labels: readonly string[], starts: readonly number[], widths: readonly number[]): Promise<Picture> {
  const texts = starts.map((left, index) => {
    const clip = `<clipPath id="c${index}"><rect x="${left}" y="0" width="${widths[index]}" height="${LABEL_PIXELS}"/></clipPath>`;
    const style = 'font-family="DejaVu Sans, Liberation Sans, Arial, sans-serif" font-size="12" fill="#f0f0f0"';
    return `${clip}<text x="${left + 3}" y="13" ${style} clip-path="url(#c${index})">${escapeXml(labels[index] ?? '')}</text>`;
  });
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${row.width}" height="${LABEL_PIXELS}">${texts.join('')}</svg>`;
  const data = await opened(row)
    .composite([{ input: Buffer.from(svg), left: 0, top: 0 }])
    .removeAlpha()
    .raw()
    .toBuffer();
  return { width: row.width, height: row.height, data: new Uint8Array(data) };
}

let fonts: Promise<boolean> | undefined;

/** Whether a font file lies where fontconfig looks. Without one, text would be drawn as empty boxes. */
export async function hasFonts(): Promise<boolean> {
  fonts ??= (async () => {
    const home = homedir();
    const folders = ['/usr/share/fonts', '/usr/local/share/fonts', join(home, '.fonts'), join(home, '.local', 'share', 'fonts')];
    for (const folder of folders) {
      const names = await readdir(folder, { recursive: true }).catch(() => []);
      if (names.some((name) => /\.(ttf|otf|ttc|pfb)$/i.test(name))) return true;
    }
    return false;
  })();
  return fonts;
}

function checkPicture(picture: Picture, like: Picture): void {
  const { width, height, data } = picture;
  const side = (value: number): boolean => Number.isInteger(value) && value > 0 && value <= SIDE_PIXELS_MAX;
  if (!side(width) || !side(height)) throw invalid(`sides of 1 .. ${SIDE_PIXELS_MAX} pixels`, `${width} x ${height}`);
  if (data.length !== width * height * 3) throw invalid(`${width * height * 3} bytes for ${width} x ${height} RGB`, `${data.length} bytes`);
  if (width !== like.width || height !== like.height) throw invalid(`every picture ${like.width} x ${like.height}`, `${width} x ${height}`);
}

function invalid(expected: string, found: string): PremotorError {
  return new PremotorError('PICTURE_INVALID', `A picture cannot be written: expected ${expected}, found ${found}.`, { expected, found });
}

/** Writes beside the target and renames, so that a reader never sees half a file. */
async function replaceFile(path: string, content: Uint8Array): Promise<void> {
  const part = join(dirname(path), `.${basename(path)}.part`);
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(part, content);
    await rename(part, path);
  } catch (cause) {
    await rm(part, { force: true }).catch(() => undefined);
    const message = `${path} cannot be written: ${(cause as Error).message}. Check the disk and the folder's rights.`;
    throw new PremotorError('FILE_WRITE', message, { file: path, cause });
  }
}
