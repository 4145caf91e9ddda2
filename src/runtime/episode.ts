/**
 * Runs one episode of a robot configuration from end to end: opens the robot and its observers, runs the episode, closes everything. Owned by the
 * commands `run` and `demo`; it prints nothing, an observer is told everything.
 */
import type { RobotConfig } from '../config/schema.js';
import type { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { LoadPolicyOptions, Policy } from '../policy/contract.js';
import type { ObserverParts } from '../tap/observer.js';
import { Observers } from './observers.js';
import { checkBackend, openPolicy } from './open-policy.js';
import { type EpisodeObserver, PreparedEpisode } from './prepared-episode.js';
import { register } from './registry.js';
import { checkResumable, openResumed } from './resume.js';
import { openRig, type Rig } from './rig.js';
import type { EpisodeSummary } from './summary.js';

export type { EpisodeObserver, EpisodeStart } from './prepared-episode.js';

export interface EpisodeParts {
  readonly loadPolicy: (options: LoadPolicyOptions) => Promise<Policy>;
  readonly observer: EpisodeObserver;
  /** Aborted when the user asks to stop: a controlled stop while the episode runs, an ABORTED error before it. */
  readonly signal: AbortSignal;
  /** Go on with an interrupted episode: the newest of this configuration, or that of the folder. */
  readonly resume?: { readonly dir?: string };
  /** Who watches. Default: telemetry, recorder and page, as configured. */
  readonly openObservers?: (config: RobotConfig, parts: ObserverParts) => Promise<Observers>;
  /** After the episode, or an error that ended it before it began, the observers stay open until the signal comes. */
  readonly stay?: boolean;
  /** As soon as the summary is known; the result comes later when the observers stay. */
  readonly onSummary?: (summary: EpisodeSummary) => void;
}

export interface EpisodeResult {
  readonly summary: EpisodeSummary;
  /** What ended the episode as 'failed'. */
  readonly error?: PremotorError;
}

/**
 * Errors: those of loadPolicy, ControlCycle.arm, openRig and openResumed; ABORTED when stopped before it began. What ends a running episode is in the
 * result.
 */
export async function runEpisode(config: RobotConfig, parts: EpisodeParts): Promise<EpisodeResult> {
  const { observer, signal, resume } = parts;
  checkBackend(config, resume !== undefined);
  if (resume) checkResumable(config);
  const onWarning = (error: PremotorError): void => observer.warning(error);
  const resumed = resume ? await openResumed(config, resume.dir, { onWarning }) : undefined;
  const rig = await openRig(config);
  for (const text of rig.notices) observer.notice(text);
  const unregister = register('run', `${config.robot.type}, task ${config.task.name}`);
  let episode: PreparedEpisode | undefined;
  let observers: Observers | undefined;
  try {
    observers = await (parts.openObservers ?? Observers.open)(config, { onNotice: (text) => observer.notice(text), onWarning });
    const open = (): Promise<Policy> => openPolicy(config, parts.loadPolicy);
    episode = await PreparedEpisode.open(config, { rig, observers, observer, signal, open, ...(resumed ? { resumed } : {}) });
    const { summary, report } = await episode.run();
    parts.onSummary?.(summary);
    if (parts.stay) await staying(parts);
    return { summary, ...(report.error ? { error: report.error } : {}) };
  } catch (error) {
    if (observers) await mourn(observers, rig, error, parts);
    throw error;
  } finally {
    await episode?.close();
    await observers?.close();
    await resumed?.journal.close();
    const { length: told } = rig.notices;
    await rig.close();
    for (const text of rig.notices.slice(told)) observer.notice(text);
    unregister();
  }
}

/** The observers are told of an episode that ended before it began. */
async function mourn(observers: Observers, rig: Rig, thrown: unknown, parts: EpisodeParts): Promise<void> {
  const error = toPremotorError(thrown);
  observers.event({ type: 'warning', error }, rig.nowNs());
  await observers.end(undefined);
  if (!parts.stay || parts.signal.aborted) return;
  parts.observer.warning(error);
  await staying(parts);
}

function staying({ observer, signal }: EpisodeParts): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  observer.notice('The episode is over. Status page and telemetry stay until Ctrl-C.');
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
