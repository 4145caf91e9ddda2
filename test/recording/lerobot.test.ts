/** LeRobot datasets: what is written is read back by independent decoders, and by premotor's own reader; every file of the format is checked. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parquetMetadata, parquetReadObjects } from 'hyparquet';
import sharp from 'sharp';
import t from 'tap';
import type { Picture } from '../../src/recording/animation.js';
import { type DatasetEpisode, type DatasetRow, episodePath, LeRobotWriter } from '../../src/recording/lerobot.js';
import { LeRobotDataset } from '../../src/recording/lerobot-reader.js';

const FPS = 25;
const CAMERAS = [
  { key: 'observation.images.a', width: 6, height: 4 },
  { key: 'observation.images.b', width: 3, height: 5 },
];
const JOINTS = ['one', 'two', 'three'];

function picture(width: number, height: number, shift: number): Picture {
  return { width, height, data: Uint8Array.from({ length: width * height * 3 }, (_, at) => (at * 37 + shift * 11) % 251) };
}

const row = (episode: number, index: number): DatasetRow => ({
  pictures: CAMERAS.map(({ width, height }, camera) => picture(width, height, 100 * episode + 10 * camera + index)),
  state: Float64Array.of(index / 3, -episode, Math.sin(index)),
  action: [index / 7, 0.1, episode],
});
const episode = (number: number, task: string, rows: number): DatasetEpisode => ({
  task,
  rows: Array.from({ length: rows }, (_, index) => row(number, index)),
  extra: { seed: 40 + number },
});
/** The third repeats the first one's instruction. */
const EPISODES = [episode(0, 'press it', 5), episode(1, 'push it', 3), episode(2, 'press it', 4)];

async function write(dir: string, force = false): Promise<LeRobotWriter> {
  const writer = await LeRobotWriter.create({ dir, robotType: 'test-arm', fps: FPS, cameras: CAMERAS, joints: JOINTS }, force);
  for (const one of EPISODES) await writer.add(one);
  await writer.finish();
  return writer;
}

const json = (dir: string, name: string): Record<string, unknown> => JSON.parse(readFileSync(join(dir, name), 'utf8'));
const jsonLines = (dir: string, name: string): Record<string, unknown>[] => {
  const text = readFileSync(join(dir, name), 'utf8');
  if (text !== '' && !text.endsWith('\n')) throw new Error('the last line has no end');
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));
};
const bytesOf = (dir: string, index: number): ArrayBuffer => new Uint8Array(readFileSync(join(dir, episodePath(index)))).buffer;

t.test('pictures come back bit for bit, numbers as float32, counters as they should run', async (t) => {
  const dir = join(t.testdir(), 'set');
  const writer = await write(dir);
  t.same([writer.episodes, writer.rows], [3, 12]);
  let index = 0n;
  for (const [number, { rows }] of EPISODES.entries()) {
    const table = await parquetReadObjects({ file: bytesOf(dir, number), utf8: false });
    t.equal(table.length, rows.length);
    for (const [at, read] of table.entries()) {
      const written = rows[at] as DatasetRow;
      for (const [camera, { key, width, height }] of CAMERAS.entries()) {
        const { data, info } = await sharp(read[key].bytes).raw().toBuffer({ resolveWithObject: true });
        t.same([info.width, info.height, info.channels], [width, height, 3]);
        t.equal(Buffer.compare(data, written.pictures[camera]?.data ?? Buffer.alloc(0)), 0);
        t.equal(read[key].path, `frame_00000${at}.png`);
      }
      t.same(read['observation.state'], Array.from(written.state, Math.fround));
      t.same(read['action'], Array.from(written.action, Math.fround));
      t.equal(read['timestamp'], Math.fround(at / FPS));
      t.same([read['frame_index'], read['episode_index'], read['index']], [BigInt(at), BigInt(number), index++]);
      t.equal(read['task_index'], [0n, 1n, 0n][number], 'equal instructions share a task');
    }
  }
});

