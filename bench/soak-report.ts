/**
 * A soak's report: verdicts, what was measured on which machine, and a plot of memory over time. Text from values; owned by bench/soak.ts.
 */
import type { Judged, Sample } from './soak-judge.js';
import { overall, rolesOf } from './soak-judge.js';

export interface SoakAbout {
  readonly date: string;
  readonly commit: string;
  readonly machine: string;
  readonly command: string;
  readonly broker: string;
  readonly load: string;
}

export interface Episodes {
  readonly count: number;
  readonly succeeded: number;
  readonly outcomes: Readonly<Record<string, number>>;
  readonly warnings: Readonly<Record<string, number>>;
}

const COLOURS = ['#1f5fa8', '#b5521b', '#2f7d4f', '#7a4aa0', '#8a6d1a'];
const WIDTH = 800;
const HEIGHT = 320;
const LEFT = 70;
const RIGHT = 20;
const TOP = 40;
const BOTTOM = 40;
const POINTS_MAX = 1000;

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** Memory of each role over time. */
export function soakSvg(samples: readonly Sample[]): string {
  const roles = rolesOf(samples);
  const endS = Math.max(1, ...samples.map(({ atS }) => atS));
  const most = Math.max(1, ...samples.flatMap(({ processes }) => processes.map(({ rssMiB }) => rssMiB)));
  const x = (atS: number): number => LEFT + ((WIDTH - LEFT - RIGHT) * atS) / endS;
  const y = (mib: number): number => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * mib) / most;
  const text = (at: number, to: number, words: string, anchor = 'middle'): string =>
    `<text x="${at.toFixed(1)}" y="${to.toFixed(1)}" font-size="12" text-anchor="${anchor}">${escaped(words)}</text>`;
  const shapes = [0, 0.5, 1].flatMap((share) => [
    `<line x1="${LEFT}" y1="${y(share * most).toFixed(1)}" x2="${WIDTH - RIGHT}" y2="${y(share * most).toFixed(1)}" stroke="#c0c0c0"/>`,
    text(LEFT - 6, y(share * most) + 4, `${(share * most).toFixed(0)} MiB`, 'end'),
    text(x(share * endS), HEIGHT - BOTTOM + 18, `${((share * endS) / 60).toFixed(0)} min`),
  ]);
  const stride = Math.max(1, Math.ceil(samples.length / POINTS_MAX));
  roles.forEach((role, index) => {
    const colour = COLOURS[index % COLOURS.length];
    const dots = samples.flatMap(({ atS, processes }, at) =>
      at % stride === 0 ? processes.filter((one) => one.role === role).map(({ rssMiB }) => `M${x(atS).toFixed(1)} ${y(rssMiB).toFixed(1)}h.01`) : [],
    );
    shapes.push(`<path d="${dots.join('')}" stroke="${colour}" stroke-width="3" stroke-linecap="round" fill="none"/>`);
    shapes.push(`<rect x="${LEFT + index * 130}" y="12" width="12" height="12" fill="${colour}"/>`, text(LEFT + 18 + index * 130, 22, role, 'start'));
  });
  const size = `width="${WIDTH}" height="${HEIGHT}"`;
  const inside = `<title>Memory of each process over time</title><rect ${size} fill="#ffffff"/>${shapes.join('')}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif">${inside}</svg>\n`;
}

const counted = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ') || 'none';

function most(samples: readonly Sample[], pick: (sample: Sample) => number | null, unit: string): string {
  const found = samples.flatMap((sample) => pick(sample) ?? []);
  return found.length === 0 ? 'not known' : `${Math.max(...found).toFixed(1)} ${unit}`;
}

export function soakReport(about: SoakAbout, samples: readonly Sample[], judged: readonly Judged[], episodes: Episodes, plot: string): string {
  const minutes = ((samples.at(-1)?.atS ?? 0) / 60).toFixed(1);
  const rows = judged.map(({ what, verdict, found, bound }) => `| ${what} | ${verdict} | ${found} | ${bound} |`);
  return `# Soak, ${about.date}

${minutes} minutes, ${samples.length} samples: **${overall(judged)}**.
Commit ${about.commit}; ${about.machine}; ${about.load}; broker: ${about.broker}.

\`${about.command}\`

| | verdict | found (95 % interval) | bound |
|---|---|---|---|
${rows.join('\n')}

A verdict is *undecided* where the interval holds both: the run was too short, or too noisy.

- Episodes: ${episodes.count}, of which ${episodes.succeeded} did their task (${counted(episodes.outcomes)}). Warnings: ${counted(episodes.warnings)}.
- Event loop of the supervisor, lateness: p99 of five seconds at most ${most(samples, ({ loopP99Ms }) => loopP99Ms, 'ms')},
  largest ${most(samples, ({ loopMaxMs }) => loopMaxMs, 'ms')}. Not judged.
- Temperature: ${most(samples, ({ temperatureC }) => temperatureC, 'degC')} at most. Not judged.

![memory over time](${plot})
`;
}
