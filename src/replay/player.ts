/**
 * Runs the calls of a replay record again and compares the answers bit by bit. Owned by `premotor replay`; it opens no policy and prints nothing, and
 * it goes on after a difference, so that the report can say how many there are.
 */
import { crc32 } from 'node:zlib';
import type {
  Chunk,
  CommitOptions,
  CommitResult,
  Policy,
  PredictNextOptions,
  PredictOptions,
  Progress,
  ResetOptions,
  RestoreOptions,
} from '../policy/contract.js';
import type { RecordedCall, ReplayRecord } from './record.js';

/** Where a replay first said something else. */
export interface Difference {
  /** Number of the call in the record, from 0. */
  readonly call: number;
  readonly method: RecordedCall['method'];
  readonly what: 'actions' | 'frameIndex' | 'latents' | 'checksum';
  /** Of actions: the channel, and the action's number in it. */
  readonly channel?: number;
  readonly index?: number;
  readonly expected: string;
  readonly found: string;
}

export interface ReplayOutcome {
  readonly calls: number;
  readonly predictions: number;
  readonly commits: number;
  /** Action values that were compared, and how many of them differ. */
  readonly values: number;
  readonly valuesDifferent: number;
  /** Calls whose answers are not the same in every bit. */
  readonly callsDifferent: number;
  /** Calls that had failed and were not repeated: they left nothing behind. */
  readonly skipped: number;
  readonly first: Difference | null;
}

export interface PlayOptions {
  readonly signal?: AbortSignal;
  readonly onCall?: (call: number, method: string) => void;
  readonly onProgress?: (progress: Progress) => void;
}

interface Answer {
  readonly actions?: Float32Array;
  readonly frameIndex?: number;
  readonly latents?: Float32Array;
}

/** Errors: those of the policy, ABORTED. */
export async function play({ calls }: ReplayRecord, policy: Policy, options: PlayOptions = {}): Promise<ReplayOutcome> {
  const { signal, onCall, onProgress } = options;
  const extra = { ...(signal ? { signal } : {}), ...(onProgress ? { onProgress } : {}) };
  const count = { predictions: 0, commits: 0, values: 0, valuesDifferent: 0, callsDifferent: 0, skipped: 0 };
  let first: Difference | null = null;
  for (const [number, call] of calls.entries()) {
    onCall?.(number, call.method);
    const before = calls[number - 1]?.checksum;
    const answer = call.error === undefined ? await ask(policy, call, extra) : await afterFailure(policy, call, before);
    if (answer === undefined) {
      count.skipped++;
      continue;
    }
    if (answer.actions) count.predictions++;
    if (call.method === 'commit' || call.error !== undefined) count.commits++;
    const different = compareActions(call, answer);
    count.values += call.actions?.length ?? 0;
    count.valuesDifferent += different.length;
    const found = [...different.slice(0, 1), ...compareRest(call, answer, policy.cache.checksum)].map((one) => ({ call: number, ...one }));
    if (found.length > 0) count.callsDifferent++;
    first ??= found[0] ?? null;
  }
  return { calls: calls.length, ...count, first };
}

type Extra = Pick<PredictOptions, 'signal' | 'onProgress'>;

async function ask(policy: Policy, { method, options }: RecordedCall, extra: Extra): Promise<Answer> {
  // A trace would cost time and change nothing.
  const { trace: _, ...given } = options;
  const call = { ...given, ...extra };
  switch (method) {
    case 'reset':
      await policy.reset(call as unknown as ResetOptions);
      return {};
    case 'restore':
      await policy.restore(call as unknown as RestoreOptions);
      return {};
    case 'occupy':
      await policy.occupy();
      return {};
    case 'predict':
      return ofChunk(await policy.predict(call as PredictOptions));
    case 'predictNext':
      return ofChunk(await policy.predictNext(call as unknown as PredictNextOptions));
    case 'commit':
      return ofCommit(await policy.commit(given as unknown as CommitOptions));
  }
}

/** A step that was stopped after its commit has changed the cache; every other failure has left things as they were. */
async function afterFailure(policy: Policy, { method, options, checksum }: RecordedCall, before: string | undefined): Promise<Answer | undefined> {
  const { obs, executed } = options as Partial<PredictNextOptions>;
  if (method !== 'predictNext' || !obs || !executed || checksum === before) return undefined;
  await policy.commit({ obs, actions: executed });
  return {};
}

const ofChunk = ({ actions, frameIndex, latents }: Chunk): Answer => ({ actions, frameIndex, latents });
const ofCommit = ({ frameIndex, latents }: CommitResult): Answer => ({ frameIndex, latents });

type Found = Omit<Difference, 'call'>;

/** Every action value whose bits differ. */
function compareActions({ method, actions: expected, shape = [] }: RecordedCall, { actions: found }: Answer): Found[] {
  if (expected === undefined || found === undefined) return [];
  const [a, b] = [bitsOf(expected), bitsOf(found)];
  const perChannel = Math.max(1, (shape[1] ?? 1) * (shape[2] ?? 1));
  const differences: Found[] = [];
  for (let at = 0; at < Math.max(a.length, b.length); at++) {
    if (a[at] === b[at]) continue;
    const place = { channel: Math.floor(at / perChannel), index: at % perChannel };
    differences.push({ method, what: 'actions', ...place, expected: words(expected, a, at), found: words(found, b, at) });
  }
  return differences;
}

function compareRest(call: RecordedCall, answer: Answer, checksum: string): Found[] {
  const { method } = call;
  const latents = answer.latents && crc32(new Uint8Array(answer.latents.buffer, answer.latents.byteOffset, answer.latents.byteLength));
  const pairs = [
    ['latents', call.latents, latents],
    ['frameIndex', call.frameIndex, answer.frameIndex],
    ['checksum', call.checksum, checksum],
  ] as const;
  return pairs
    .filter(([, expected, found]) => expected !== undefined && found !== undefined && expected !== found)
    .map(([what, expected, found]) => ({ method, what, expected: String(expected), found: String(found) }));
}

const bitsOf = (array: Float32Array): Uint32Array => new Uint32Array(array.slice().buffer);

const words = (array: Float32Array, bits: Uint32Array, at: number): string =>
  at < array.length ? `${array[at]} (0x${(bits[at] ?? 0).toString(16).padStart(8, '0')})` : 'nothing';