t.test('column types, and the metadata by which pictures are recognised', async (t) => {
  const dir = join(t.testdir(), 'set');
  await write(dir);
  const { schema, key_value_metadata } = parquetMetadata(bytesOf(dir, 0));
  const leaves = schema.filter(({ type }) => type !== undefined).map(({ name, type }) => `${name} ${type}`);
  t.same(leaves, [
    ...CAMERAS.flatMap(() => ['bytes BYTE_ARRAY', 'path BYTE_ARRAY']),
    ...['element FLOAT', 'element FLOAT', 'timestamp FLOAT'],
    ...['frame_index', 'episode_index', 'index', 'task_index'].map((name) => `${name} INT64`),
  ]);
  const entry = key_value_metadata?.find(({ key }) => key === 'huggingface');
  const { info } = JSON.parse(entry?.value ?? '{}');
  const top = schema.filter((_, at) => at > 0).map(({ name }) => name);
  const features = Object.keys(info.features);
  t.same(
    features,
    top.filter((name) => features.includes(name)),
    'every column, in order',
  );
  t.same(info.features['observation.images.a'], { _type: 'Image' });
  t.same(info.features.action, { feature: { dtype: 'float32', _type: 'Value' }, length: 3, _type: 'Sequence' });
  t.same(info.features.index, { dtype: 'int64', _type: 'Value' });
});

t.test('info, tasks and episodes', async (t) => {
  const dir = join(t.testdir(), 'set');
  await write(dir);
  const counter = { dtype: 'int64', shape: [1], names: null };
  const image = (height: number, width: number) => ({ dtype: 'image', shape: [height, width, 3], names: ['height', 'width', 'channel'] });
  t.same(json(dir, 'meta/info.json'), {
    codebase_version: 'v2.1',
    robot_type: 'test-arm',
    total_episodes: 3,
    total_frames: 12,
    total_tasks: 2,
    total_videos: 0,
    total_chunks: 1,
    chunks_size: 1000,
    fps: FPS,
    splits: { train: '0:3' },
    data_path: 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
    video_path: null,
    features: {
      'observation.images.a': image(4, 6),
      'observation.images.b': image(5, 3),
      'observation.state': { dtype: 'float32', shape: [3], names: JOINTS },
      action: { dtype: 'float32', shape: [3], names: JOINTS },
      timestamp: { dtype: 'float32', shape: [1], names: null },
      frame_index: counter,
      episode_index: counter,
      index: counter,
      task_index: counter,
    },
  });
  t.same(jsonLines(dir, 'meta/tasks.jsonl'), [
    { task_index: 0, task: 'press it' },
    { task_index: 1, task: 'push it' },
  ]);
  t.same(
    jsonLines(dir, 'meta/episodes.jsonl'),
    EPISODES.map(({ task, rows }, index) => ({ episode_index: index, tasks: [task], length: rows.length, seed: 40 + index })),
  );
  t.same(readdirSync(join(dir, 'meta')).sort(), ['episodes.jsonl', 'episodes_stats.jsonl', 'info.json', 'tasks.jsonl'], 'no unfinished file stays');
});

/** Minimum, maximum, mean and deviation by another formula than the writer's. */
function measure(values: readonly number[]): { min: number; max: number; mean: number; std: number } {
  const sorted = [...values].sort((a, b) => a - b);
  const mean = sorted.reduce((sum, value) => sum + value / sorted.length, 0);
  const square = sorted.reduce((sum, value) => sum + (value * value) / sorted.length, 0);
  return { min: sorted[0] ?? 0, max: sorted.at(-1) ?? 0, mean, std: Math.sqrt(Math.max(0, square - mean * mean)) };
}

