/**
 * Writes episodes as a LeRobot v2.1 dataset, so that anyone's tools read them: one Parquet file per episode with pictures as PNG inside, and the
 * meta folder. Owned by whoever records; it keeps one episode in memory and renames every file into place, so that a reader never sees half of one.
 * Format: huggingface/lerobot, dataset codebase version v2.1.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ByteWriter, type ColumnSource, parquetWrite } from 'hyparquet-writer';
import sharp from 'sharp';
import { PremotorError } from '../errors.js';
import type { Picture } from './animation.js';

const CODEBASE_VERSION = 'v2.1';
/** Episodes per folder. */
const CHUNK_EPISODES = 1000;
const DATA_PATH = 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet';

export interface DatasetOptions {
  readonly dir: string;
  readonly robotType: string;
  /** Rows per second, a whole number. */
  readonly fps: number;
  /** Keys such as observation.images.cam_front, in the order of a row's pictures. */
  readonly cameras: readonly { readonly key: string; readonly width: number; readonly height: number }[];
  readonly joints: readonly string[];
}

/** One moment: what was seen and measured, and the action that follows. */
export interface DatasetRow {
  readonly pictures: readonly Picture[];
  /** [joints], radians */
  readonly state: ArrayLike<number>;
  /** [joints], radians */
  readonly action: ArrayLike<number>;
}

export interface DatasetEpisode {
  /** The instruction. */
  readonly task: string;
  readonly rows: readonly DatasetRow[];
  /** Further fields of this episode's line in episodes.jsonl; readers of LeRobot ignore them. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

interface SchemaElement {
  readonly name: string;
  readonly type?: 'BYTE_ARRAY' | 'FLOAT' | 'INT64';
  readonly num_children?: number;
  readonly repetition_type?: 'OPTIONAL' | 'REPEATED';
  readonly converted_type?: 'UTF8' | 'LIST';
}

const scalar = (name: string, type: 'FLOAT' | 'INT64'): SchemaElement[] => [{ name, type, repetition_type: 'OPTIONAL' }];
const vector = (name: string): SchemaElement[] => [
  { name, num_children: 1, converted_type: 'LIST', repetition_type: 'OPTIONAL' },
  { name: 'list', num_children: 1, repetition_type: 'REPEATED' },
  { name: 'element', type: 'FLOAT', repetition_type: 'OPTIONAL' },
];
const image = (name: string): SchemaElement[] => [
  { name, num_children: 2, repetition_type: 'OPTIONAL' },
  { name: 'bytes', type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' },
  { name: 'path', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
];

const COUNTERS = ['frame_index', 'episode_index', 'index', 'task_index'] as const;

interface Statistics {
  readonly min: unknown;
  readonly max: unknown;
  readonly mean: unknown;
  readonly std: unknown;
  readonly count: readonly number[];
}

/** Minimum, maximum, mean and population deviation of each column of [rows, columns]. */
function columnStatistics(rows: readonly ArrayLike<number>[]): Statistics {
  const columns = rows[0]?.length ?? 0;
  const each = (measure: (values: number[]) => number): number[] =>
    Array.from({ length: columns }, (_, column) => measure(rows.map((row) => row[column] ?? 0)));
  const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  return {
    min: each((values) => Math.min(...values)),
    max: each((values) => Math.max(...values)),
    mean: each(mean),
    std: each((values) => Math.sqrt(mean(values.map((value) => (value - mean(values)) ** 2)))),
    count: [rows.length],
  };
}

/** The same per colour over all pixels, in 0 .. 1, shaped [3, 1, 1] as LeRobot does. */
function pictureStatistics(pictures: readonly Picture[]): Statistics {
  const [low, high, sum, squares] = [[255, 255, 255], [0, 0, 0], [0, 0, 0], [0, 0, 0]] as [number[], number[], number[], number[]];
  let pixels = 0;
  for (const { data } of pictures) {
    pixels += data.length / 3;
    for (let at = 0; at < data.length; at++) {
      const [colour, value] = [at % 3, data[at] ?? 0];
      if (value < (low[colour] ?? 0)) low[colour] = value;
      if (value > (high[colour] ?? 0)) high[colour] = value;
      sum[colour] = (sum[colour] ?? 0) + value;
      squares[colour] = (squares[colour] ?? 0) + value * value;
    }
  }
  const shaped = (values: readonly number[]): number[][][] => values.map((value) => [[value / 255]]);
  const mean = sum.map((total) => total / pixels);
  const std = squares.map((total, colour) => Math.sqrt(Math.max(0, total / pixels - (mean[colour] ?? 0) ** 2)));
  return { min: shaped(low), max: shaped(high), mean: shaped(mean), std: shaped(std), count: [pictures.length] };
}

const encodePng = ({ width, height, data }: Picture): Promise<Buffer> =>
  sharp(data, { raw: { width, height, channels: 3 } }).png({ compressionLevel: 4 }).toBuffer();

export class LeRobotWriter {
  readonly #options: DatasetOptions;
  readonly #tasks = new Map<string, number>();
  readonly #episodes: string[] = [];
  readonly #statistics: string[] = [];
  #rows = 0;

  private constructor(options: DatasetOptions) {
    this.#options = options;
  }

  /** Errors: OUT_NOT_EMPTY when the folder holds anything and `force` is not given, FILE_WRITE. */
  static async create(options: DatasetOptions, force = false): Promise<LeRobotWriter> {
    if (existsSync(options.dir) && (await readdir(options.dir)).length > 0) {
      if (!force) {
        const message = `The folder ${options.dir} is not empty. Choose another one, or replace it with --force.`;
        throw new PremotorError('OUT_NOT_EMPTY', message, { file: options.dir, expected: 'an empty or new folder', found: 'files' });
      }
      for (const part of ['data', 'meta']) await rm(join(options.dir, part), { recursive: true, force: true });
    }
    return new LeRobotWriter(options);
  }

