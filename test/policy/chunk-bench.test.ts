/** bench/chunk.ts runs tiny, so that it cannot rot: every configuration has its row, equal ones have equal actions. No time is asserted. */
import t from 'tap';
import { benchChunk, chunkMarkdown } from '../../bench/chunk.js';

t.test('whole chunks, turn by turn', async (t) => {
  const bench = await benchChunk({
    checkpoint: 'models/tabletop',
    steps: [
      [1, 1],
      [1, 1],
      [1, 2],
    ],
    precisions: ['f32'],
    chunks: 2,
    threads: 1,
  });
  t.equal(bench.motionMs, 640);
  t.equal(bench.rows.length, 3);
  for (const { predictMs, commitMs, encodeMs, chunkMs } of bench.rows) {
    t.ok(predictMs.p50 > 0 && commitMs.p50 >= encodeMs.p50 && encodeMs.p50 > 0);
    t.ok(chunkMs.max >= chunkMs.p99 && chunkMs.p99 >= chunkMs.p50);
  }
  const [first, same, other] = bench.rows.map(({ hash }) => hash);
  t.equal(first, same);
  t.not(first, other);
  t.match(chunkMarkdown(bench), /\| f32 \| 1\/2 \| [\d.]+ \/ [\d.]+ \/ [\d.]+ \|/);
});
