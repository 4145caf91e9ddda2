/**
 * An episode in words: what `run` and `demo` print while it goes on, and its summary as a table. Owned by these two commands; it only writes text.
 */
import type { ChunkReport, CycleEvent } from '../control/events.js';
import type { PremotorError } from '../errors.js';
import { pairName } from '../policy/precision.js';
import type { Recovery } from '../policy/recovering.js';
import type { EpisodeObserver, EpisodeStart } from '../runtime/episode.js';
import type { EpisodeSummary, Latency } from '../runtime/summary.js';
import { FILM_FRAMES_MAX } from '../sim/film.js';
import { formatMs } from './context.js';
import type { ProgressBar } from './progress.js';

export interface NarratorOptions {
  readonly isolate: boolean;
  /** A policy server computes. */
  readonly isRemote?: boolean;
  readonly actionRateHz: number;
}

/** Prints an episode as it happens: above all states, chunk by chunk, with a progress bar in between. */
export class Narrator implements EpisodeObserver {
  readonly #bar: ProgressBar;
  readonly #options: NarratorOptions;
  #chunks = 0;

  constructor(bar: ProgressBar, options: NarratorOptions) {
    this.#bar = bar;
    this.#options = options;
  }

  ready({ rig, info, untrained }: EpisodeStart): void {
    this.#chunks = rig.chunksMax;
    for (const warning of info.warnings) this.#bar.line(`warning: ${warning}`);
    const about = [`${(info.parameters / 1e6).toFixed(2)} M parameters`, info.backend, pairName(info), `${info.threads} threads`];
    // Of a server that is no premotor nothing more is known.
    if (this.#options.isRemote) this.#bar.line(`Policy: ${info.parameters > 0 ? about.join(', ') : info.backend}`);
    else this.#bar.line(`Checkpoint: ${about.join(', ')}, ${this.#options.isolate ? 'own process' : 'in this process'}`);
    if (untrained) {
      this.#bar.line(
        'NOTE: this checkpoint is UNTRAINED. Its weights are random numbers, so the arm moves without aim, imagines noise and will not succeed.',
      );
      this.#bar.line(
        '      It shows that the whole loop runs: cameras, engine, action chunks, limits, memory. Name a trained one to see the task done.',
      );
    }
    this.#bar.line(`Motion: ${rig.path}`);
    this.#bar.line(`Task ${rig.task}: "${rig.instruction}", at most ${rig.chunksMax} chunks`);
  }

  cycle(event: CycleEvent): void {
    if (event.type === 'state') {
      const { from, to, reason } = event.transition;
      this.#bar.line(`state  ${from} -> ${to}: ${reason}`);
    }
    if (event.type === 'progress') {
      this.#bar.prefix(`chunk ${event.chunk + 1}/${this.#chunks}`);
      this.#bar.report(event.progress);
    }
    if (event.type === 'committed') this.#bar.line(this.#chunkLine(event.report));
    if (event.type === 'holding' && (event.why === 'stopped' || event.why === 'failed')) {
      this.#bar.line('The arm decelerates and holds its position.');
    }
  }

  decoding(isCut: boolean): void {
    this.#bar.prefix('film');
    this.#bar.line(isCut ? `Decoding the imagined video of the first ${FILM_FRAMES_MAX} latent frames` : 'Decoding the imagined video');
  }

  decoded = (progress: Parameters<EpisodeObserver['decoded']>[0]): void => this.#bar.report(progress);

  noAnimation(why: string): void {
    this.#bar.line(`No animation: ${why}`);
  }

  resumed(chunks: number, dir: string): void {
    this.#bar.line(`Resumed after ${chunks} chunks from ${dir}`);
  }

  recovery({ phase, elapsedMs, commits }: Recovery): void {
    const texts: Readonly<Record<Recovery['phase'], string>> = {
      died: 'The engine process died. The arm holds while another one is started.',
      restarted: `Another engine process is up after ${elapsedMs.toFixed(0)} ms; rebuilding ${commits} commits.`,
      rebuilt: `The episode goes on where it was, ${elapsedMs.toFixed(0)} ms after the death.`,
    };
    this.#bar.line(texts[phase]);
  }

  warning({ code, message }: PremotorError): void {
    this.#bar.line(`warning ${code}: ${message}`);
  }

  notice(text: string): void {
    this.#bar.line(text);
  }

  #chunkLine(report: ChunkReport): string {
    const { chunk, timing, predictMs, executeMs, commitMs, knots, clampedKnots, frameAgeMsMax } = report;
    const ms = (value: number): string => value.toFixed(0);
    const engine = `encode ${ms(timing.encodeMs)}, video ${ms(timing.videoMs)}, action ${ms(timing.actionMs)}`;
    const parts = [
      `predict ${ms(predictMs)} ms (${engine})`,
      `execute ${ms((1000 * knots) / this.#options.actionRateHz)} ms of motion in ${ms(executeMs)} ms`,
      `commit ${ms(commitMs)} ms`,
      `frames at most ${ms(frameAgeMsMax)} ms old`,
      `clamped ${clampedKnots}/${knots}`,
    ];
    return `chunk ${chunk + 1}/${this.#chunks}  ${parts.join('   ')}`;
  }
}

