/**
 * The order of every asynchronous mode: the next chunk is computed while the plan is executed. Actions are numbered through the episode; the pipeline
 * decides at every latent frame whether to think, gives the policy what was seen and executed, and has the timeline place the chunk when it lands. A
 * chunk that is late finds the arm decelerating or holding, and goes on from there. What distinguishes the modes is a Strategy.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { checkMotion, wayOf } from '../../cameras/health.js';
import { PremotorError } from '../../errors.js';
import type { Chunk, PredictNextOptions, Tensor } from '../../policy/contract.js';
import { framesOf, splitFrames } from '../../policy/tensor.js';
import type { Choice, Think } from '../budget/types.js';
import { joinActions, sliceActions } from '../channels.js';
import type { Observation, Outcome } from '../events.js';
import type { ExecutedAction } from '../ledger.js';
import type { EpisodeRun } from '../run.js';
import { Thinking } from '../thinking.js';
import { Timeline } from '../timeline.js';
import { notExecuted } from './sync.js';
import { isTimeToFollow } from './timing.js';

/** What a strategy knows when a prediction begins. */
export interface Situation {
  /** The rest of the plan as the policy's channels, [channels, E, H]; empty for strategies that overlap. */
  readonly executing: Float32Array;
  /** The same frames as the policy foresaw them, [1, C, E, h, w]; undefined when E is 0. */
  readonly forecast: () => Tensor | undefined;
  /** Every action that is planned and not executed, [channels, n]. */
  readonly ahead: () => Float32Array;
  /** Actions that will be executed while the policy thinks, as far as is known. */
  readonly delayActions: number;
  /** Actions of a chunk, K H. */
  readonly chunkActions: number;
  readonly channels: number;
}

export interface Strategy {
  /** Predicts from the present and replaces what is ahead, instead of going on from the end of the plan. */
  readonly overlaps: boolean;
  /** The frames of the executing actions are imagined. */
  readonly imagines: boolean;
  ask(situation: Situation): Pick<PredictNextOptions, 'executing' | 'forecast' | 'inpaint'>;
  /** What of a landed chunk [channels, n] is executed; `first`: number of its first action. Default: as it is. */
  place?(first: number, actions: Float32Array, channels: number): Float32Array;
}

/** On the robot's own clock: how often a robot that has nothing to do is looked after. */
const IDLE_POLL_NS = 20_000_000n;

/** A prediction under way, and what it began with. */
interface Flight {
  readonly thinking: Thinking;
  readonly think: Think;
  readonly choice: Choice | undefined;
  readonly commitFrames: number;
  /** Actions that had been executed when it began. */
  readonly done: number;
  readonly forecast: Tensor | undefined;
}

export class Pipeline {
  readonly #run: EpisodeRun;
  readonly #strategy: Strategy;
  readonly #timeline: Timeline;
  readonly #frames: number;
  readonly #perFrame: number;
  readonly #channels: number;
  /** Latent frame of action 0: an episode's frame 0 is the observation itself. */
  readonly #origin: number;
  /** Moments of executed frames that the policy does not remember yet. */
  #seen: Observation[][] = [];
  /** Latent frames that the policy remembers. */
  #committed: number;
  /** Group 0 of the first chunk, [channels, H]: committed as it came. */
  #padding: Float32Array | undefined;
  /** Actions of whole frames that were executed and seen. */
  #at = 0;
  #flight: Flight | undefined;
  #landed: number;
  /** Frames as the newest prediction foresaw them, [C, plane] each. */
  readonly #foreseen = new Map<number, Float32Array>();
  #latentShape: readonly number[] = [];
  /** Moments and executed knots of the last K frames, for the cameras' health. */
  #watched: { readonly moments: Observation[]; readonly knots: Float64Array[] }[] = [];
  #before: Float64Array = new Float64Array(0);
  #reported = { knots: 0, clampedKnots: 0, atMs: performance.now() };

