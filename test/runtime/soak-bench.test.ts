/**
 * The parts of bench/soak.ts on samples of a clock of the test: that a leak, lost handles, an overrun disk and missed deadlines are found, that a
 * warm-up
 * is no leak, and that what is too short is called undecided; reading processes from a made-up /proc. Nothing here is timed.
 */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type Bounds, type Judged, judgeSoak, overall, pointsOf, type Sample, slopeOf } from '../../bench/soak-judge.js';
import { soakReport, soakSvg } from '../../bench/soak-report.js';
import { mibBelow, roleOf, sampleProcesses, temperatureC } from '../../bench/soak-sample.js';
import { Random } from '../../src/sim/random.js';

const BOUNDS: Bounds = { rssMiBPerH: 8, fdsPerH: 2, missedShare: 1e-4, diskMiB: { recordings: 64 } };
const FINE = { cycles: 3_600_000, missed: 5 };
const SEED = 9;

interface Shape {
  readonly hours: number;
  readonly rss?: (h: number) => number;
  readonly fds?: (h: number) => number;
  readonly disk?: (h: number) => number;
  /** Engine processes live so long; 0: one for all. */
  readonly lifeH?: number;
}

/** Every 10 s, with noise that hangs on as that of memory does. */
function samplesOf({ hours, rss = () => 200, fds = () => 40, disk = () => 20, lifeH = 0 }: Shape): readonly Sample[] {
  const random = new Random(SEED);
  let noise = 0;
  return Array.from({ length: Math.round(hours * 360) }, (_, index): Sample => {
    const h = index / 360;
    noise = 0.8 * noise + random.normal(1);
    const life = lifeH === 0 ? 0 : Math.floor(h / lifeH);
    const grown = lifeH === 0 ? 1 : Math.min(1, 0.5 + (h / lifeH - life));
    return {
      atS: 3600 * h,
      processes: [
        { role: 'supervisor', pid: 1, rssMiB: rss(h) + noise, peakMiB: rss(h), fds: Math.round(fds(h)), threads: 11 },
        { role: 'engine', pid: 2 + life, rssMiB: 300 * grown + noise, peakMiB: 300 * grown, fds: 20, threads: 3 },
      ],
      disk: { recordings: disk(h) },
      loopP99Ms: 2,
      loopMaxMs: 9,
      temperatureC: null,
    };
  });
}

const verdictOf = (judged: readonly Judged[], what: string): string | undefined => judged.find((one) => one.what === what)?.verdict;

t.test('what grows and what does not', async (t) => {
  t.comment(`seed ${SEED}`);
  const of = (shape: Shape, what: string): string | undefined => verdictOf(judgeSoak(samplesOf(shape), FINE, BOUNDS), what);
  t.equal(of({ hours: 1 }, 'memory of supervisor'), 'kept');
  t.equal(of({ hours: 1, rss: (h) => 200 + 20 * h }, 'memory of supervisor'), 'broken', 'a leak');
  t.equal(of({ hours: 24, rss: (h) => 200 + 9 * h }, 'memory of supervisor'), 'broken', 'a small one, in a day');
  t.equal(of({ hours: 24, rss: (h) => 200 + 6 * h }, 'memory of supervisor'), 'kept', 'as much as is allowed');
  t.equal(of({ hours: 2, rss: (h) => 200 + 80 * Math.min(1, 4 * h) }, 'memory of supervisor'), 'kept', 'a warm-up is none');
  t.equal(of({ hours: 0.05 }, 'memory of supervisor'), 'undecided', 'three minutes prove nothing');
  t.equal(of({ hours: 0.01 }, 'memory of supervisor'), 'undecided');
  t.equal(of({ hours: 1, fds: (h) => 40 + 30 * h }, 'handles of supervisor'), 'broken');
  t.equal(of({ hours: 1 }, 'handles of supervisor'), 'kept');
  t.equal(of({ hours: 2, lifeH: 0.05 }, 'memory of engine'), 'kept', 'processes that come and go have their peaks compared');
  t.equal(pointsOf(samplesOf({ hours: 2, lifeH: 0.05 }), 'engine', ({ rssMiB }) => rssMiB).length, 39);
  const uneven = samplesOf({ hours: 1, lifeH: 0.01 });
  const peaks = pointsOf(
    uneven,
    'engine',
    () => 0,
    ({ peakMiB }) => peakMiB,
  );
  t.ok(peaks.length > 50 && peaks.every(({ value }) => value > 100), 'by what the kernel keeps of each');
  const exact = slopeOf(Array.from({ length: 20 }, (_, index) => ({ atS: 60 * index, value: 5 + index })));
  t.match(exact && [exact.perH, exact.low, exact.high].map((value) => value.toFixed(6)), ['60.000000', '60.000000', '60.000000']);
  t.equal(slopeOf(Array.from({ length: 20 }, () => ({ atS: 1, value: 2 }))), undefined, 'all at one time');
});

