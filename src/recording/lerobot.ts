/**
 * Writes episodes as a LeRobot v2.1 dataset, so that anyone's tools read them: one Parquet file per episode with pictures as PNG inside, and the
 * meta folder. Owned by whoever records; it keeps at most two episodes in memory and renames every file into place, so that a reader never sees half
 * of one.
 * Format: huggingface/lerobot, dataset codebase version v2.1.
 */
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ByteWriter, type ColumnSource, parquetWrite } from 'hyparquet-writer';
import sharp from 'sharp';
import { PremotorError } from '../errors.js';
import type { Picture } from './animation.js';
import { columnStatistics, pictureStatistics, type Statistics } from './lerobot-statistics.js';

export const CODEBASE_VERSION = 'v2.1';
/** Episodes per folder. */
export const CHUNK_EPISODES = 1000;
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

/** Columns of numbers in the file's order: a list of [joints] or of plain numbers, one entry per row. */
type Columns = Readonly<Record<string, (readonly number[] | number | bigint)[]>>;

function schemaOf(name: string): SchemaElement[] {
  if (name === 'timestamp') return scalar(name, 'FLOAT');
  return (COUNTERS as readonly string[]).includes(name) ? scalar(name, 'INT64') : vector(name);
}

/** Errors: PICTURE_INVALID when a row lacks a camera's picture. */
async function encodePng(picture: Picture | undefined): Promise<Buffer> {
  if (!picture) {
    const [expected, found] = ['one picture per camera', 'a row with fewer'];
    throw new PremotorError('PICTURE_INVALID', `A row cannot be written: expected ${expected}, found ${found}.`, { expected, found });
  }
  const { width, height, data } = picture;
  return sharp(data, { raw: { width, height, channels: 3 } })
    .png({ compressionLevel: 4 })
    .toBuffer();
}

async function contentOf(dir: string): Promise<'nothing' | 'files' | 'a file'> {
  try {
    return (await readdir(dir)).length > 0 ? 'files' : 'nothing';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOTDIR' ? 'a file' : 'nothing';
  }
}

const linesOf = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('');

/** What Hugging Face's `datasets` reads from the Parquet file's metadata: without it pictures stay undecoded bytes. */
function datasetsMetadata({ cameras, joints }: DatasetOptions): { key: string; value: string } {
  const value = (dtype: string) => ({ dtype, _type: 'Value' });
  const pose = { feature: value('float32'), length: joints.length, _type: 'Sequence' };
  const features = {
    ...Object.fromEntries(cameras.map(({ key }) => [key, { _type: 'Image' }])),
    'observation.state': pose,
    action: pose,
    timestamp: value('float32'),
    ...Object.fromEntries(COUNTERS.map((name) => [name, value('int64')])),
  };
  return { key: 'huggingface', value: JSON.stringify({ info: { features } }) };
}

