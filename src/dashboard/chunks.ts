/**
 * When each chunk was computed and executed, on the robot's clock, and which came too late, from what the control cycle tells. In a synchronous
 * cycle the events say it outright. In the others a chunk's place in time is counted: from frames that were executed by a known moment, because its
 * first frame's number says where it stands; whether one came too late the stream knows. Owned by the dashboard for one run; bounded.
 */
import type { ChunkReport, CycleEvent, Observation } from '../control/events.js';
import type { ChunkText } from './messages.js';

/** Chunks that a page is shown. */
const CHUNKS_MAX = 48;
/** Moments of one latent frame. */
const MOMENTS_PER_FRAME = 4;
/** A plan that ran out did so at least one cycle of the stream before. */
const LATE_S_MIN = 0.001;

export interface ChunkLogOptions {
  readonly isSynchronous: boolean;
  /** Latent frames of a chunk, and how long one takes. */
  readonly frames: number;
  readonly frameS: number;
}

interface Entry {
  readonly chunk: number;
  frameIndex: number | undefined;
  computeFromS?: number;
  computeToS?: number;
  executeFromS?: number;
  /** In asynchronous modes the end that is planned, until it is known. */
  executeToS?: number;
  lateS: number;
  report?: ChunkReport;
}

export class ChunkLog {
  readonly #options: ChunkLogOptions;
  readonly #entries = new Map<number, Entry>();
  /** Latent frames up to here were executed at that time; undefined before anything moved. */
  #anchor: { readonly frame: number; readonly timeS: number } | undefined;
  #expired = 0;
  /** The first prediction begins with the episode; its passes may be heard of late. */
  #startedS: number | undefined;
  /** Changes with every change. */
  version = 0;

  constructor(options: ChunkLogOptions) {
    this.#options = options;
  }

  /** `expired`: plans that ran out without a successor so far, as the stream counts them; looked at when a chunk lands. */
  note(event: CycleEvent, timeS: number, expired: number): void {
    if (event.type === 'started') this.#startedS = timeS;
    else if (event.type === 'progress') this.#begin(this.#entry(event.chunk), timeS);
    else if (event.type === 'predicted') this.#land(event.chunk, event.frameIndex, timeS, expired);
    else if (event.type === 'executed') this.#executed(event, timeS);
    else if (event.type === 'committed') {
      this.#entry(event.chunk).report = event.report;
      this.version++;
    } else if (event.type === 'holding') this.#end(timeS);
  }

  #entry(chunk: number): Entry {
    let entry = this.#entries.get(chunk);
    if (!entry) {
      entry = { chunk, frameIndex: undefined, lateS: 0 };
      this.#entries.set(chunk, entry);
      for (const known of this.#entries.keys()) if (known <= chunk - CHUNKS_MAX) this.#entries.delete(known);
      this.version++;
    }
    return entry;
  }

