/**
 * Certificates of precisions: `certificates/PRECISION.json` in a checkpoint's folder says that the checkpoint, run at that precision, did its tasks
 * as well as in float32, within a margin; `PRECISION-kv-KVCACHE.json` says it of a precision with another KV cache than its own. Read here and
 * judged; `premotor eval certify-precision` writes them. A quantised precision, or another KV cache, is refused without.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { defaultKvCache, formOf, hasDefaultKvCache, KV_CACHES, needsCertificate, PRECISIONS, type PrecisionPair, pairName } from './precision.js';

/** Fewer pairs, or a larger margin, prove too little. */
export const CERTIFICATE_PAIRS_MIN = 200;
export const CERTIFICATE_MARGIN_POINTS_MAX = 5;

const share = z.number().min(0).max(1);
const points = z.number().min(-100).max(100);
const count = z.int().min(0);
const hash = z.string().regex(/^[0-9a-f]{64}$/);

const certificateSchema = z.strictObject({
  format: z.literal(1),
  precision: z.enum(PRECISIONS),
  /** Absent: the precision's default. */
  kv_cache: z.enum(KV_CACHES).optional(),
  /** formOf the pair when it was made. */
  weights: z.string().min(1),
  base_precision: z.literal('f32'),
  /** Of the checkpoint (checkpointHash). */
  checkpoint: hash,
  date: z.iso.datetime(),
  tool: z.string().min(1),
  commit: z.string().nullable(),
  backend: z.string().min(1),
  /** SHA-256 of the job, and the steps that were run. */
  job: hash,
  mode: z.string().min(1),
  video_steps: z.int().min(1),
  action_steps: z.int().min(1),
  tasks: z.array(z.string().min(1)).min(1),
  /** Per task; seeds count up from `seed`. */
  episodes: z.int().min(1),
  seed: count,
  /** Scenes that both precisions ran, and how many succeeded only in float32 or only at this precision. */
  pairs: z.int().min(1),
  only_base: count,
  only_this: count,
  success: share,
  base_success: share,
  difference_points: points,
  /** Tango's 95 % interval of the difference. */
  interval_points: z.tuple([points, points]),
  /** McNemar's exact test. */
  mcnemar_p: share,
  margin_points: z.number().min(0).max(100),
});

export type PrecisionCertificate = z.infer<typeof certificateSchema>;

export const certificateFile = (checkpoint: string, pair: PrecisionPair): string => join(checkpoint, 'certificates', `${pairName(pair)}.json`);

/** What is known about a checkpoint at a precision. `problem` completes "expected a certificate, found ...". */
export type CertificateState =
  | { readonly kind: 'valid'; readonly certificate: PrecisionCertificate }
  | { readonly kind: 'invalid'; readonly problem: string };

/** Reads and judges the certificate of a checkpoint with this hash. Never throws: whatever is wrong with the file makes it no certificate. */
export async function findCertificate(checkpoint: string, pair: PrecisionPair, checkpointHash: string): Promise<CertificateState> {
  let text: string;
  try {
    text = await readFile(certificateFile(checkpoint, pair), 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    return { kind: 'invalid', problem: code === 'ENOENT' || code === 'ENOTDIR' ? 'none' : `one that cannot be read (${(cause as Error).message})` };
  }
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    return { kind: 'invalid', problem: 'one that is no JSON' };
  }
  const parsed = certificateSchema.safeParse(raw);
  if (!parsed.success) return { kind: 'invalid', problem: `one whose ${parsed.error.issues[0]?.path.join('.') || 'form'} is wrong` };
  const problem = problemOf(parsed.data, pair, checkpointHash);
  return problem === undefined ? { kind: 'valid', certificate: parsed.data } : { kind: 'invalid', problem };
}

/** Why a certificate does not cover this checkpoint at this precision and KV cache; undefined when it does. */
export function problemOf(certificate: PrecisionCertificate, pair: PrecisionPair, checkpointHash: string): string | undefined {
  const { precision, kv_cache = defaultKvCache(precision), interval_points, margin_points, pairs } = certificate;
  if (precision !== pair.precision) return `one of ${precision}`;
  if (kv_cache !== pair.kvCache) return `one of a KV cache in ${kv_cache}`;
  if (certificate.checkpoint !== checkpointHash) return `one of another checkpoint (${certificate.checkpoint.slice(0, 12)}...)`;
  if (certificate.weights !== formOf(pair)) return `one of weights held otherwise ("${certificate.weights}")`;
  if (pairs < CERTIFICATE_PAIRS_MIN) return `one of ${pairs} paired episodes, fewer than ${CERTIFICATE_PAIRS_MIN}`;
  if (margin_points > CERTIFICATE_MARGIN_POINTS_MAX) return `one with a margin of ${margin_points} points, above ${CERTIFICATE_MARGIN_POINTS_MAX}`;
  if (interval_points[0] < -margin_points) {
    return `one that it fails: up to ${-interval_points[0]} points worse than float32 are possible, ${margin_points} are allowed`;
  }
  return undefined;
}

/**
 * Refuses what needs a certificate and has no valid one, unless the caller goes on knowingly: then the warning to give comes back. float32 is what
 * certificates compare with; bfloat16 is what released checkpoints are deployed in: with their own KV caches neither needs one. Errors:
 * PRECISION_NOT_CERTIFIED.
 */
export async function checkCertificate(
  checkpoint: string,
  pair: PrecisionPair,
  checkpointHash: string,
  allowUncertified: boolean,
): Promise<string | undefined> {
  if (!needsCertificate(pair)) return undefined;
  const state = await findCertificate(checkpoint, pair, checkpointHash);
  if (state.kind === 'valid') return undefined;
  const file = certificateFile(checkpoint, pair);
  if (allowUncertified) return `Precision ${pairName(pair)} is not certified for this checkpoint: ${file}: found ${state.problem}.`;
  const { name, field, options, otherwise } = wordsOf(pair);
  const message =
    `Precision ${name} is not certified for this checkpoint: expected a certificate in ${file}, found ${state.problem}. ` +
    `Make one with "premotor eval certify-precision ${options} --checkpoint ${checkpoint} --write", ${otherwise}, ` +
    'or go on knowingly with allowUncertified (--allow-uncertified).';
  throw new PremotorError('PRECISION_NOT_CERTIFIED', message, { field, file, expected: 'a valid certificate', found: state.problem });
}

function wordsOf(pair: PrecisionPair): Readonly<Record<'name' | 'field' | 'options' | 'otherwise', string>> {
  const { precision, kvCache } = pair;
  const [name, options] = [`"${precision}"`, `--precision ${precision}`];
  if (hasDefaultKvCache(pair)) return { name, field: 'precision', options, otherwise: 'use "f32" or "bf16"' };
  const otherwise = `leave kvCache at the precision's own "${defaultKvCache(precision)}"`;
  return { name: `${name} with kvCache "${kvCache}"`, field: 'kvCache', options: `${options} --kv-cache ${kvCache}`, otherwise };
}
