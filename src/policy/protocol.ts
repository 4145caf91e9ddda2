/**
 * Messages between a policy and its engine process, and the forms that survive structured cloning: errors, tensors and pictures lose their classes
 * and labels on the way and get them back here. Owned by isolated.ts (parent) and engine-host.ts (child); types and pure conversions only.
 */
import { PremotorError, type PremotorErrorDetails } from '../errors.js';
import type { CacheState, Chunk, CommitResult, Frame, Job, LoadPolicyOptions, PolicyInfo, Progress, Tensor } from './contract.js';
import { toTensor } from './tensor.js';

export type Method = 'reset' | 'predict' | 'commit' | 'predictNext' | 'encoderState' | 'restore' | 'occupy' | 'decode' | 'close';

/** Every message names the process it is meant for (generation), the episode (calls that began one, so far) and the call it belongs to (id). */
interface Envelope {
  readonly generation: number;
  readonly episode: number;
  readonly id: number;
}

export type Request = Envelope &
  (
    | { readonly kind: 'open'; readonly options: LoadPolicyOptions }
    | { readonly kind: 'call'; readonly method: Method; readonly options: unknown; readonly progress: boolean }
    | { readonly kind: 'abort' }
  );

export type Reply = Envelope &
  (
    | { readonly kind: 'ready'; readonly job: Job; readonly info: PolicyInfo; readonly cache: CacheState }
    | { readonly kind: 'result'; readonly value: unknown; readonly cache: CacheState }
    | { readonly kind: 'error'; readonly error: PlainError; readonly cache: CacheState | null }
    | { readonly kind: 'progress'; readonly progress: Progress }
  );

export interface PlainError {
  readonly code: string;
  readonly message: string;
  readonly details: PremotorErrorDetails;
}

const detailNames = ['field', 'file', 'tensor', 'expected', 'found'] as const;

/** An error as data; its cause shrinks to a text. */
export function plainError(error: PremotorError): PlainError {
  const details: Record<string, unknown> = {};
  for (const name of detailNames) if (error[name] !== undefined) details[name] = error[name];
  if (error.cause !== undefined) details['cause'] = error.cause instanceof Error ? error.cause.message : String(error.cause);
  return { code: error.code, message: error.message, details };
}

export function errorFrom({ code, message, details }: PlainError): PremotorError {
  return new PremotorError(code, message, details);
}

interface PlainTensor {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

const plainTensor = (tensor: Tensor): PlainTensor => ({ data: tensor, shape: [...tensor.shape] });
const tensorFrom = ({ data, shape }: PlainTensor): Tensor => toTensor(data, shape);

/** A chunk as data: the tensor's labels become fields. */
export interface PlainChunk extends Omit<Chunk, 'latents' | 'imagined' | 'committed'> {
  readonly latents: PlainTensor;
  readonly imagined?: PlainTensor;
  readonly committed?: { readonly frameIndex: number; readonly latents: PlainTensor };
}

export function plainChunk({ latents, imagined, committed, ...chunk }: Chunk): PlainChunk {
  return {
    ...chunk,
    latents: plainTensor(latents),
    ...(imagined === undefined ? {} : { imagined: plainTensor(imagined) }),
    ...(committed === undefined ? {} : { committed: { ...committed, latents: plainTensor(committed.latents) } }),
  };
}

export function chunkFrom({ latents, imagined, committed, ...chunk }: PlainChunk): Chunk {
  return {
    ...chunk,
    latents: tensorFrom(latents),
    ...(imagined === undefined ? {} : { imagined: tensorFrom(imagined) }),
    ...(committed === undefined ? {} : { committed: { ...committed, latents: tensorFrom(committed.latents) } }),
  };
}

/** A commit's result as data. */
export interface PlainCommit extends Omit<CommitResult, 'latents'> {
  readonly latents: PlainTensor;
}

export function plainCommit(result: CommitResult): PlainCommit {
  return { ...result, latents: plainTensor(result.latents) };
}

export function commitFrom(result: PlainCommit): CommitResult {
  return { ...result, latents: tensorFrom(result.latents) };
}

/** A frame as data: the contract's fields alone, also when frames are objects of a class. Anything else is left for the child to refuse. */
export function plainFrame(frame: unknown): unknown {
  if (typeof frame !== 'object' || frame === null) return frame;
  const { camera, width, height, data, capturedAtNs } = frame as Partial<Frame>;
  return { camera, width, height, data, capturedAtNs };
}

/** One observation, or a list of them. */
export function plainObservation(obs: unknown): unknown {
  if (!Array.isArray(obs)) return obs;
  return obs.map((item: unknown) => (Array.isArray(item) ? item.map(plainFrame) : plainFrame(item)));
}