export class LeRobotWriter {
  readonly #options: DatasetOptions;
  readonly #tasks = new Map<string, number>();
  readonly #episodes: string[] = [];
  readonly #statistics: string[] = [];
  #rows = 0;
  /** The episode that is being written while the next one is recorded. */
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: DatasetOptions) {
    this.#options = options;
  }

  /** Errors: OUT_NOT_EMPTY when the folder holds anything and `force` is not given, FILE_WRITE. */
  static async create(options: DatasetOptions, force = false): Promise<LeRobotWriter> {
    const found = await contentOf(options.dir);
    if (found === 'a file' || (found === 'files' && !force)) {
      const message = `Expected an empty or new folder ${options.dir}, found ${found}. Choose another one, or replace a dataset with --force.`;
      throw new PremotorError('OUT_NOT_EMPTY', message, { file: options.dir, expected: 'an empty or new folder', found });
    }
    if (found === 'files') for (const part of ['data', 'meta']) await rm(join(options.dir, part), { recursive: true, force: true });
    return new LeRobotWriter(options);
  }

  /** Episodes taken; the last one may still be on its way to the disk. */
  get episodes(): number {
    return this.#episodes.length;
  }
  get rows(): number {
    return this.#rows;
  }

  /**
   * Takes one episode and writes its Parquet file in the background: resolves when the episode before it is written, so that pictures are compressed
   * while the next episode is recorded. Rows must not change afterwards. Errors: FILE_WRITE, of the episode before.
   */
  async add(episode: DatasetEpisode): Promise<void> {
    await this.#writing;
    const task = this.#tasks.get(episode.task) ?? this.#tasks.size;
    this.#tasks.set(episode.task, task);
    const columns = this.#columns(episode, task);
    const { length } = episode.rows;
    this.#writing = this.#writeEpisode(episodePath(this.episodes), episode, columns);
    // An error is thrown by whoever waits next: add or finish.
    this.#writing.catch(() => undefined);
    this.#episodes.push(JSON.stringify({ episode_index: this.episodes, tasks: [episode.task], length, ...episode.extra }));
    this.#statistics.push(JSON.stringify({ episode_index: this.#statistics.length, stats: this.#statisticsOf(episode, columns) }));
    this.#rows += length;
  }

  /** The columns of numbers. */
  #columns({ rows }: DatasetEpisode, task: number): Columns {
    const filled = (from: number, step: number): bigint[] => rows.map((_, row) => BigInt(from + step * row));
    return {
      // As the file keeps them, so that statistics are of what a reader gets.
      'observation.state': rows.map(({ state }) => Array.from(state, Math.fround)),
      action: rows.map(({ action }) => Array.from(action, Math.fround)),
      timestamp: rows.map((_, row) => Math.fround(row / this.#options.fps)),
      frame_index: filled(0, 1),
      episode_index: filled(this.episodes, 0),
      index: filled(this.#rows, 1),
      task_index: filled(task, 0),
    };
  }

  async #writeEpisode(path: string, { rows }: DatasetEpisode, columns: Columns): Promise<void> {
    const { cameras } = this.#options;
    // All at once: the pictures are compressed on other threads.
    const encoded = await Promise.all(cameras.map((_, camera) => Promise.all(rows.map(({ pictures }) => encodePng(pictures[camera])))));
    const images = cameras.map(({ key }, camera) => {
      const data = (encoded[camera] ?? []).map((bytes, row) => ({
        bytes: new Uint8Array(bytes),
        path: `frame_${String(row).padStart(6, '0')}.png`,
      }));
      return { source: { name: key, data }, schema: image(key) };
    });
    const numbers = Object.entries(columns).map(([name, data]) => ({ source: { name, data }, schema: schemaOf(name) }));
    const all = [...images, ...numbers];
    const schema = [{ name: 'schema', num_children: all.length }, ...all.flatMap((column) => column.schema)];
    const columnData: ColumnSource[] = all.map(({ source }) => source);
    const writer = new ByteWriter();
    parquetWrite({ writer, columnData, schema, statistics: false, kvMetadata: [datasetsMetadata(this.#options)] });
    await this.#write(path, new Uint8Array(writer.getBuffer()));
  }

  /** Of every column, as LeRobot's own writer gives them. */
  #statisticsOf({ rows }: DatasetEpisode, columns: Columns): Record<string, Statistics> {
    const pictures = this.#options.cameras.map(({ key }, camera) => [key, pictureStatistics(rows.flatMap((row) => row.pictures[camera] ?? []))]);
    const vectors = (values: Columns[string]): ArrayLike<number>[] => values.map((value) => (typeof value === 'object' ? value : [Number(value)]));
    const numbers = Object.entries(columns).map(([name, values]) => [name, columnStatistics(vectors(values))]);
    return Object.fromEntries([...pictures, ...numbers]);
  }

  /** Writes the meta folder: without it a folder is no dataset. May be called again after more episodes. Errors: FILE_WRITE. */
  async finish(): Promise<void> {
    await this.#writing;
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
    await this.#write('meta/tasks.jsonl', linesOf(tasks));
    await this.#write('meta/episodes.jsonl', linesOf(this.#episodes));
    await this.#write('meta/episodes_stats.jsonl', linesOf(this.#statistics));
    await this.#write('meta/info.json', `${JSON.stringify(info, null, 2)}\n`);
  }

  async #write(name: string, content: Uint8Array | string): Promise<void> {
    const path = join(this.#options.dir, name);
    try {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(`${path}.part`, content);
      await rename(`${path}.part`, path);
    } catch (cause) {
      await rm(`${path}.part`, { force: true }).catch(() => undefined);
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
