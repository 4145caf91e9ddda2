/**
 * Certificates of precisions: `certificates/PRECISION.json` in a checkpoint's folder says that the checkpoint, run at that precision, did its tasks
 * as well as in float32, within a margin. Read here and judged; `premotor eval certify-precision` writes them. A quantised precision is refused
 * without.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { type CpuPrecision, isQuantised, PRECISIONS, WEIGHT_FORMS } from './precision.js';

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
  /** WEIGHT_FORMS of the precision when it was made. */
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

export const certificateFile = (checkpoint: string, precision: CpuPrecision): string => join(checkpoint, 'certificates', `${precision}.json`);

/** What is known about a checkpoint at a precision. `problem` completes "expected a certificate, found ...". */
export type CertificateState =
  | { readonly kind: 'valid'; readonly certificate: PrecisionCertificate }
  | { readonly kind: 'invalid'; readonly problem: string };

/** Reads and judges the certificate of a checkpoint with this hash. Never throws: whatever is wrong with the file makes it no certificate. */
export async function findCertificate(checkpoint: string, precision: CpuPrecision, checkpointHash: string): Promise<CertificateState> {
  let text: string;
  try {
    text = await readFile(certificateFile(checkpoint, precision), 'utf8');
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
  const problem = problemOf(parsed.data, precision, checkpointHash);
  return problem === undefined ? { kind: 'valid', certificate: parsed.data } : { kind: 'invalid', problem };
}

/** Why a certificate does not cover this checkpoint at this precision; undefined when it does. */
export function problemOf(certificate: PrecisionCertificate, precision: CpuPrecision, checkpointHash: string): string | undefined {
  const { interval_points, margin_points, pairs } = certificate;
  if (certificate.precision !== precision) return `one of ${certificate.precision}`;
  if (certificate.checkpoint !== checkpointHash) return `one of another checkpoint (${certificate.checkpoint.slice(0, 12)}...)`;
  if (certificate.weights !== WEIGHT_FORMS[precision]) return `one of weights held otherwise ("${certificate.weights}")`;
  if (pairs < CERTIFICATE_PAIRS_MIN) return `one of ${pairs} paired episodes, fewer than ${CERTIFICATE_PAIRS_MIN}`;
  if (margin_points > CERTIFICATE_MARGIN_POINTS_MAX) return `one with a margin of ${margin_points} points, above ${CERTIFICATE_MARGIN_POINTS_MAX}`;
  if (interval_points[0] < -margin_points) {
    return `one that it fails: up to ${-interval_points[0]} points worse than float32 are possible, ${margin_points} are allowed`;
  }
  return undefined;
}

/**
 * Refuses a quantised precision without a valid certificate, unless the caller goes on knowingly: then the warning to give comes back. float32 is
 * what certificates compare with; bfloat16 is what released checkpoints are deployed in: neither needs one. Errors: PRECISION_NOT_CERTIFIED.
 */
export async function checkCertificate(
  checkpoint: string,
  precision: CpuPrecision,
  checkpointHash: string,
  allowUncertified: boolean,
): Promise<string | undefined> {
  if (!isQuantised(precision)) return undefined;
  const state = await findCertificate(checkpoint, precision, checkpointHash);
  if (state.kind === 'valid') return undefined;
  const file = certificateFile(checkpoint, precision);
  if (allowUncertified) return `Precision ${precision} is not certified for this checkpoint: ${file}: found ${state.problem}.`;
  const message =
    `Precision "${precision}" is not certified for this checkpoint: expected a certificate in ${file}, found ${state.problem}. ` +
    `Make one with "premotor eval certify-precision --precision ${precision} --checkpoint ${checkpoint} --write", use "f32" or "bf16", ` +
    'or go on knowingly with allowUncertified (--allow-uncertified).';
  throw new PremotorError('PRECISION_NOT_CERTIFIED', message, { field: 'precision', file, expected: 'a valid certificate', found: state.problem });
}
