/**
 * The roll-out list: one signed file on an HTTPS server that says which robots are to run which version, and where its bundles are. Made by `premotor
 * fleet rollout`, read by robots. This file owns its format and its signature; it fetches nothing and installs nothing.
 */
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { isLoopback } from '../local-access.js';
import { openssl } from '../openssl.js';

export const LIST_BYTES_MAX = 4 * 2 ** 20;
export const ROBOTS_IN_LIST_MAX = 10_000;
/** The use of a certificate that may sign updates; those of robots must not have it. */
const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';

export const robotName = z.string().regex(/^[^/+#\s]{1,128}$/);
export const versionText = z.string().regex(/^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$/);

/** https, or this machine itself. */
export function isSafeUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, username, password } = new URL(text);
  return (protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname))) && username === '' && password === '';
}

export const bundleSchema = z.strictObject({
  url: z.string().max(2000).refine(isSafeUrl, 'https://HOST/PATH without credentials'),
  sha256: z.string().regex(/^[0-9a-f]{64}$/, '64 hexadecimal digits'),
  bytes: z.int().min(1),
});
export type Bundle = Readonly<z.output<typeof bundleSchema>>;

export const ARCHITECTURES = ['amd64', 'arm64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

const listSchema = z.object({
  format: z.literal('premotor-rollout-1'),
  /** Sparkplug group of the robots. */
  fleet: robotName,
  /** Rises with every list: a robot takes none that is older than one it has seen. */
  serial: z.int().min(1),
  issued: z.string(),
  version: versionText,
  /** Robots on which this version failed try it again when this rises. */
  round: z.int().min(1),
  paused: z.boolean(),
  bundles: z.partialRecord(z.enum(ARCHITECTURES), bundleSchema),
  /** Those that are due; the others wait. */
  robots: z.array(robotName).max(ROBOTS_IN_LIST_MAX),
});
export type RolloutList = Readonly<z.output<typeof listSchema>>;

export interface Signer {
  readonly certFile: string;
  readonly keyFile: string;
}

/** The list with its signature inside, as PEM. Errors: ROLLOUT_SIGN, OPENSSL_MISSING. */
export async function signList(list: RolloutList, { certFile, keyFile }: Signer): Promise<Buffer> {
  const refused = (expected: string, found: string): PremotorError => {
    const message = `The list cannot be signed: expected ${expected}, found ${found}. Name the signer's certificate and its key.`;
    return new PremotorError('ROLLOUT_SIGN', message, { file: certFile, expected, found });
  };
  const certificate = await certificateIn(certFile).catch((error: Error) => {
    throw refused('a certificate (PEM)', error.message);
  });
  if (!certificate.keyUsage?.includes(CODE_SIGNING)) throw refused('a certificate that may sign code', 'one that may not, as those of robots');
  const args = ['cms', '-sign', '-binary', '-nodetach', '-nosmimecap', '-md', 'sha256', '-outform', 'PEM', '-signer', certFile, '-inkey', keyFile];
  const { code, out, err } = await openssl(args, JSON.stringify(listSchema.parse(list), null, 1));
  if (code !== 0) throw refused('a certificate and its key', err);
  return out;
}

async function certificateIn(file: string): Promise<X509Certificate> {
  return new X509Certificate(await readFile(file));
}

function invalid(file: string, found: string, cause?: unknown): PremotorError {
  const expected = "a roll-out list that the fleet's authority vouches for";
  const message = `The roll-out list ${file} is not believed: expected ${expected}, found ${found}. Nothing is installed. Check who published it.`;
  return new PremotorError('ROLLOUT_LIST', message, { file, expected, found, ...(cause === undefined ? {} : { cause }) });
}

/** Checks who signed it, and only then reads it. `caFile`: the fleet's authority. Errors: ROLLOUT_LIST, OPENSSL_MISSING. */
export async function openList(file: string, signed: Uint8Array, caFile: string): Promise<RolloutList> {
  if (signed.length > LIST_BYTES_MAX) throw invalid(file, `${signed.length} bytes`);
  const scratch = await mkdtemp(join(tmpdir(), 'premotor-list-'));
  try {
    const signer = join(scratch, 'signer.pem');
    const source = join(scratch, 'list');
    await writeFile(source, signed, { mode: 0o600 });
    // Any use is accepted by openssl, so that the one use that counts can be asked for below.
    const args = ['cms', '-verify', '-binary', '-inform', 'PEM', '-in', source, '-CAfile', caFile, '-no-CApath', '-no-CAstore', '-purpose', 'any'];
    const { code, out, err } = await openssl([...args, '-signer', signer]);
    if (code !== 0) throw invalid(file, reasonIn(err));
    // Content that nobody signed verifies as well: there is no signer to be wrong.
    const certificate = await certificateIn(signer).catch((cause: Error) => {
      throw invalid(file, 'no signer', cause);
    });
    if (!certificate.keyUsage?.includes(CODE_SIGNING)) throw invalid(file, `a signature by ${nameOf(certificate)}, which may sign no updates`);
    return parsed(file, out);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

const nameOf = ({ subject }: X509Certificate): string => subject.replaceAll('\n', ', ');

function reasonIn(err: string): string {
  return /Verify error: ?(.+)$/m.exec(err)?.[1] ?? /:([^:\n]+):[^:\n]*:\d+:[^:\n]*$/m.exec(err)?.[1] ?? (err.slice(-200) || 'no signature');
}

function parsed(file: string, content: Buffer): RolloutList {
  try {
    return listSchema.parse(JSON.parse(content.toString('utf8')));
  } catch (cause) {
    const [issue] = cause instanceof z.ZodError ? cause.issues : [];
    throw invalid(file, issue === undefined ? 'a signed file that is none' : `${issue.path.join('.')}: ${issue.message}`, cause);
  }
}