t.test('deadlines and disks', async (t) => {
  const samples = samplesOf({ hours: 1 });
  const missed = (cycles: number, count: number): string | undefined =>
    verdictOf(judgeSoak(samples, { cycles, missed: count }, BOUNDS), 'control cycles missed');
  t.equal(missed(3_600_000, 5), 'kept');
  t.equal(missed(3_600_000, 4000), 'broken', 'more than one in ten thousand');
  t.equal(missed(3_600_000, 360), 'undecided', 'just about as many');
  t.equal(missed(1000, 0), 'undecided', 'a second proves nothing');
  t.equal(missed(0, 0), 'undecided');
  const full = judgeSoak(samplesOf({ hours: 1, disk: (h) => (h > 0.5 ? 64.5 : 60) }), FINE, BOUNDS);
  t.equal(verdictOf(full, 'disk: recordings'), 'broken');
  t.equal(overall(full), 'broken');
  t.equal(overall(judgeSoak(samples, FINE, BOUNDS)), 'kept');
  t.equal(overall(judgeSoak(samples, { cycles: 0, missed: 0 }, BOUNDS)), 'undecided');
});

t.test('the report and its plot', async (t) => {
  const samples = samplesOf({ hours: 1 });
  const svg = soakSvg(samples);
  t.match(svg, /^<svg [^>]+>.*supervisor.*engine.*<\/svg>\n$/s);
  t.notMatch(svg, /NaN|undefined/);
  t.notMatch(soakSvg([]), /NaN|Infinity/);
  const about = { date: '2026-11-30', commit: 'abc', machine: 'm', command: 'c', broker: 'mosquitto', load: 'l' };
  const episodes = { count: 3, succeeded: 2, outcomes: { reached: 3 }, warnings: {} };
  const report = soakReport(about, samples, judgeSoak(samples, FINE, BOUNDS), episodes, 'p.svg');
  t.match(report, /\*\*kept\*\*[\s\S]*memory of engine \| kept[\s\S]*3, of which 2[\s\S]*\(p\.svg\)/);
  t.notMatch(report, /NaN|undefined/);
});

t.test('processes of a made-up /proc', async (t) => {
  const proc = t.testdir();
  const add = (pid: number, parent: number, name: string, commandLine: string, fds: number): void => {
    const folder = join(proc, String(pid));
    mkdirSync(join(folder, 'fd'), { recursive: true });
    writeFileSync(join(folder, 'stat'), `${pid} (${name}) S ${parent} 1 1 0`);
    writeFileSync(join(folder, 'status'), `Name:\t${name}\nVmRSS:\t  2048 kB\nVmHWM:\t  4096 kB\nThreads:\t7\n`);
    writeFileSync(join(folder, 'cmdline'), commandLine.replaceAll(' ', '\0'));
    for (let fd = 0; fd < fds; fd++) symlinkSync('/dev/null', join(folder, 'fd', String(fd)));
  };
  add(10, 1, 'node', 'node soak-worker.ts', 3);
  add(11, 10, 'odd) R 99 (name', 'node engine-process.js', 2);
  add(12, 11, 'sh', 'premotor-stream --x', 0);
  add(13, 1, 'node', 'node engine-process.js', 1);
  add(14, 15, 'a', 'a', 1);
  add(15, 14, 'b', 'b', 1);
  t.same(
    sampleProcesses(10, proc).map(({ role, pid, rssMiB, peakMiB, fds, threads }) => [role, pid, rssMiB, peakMiB, fds, threads]),
    [
      ['supervisor', 10, 2, 4, 3, 7],
      ['engine', 11, 2, 4, 2, 7],
      ['stream', 12, 2, 4, 0, 7],
    ],
  );
  t.same(sampleProcesses(99, proc), [], 'gone');
  t.equal(roleOf('premotor-bridge', false), 'bridge');
  t.equal(roleOf('mosquitto', false), 'other');
  t.equal(mibBelow(join(proc, 'none')), 0);
  writeFileSync(join(proc, '10', 'megabyte'), Buffer.alloc(2 ** 20));
  t.ok(mibBelow(join(proc, '10')) >= 1);
  t.equal(temperatureC(join(proc, 'none')), null);
  mkdirSync(join(proc, 'thermal_zone0'));
  writeFileSync(join(proc, 'thermal_zone0', 'temp'), '41500\n');
  t.equal(temperatureC(proc), 41.5);
  const own = sampleProcesses(process.pid);
  t.ok((own[0]?.rssMiB ?? 0) > 10 && (own[0]?.fds ?? 0) > 0, 'and the real one can be read');
});