  get episodes(): number {
    return this.#episodes.length;
  }
  get rows(): number {
    return this.#rows;
  }

  /** Writes one episode's Parquet file. Errors: FILE_WRITE. */
  async add(episode: DatasetEpisode): Promise<void> {
    const index = this.#episodes.length;
    const task = this.#tasks.get(episode.task) ?? this.#tasks.size;
    this.#tasks.set(episode.task, task);
    const { rows } = episode;
    const columns: { data: ColumnSource; schema: SchemaElement[] }[] = [];
    for (const [camera, { key }] of this.#options.cameras.entries()) {
      const pictures = await Promise.all(rows.map((row) => encodePng(row.pictures[camera] ?? { width: 1, height: 1, data: new Uint8Array(3) })));
      const data = pictures.map((bytes, row) => ({ bytes: new Uint8Array(bytes), path: `frame_${String(row).padStart(6, '0')}.png` }));
      columns.push({ data: { name: key, data }, schema: image(key) });
    }
    columns.push({ data: { name: 'observation.state', data: rows.map(({ state }) => Array.from(state)) }, schema: vector('observation.state') });
    columns.push({ data: { name: 'action', data: rows.map(({ action }) => Array.from(action)) }, schema: vector('action') });
    columns.push({ data: { name: 'timestamp', data: rows.map((_, row) => row / this.#options.fps) }, schema: scalar('timestamp', 'FLOAT') });
    const counters = { frame_index: 0, episode_index: index, index: this.#rows, task_index: task };
    for (const name of COUNTERS) {
      const grows = name === 'frame_index' || name === 'index';
      const data = rows.map((_, row) => BigInt(counters[name] + (grows ? row : 0)));
      columns.push({ data: { name, data }, schema: scalar(name, 'INT64') });
    }
    const writer = new ByteWriter();
    const schema = [{ name: 'schema', num_children: columns.length }, ...columns.flatMap((column) => column.schema)];
    parquetWrite({ writer, columnData: columns.map(({ data }) => data), schema, statistics: false });
    await this.#write(episodePath(index), new Uint8Array(writer.getBuffer()));
    this.#episodes.push(JSON.stringify({ episode_index: index, tasks: [episode.task], length: rows.length, ...episode.extra }));
    this.#statistics.push(JSON.stringify({ episode_index: index, stats: this.#statisticsOf(episode) }));
    this.#rows += rows.length;
  }

  #statisticsOf({ rows }: DatasetEpisode): Record<string, Statistics> {
    const statistics: Record<string, Statistics> = {};
    for (const [camera, { key }] of this.#options.cameras.entries()) {
      statistics[key] = pictureStatistics(rows.flatMap(({ pictures }) => pictures[camera] ?? []));
    }
    statistics['observation.state'] = columnStatistics(rows.map(({ state }) => state));
    statistics['action'] = columnStatistics(rows.map(({ action }) => action));
    return statistics;
  }

  /** Writes the meta folder: without it a folder is no dataset. May be called again after more episodes. Errors: FILE_WRITE. */
  async finish(): Promise<void> {
    const { cameras, joints, fps, robotType } = this.#options;
    const pose = { dtype: 'float32', shape: [joints.length], names: joints };
    const info = {
      codebase_version: CODEBASE_VERSION,
      robot_type: robotType,
      total_episodes: this.episodes,
      total_frames: this.#rows,
      total_tasks: this.#tasks.size,
      total_videos: 0,
      total_chunks: Math.ceil(this.episodes / CHUNK_EPISODES),
      chunks_size: CHUNK_EPISODES,
      fps,
      splits: { train: `0:${this.episodes}` },
      data_path: DATA_PATH,
      video_path: null,
      features: {
        ...Object.fromEntries(
          cameras.map(({ key, width, height }) => [key, { dtype: 'image', shape: [height, width, 3], names: ['height', 'width', 'channel'] }]),
        ),
        'observation.state': pose,
        action: pose,
        timestamp: { dtype: 'float32', shape: [1], names: null },
        ...Object.fromEntries(COUNTERS.map((name) => [name, { dtype: 'int64', shape: [1], names: null }])),
      },
    };
    const tasks = [...this.#tasks].map(([task, index]) => JSON.stringify({ task_index: index, task }));
    await this.#write('meta/tasks.jsonl', `${tasks.join('\n')}\n`);
    await this.#write('meta/episodes.jsonl', `${this.#episodes.join('\n')}\n`);
    await this.#write('meta/episodes_stats.jsonl', `${this.#statistics.join('\n')}\n`);
    await this.#write('meta/info.json', `${JSON.stringify(info, null, 2)}\n`);
  }

  async #write(name: string, content: Uint8Array | string): Promise<void> {
    const path = join(this.#options.dir, name);
    try {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(`${path}.part`, content);
      await rename(`${path}.part`, path);
    } catch (cause) {
      const message = `${path} cannot be written: ${(cause as Error).message}. Check the disk and the folder's rights.`;
      throw new PremotorError('FILE_WRITE', message, { file: path, cause });
    }
  }
}

/** Where an episode's file lies below the dataset's folder. */
export function episodePath(index: number): string {
  const chunk = String(Math.floor(index / CHUNK_EPISODES)).padStart(3, '0');
  return `data/chunk-${chunk}/episode_${String(index).padStart(6, '0')}.parquet`;
}
