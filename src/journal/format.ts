/**
 * What a journal's files hold and how they are read back: the log (header, commits, end) and the two alternating state files beside it. Pure
 * functions on bytes for src/journal/journal.ts; they open no file and decide nothing.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import type { Job, PastCommit, PolicyInfo } from '../policy/contract.js';
import { pairName } from '../precision-names.js';
import { type Break, frame, readFrames } from './framing.js';
import { pack, unpack } from './pack.js';

export const JOURNAL_VERSION = 1;
/** Kinds of records in the log, and the only one of a state file. */
const KINDS = { header: 1, commit: 2, end: 3, state: 4 } as const;

const headerSchema = z.object({
  version: z.int(),
  prompt: z.string(),
  seed: z.int(),
  /** SHA-256 of the job, see jobHash. */
  job: z.string(),
  checkpoint: z.string(),
  /** With its KV cache: pairName. */
  precision: z.string(),
  /** What else has to be the same for a resume: whoever runs the episode decides. */
  configuration: z.string(),
  /** When it was begun, ISO 8601. */
  created: z.string(),
  /** Whether every commit has a supervisor's state beside it. */
  hasSupervisor: z.boolean(),
});
export type JournalHeader = Readonly<z.output<typeof headerSchema>>;

/** One commit: what it wrote into the KV cache and what became of it. */
export interface JournalCommit extends PastCommit {
  /** Index of the next latent frame after it. */
  readonly frameIndex: number;
  /** CacheState.checksum after it. */
  readonly checksum: string;
}
const commitSchema = z.object({
  latents: z.instanceof(Float32Array),
  actions: z.instanceof(Float32Array),
  predicted: z.boolean().optional(),
  frameIndex: z.int().min(0),
  checksum: z.string(),
});

/** How a journal ended: the episode did, or the journal's bounds were reached first. */
const endSchema = z.object({ reason: z.enum(['done', 'full']), detail: z.string() });
export type JournalEnd = Readonly<z.output<typeof endSchema>>;

const stateSchema = z.object({ commits: z.int().min(1), data: z.instanceof(Uint8Array) });

export interface ReadLog {
  readonly header: JournalHeader;
  readonly commits: readonly JournalCommit[];
  /** Where the header and each commit end, bytes. */
  readonly ends: readonly number[];
  readonly end?: JournalEnd;
  /** What follows the last whole record. */
  readonly broken?: Break;
}

/** Equal for equal jobs, whatever the order of their fields. */
export function jobHash(job: Job): string {
  const sorted = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(sorted);
    if (typeof value !== 'object' || value === null) return value;
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return Object.fromEntries(entries.map(([name, member]) => [name, sorted(member)]));
  };
  return createHash('sha256')
    .update(JSON.stringify(sorted(job)))
    .digest('hex');
}

/** The header's part that names a policy. */
export function policyIdentity(
  job: Job,
  info: Pick<PolicyInfo, 'checkpointHash' | 'precision' | 'kvCache'>,
): Pick<JournalHeader, 'job' | 'checkpoint' | 'precision'> {
  return { job: jobHash(job), checkpoint: info.checkpointHash, precision: pairName(info) };
}

export const headerRecord = (header: JournalHeader): Uint8Array => frame(KINDS.header, 0, pack(header));
/** The n-th commit of the episode, from 1. */
export const commitRecord = (commit: JournalCommit, n: number): Uint8Array => frame(KINDS.commit, n, pack(commit));
export const endRecord = (end: JournalEnd, number: number): Uint8Array => frame(KINDS.end, number, pack(end));
/** A state file: the state after so many commits. */
export const stateFile = (data: Uint8Array, commits: number): Uint8Array => frame(KINDS.state, 0, pack({ commits, data }));

/** Reads a log as far as it is whole. Errors: JOURNAL_DAMAGED without a header, JOURNAL_FOREIGN for another version. */
export function readLog(bytes: Uint8Array, file: string): ReadLog {
  const { frames, ends, broken } = readFrames(bytes);
  const [first, ...rest] = frames;
  if (first === undefined) throw damaged(file, broken ?? { atByte: 0, expected: 'a header', found: 'an empty file' });
  const header = parsed(headerSchema, first, KINDS.header, file, 0);
  if (header.version !== JOURNAL_VERSION) {
    const [expected, found] = [`version ${JOURNAL_VERSION}`, `version ${header.version}`];
    const message = `${file}: expected a journal of ${expected}, found ${found}. Resume it with the premotor that wrote it.`;
    throw new PremotorError('JOURNAL_FOREIGN', message, { file, field: 'version', expected, found });
  }
  const last = rest.at(-1);
  const isEnded = last?.kind === KINDS.end;
  const commits = (isEnded ? rest.slice(0, -1) : rest).map(
    (record, index) => parsed(commitSchema, record, KINDS.commit, file, ends[index] ?? 0) as JournalCommit,
  );
  return {
    header,
    commits,
    ends: ends.slice(0, commits.length + 1),
    ...(isEnded && last ? { end: parsed(endSchema, last, KINDS.end, file, ends.at(-2) ?? 0) } : {}),
    ...(broken ? { broken } : {}),
  };
}

/** What a state file holds; undefined when it is torn or not there. */
export function readState(bytes: Uint8Array | undefined): { readonly commits: number; readonly data: Uint8Array } | undefined {
  const [first] = bytes === undefined ? [] : readFrames(bytes).frames;
  if (first?.kind !== KINDS.state) return undefined;
  const result = stateSchema.safeParse(unpack(first.payload));
  return result.success ? result.data : undefined;
}

function parsed<T>(schema: z.ZodType<T>, record: { kind: number; payload: Uint8Array }, kind: number, file: string, atByte: number): T {
  if (record.kind !== kind) throw damaged(file, { atByte, expected: `a record of kind ${kind}`, found: `one of kind ${record.kind}` });
  const result = schema.safeParse(unpack(record.payload));
  if (!result.success) throw damaged(file, { atByte, expected: `a record of kind ${kind} with its fields`, found: result.error.message });
  return result.data;
}

export function damaged(file: string, { atByte, expected, found }: Break): PremotorError {
  const message = `${file} is damaged at byte ${atByte}: expected ${expected}, found ${found}. Begin the episode anew, or restore the file.`;
  return new PremotorError('JOURNAL_DAMAGED', message, { file, expected, found });
}
