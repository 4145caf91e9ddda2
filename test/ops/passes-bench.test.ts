/**
 * bench/passes.cpp runs tiny, so that it cannot rot: it fails when a precision is off, its tables keep their shape, its counts are those of a
 * calculation by hand, and what it serves is what it measured. No time is asserted.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const programs = process.env['PREMOTOR_NATIVE_TESTS'] ?? join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'build', 'tests', 'bin');
const program = join(programs, 'passes');
const folder = mkdtempSync(join(tmpdir(), 'premotor-passes-'));
t.teardown(() => rmSync(folder, { recursive: true }));

interface Row {
  readonly size: string;
  readonly precision: string;
  readonly pass: string;
  readonly p50_ms: number;
  readonly linear_GFLOP: number;
  readonly attention_GFLOP: number;
  readonly weight_MB: number;
  readonly cache_MB: number;
  readonly roofline_ms: number;
  readonly error: number;
  readonly hash: string;
}

function run(input: string, ...options: string[]): ReturnType<typeof spawnSync> & { stdout: string } {
  if (!existsSync(program)) throw new Error(`bench/passes.cpp is not built: expected ${program}; run npm test, which builds it`);
  return spawnSync(program, ['--cache', folder, ...options], { encoding: 'utf8', input });
}

function rowsOf(...options: string[]): Row[] {
  const { status, stdout, stderr } = run('', '--tiny', '--json', ...options);
  if (status !== 0) throw new Error(`ended with ${status}: ${stderr}`);
  return JSON.parse(stdout).rows;
}

const { precisions }: { precisions: string[] } = JSON.parse(run('', '--list').stdout);
const PASSES = ['video, 1 row', 'video, 2 rows', 'action, 1 row', 'commit', 'chunk 5V/10A', 'chunk 2V/4A'];

t.test('every precision and pass, as JSON', (t) => {
  const rows = rowsOf();
  t.same(
    rows.map(({ precision, pass }) => `${precision} ${pass}`),
    precisions.flatMap((precision) => PASSES.map((pass) => `${precision} ${pass}`)),
  );
  t.ok(
    rows.every((row) => row.p50_ms > 0 && row.roofline_ms > 0 && row.error > 0 && /^[0-9a-f]{8}$/.test(row.hash)),
    'every row is whole',
  );
  t.ok(Math.max(...rows.filter(({ precision }) => precision === 'f32').map(({ error }) => error)) < 1e-5, 'float32 is float32');
  const results = (list: readonly Row[]): string[] => list.map(({ precision, pass, hash }) => `${precision} ${pass} ${hash}`);
  t.same(results(rowsOf('--threads', '1')), results(rows), 'results do not depend on the number of threads');
  t.end();
});

t.test('work counted by hand', (t) => {
  // micro: 2 layers, width 48, ffn 96, 8 channels in patches of 4, 30 action channels; 12 video and 8 action tokens, 90 slots of which 70 hold
  // history; 5 words and the padding's one row.
  const [layers, width, ffn, video, action, history, text] = [2, 48, 96, 12, 8, 70, 6];
  const block = 6 * width ** 2 + 2 * width * ffn;
  const rows = new Map(rowsOf('--precision', 'f32').map((row) => [row.pass, row]));
  const near = (found: number | undefined, wanted: number, what: string): void => {
    t.ok(Math.abs((found ?? 0) / wanted - 1) < 1e-4, `${what}: ${found}, by hand ${wanted}`);
  };
  const one = rows.get('video, 1 row');
  near(one?.linear_GFLOP, (2 * video * (layers * block + 2 * 32 * width)) / 1e9, 'linear layers of a video pass');
  near(one?.attention_GFLOP, (4 * width * video * layers * (history + video + text)) / 1e9, 'attention of a video pass');
  near(one?.weight_MB, (4 * (layers * block + 2 * 32 * width)) / 1e6, 'weights of a video pass');
  near(one?.cache_MB, (8 * width * layers * (history + video + text)) / 1e6, 'entries of a video pass');
  // A commit ends behind the last layer's keys and values, reads weights once, and its actions see its video.
  const both = rows.get('commit');
  const rest = (layers - 1) * block + 2 * width ** 2;
  near(both?.linear_GFLOP, (2 * (2 * (video + action) * rest + (video * 32 + action * 30) * width)) / 1e9, 'linear layers of a commit');
  near(both?.weight_MB, (4 * (rest + (32 + 30) * width)) / 1e6, 'weights of a commit');
  // 2 heads, each with a scale of four bytes beside its values, for keys and for values.
  const held = new Map(rowsOf('--precision', 'int8,int8+kv8', '--only', 'video, 1 row').map((row) => [row.precision, row.cache_MB]));
  const entries = layers * (history + video + text);
  near(held.get('int8'), (2 * 2 * width * entries) / 1e6, 'entries in bf16');
  near(held.get('int8+kv8'), (2 * (width + 2 * 4) * entries) / 1e6, 'entries in int8');
  const seen = video * (history + video + text) + action * (history + video + action + text);
  near(both?.attention_GFLOP, (4 * width * 2 * (layers - 1) * seen) / 1e9, 'attention of a commit');
  t.end();
});

t.test('as Markdown, and only what was asked for', (t) => {
  const { status, stdout } = run('', '--tiny', '--only', 'f32 chunk');
  t.equal(status, 0);
  t.match(stdout, /\| read, GB\/s \| [\d.]+ \|/);
  t.equal(stdout.match(/^\| micro \| f32 \| chunk \d/gm)?.length, 2);
  t.notMatch(stdout, /\| video/);
  t.end();
});

t.test('passes on request, with their results and the inputs for other programs', (t) => {
  const file = join(folder, 'result');
  const { status, stdout } = run(`video 2 ${file}\naction 1\ncommit\nchunk 2 4\n`, '--serve', 'micro', 'f32');
  t.equal(status, 0);
  const lines = stdout.trim().split('\n');
  t.equal(lines.length, 5, 'one that it is ready, and one for each request');
  t.ok(lines.slice(1).every((line) => JSON.parse(line).ms > 0));
  t.equal(readFileSync(file).byteLength, 2 * 12 * 32 * 4, '[rows, tokens, features] in float32');
  t.ok(existsSync(join(folder, 'micro-1', 'inputs.safetensors')));
  t.equal(run('video 3\n', '--serve', 'micro', 'f32').status, 2, 'more rows than the cache has');
  t.equal(run('imagine\n', '--serve', 'micro', 'f32').status, 2);
  t.end();
});

t.test('options that the bench does not know', (t) => {
  t.equal(run('', '--threads', '0').status, 2);
  t.equal(run('', '--fast').status, 2);
  t.equal(run('', '--sizes', 'huge').status, 2);
  t.end();
});