t.test('statistics of every column, against an independent computation on the file', async (t) => {
  const dir = join(t.testdir(), 'set');
  await write(dir);
  for (const [number, line] of jsonLines(dir, 'meta/episodes_stats.jsonl').entries()) {
    const { episode_index, stats } = line as { episode_index: number; stats: Record<string, Record<string, unknown>> };
    t.equal(episode_index, number);
    const table = await parquetReadObjects({ file: bytesOf(dir, number), utf8: false });
    t.same(Object.keys(stats), Object.keys(table[0] ?? {}), 'of every column');
    for (const [name, found] of Object.entries(stats)) {
      const { count, ...measures } = found;
      t.same(count, [table.length]);
      const isImage = CAMERAS.some(({ key }) => key === name);
      const rows: number[][] = [];
      for (const read of table) {
        if (isImage) {
          const data = [...(await sharp(read[name].bytes).raw().toBuffer())];
          for (let at = 0; at < data.length; at += 3) rows.push(data.slice(at, at + 3).map((value) => value / 255));
        } else rows.push(Array.isArray(read[name]) ? read[name] : [Number(read[name])]);
      }
      for (const [key, values] of Object.entries(measures)) {
        const flat = (values as unknown[]).flat(2) as number[];
        if (isImage) t.same(values, [[[flat[0]]], [[flat[1]]], [[flat[2]]]], 'shaped [3, 1, 1]');
        t.equal(flat.length, isImage ? 3 : rows[0]?.length);
        for (const [column, value] of flat.entries()) {
          const expected = measure(rows.map((values) => values[column] ?? Number.NaN))[key as 'min'];
          if (!(Math.abs(value - expected) < 1e-6)) t.fail(`${name} ${key}[${column}]: ${value}, expected ${expected}`);
        }
      }
    }
  }
});

t.test('a thousand episodes per folder', async (t) => {
  t.equal(episodePath(0), 'data/chunk-000/episode_000000.parquet');
  t.equal(episodePath(999), 'data/chunk-000/episode_000999.parquet');
  t.equal(episodePath(1000), 'data/chunk-001/episode_001000.parquet');
  t.equal(episodePath(1_234_567), 'data/chunk-1234/episode_1234567.parquet');
});

t.test('a folder with anything in it is refused; --force replaces a dataset and nothing else', async (t) => {
  const dir = t.testdir({ 'notes.txt': 'mine', full: 'a file' });
  await t.rejects(write(dir), { code: 'OUT_NOT_EMPTY', file: dir, found: 'files' });
  await t.rejects(write(join(dir, 'full'), true), { code: 'OUT_NOT_EMPTY', found: 'a file' });
  await write(dir, true);
  mkdirSync(join(dir, 'data/chunk-007'));
  writeFileSync(join(dir, 'data/chunk-007/episode_007000.parquet'), 'of an earlier, longer run');
  await t.rejects(write(dir), { code: 'OUT_NOT_EMPTY' });
  await write(dir, true);
  t.notOk(existsSync(join(dir, 'data/chunk-007')));
  t.equal(readFileSync(join(dir, 'notes.txt'), 'utf8'), 'mine');
});

t.test('an error of the disk reaches the next call', async (t) => {
  const dir = t.testdir({ data: 'a file where a folder should be' });
  // create() would remove the file with --force, so it comes afterwards.
  rmSync(join(dir, 'data'));
  const writer = await LeRobotWriter.create({ dir, robotType: 'x', fps: FPS, cameras: CAMERAS, joints: JOINTS });
  writeFileSync(join(dir, 'data'), 'a file where a folder should be');
  await writer.add(EPISODES[0] as DatasetEpisode);
  await t.rejects(writer.finish(), { code: 'FILE_WRITE', file: join(dir, episodePath(0)) });
  t.notOk(existsSync(join(dir, 'meta')), 'no meta folder: not a dataset');
  const short = await LeRobotWriter.create({ dir: join(dir, 'b'), robotType: 'x', fps: FPS, cameras: CAMERAS, joints: JOINTS });
  await short.add({ task: 'x', rows: [{ ...row(0, 0), pictures: [] }] });
  await t.rejects(short.add(EPISODES[0] as DatasetEpisode), { code: 'PICTURE_INVALID' });
});

