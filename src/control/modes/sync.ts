/**
 * The synchronous mode: predict a chunk, execute it, come to rest, commit what was executed and seen, again. The arm rests while the policy thinks.
 * It is the reference's order, and what every asynchronous mode is compared with.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { checkMotion, wayOf } from '../../cameras/health.js';
import { PremotorError } from '../../errors.js';
import type { Chunk } from '../../policy/contract.js';
import type { ExecutedKnot } from '../../robot/robot.js';
import type { Observation, Outcome } from '../events.js';
import { type LimitedChunk, limitChunk } from '../limits.js';
import type { EpisodeRun } from '../run.js';
import type { Mode } from './mode.js';

/** What came of executing a chunk. */
interface Execution {
  readonly moments: Observation[];
  /** For each knot, whether some joint was held back. */
  readonly clamped: readonly boolean[];
}

export const sync: Mode = {
  async runChunks(run: EpisodeRun): Promise<Outcome> {
    const { options } = run;
    const first = await run.begin();
    for (let chunk = options.resume?.chunk ?? 0; chunk < options.chunks; chunk++) {
      await runChunk(run, chunk, first);
      if (options.until?.()) return 'reached';
      run.throwIfStopped();
    }
    return 'finished';
  },
};

async function runChunk(run: EpisodeRun, chunk: number, first: Observation): Promise<void> {
  const { policy, robot, listeners, actions: map, forgets, health, commits, thinkingNs } = run.settings;
  const forgetsNow = forgets && chunk > 0;
  const obs = forgetsNow ? await run.observe() : first;
  const begun = performance.now();
  const askedNs = await run.now();
  if (forgetsNow) await run.resetPolicy();
  const isFirst = chunk === 0 || forgets;
  const prediction = await policy.predict({ ...(isFirst ? { obs } : {}), ...(await run.asked(chunk)) });
  run.checkGeneration(prediction);
  if (thinkingNs !== undefined) await run.idleUntil(askedNs + thinkingNs);
  const predicted = performance.now();
  const { frameIndex, latents, timing } = prediction;
  listeners.emit({ type: 'predicted', chunk, frameIndex, latents, timing });
  const { positionsRad } = await robot.getState();
  // An episode's first latent frame is the observation itself: no actions lead to it.
  const padding = isFirst ? policy.job.action_per_frame : 0;
  if (forgetsNow) map?.begin(positionsRad);
  const mapped = map?.toJoints(prediction.actions, prediction.shape, positionsRad, padding);
  const limited = limit(run, prediction, mapped?.actions ?? prediction.actions, padding, positionsRad);
  const { moments, clamped } = await execute(run, limited);
  checkMotion(moments, wayOf(positionsRad, limited.knots), health);
  const clampedKnots = clamped.filter((isClamped, knot) => isClamped || mapped?.clamped[knot] === true).length;
  const done = map?.toActions(limited.executed, prediction.actions, prediction.shape, padding) ?? limited.executed;
  const actions = commits === 'predicted' ? prediction.actions : done;
  const executed = performance.now();
  listeners.emit({ type: 'executed', chunk, frameIndex, actions, moments, clampedKnots });
  if (!forgets) {
    const remembered = await policy.commit({ obs: moments, actions, onProgress: (progress) => run.noteProgress(chunk, progress) });
    listeners.emit({ type: 'remembered', frameIndex, latents: remembered.latents });
  }
  run.report({
    chunk,
    frameIndex,
    knots: limited.knots.length,
    clampedKnots,
    delayKnots: 0,
    assumedFrames: 0,
    rung: null,
    predictMs: predicted - begun,
    executeMs: executed - predicted,
    commitMs: performance.now() - executed,
    timing,
  });
}

function limit(run: EpisodeRun, prediction: Chunk, actions: Float32Array, padding: number, from: Float64Array): LimitedChunk {
  const { robot, knotNs, tolerance } = run.settings;
  const [, latentFrames, perFrame] = prediction.shape;
  const shape = [robot.joints.length, latentFrames, perFrame] as const;
  return limitChunk({ actions, shape, padding, from, joints: robot.joints, knotS: Number(knotNs) / 1e9, tolerance });
}

/**
 * Places the knots on the timeline, one knot period from now at the earliest and in step with the cameras, and gives what the cameras saw at every
 * (H/4)-th. `limited.executed` becomes what the stream has really put out, or for commits of what was measured, where the joints really were.
 */
async function execute(run: EpisodeRun, limited: LimitedChunk): Promise<Execution> {
  const { robot, knotNs, knotsPerMoment, commits } = run.settings;
  const { knots, executed, first } = limited;
  const moments: Observation[] = [];
  if (knots.length === 0) return { moments, clamped: [] };
  const measured: Float64Array[] = [];
  const baseNs = run.nextMoment(await run.now());
  const plan = await robot.push({ startNs: baseNs + knotNs, knotNs, knots });
  for (let knot = 1; knot <= knots.length; knot++) {
    await robot.waitUntil(baseNs + BigInt(knot) * knotNs);
    run.throwIfStopped();
    run.knots++;
    // On a slow computer what comes next takes long, and the sign of life is due every second.
    run.beat();
    if (commits === 'measured') measured.push((await robot.getState()).positionsRad.slice());
    if (knot % knotsPerMoment !== 0) continue;
    moments.push(await run.observe());
    run.beat();
    // In virtual time nothing waits, so signals and timers get their turn here.
    await nextTurn();
  }
  const clamped = takeExecuted(run, limited, plan);
  run.clampedKnots += clamped.filter(Boolean).length;
  const count = executed.length / robot.joints.length;
  for (const [knot, positions] of measured.entries())
    for (const [joint, angle] of positions.entries()) executed[joint * count + first + knot] = angle;
  // A synchronous cycle has nothing to execute while the policy thinks.
  await robot.rest();
  return { moments, clamped };
}

/** Writes what was executed into the chunk that will be committed, and says which knots were clamped. Errors: CONTROL_EXECUTED. */
function takeExecuted(run: EpisodeRun, { knots, clamped, executed, first }: LimitedChunk, plan: bigint): boolean[] {
  const { robot } = run.settings;
  const done = robot.executed().filter((one) => one.plan === plan);
  const byKnot = new Map<number, ExecutedKnot>(done.map((one) => [one.knot, one]));
  const count = executed.length / robot.joints.length;
  return knots.map((_, knot) => {
    const one = byKnot.get(knot);
    if (!one) throw notExecuted(knots.length, byKnot.size);
    one.positionsRad.forEach((angle, joint) => {
      executed[joint * count + first + knot] = angle;
    });
    return one.isClamped || clamped[knot] === true;
  });
}

/** The robot reported fewer actions than it was given. */
export function notExecuted(expected: number, found: number): PremotorError {
  const message = 'The robot did not report every action as executed, so the policy cannot be told what happened. Arm it again.';
  return new PremotorError('CONTROL_EXECUTED', message, { expected: `${expected} actions`, found: `${found}` });
}