  constructor(run: EpisodeRun, strategy: Strategy) {
    const { policy } = run.settings;
    const { frame_chunk_size, action_per_frame, used_action_channel_ids } = policy.job;
    this.#run = run;
    this.#strategy = strategy;
    this.#timeline = new Timeline(run);
    this.#frames = frame_chunk_size;
    this.#perFrame = action_per_frame;
    this.#channels = used_action_channel_ids.length;
    this.#origin = run.options.resume?.frameIndex ?? 1;
    this.#committed = run.options.resume?.frameIndex ?? 0;
    this.#landed = run.options.resume?.chunk ?? 0;
  }

  async runChunks(): Promise<Outcome> {
    const { options } = this.#run;
    const first = await this.#run.begin();
    this.#before = (await this.#run.settings.robot.getState()).positionsRad.slice();
    const total = (options.chunks * this.#frames - this.#origin) * this.#perFrame;
    try {
      while (this.#at < total) {
        await this.#takeLanded();
        await this.#consider(first, total);
        if (this.#framesLeft > 0) {
          await this.#executeFrame();
          if (options.until?.()) return 'reached';
        } else await this.#waitForLanding();
      }
      return 'finished';
    } finally {
      await this.#flight?.thinking.abandon();
    }
  }

  get #framesLeft(): number {
    return (this.#timeline.end - this.#at) / this.#perFrame;
  }

  /** Begins a prediction when it is time to, or when there is nothing else to do. */
  async #consider(first: Observation, total: number): Promise<void> {
    if (this.#flight || this.#timeline.end >= total) return;
    if (this.#landed === 0 && this.#committed === 0) return this.#think(first);
    const framesLeft = this.#framesLeft;
    if (this.#strategy.overlaps) {
      const hasNews = this.#seen.length > 0 || this.#committed === 0;
      if (!hasNews && framesLeft > 0) return;
    } else if (framesLeft > this.#frames || !isTimeToFollow(framesLeft, this.#expectedMs(framesLeft) / this.#frameMs)) return;
    await this.#think(undefined);
  }

  get #frameMs(): number {
    return (Number(this.#run.settings.knotNs) * this.#perFrame) / 1e6;
  }

  #thinkOf(executingFrames: number): Think {
    const commitFrames = this.#seen.length + (this.#committed === 0 ? 1 : 0);
    return { commitFrames, executingFrames, imagines: this.#strategy.imagines && executingFrames > 0 };
  }

  #expectedMs(executingFrames: number): number {
    const { thinkingNs, budget } = this.#run.settings;
    if (thinkingNs !== undefined) return Number(thinkingNs) / 1e6;
    return budget?.expectedMs(this.#thinkOf(executingFrames)) ?? 0;
  }

  /** Begins a prediction: with the first picture, or from what was seen and executed. */
  async #think(first: Observation | undefined): Promise<void> {
    const run = this.#run;
    const { policy, thinkingNs, budget } = run.settings;
    const chunk = this.#landed;
    const framesLeft = this.#strategy.overlaps || first ? 0 : this.#framesLeft;
    const think = this.#thinkOf(framesLeft);
    // Nothing waits for the first prediction: the arm rests.
    const choice = budget?.choose(think, first ? Number.POSITIVE_INFINITY : this.#framesLeft * this.#frameMs);
    const asked = { ...(await run.asked(chunk)), ...rungOf(choice) };
    const startNs = await this.#beginningNs();
    const { done } = this.#timeline;
    let call: (signal: AbortSignal) => Promise<Chunk>;
    let [commitFrames, forecast]: [number, Tensor | undefined] = [0, undefined];
    if (first) call = (signal) => policy.predict({ ...asked, obs: first, signal });
    else {
      const past = this.#past(chunk);
      commitFrames = past.frames;
      const wanted = this.#strategy.ask(this.#situation(framesLeft));
      if (wanted.forecast) forecast = wanted.forecast as Tensor;
      call = (signal) => policy.predictNext({ ...asked, ...past.options, ...wanted, signal });
    }
    const thinking = new Thinking({ call, startNs, lastsNs: thinkingNs, signal: run.stop.signal });
    this.#flight = { thinking, think, choice, commitFrames, done, forecast };
  }

  /** A prediction that begins at a frame's end began there, whatever the clock says a few milliseconds later. */
  async #beginningNs(): Promise<bigint> {
    const nowNs = await this.#run.now();
    if (!this.#timeline.hasBegun) return nowNs;
    const endNs = this.#timeline.timeOf(this.#at - 1);
    return nowNs > endNs && nowNs - endNs < this.#run.settings.knotNs / 2n ? endNs : nowNs;
  }

  /** What was seen and executed since the last commit; it is the policy's from now on. */
  #past(chunk: number): { frames: number; options: Pick<PredictNextOptions, 'obs' | 'executed'> } {
    const { listeners } = this.#run.settings;
    const moments = this.#seen.flat();
    const isFirst = this.#committed === 0;
    const frames = this.#seen.length + (isFirst ? 1 : 0);
    if (frames === 0) return { frames, options: {} };
    this.#seen = [];
    const frameIndex = this.#committed;
    const from = this.#at - moments.length * this.#run.settings.knotsPerMoment;
    const { actions, clamped: clampedKnots } = this.#timeline.take(from, this.#at);
    const executed = isFirst ? joinActions(this.#padding ?? new Float32Array(0), actions, this.#channels) : actions;
    listeners.emit({ type: 'executed', chunk, frameIndex, actions: executed, moments, clampedKnots });
    return { frames, options: { obs: moments, executed } };
  }

  #situation(framesLeft: number): Situation {
    const at = this.#at;
    const knotMs = this.#frameMs / this.#perFrame;
    return {
      executing: this.#timeline.planned(at, at + framesLeft * this.#perFrame),
      forecast: () => this.#forecast(this.#origin + at / this.#perFrame, framesLeft),
      ahead: () => this.#timeline.planned(at, this.#timeline.end),
      delayActions: Math.ceil(Math.min(this.#expectedMs(0) / knotMs, this.#frames * this.#perFrame)),
      chunkActions: this.#frames * this.#perFrame,
      channels: this.#channels,
    };
  }

  #forecast(frame: number, count: number): Tensor | undefined {
    if (count === 0) return undefined;
    return framesOf(
      Array.from({ length: count }, (_, index) => this.#foreseen.get(frame + index) as Float32Array),
      this.#latentShape,
    );
  }

  async #takeLanded(): Promise<void> {
    const flight = this.#flight;
    if (!flight || !(await flight.thinking.hasLanded(await this.#run.now()))) return;
    this.#run.throwIfStopped();
    this.#flight = undefined;
    await this.#land(flight, flight.thinking.result());
  }

  /** The plan is over and the chunk is not there: the arm decelerates and holds by itself. */
  async #waitForLanding(): Promise<void> {
    const run = this.#run;
    const { thinking } = this.#flight ?? {};
    if (!thinking) throw new PremotorError('INTERNAL', 'Nothing is planned and nothing is being predicted. Report this as a bug.');
    if (thinking.landsNs !== undefined) await run.idleUntil(thinking.landsNs);
    else {
      await Promise.race([thinking.settled, run.settings.robot.waitUntil((await run.now()) + IDLE_POLL_NS)]);
      run.throwIfStopped();
    }
    await this.#takeLanded();
  }

  async #land({ thinking, think, choice, commitFrames, done, forecast }: Flight, chunk: Chunk): Promise<void> {
    const run = this.#run;
    const { listeners, budget } = run.settings;
    run.checkGeneration(chunk);
    if (choice) budget?.note(choice, think, chunk.timing);
    const index = this.#landed++;
    if (chunk.committed) {
      const { frameIndex, latents } = chunk.committed;
      this.#committed = frameIndex;
      listeners.emit({ type: 'remembered', frameIndex: frameIndex - commitFrames, latents });
    }
    const { frameIndex, latents, timing } = chunk;
    const assumed = chunk.imagined ?? forecast;
    listeners.emit({ type: 'predicted', chunk: index, frameIndex, latents, timing, ...(assumed ? { assumed } : {}) });
    this.#foresee(chunk);
    await this.#place(chunk);
    const { knots, clampedKnots, atMs } = this.#reported;
    this.#reported = { knots: run.knots, clampedKnots: run.clampedKnots, atMs: performance.now() };
    const commitMs = timing.commitMs + timing.encodeMs;
    run.report({
      chunk: index,
      frameIndex,
      knots: run.knots - knots,
      clampedKnots: run.clampedKnots - clampedKnots,
      delayKnots: this.#timeline.done - done,
      assumedFrames: think.executingFrames,
      rung: choice ? { index: choice.index, fits: choice.fits, expectedMs: finite(choice.expectedMs) } : null,
      predictMs: Math.max(0, thinking.wallMs - commitMs),
      executeMs: this.#reported.atMs - atMs,
      commitMs,
      timing,
    });
  }

  /** Keeps a chunk's frames, in case they must serve as a forecast. */
  #foresee({ frameIndex, latents }: Chunk): void {
    this.#latentShape = latents.shape;
    for (const known of this.#foreseen.keys()) if (known < frameIndex - this.#frames) this.#foreseen.delete(known);
    splitFrames(latents).forEach((frame, index) => {
      this.#foreseen.set(frameIndex + index, frame);
    });
  }

  async #place(chunk: Chunk): Promise<void> {
    const first = (chunk.frameIndex - this.#origin) * this.#perFrame;
    if (first < 0) this.#padding = sliceActions(chunk.actions, this.#channels, 0, -first);
    const actions = this.#strategy.place?.(first, chunk.actions, this.#channels) ?? chunk.actions;
    await this.#timeline.place(actions, first, this.#patienceNs());
  }

  /** The first chunk waits, so that the second lands when it ends: the robot never stops after it has begun. */
  #patienceNs(): bigint {
    if (this.#timeline.hasBegun || this.#strategy.overlaps || this.#origin !== 1) return 0n;
    const ms = this.#expectedMs(this.#frames - 1) - (this.#frames - 1) * this.#frameMs;
    return ms > 0 && Number.isFinite(ms) ? BigInt(Math.ceil(ms * 1e6)) : 0n;
  }

  /** Waits until one latent frame is executed, and looks at every (H/4)-th action. */
  async #executeFrame(): Promise<void> {
    const run = this.#run;
    const { robot, knotsPerMoment } = run.settings;
    await this.#timeline.handOver();
    const start = this.#at;
    const moments: Observation[] = [];
    for (let knot = 1; knot <= this.#perFrame; knot++) {
      await robot.waitUntil(this.#timeline.timeOf(start + knot - 1));
      run.throwIfStopped();
      run.knots++;
      if (knot % knotsPerMoment === 0) {
        moments.push(await run.observe());
        run.beat();
        // In virtual time nothing waits, so signals and timers get their turn here.
        await nextTurn();
      }
      if (knot < this.#perFrame) await this.#takeLanded();
    }
    this.#timeline.note();
    const { done } = this.#timeline;
    if (done < start + this.#perFrame) throw notExecuted(this.#perFrame, done - start);
    this.#at = start + this.#perFrame;
    this.#seen.push(moments);
    this.#watch(moments, this.#timeline.executed(start, this.#at));
  }

  #watch(moments: Observation[], done: readonly ExecutedAction[]): void {
    const run = this.#run;
    run.clampedKnots += done.filter(({ isClamped }) => isClamped).length;
    this.#watched.push({ moments, knots: done.map(({ executedRad }) => executedRad) });
    if (this.#watched.length > this.#frames) this.#before = this.#watched.shift()?.knots.at(-1) ?? this.#before;
    const way = wayOf(
      this.#before,
      this.#watched.flatMap(({ knots }) => knots),
    );
    checkMotion(
      this.#watched.flatMap((one) => one.moments),
      way,
      run.settings.health,
    );
  }
}

/** Infinity, before anything was measured, is no number that a report can hold. */
function finite(ms: number): number | null {
  return Number.isFinite(ms) ? ms : null;
}

/** A budget's choice as options of a prediction. */
function rungOf(choice: Choice | undefined): Partial<PredictNextOptions> {
  return choice?.rung ?? {};
}