t.test('a dataset may be finished more than once, and with nothing in it', async (t) => {
  const dir = join(t.testdir(), 'set');
  const writer = await LeRobotWriter.create({ dir, robotType: 'x', fps: FPS, cameras: CAMERAS, joints: JOINTS });
  await writer.finish();
  t.same([json(dir, 'meta/info.json')['total_episodes'], jsonLines(dir, 'meta/tasks.jsonl')], [0, []]);
  await writer.add(EPISODES[0] as DatasetEpisode);
  await writer.finish();
  t.same([json(dir, 'meta/info.json')['total_episodes'], jsonLines(dir, 'meta/tasks.jsonl').length], [1, 1]);
});

t.test("premotor's own reader gives back what was written", async (t) => {
  const dir = join(t.testdir(), 'set');
  await write(dir);
  const dataset = await LeRobotDataset.open(dir);
  t.same([dataset.episodes, dataset.fps, dataset.cameras], [3, FPS, CAMERAS.map(({ key }) => key)]);
  for (const [number, { task, rows }] of EPISODES.entries()) {
    const reports: number[][] = [];
    const read = await dataset.episode(number, (done, total) => reports.push([done, total]));
    t.equal(read.instruction, task);
    t.same(reports.at(-1), [rows.length, rows.length]);
    for (const [at, { timeS, pictures, state, action }] of read.rows.entries()) {
      t.same(
        [timeS, state, action],
        [Math.fround(at / FPS), Array.from(rows[at]?.state ?? [], Math.fround), Array.from(rows[at]?.action ?? [], Math.fround)],
      );
      for (const [camera, { data }] of pictures.entries()) t.equal(Buffer.compare(data, rows[at]?.pictures[camera]?.data ?? Buffer.alloc(0)), 0);
    }
  }
});

t.test('the reader says what it expected and what it found', async (t) => {
  const dir = join(t.testdir(), 'set');
  await t.rejects(LeRobotDataset.open(dir), { code: 'DATASET_MISSING', file: join(dir, 'meta/info.json'), expected: /v2\.1/, found: /no such file/ });
  await write(dir);
  const dataset = await LeRobotDataset.open(dir);
  for (const index of [3, -1, 0.5])
    await t.rejects(dataset.episode(index), { code: 'EPISODE_MISSING', expected: 'an episode of 0 .. 2', found: String(index) });
  const file = join(dir, 'meta/info.json');
  const info = json(dir, 'meta/info.json');
  const cases: [unknown, RegExp, RegExp][] = [
    [{ ...info, codebase_version: 'v3.0' }, /v2\.1/, /v3\.0/],
    [{ ...info, fps: 'fast' }, /LeRobot/, /fps/],
    [{ ...info, features: { 'observation.images.a': { dtype: 'video' } } }, /dtype image/, /video/],
  ];
  for (const [content, expected, found] of cases) {
    writeFileSync(file, JSON.stringify(content));
    await t.rejects(LeRobotDataset.open(dir), { code: 'DATASET_INVALID', file, expected, found });
  }
  writeFileSync(file, '{');
  await t.rejects(LeRobotDataset.open(dir), { code: 'DATASET_INVALID', expected: 'JSON' });
  writeFileSync(join(dir, episodePath(1)), 'no Parquet');
  await t.rejects(dataset.episode(1), { code: 'DATASET_INVALID', file: join(dir, episodePath(1)), expected: /Parquet/ });
  rmSync(join(dir, episodePath(1)));
  await t.rejects(dataset.episode(1), { code: 'DATASET_MISSING' });
  writeFileSync(join(dir, 'meta/episodes.jsonl'), '{"episode_index": 0, "tasks": ["x"]}\n');
  await t.rejects(dataset.episode(2), { code: 'DATASET_INVALID', expected: /episode 2/ });
});