const verdicts: Readonly<Record<EpisodeSummary['verdict'], string>> = {
  succeeded: 'done',
  failed: 'failed: it cannot be done any more',
  open: 'not done',
};

/** The stream process of a robot on a bus keeps what its firmware counts. */
function firmwareRow({ setsFollowed, valuesClamped, framesIgnored }: EpisodeSummary['motion']): string {
  if (setsFollowed === null) return 'its counters are with the stream process';
  return `${setsFollowed} sets followed, ${valuesClamped} values clamped, ${framesIgnored} frames ignored`;
}

/** The summary as a table. */
export function summaryTable(summary: EpisodeSummary): string {
  const latency = (value: Latency | null): string =>
    value === null ? '-' : `p50 ${formatMs(value.p50)} ms, p99 ${formatMs(value.p99)} ms, longest ${formatMs(value.max)} ms`;
  const ms = (value: number | null): string => (value === null ? '-' : `${formatMs(value)} ms`);
  const { motion } = summary;
  const why = summary.error?.code ?? summary.stopReason;
  const rows: [string, string][] = [
    ['instruction', summary.instruction],
    ['checkpoint', summary.untrained ? 'untrained (random weights)' : summary.checkpoint],
    ['outcome', why === null ? summary.outcome : `${summary.outcome} (${why})`],
    ['task', summary.success === null ? summary.task : `${summary.task}, seed ${summary.seed}: ${verdicts[summary.verdict]}`],
    ['success', summary.success === null ? 'not judged' : summary.success ? 'yes' : 'no'],
    ['time to completion', summary.completionS === null ? '-' : `${summary.completionS.toFixed(2)} s of robot time`],
    ['robot time', `${summary.robotS.toFixed(2)} s`],
    ['chunks', `${summary.chunks.length} of at most ${summary.chunksMax}`],
    ['predict', latency(summary.latencyMs.predict)],
    ['execute (wall clock)', latency(summary.latencyMs.execute)],
    ['commit', latency(summary.latencyMs.commit)],
    ['oldest frame used', ms(summary.frameAgeMsMax)],
    ['largest camera skew', ms(summary.frameSkewMsMax)],
    ['setpoints at 1 kHz', `${motion.cycles}, missed ${motion.missed}; chunks taken ${motion.chunks}, refused ${motion.chunksRefused}`],
    ['firmware', firmwareRow(motion)],
    ['clamped setpoints', `${summary.clampedSetpoints} of ${summary.setpoints}`],
    ['animation', summary.animation ?? 'none'],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}
