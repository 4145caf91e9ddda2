/**
 * The policy of an episode with what a configuration puts around it: a journal that outlives the engine's death, and a record for replay. Owned by
 * src/runtime/episode.ts; it computes nothing and changes no result.
 */
import { join } from 'node:path';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import type { Policy } from '../policy/contract.js';
import { RecoveringPolicy, type Recovery } from '../policy/recovering.js';
import { RecordWriter } from '../replay/record.js';
import { type CallNote, RecordingPolicy } from '../replay/recording-policy.js';
import { isLocal } from './open-policy.js';
import { configurationHash, journalDir, type Resumed } from './resume.js';
import type { Rig } from './rig.js';

/** The replay record's name in the output folder. */
const RECORD_NAME = 'episode.replay';

export interface PolicyParts {
  /** Opens the engine or the link to a policy server; again after each death of an engine. */
  readonly open: () => Promise<Policy>;
  readonly rig: Pick<Rig, 'instruction'>;
  /** What the supervisor needs to go on after a commit. */
  readonly supervisor: () => Uint8Array;
  readonly resumed?: Resumed;
  readonly onRecovery: (recovery: Recovery) => void;
  readonly onWarning: (error: PremotorError) => void;
  /** Told of every call that was answered; absent when nobody records. */
  readonly onCall?: (note: CallNote) => void;
}

export interface EpisodePolicy {
  readonly policy: Policy;
  /** The episode ended by itself: nothing is left to resume. */
  finish(outcome: string): Promise<void>;
}

/** Errors: those of `open`, JOURNAL_FOREIGN. */
export async function openEpisodePolicy(config: RobotConfig, parts: PolicyParts): Promise<EpisodePolicy> {
  const { open, onRecovery, onWarning, onCall, supervisor, resumed } = parts;
  const seed = config.policy.seed ?? config.task.seed;
  const recovering =
    config.policy.recover && isLocal(config)
      ? await RecoveringPolicy.open({
          open,
          journal: { dir: journalDir(config), seed, configuration: configurationHash(config) },
          supervisor,
          ...(resumed ? { resumed: resumed.journal } : {}),
          onRecovery,
          onWarning,
        })
      : undefined;
  const inner = recovering ?? (await open());
  const finish = async (outcome: string): Promise<void> => recovering?.finish(outcome);
  const writer = config.recording.replay ? await replayWriter(config, parts, inner, seed) : undefined;
  if (!writer && !onCall) return { policy: inner, finish };
  return { policy: new RecordingPolicy(inner, writer, onCall), finish };
}

/** undefined, with a warning: this episode cannot be replayed. */
async function replayWriter(config: RobotConfig, parts: PolicyParts, inner: Policy, seed: number): Promise<RecordWriter | undefined> {
  if (config.policy.checkpoint_dir === undefined || inner.info.checkpointHash === '') {
    parts.onWarning(notReplayable());
    return undefined;
  }
  try {
    return await openRecord(config, parts, inner, seed);
  } catch (error) {
    parts.onWarning(error as PremotorError);
    return undefined;
  }
}

function openRecord(config: RobotConfig, { rig, onWarning }: PolicyParts, { info, job }: Policy, seed: number): Promise<RecordWriter> {
  const { checkpointHash, precision, kvCache, device, backend, threads } = info;
  const about = {
    prompt: rig.instruction,
    seed,
    checkpoint: config.policy.checkpoint_dir ?? '',
    checkpointHash,
    job: { ...job },
    precision,
    kvCache,
    device,
    backend,
    threads,
    configuration: config,
  };
  return RecordWriter.create(join(config.recording.out_dir, RECORD_NAME), about, { onWarning });
}

/** A replay needs the checkpoint whose actions it repeats. */
function notReplayable(): PremotorError {
  const [expected, found] = ['a checkpoint on this machine that the policy names', 'none'];
  const remedy = 'Set policy.checkpoint_dir to the checkpoint of a premotor server, or recording.replay to false.';
  const message = `No replay record is kept: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('REPLAY_UNAVAILABLE', message, { field: 'policy.checkpoint_dir', expected, found });
}
