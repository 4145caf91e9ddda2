/**
 * What the supervisor needs beside the policy's memory to go on with an episode: how far it was, where it began, and in the simulation the world.
 * Owned by src/runtime/episode.ts; it writes no files itself, the journal keeps what it gives.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import type { RobotConfig } from '../config/schema.js';
import type { CycleEvent, EpisodeOptions } from '../control/events.js';
import { PremotorError } from '../errors.js';
import { checkOwner, Journal, type JournalWarning, newestJournal, type Past } from '../journal/journal.js';
import { pack, unpack } from '../journal/pack.js';
import type { Policy } from '../policy/contract.js';
import { BUTTON_COLOURS } from '../sim/scene.js';
import type { SimulationSnapshot } from '../sim/simulation.js';
import type { Rig } from './rig.js';

const worldSchema = z.object({
  kind: z.enum(['buttons', 'block']),
  timeNs: z.bigint(),
  physics: z.instanceof(Float64Array),
  presses: z.array(z.object({ colour: z.enum(BUTTON_COLOURS), timeNs: z.bigint() })),
  down: z.array(z.enum(BUTTON_COLOURS)),
});

interface SupervisorState {
  /** Chunks that were completed. */
  readonly chunk: number;
  /** Where the arm was when the episode began, and when that was on the robot's clock. */
  readonly beganAtRad: readonly number[];
  readonly startNs: bigint;
  /** When the task was done for the first time, if it was. */
  readonly completedNs?: bigint | undefined;
  /** Only of a simulated robot: a real one is where it is. */
  readonly simulation?: SimulationSnapshot | undefined;
}

const supervisorSchema = z.object({
  chunk: z.int().min(1),
  beganAtRad: z.array(z.number()),
  startNs: z.bigint(),
  completedNs: z.bigint().optional(),
  simulation: z.object({ world: worldSchema, heldRad: z.instanceof(Float64Array).optional() }).optional(),
});

/** An interrupted episode, read back. */
export interface Resumed {
  readonly journal: Journal;
  readonly past: Past;
  readonly supervisor: SupervisorState;
}

/** Where the journals of a configuration are. */
export const journalDir = ({ recording }: RobotConfig): string => recording.journal_dir ?? join(recording.out_dir, 'journal');

/**
 * Equal for configurations that run the same episode: robot, task, cameras, control and what the policy is asked with. Where it computes, where files
 * go and how long it may last are free to change.
 */
export function configurationHash({ robot, task, policy, cameras, control }: RobotConfig): string {
  const { job, video_steps, action_steps, seed } = policy;
  const { chunks_max: _, ...moving } = control;
  const parts = { robot, task, cameras, control: moving, policy: { job, video_steps, action_steps, seed } };
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

/**
 * A real robot is where it is, and a simulated one has its world in the journal; a simulated world around real hardware is gone with its supervisor.
 * Errors: RESUME_WORLD.
 */
export function checkResumable({ robot }: RobotConfig): void {
  if (robot.type !== 'can' || robot.world !== 'sim') return;
  const message =
    'An episode of hardware in the loop cannot be resumed: expected a world that is still there, found robot.world "sim", ' +
    'whose table was lost with the supervisor. Run it without --resume.';
  throw new PremotorError('RESUME_WORLD', message, { field: 'robot.world', expected: 'real', found: 'sim' });
}

/**
 * Opens the journal to go on with: the newest of the configuration, or that of a folder. Errors: RESUME_NOTHING, RESUME_FINISHED, JOURNAL_FOREIGN,
 * JOURNAL_DAMAGED, JOURNAL_FULL.
 */
export async function openResumed(config: RobotConfig, dir: string | undefined, warning: JournalWarning): Promise<Resumed> {
  const configuration = configurationHash(config);
  const { journal, past } = await Journal.resume(dir ?? (await newestJournal(journalDir(config), configuration)), warning);
  try {
    checkOwner(journal.dir, journal.header, { configuration });
    return { journal, past, supervisor: stateOf(past, journal.dir) };
  } catch (error) {
    await journal.close();
    throw error;
  }
}

function stateOf({ supervisor }: Past, dir: string): SupervisorState {
  const state = supervisorSchema.safeParse(supervisor === undefined ? undefined : unpack(supervisor));
  if (state.success) return state.data as SupervisorState;
  const found = supervisor === undefined ? 'none' : 'something else';
  const message = `The journal ${dir} does not say how far the episode was: expected a supervisor's state, found ${found}. Begin the episode anew.`;
  throw new PremotorError('JOURNAL_DAMAGED', message, { file: dir, expected: "a supervisor's state", found });
}

/** Gives a policy its memory back, and a simulated robot its world. Errors: those of Policy.restore and of the simulation. */
export async function restoreEpisode(
  { past, supervisor }: Resumed,
  policy: Policy,
  rig: Rig,
  signal: AbortSignal,
): Promise<Pick<EpisodeOptions, 'prompt'> & Required<Pick<EpisodeOptions, 'resume'>>> {
  const last = past.commits.at(-1);
  const { prompt } = past.header;
  const { generation } = await policy.restore({
    prompt,
    commits: past.commits,
    encoder: { data: past.encoder ?? new Uint8Array(0) },
    ...(last ? { checksum: last.checksum } : {}),
    signal,
  });
  if (supervisor.simulation) rig.restore?.(supervisor.simulation, supervisor.completedNs);
  const { chunk, beganAtRad } = supervisor;
  return { prompt, resume: { chunk, frameIndex: last?.frameIndex ?? 0, generation, beganAtRad } };
}

/** Listens to the cycle, so that every commit finds what belongs to it. */
export class ResumePoint {
  readonly #rig: Pick<Rig, 'snapshot' | 'completedNs'>;
  /** Chunks that count as completed when one is committed: in an asynchronous mode the named one is still being thought about. */
  readonly #ahead: number;
  readonly #isResumed: boolean;
  #beganAtRad: readonly number[];
  #startNs: bigint;
  #state: Uint8Array = new Uint8Array(0);

  constructor(rig: Pick<Rig, 'snapshot' | 'completedNs'>, mode: RobotConfig['control']['mode'], earlier?: SupervisorState) {
    this.#rig = rig;
    this.#ahead = mode === 'sync' ? 1 : 0;
    this.#beganAtRad = earlier?.beganAtRad ?? [];
    this.#startNs = earlier?.startNs ?? 0n;
    this.#isResumed = earlier !== undefined;
  }

  /** When the episode began on the robot's clock. A resumed one began when it first did. */
  begin(startNs: bigint): bigint {
    if (!this.#isResumed) this.#startNs = startNs;
    return this.#startNs;
  }

  /** Give this to ControlCycle.on. */
  readonly listen = (event: CycleEvent): void => {
    if (event.type === 'started' && !this.#isResumed) this.#beganAtRad = [...event.positionsRad];
    if (event.type !== 'executed') return;
    const completedNs = this.#rig.completedNs();
    const simulation = this.#rig.snapshot?.();
    const state: SupervisorState = {
      chunk: Math.max(1, event.chunk + this.#ahead),
      beganAtRad: [...this.#beganAtRad],
      startNs: this.#startNs,
      ...(completedNs === undefined ? {} : { completedNs }),
      ...(simulation ? { simulation } : {}),
    };
    this.#state = pack(state);
  };

  /** The state that belongs to the commit of what was executed last. */
  readonly state = (): Uint8Array => this.#state;
}