  #begin(entry: Entry, timeS: number): void {
    if (entry.computeFromS !== undefined) return;
    entry.computeFromS = this.#entries.size === 1 ? (this.#startedS ?? timeS) : timeS;
    this.version++;
  }

  #land(chunk: number, frameIndex: number, timeS: number, expired: number): void {
    const entry = this.#entry(chunk);
    this.#begin(entry, timeS);
    this.version++;
    entry.frameIndex = frameIndex;
    entry.computeToS = timeS;
    entry.executeFromS = timeS;
    if (this.#options.isSynchronous) return;
    const before = this.#entries.get(chunk - 1);
    // Whether a plan ran out is the stream's to know: the first chunk may wait, so that the second lands in time.
    const isLate = before !== undefined && expired > this.#expired;
    this.#expired = expired;
    if (isLate) entry.lateS = Math.max(timeS - (before.executeToS ?? timeS), LATE_S_MIN);
    if (isLate || !this.#anchor) this.#anchor = { frame: firstOf(frameIndex), timeS };
    this.#place(entry, frameIndex, timeS);
    if (before?.executeToS !== undefined && !isLate) before.executeToS = entry.executeFromS;
  }

  /** A plan goes from where its first frame stands, or from its landing where that is later, to the end of its last. */
  #place(entry: Entry, frameIndex: number, landedS: number): void {
    entry.executeFromS = Math.max(landedS, this.#timeOf(firstOf(frameIndex)));
    entry.executeToS = Math.max(entry.executeFromS, this.#timeOf(frameIndex + this.#options.frames));
  }

  #timeOf(frame: number): number {
    const anchor = this.#anchor ?? { frame: 0, timeS: 0 };
    return anchor.timeS + (frame - anchor.frame) * this.#options.frameS;
  }

  #executed({ chunk, frameIndex, moments }: Extract<CycleEvent, { type: 'executed' }>, timeS: number): void {
    this.version++;
    const frame = firstOf(frameIndex) + Math.round(moments.length / MOMENTS_PER_FRAME);
    if (this.#options.isSynchronous) {
      this.#entry(chunk).executeToS = timeS;
      return;
    }
    // There the event names the chunk whose prediction begins with these frames.
    this.#entry(chunk).computeFromS = timeS;
    this.#correctFirst(firstOf(frameIndex), moments);
    const [before, running] = [this.#entries.get(chunk - 2), this.#entries.get(chunk - 1)];
    // With nothing left the arm waits already, and nobody knows since when but the plan.
    if (running?.frameIndex === undefined || running.computeToS === undefined || running.frameIndex + this.#options.frames <= frame) return;
    this.#anchor = { frame, timeS };
    this.#place(running, running.frameIndex, running.lateS > 0 ? (running.executeFromS ?? timeS) : running.computeToS);
    if (before && running.lateS === 0) before.executeToS = running.executeFromS ?? timeS;
  }

  /** The first chunk may have waited, so that the second lands in time. When its last frame really ended its last pictures say. */
  #correctFirst(from: number, moments: readonly Observation[]): void {
    const [first, second] = [this.#entries.get(0), this.#entries.get(1)];
    const last = this.#options.frames - 1;
    const newest = moments[(last - from + 1) * MOMENTS_PER_FRAME - 1];
    if (first?.frameIndex !== 0 || from > last || !newest || second?.executeFromS === undefined) return;
    const endS = newest.reduce((most, { capturedAtNs }) => Math.max(most, Number(capturedAtNs) / 1e9), 0);
    first.executeToS = Math.min(endS, second.executeFromS);
    first.executeFromS = Math.max(first.computeToS ?? 0, first.executeToS - last * this.#options.frameS);
    if (second.lateS > 0) second.lateS = Math.max(LATE_S_MIN, second.executeFromS - first.executeToS);
  }

  /** Whatever was planned beyond this moment will not be. */
  #end(timeS: number): void {
    this.version++;
    for (const entry of this.#entries.values()) {
      if (entry.computeFromS !== undefined && entry.computeToS === undefined) entry.computeToS = timeS;
      if (entry.executeFromS === undefined) continue;
      entry.executeFromS = Math.min(entry.executeFromS, timeS);
      entry.executeToS = Math.min(entry.executeToS ?? timeS, timeS);
    }
  }

  /** Oldest first. */
  get list(): readonly ChunkText[] {
    return [...this.#entries.values()].sort((a, b) => a.chunk - b.chunk).map(textOf);
  }
}

/** An episode's frame 0 is the first picture: no motion leads to it. */
function firstOf(frameIndex: number): number {
  return Math.max(1, frameIndex);
}

function textOf({ chunk, computeFromS, computeToS, executeFromS, executeToS, lateS, report }: Entry): ChunkText {
  const { predictMs, executeMs, commitMs, rung, clampedKnots, knots, delayKnots } = report ?? {};
  return {
    chunk,
    lateS,
    ...(computeFromS === undefined ? {} : { computeFromS }),
    ...(computeToS === undefined ? {} : { computeToS }),
    ...(executeFromS === undefined ? {} : { executeFromS }),
    ...(executeToS === undefined ? {} : { executeToS }),
    ...(predictMs === undefined ? {} : { predictMs }),
    ...(executeMs === undefined ? {} : { executeMs }),
    ...(commitMs === undefined ? {} : { commitMs }),
    ...(rung ? { rung: rung.index, fits: rung.fits } : {}),
    ...(clampedKnots === undefined ? {} : { clampedKnots }),
    ...(knots === undefined ? {} : { knots }),
    ...(delayKnots === undefined ? {} : { delayKnots }),
  };
}
