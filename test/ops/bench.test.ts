/** bench/kernels.cpp runs tiny, so that it cannot rot: it fails when a product is off, and its tables keep their shape. No time is asserted. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const programs = process.env['PREMOTOR_NATIVE_TESTS'] ?? join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'build', 'tests', 'bin');
const program = join(programs, 'kernels');

interface Row {
  readonly kernel: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly p50_ms: number;
  readonly peak_GFLOPs: number;
  readonly roofline_share: number;
  readonly hash: string;
}

function run(...options: string[]): ReturnType<typeof spawnSync> & { stdout: string } {
  if (!existsSync(program)) throw new Error(`bench/kernels.cpp is not built: expected ${program}; run npm test, which builds it`);
  return spawnSync(program, ['--tiny', ...options], { encoding: 'utf8' });
}

t.test('the bench of the matrix products, as JSON', (t) => {
  const { status, stdout, stderr } = run('--json');
  t.equal(status, 0, String(stderr));
  const found: { ceilings: Record<string, number>; weights: string; rows: Row[] } = JSON.parse(stdout);
  t.equal(found.weights, 'warm');
  t.ok((found.ceilings['read_GBps'] ?? 0) > 0, 'bandwidth is measured');
  t.ok((found.ceilings['f32_GFLOPs'] ?? 0) > 0, 'arithmetic is measured');
  const products = ['row-major f32', 'row-major bf16', 'packed f32', 'packed bf16', 'packed bf16_dot', 'packed int8', 'packed int4'];
  const attentions = ['attention f32', 'attention bf16', 'attention int8'];
  t.same([...new Set(found.rows.map(({ kernel }) => kernel))], [...products, ...attentions]);
  t.equal(
    found.rows.length,
    products.length * 4 + attentions.length * 2,
    'products of two shapes, one and nine rows; attention of 32 and 240 queries',
  );
  t.ok(
    found.rows.every((row) => row.p50_ms > 0 && row.peak_GFLOPs > 0 && row.roofline_share > 0 && /^[0-9a-f]{8}$/.test(row.hash)),
    'every row is whole',
  );
  t.end();
});

t.test('the bench of the matrix products, as Markdown', (t) => {
  const { status, stdout, stderr } = run('--threads', '1', '--only', 'packed int8 m 9');
  t.equal(status, 0, String(stderr));
  t.match(stdout, /\| read, GB\/s \| [\d.]+ \| [\d.]+ \|/);
  t.equal(stdout.match(/^\| packed int8 \| 9 \|/gm)?.length, 2, 'only the cases that were asked for');
  t.notMatch(stdout, /row-major/);
  t.end();
});

t.test('options that the bench does not know', (t) => {
  t.equal(run('--threads', '0').status, 2);
  t.equal(run('--fast').status, 2);
  t.end();
});
