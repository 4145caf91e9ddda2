/**
 * Reads episodes of a LeRobot v2.1 dataset whose pictures lie inside the Parquet files, whoever wrote it: what lerobot.ts writes, and what LeRobot's
 * own recorder writes without video. Everything is checked once, when it is read. Never changes a dataset.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parquetReadObjects } from 'hyparquet';
import sharp from 'sharp';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import type { Picture } from './animation.js';
import { CODEBASE_VERSION } from './lerobot.js';

const infoShape = z.object({
  codebase_version: z.string(),
  total_episodes: z.number().int().min(0),
  chunks_size: z.number().int().min(1),
  fps: z.number().positive(),
  data_path: z.string(),
  features: z.record(z.string(), z.object({ dtype: z.string() })),
});
const episodeShape = z.object({ episode_index: z.number().int(), tasks: z.array(z.string()) });
const rowShape = z.object({ timestamp: z.number(), 'observation.state': z.array(z.number()), action: z.array(z.number()) });
const imageShape = z.object({ bytes: z.instanceof(Uint8Array) });

type Info = z.infer<typeof infoShape>;

/** One moment of an episode. */
export interface ReadRow {
  readonly timeS: number;
  /** In the order of `cameras`. */
  readonly pictures: readonly Picture[];
  readonly state: readonly number[];
  readonly action: readonly number[];
}

export interface ReadEpisode {
  readonly instruction: string;
  readonly rows: readonly ReadRow[];
}

export class LeRobotDataset {
  readonly dir: string;
  readonly #info: Info;
  /** Keys of the features that are pictures. */
  readonly cameras: readonly string[];

  private constructor(dir: string, info: Info, cameras: readonly string[]) {
    this.dir = dir;
    this.#info = info;
    this.cameras = cameras;
  }

  /** Errors: DATASET_MISSING when there is no dataset, DATASET_INVALID when it is of another format. */
  static async open(dir: string): Promise<LeRobotDataset> {
    const file = join(dir, 'meta/info.json');
    const info = parse(file, infoShape, await readText(file));
    if (info.codebase_version !== CODEBASE_VERSION) throw invalid(file, `codebase_version ${CODEBASE_VERSION}`, info.codebase_version);
    const kinds = Object.entries(info.features);
    const cameras = kinds.filter(([, { dtype }]) => dtype === 'image').map(([key]) => key);
    if (cameras.length === 0)
      throw invalid(file, 'at least one feature of dtype image', kinds.map(([key, { dtype }]) => `${key} ${dtype}`).join(', '));
    return new LeRobotDataset(dir, info, cameras);
  }

  get episodes(): number {
    return this.#info.total_episodes;
  }
  get fps(): number {
    return this.#info.fps;
  }

  /** Errors: EPISODE_MISSING, DATASET_MISSING, DATASET_INVALID. */
  async episode(index: number, onRow?: (done: number, total: number) => void): Promise<ReadEpisode> {
    if (!Number.isInteger(index) || index < 0 || index >= this.episodes) {
      const expected = this.episodes === 0 ? 'a dataset with episodes' : `an episode of 0 .. ${this.episodes - 1}`;
      const message = `${this.dir} has no episode ${index}: expected ${expected}.`;
      throw new PremotorError('EPISODE_MISSING', message, { file: this.dir, expected, found: String(index) });
    }
    const instruction = await this.#instruction(index);
    const file = join(this.dir, filled(this.#info.data_path, { episode_chunk: Math.floor(index / this.#info.chunks_size), episode_index: index }));
    const table = await readTable(file, [...this.cameras, 'observation.state', 'action', 'timestamp']);
    const rows: ReadRow[] = [];
    for (const record of table) {
      const { timestamp, action, 'observation.state': state } = check(file, rowShape, record);
      const pictures = await Promise.all(this.cameras.map((key) => decode(file, check(`${file}: ${key}`, imageShape, record[key]).bytes)));
      rows.push({ timeS: timestamp, state, action, pictures });
      onRow?.(rows.length, table.length);
    }
    return { instruction, rows };
  }

  async #instruction(index: number): Promise<string> {
    const file = join(this.dir, 'meta/episodes.jsonl');
    const lines = (await readText(file)).split('\n').filter((line) => line.trim() !== '');
    for (const line of lines) {
      const episode = parse(file, episodeShape, line);
      if (episode.episode_index === index) return episode.tasks.join('; ');
    }
    throw invalid(file, `a line for episode ${index}`, `${lines.length} other lines`);
  }
}

/** Fills in a path template with fields such as {episode_index:06d}. */
function filled(template: string, values: Readonly<Record<string, number>>): string {
  return template.replaceAll(/\{(\w+):0(\d+)d\}/g, (field, name: string, digits: string) => {
    const value = values[name];
    return value === undefined ? field : String(value).padStart(Number(digits), '0');
  });
}

async function readBytes(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (cause) {
    const [expected, found] = ['a LeRobot v2.1 dataset', (cause as Error).message];
    const message = `${file} cannot be read: expected ${expected}, found ${found}. Name the folder that holds data and meta.`;
    throw new PremotorError('DATASET_MISSING', message, { file, expected, found, cause });
  }
}

const readText = async (file: string): Promise<string> => (await readBytes(file)).toString('utf8');

async function readTable(file: string, columns: string[]): Promise<Record<string, unknown>[]> {
  const bytes = await readBytes(file);
  const whole = new Uint8Array(bytes).buffer;
  try {
    // Binary columns are pictures, not texts.
    return (await parquetReadObjects({ file: whole, columns, utf8: false })) as Record<string, unknown>[];
  } catch (cause) {
    throw invalid(file, `a Parquet file with the columns ${columns.join(', ')}`, (cause as Error).message, cause);
  }
}

async function decode(file: string, bytes: Uint8Array): Promise<Picture> {
  try {
    const { data, info } = await sharp(bytes).toColourspace('srgb').removeAlpha().raw().toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new Error(`${info.channels} colours`);
    return { width: info.width, height: info.height, data: new Uint8Array(data) };
  } catch (cause) {
    throw invalid(file, 'RGB pictures', (cause as Error).message, cause);
  }
}

function parse<T>(file: string, shape: z.ZodType<T>, text: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(file, 'JSON', (cause as Error).message, cause);
  }
  return check(file, shape, value);
}

function check<T>(file: string, shape: z.ZodType<T>, value: unknown): T {
  const result = shape.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw invalid(file, 'what LeRobot v2.1 describes', `${issue?.path.join('.') || 'the whole'}: ${issue?.message ?? 'wrong'}`, result.error);
}

function invalid(file: string, expected: string, found: string, cause?: unknown): PremotorError {
  const message = `${file} is no part of a dataset that premotor reads: expected ${expected}, found ${found}. Record it again, or convert it.`;
  return new PremotorError('DATASET_INVALID', message, { file, expected, found, ...(cause === undefined ? {} : { cause }) });
}
