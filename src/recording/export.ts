/**
 * A recording as files that other programs open: motion and joint states as tables, pictures one by one, the policy's chunks as JSON. Owned by
 * `premotor record export`; it only adds files to a folder, under names that it chooses itself.
 */

import { once } from 'node:events';
import { createWriteStream, type WriteStream } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { isPicture, pictureOf } from './mcap-picture.js';
import type { McapMessage, McapReader, ReadOptions } from './mcap-reader.js';
import { CAMERA_TOPIC, TOPICS } from './schemas.js';

export const EXPORTS = ['motion', 'pictures', 'chunks', 'log'] as const;
export type ExportName = (typeof EXPORTS)[number];

export interface ExportOptions extends Omit<ReadOptions, 'topics'> {
  readonly what: readonly ExportName[];
  /** Pictures as they were recorded, or as PNG. */
  readonly png?: boolean;
  /** Adds to a folder that is not empty. */
  readonly force?: boolean;
}

export interface Exported {
  readonly samples: number;
  readonly pictures: number;
  readonly chunks: number;
  readonly lines: number;
  /** Messages that are not what their topic says. */
  readonly unreadable: number;
  readonly files: readonly string[];
}

/** Pixels of one picture, so that a made-up file takes no memory. */
const PIXELS_MAX = 100_000_000;
/** Entries of chunks.json. */
const CHUNKS_MAX = 100_000;

const floats = z.instanceof(Float64Array);
const motionSchema = z.object({ robot_time_ns: z.bigint(), setpoint_rad: floats, position_rad: floats, velocity_rad_per_s: floats });
const aboutSchema = z.object({ joints: z.array(z.string().max(256)).max(1024) });
const tensor = z
  .object({ shape: z.array(z.number()), data: z.instanceof(Float32Array) })
  .transform(({ shape, data }) => ({ shape, data: [...data] }));
const chunkSchemas: Readonly<Record<string, z.ZodType<object>>> = {
  [TOPICS.calls.topic]: z.looseObject({ method: z.string(), actions: tensor.optional(), executed: tensor.optional(), executing: tensor.optional() }),
  [TOPICS.executed.topic]: z.looseObject({ chunk: z.number(), actions: tensor.optional() }),
  [TOPICS.timing.topic]: z.looseObject({ chunk: z.number() }),
};
const logSchema = z.object({ level: z.int(), message: z.string(), name: z.string() });

/** Errors: OUT_NOT_EMPTY, FILE_WRITE, ABORTED, MCAP_UNSUPPORTED. */
export async function exportRecording(reader: McapReader, dir: string, options: ExportOptions): Promise<Exported> {
  await emptyFolder(dir, options.force === true);
  const exporter = new Exporter(dir, options);
  try {
    for await (const message of reader.messages(options)) await exporter.add(message);
    return await exporter.finish();
  } catch (cause) {
    if (cause instanceof PremotorError) throw cause;
    const found = (cause as Error).message;
    throw new PremotorError('FILE_WRITE', `${dir} cannot be written: ${found}. Name another folder with --out.`, { file: dir, found, cause });
  } finally {
    exporter.close();
  }
}

async function emptyFolder(dir: string, force: boolean): Promise<void> {
  await mkdir(dir, { recursive: true });
  const count = (await readdir(dir)).length;
  if (count === 0 || force) return;
  const [expected, found] = ['an empty folder', `${count} files`];
  const message = `${dir} is not empty: expected ${expected}, found ${found}. Choose another --out, or add --force to add to it.`;
  throw new PremotorError('OUT_NOT_EMPTY', message, { file: dir, expected, found });
}

class Exporter {
  readonly #dir: string;
  readonly #what: ReadonlySet<ExportName>;
  readonly #png: boolean;
  readonly #count = { samples: 0, pictures: 0, chunks: 0, lines: 0, unreadable: 0 };
  readonly #files = new Map<string, WriteStream>();
  readonly #folders = new Map<string, string>();
  readonly #written: string[] = [];
  readonly #chunks: object[] = [];
  #joints: readonly string[] = [];
  #failure: Error | undefined;

  constructor(dir: string, { what, png = false }: ExportOptions) {
    this.#dir = dir;
    this.#what = new Set(what);
    this.#png = png;
  }

