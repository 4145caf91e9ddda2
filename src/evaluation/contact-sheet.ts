/**
 * The contact sheet of an evaluation: one row per failed episode, pictures through time, labelled with seed, instruction and why it failed. Composes
 * pictures that were already taken; owned by the command that writes it.
 */
import sharp from 'sharp';
import { hasFonts, type Picture } from '../recording/animation.js';
import type { EpisodePictures, EpisodeResult } from './configuration.js';

/** A sheet shows the first so many failures; more would not be looked at. */
export const SHEET_ROWS_MAX = 40;
const GAP_PIXELS = 4;
const LABEL_PIXELS = 18;
const TIME_PIXELS = 14;
const BACKGROUND = 24;

export interface SheetRow {
  readonly label: string;
  readonly pictures: EpisodePictures['pictures'];
}

/** Pairs pictures with results, in the results' order. Successes have no pictures and no row. */
export function sheetRows(episodes: readonly EpisodeResult[], failures: readonly EpisodePictures[]): SheetRow[] {
  const pictures = new Map(failures.map((failure) => [`${failure.task} ${failure.seed}`, failure.pictures]));
  return episodes.flatMap(({ task, seed, instruction, verdict, why }) => {
    const own = pictures.get(`${task} ${seed}`);
    return own === undefined ? [] : [{ label: `seed ${seed}  ${instruction}  ${verdict}: ${why}`, pictures: own }];
  });
}

/** The sheet; undefined without rows. Without a font on the system there are no labels. */
export async function composeSheet(rows: readonly SheetRow[]): Promise<Picture | undefined> {
  const shown = rows.slice(0, SHEET_ROWS_MAX).filter(({ pictures }) => pictures.length > 0);
  if (shown.length === 0) return undefined;
  const cell = {
    width: Math.max(...shown.flatMap(({ pictures }) => pictures.map(({ width }) => width))),
    height: Math.max(...shown.flatMap(({ pictures }) => pictures.map(({ height }) => height))),
  };
  const columns = Math.max(...shown.map(({ pictures }) => pictures.length));
  const rowHeight = LABEL_PIXELS + cell.height + TIME_PIXELS + GAP_PIXELS;
  const [width, height] = [columns * (cell.width + GAP_PIXELS) + GAP_PIXELS, shown.length * rowHeight + GAP_PIXELS];
  const data = new Uint8Array(width * height * 3).fill(BACKGROUND);
  const texts: string[] = [];
  shown.forEach(({ label, pictures }, row) => {
    const top = GAP_PIXELS + row * rowHeight;
    texts.push(textAt(GAP_PIXELS, top + LABEL_PIXELS - 5, 12, label));
    pictures.forEach((picture, column) => {
      const left = GAP_PIXELS + column * (cell.width + GAP_PIXELS);
      paste(picture, data, width, left, top + LABEL_PIXELS);
      texts.push(textAt(left, top + LABEL_PIXELS + cell.height + TIME_PIXELS - 3, 10, `${picture.timeS.toFixed(2)} s`));
    });
  });
  return (await hasFonts()) ? drawTexts({ width, height, data }, texts) : { width, height, data };
}

function paste(picture: Picture, sheet: Uint8Array, sheetWidth: number, left: number, top: number): void {
  for (let y = 0; y < picture.height; y++) {
    sheet.set(picture.data.subarray(y * picture.width * 3, (y + 1) * picture.width * 3), ((top + y) * sheetWidth + left) * 3);
  }
}

const escapeXml = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

function textAt(x: number, y: number, size: number, text: string): string {
  return `<text x="${x}" y="${y}" font-size="${size}">${escapeXml(text)}</text>`;
}

async function drawTexts({ width, height, data }: Picture, texts: readonly string[]): Promise<Picture> {
  const style = 'font-family="DejaVu Sans, Liberation Sans, Arial, sans-serif" fill="#f0f0f0"';
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><g ${style}>${texts.join('')}</g></svg>`;
  const drawn = await sharp(data, { raw: { width, height, channels: 3 } })
    .composite([{ input: Buffer.from(svg), left: 0, top: 0 }])
    .removeAlpha()
    .raw()
    .toBuffer();
  return { width, height, data: new Uint8Array(drawn) };
}
