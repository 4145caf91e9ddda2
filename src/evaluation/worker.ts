/**
 * The worker's side of the channel between an evaluation and its worker processes, and the messages of both sides. One request is answered by one
 * reply. Used by worker-process.ts; tests serve with a policy of their own.
 */
import { toPremotorError } from '../native.js';
import type { PolicyInfo } from '../policy/contract.js';
import { type PlainError, plainError } from '../policy/protocol.js';
import type { TaskName } from '../sim/tasks/task.js';
import type { Configuration, Subject } from './configuration.js';
import type { EpisodeOutcome } from './episode.js';
import { EvaluationSession, type LoadPolicy } from './session.js';

export type WorkerRequest =
  | { readonly kind: 'open'; readonly subject: Subject; readonly configuration: Configuration }
  | { readonly kind: 'episode'; readonly task: TaskName; readonly seed: number };

export type WorkerReply =
  | { readonly kind: 'ready'; readonly info: PolicyInfo }
  | { readonly kind: 'episode'; readonly outcome: EpisodeOutcome }
  | { readonly kind: 'error'; readonly error: PlainError };

/** Answers the parent until it goes away. */
export function serveEpisodes(loadPolicy: LoadPolicy): void {
  let session: EvaluationSession | undefined;
  const answer = async (request: WorkerRequest): Promise<WorkerReply> => {
    if (request.kind === 'episode') {
      if (!session) throw new Error('an episode before its configuration');
      return { kind: 'episode', outcome: await session.run(request.task, request.seed) };
    }
    await session?.close();
    session = undefined;
    session = await EvaluationSession.open(request.subject, request.configuration, loadPolicy);
    return { kind: 'ready', info: session.info };
  };
  process.on('message', (message) => {
    answer(message as WorkerRequest)
      .catch((error: unknown): WorkerReply => ({ kind: 'error', error: plainError(toPremotorError(error)) }))
      .then((reply) => process.send?.(reply));
  });
  process.once('disconnect', () => process.exit(0));
  // An interrupt is the parent's to handle: it reaches the whole group on a terminal.
  process.on('SIGINT', () => undefined);
}