  async add(message: McapMessage): Promise<void> {
    const { topic } = message;
    if (topic === TOPICS.about.topic) this.#joints = this.#read(message, aboutSchema)?.joints ?? this.#joints;
    else if (topic === TOPICS.motion.topic && this.#what.has('motion')) await this.#motion(message);
    else if (topic === TOPICS.log.topic && this.#what.has('log')) await this.#log(message);
    else if (chunkSchemas[topic] && this.#what.has('chunks')) this.#chunk(message, chunkSchemas[topic]);
    else if (isPicture(message) && this.#what.has('pictures')) await this.#picture(message);
  }

  async finish(): Promise<Exported> {
    for (const file of this.#files.values()) {
      file.end();
      await once(file, 'finish');
    }
    if (this.#chunks.length > 0) {
      const path = join(this.#dir, 'chunks.json');
      await writeFile(path, `${JSON.stringify(this.#chunks, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value))}\n`);
      this.#written.push(path);
    }
    return { ...this.#count, files: [...this.#files.keys(), ...this.#written] };
  }

  close(): void {
    for (const file of this.#files.values()) file.destroy();
  }

  async #motion(message: McapMessage): Promise<void> {
    const value = this.#read(message, motionSchema);
    if (!value) return;
    const lists = [value.setpoint_rad, value.position_rad, value.velocity_rad_per_s];
    const names = Array.from(value.position_rad, (_, joint) => cell(this.#joints[joint] ?? `joint${joint}`));
    const header = ['setpoint_rad', 'position_rad', 'velocity_rad_per_s'].flatMap((what) => names.map((name) => `${name}_${what}`));
    // What the stream does not say is an empty cell.
    const cells = lists.flatMap((list) => names.map((_, joint) => (Number.isFinite(list[joint]) ? String(list[joint]) : '')));
    await this.#line('motion.csv', ['time_ns', 'robot_time_ns', ...header], [message.logTimeNs, value.robot_time_ns, ...cells]);
    this.#count.samples++;
  }

  async #log(message: McapMessage): Promise<void> {
    const value = this.#read(message, logSchema);
    if (!value) return;
    await this.#line('log.csv', ['time_ns', 'level', 'name', 'message'], [message.logTimeNs, value.level, cell(value.name), cell(value.message)]);
    this.#count.lines++;
  }

  #chunk(message: McapMessage, schema: z.ZodType<object>): void {
    const value = this.#read(message, schema);
    if (!value || this.#chunks.length >= CHUNKS_MAX) return;
    this.#chunks.push({ time_ns: message.logTimeNs, topic: message.topic, ...value });
    this.#count.chunks++;
  }

  async #picture(message: McapMessage): Promise<void> {
    try {
      const { format, data, raw } = pictureOf(message);
      const isPlain = raw === undefined && !this.#png;
      const rgb =
        raw && (format === 'rgb8' || format === 'mono8') ? { width: raw.width, height: raw.height, channels: raw.rowBytes / raw.width } : undefined;
      if (raw && rgb?.channels !== 1 && rgb?.channels !== 3) throw new RangeError(`a raw picture of ${format}`);
      const limits = { limitInputPixels: PIXELS_MAX, ...(rgb ? { raw: rgb as { width: number; height: number; channels: 1 | 3 } } : {}) };
      const bytes = isPlain ? data : await sharp(data, limits).png().toBuffer();
      const extension = isPlain ? (/^[a-z0-9]{1,5}$/.exec(format)?.[0] ?? 'bin') : 'png';
      const path = join(await this.#folder(message.topic), `${message.logTimeNs}.${extension === 'jpeg' ? 'jpg' : extension}`);
      await writeFile(path, bytes);
      this.#written.push(path);
      this.#count.pictures++;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).syscall !== undefined) throw error;
      this.#count.unreadable++;
    }
  }

  /** A topic's own, with nothing of its name that a path could mean. */
  async #folder(topic: string): Promise<string> {
    const known = this.#folders.get(topic);
    if (known) return known;
    const name = (topic.startsWith(CAMERA_TOPIC) ? topic.slice(CAMERA_TOPIC.length) : topic).replace(/[^A-Za-z0-9_-]+/g, '_').slice(0, 100);
    const taken = new Set(this.#folders.values());
    let path = join(this.#dir, 'pictures', name === '' ? '_' : name);
    while (taken.has(path)) path = `${path}_`;
    await mkdir(path, { recursive: true });
    this.#folders.set(topic, path);
    return path;
  }

  async #line(name: string, header: readonly string[], cells: readonly (string | number | bigint)[]): Promise<void> {
    const path = join(this.#dir, name);
    let file = this.#files.get(path);
    if (file === undefined) {
      file = createWriteStream(path);
      this.#files.set(path, file);
      file.on('error', (error) => {
        this.#failure ??= error;
      });
      await once(file, 'open');
      file.write(`${header.join(',')}\n`);
    }
    if (this.#failure) throw this.#failure;
    if (!file.write(`${cells.join(',')}\n`)) await once(file, 'drain');
  }

  #read<T>(message: McapMessage, schema: z.ZodType<T>): T | undefined {
    try {
      return schema.parse(message.decode());
    } catch {
      this.#count.unreadable++;
      return undefined;
    }
  }
}

/** As a cell of a table. A cell that a spreadsheet would take for a formula is made text. */
function cell(text: string): string {
  const safe = /^[=+@\t\r-]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
