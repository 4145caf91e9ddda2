/** The progress bar on a terminal and on a pipe. */
import t from 'tap';
import { formatBytes, formatCount, formatMs, formatTable } from '../../src/cli/context.js';
import { ProgressBar } from '../../src/cli/progress.js';
import { TextSink } from './fakes.js';

t.test('a terminal gets one line that redraws itself', async (t) => {
  const sink = new TextSink(true);
  let now = 0;
  const bar = new ProgressBar(sink, { now: () => now });
  bar.prefix('chunk 1/2');
  bar.report({ stage: 'video', done: 0, total: 4 });
  t.equal(sink.text, `\r\u001b[Kchunk 1/2: denoising video [${'-'.repeat(24)}] 0/4 0.0 s`);
  sink.text = '';
  now = 10;
  bar.report({ stage: 'video', done: 1, total: 4 });
  t.equal(sink.text, '', 'not redrawn within 50 ms');
  now = 2000;
  bar.report({ stage: 'video', done: 2, total: 4 });
  t.match(sink.text, /\[#{12}-{12}\] 2\/4 2\.0 s, 2 s left$/);
  sink.text = '';
  now = 2001;
  bar.report({ stage: 'video', done: 4, total: 4 });
  t.match(sink.text, /\[#{24}\] 4\/4 2\.0 s$/, 'the end is always drawn');
  sink.text = '';
  bar.line('a remark');
  t.equal(sink.text, '\r\u001b[Ka remark\n');
  sink.text = '';
  bar.clear();
  t.equal(sink.text, '', 'nothing to clear any more');
  bar.prefix('x'.repeat(200));
  bar.report({ stage: 'action', done: 1, total: 1 });
  t.equal(sink.text.length, '\r\u001b[K'.length + 79, 'never as wide as the terminal');
});

t.test('a pipe gets plain lines at the end of a stage and every ten seconds', async (t) => {
  const sink = new TextSink(false);
  let now = 0;
  const bar = new ProgressBar(sink, { now: () => now });
  for (const done of [0, 1, 2, 3]) bar.report({ stage: 'action', done, total: 4 });
  t.equal(sink.text, '');
  now = 10_000;
  bar.report({ stage: 'action', done: 3, total: 4 });
  bar.report({ stage: 'action', done: 4, total: 4 });
  t.equal(sink.text, 'denoising actions 3/4 10.0 s\ndenoising actions 4/4 10.0 s\n');
  bar.clear();
  t.notOk(sink.text.includes('\u001b') || sink.text.includes('\r'));
});

t.test('numbers and tables', async (t) => {
  t.same([formatBytes(0), formatBytes(1023), formatBytes(1536), formatBytes(3.36 * 2 ** 30)], ['0 B', '1023 B', '1.50 KiB', '3.36 GiB']);
  t.same([formatCount(7), formatCount(5_089_465_566), formatCount(3.02e12)], ['7', '5.09 G', '3.02 T']);
  t.same([formatMs(0.123), formatMs(12.34), formatMs(1234.5)], ['0.12', '12.3', '1235']);
  t.equal(formatTable(['a', 'bb'], [['xyz', '1']]), 'a    bb\nxyz   1');
});
