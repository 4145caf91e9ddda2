/**
 * A robot's identity: a private key that is made on the robot and never leaves it, the request that the fleet's authority signs, and the certificate
 * that
 * comes back. Owned by the identity commands; one folder, files that are replaced in one step, nothing sent anywhere.
 */
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto';
import { link, mkdir, open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PremotorError } from '../errors.js';
import { syncFolder } from '../journal/durable.js';
import { openssl } from '../openssl.js';
import { replaceFile } from '../replace-file.js';
import {
  type CertificateFacts,
  certificatesIn,
  checkCertificate,
  factsOfCertificate,
  privateKeyIn,
  refusedCertificate,
  WARN_DAYS,
} from './certificate.js';

export const IDENTITY_DIR = '/var/lib/premotor/identity';
/** Also a topic's part and a host's name. */
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

export interface IdentityFiles {
  readonly key: string;
  readonly request: string;
  readonly certificate: string;
  readonly authority: string;
}

export const filesIn = (dir: string): IdentityFiles => ({
  key: join(dir, 'robot.key'),
  request: join(dir, 'robot.csr'),
  certificate: join(dir, 'robot.pem'),
  authority: join(dir, 'ca.pem'),
});

/**
 * No key; a key without its request (a power cut between the two: create --if-missing mends it); the request waits for the authority; all is there;
 * it
 * ends within thirty days; it ended; the files do not belong together.
 */
export type IdentityState = 'none' | 'key alone' | 'requested' | 'ready' | 'expiring' | 'expired' | 'wrong';

export interface IdentityView {
  readonly state: IdentityState;
  readonly dir: string;
  readonly name?: string;
  /** SHA-256 of the public key: what an operator compares before signing. */
  readonly keyFingerprint?: string;
  readonly certificate?: CertificateFacts;
  /** What is wrong, in words. */
  readonly why?: string;
}

const textOf = (file: string): Promise<string | undefined> =>
  readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    const message = `${file} cannot be read. Run this as the user that owns it, or as root.`;
    throw new PremotorError('IDENTITY_FILE', message, { file, expected: 'a file that can be read', found: error.message, cause: error });
  });

export function fingerprintOf(key: KeyObject): string {
  const der = createPublicKey(key).export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(der).digest('hex');
}

/** Errors: IDENTITY_NAME_INVALID. */
export function checkName(name: string): string {
  if (NAME.test(name)) return name;
  const expected = '1 to 63 letters, digits, dots, dashes or underscores, letters or digits at both ends';
  const message = `A robot cannot be called ${JSON.stringify(name)}: expected ${expected}. Give another --name.`;
  throw new PremotorError('IDENTITY_NAME_INVALID', message, { field: 'name', expected, found: name });
}

export interface CreateOptions {
  readonly dir: string;
  readonly name: string;
  /** What is there already stays, and what a power cut left out is added. */
  readonly ifMissing: boolean;
}

/**
 * Makes key and request. Returns whether anything was made. Errors: IDENTITY_EXISTS, IDENTITY_NAME_INVALID, IDENTITY_FILE, IDENTITY_KEY, OPENSSL_*.
 */
export async function createIdentity({ dir, name, ifMissing }: CreateOptions): Promise<boolean> {
  checkName(name);
  const files = filesIn(dir);
  await mkdir(dir, { recursive: true, mode: 0o750 }).catch((cause: Error) => {
    throw new PremotorError('IDENTITY_FILE', `The folder ${dir} cannot be made. Check its rights.`, {
      file: dir,
      expected: 'a folder',
      found: cause.message,
      cause,
    });
  });
  const [keyText, requestText] = [await textOf(files.key), await textOf(files.request)];
  if (keyText !== undefined && !ifMissing) {
    const message = `There is an identity in ${dir}. It stays: another key would end its certificate. Move the folder aside to begin anew.`;
    throw new PremotorError('IDENTITY_EXISTS', message, { file: files.key, expected: 'no key', found: 'one' });
  }
  const made = keyText === undefined ? await makeKey(files.key) : undefined;
  // Beside a new key an old request would be of no use.
  if (made === undefined && requestText !== undefined) return false;
  await makeRequest(files, name);
  return true;
}

/** P-256, readable by its owner alone, in place only when it is complete; never over another. */
async function makeKey(file: string): Promise<true> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const beside = `${file}.${randomUUID()}.new`;
  try {
    const handle = await open(beside, 'wx', 0o600);
    try {
      await handle.writeFile(privateKey.export({ type: 'pkcs8', format: 'pem' }));
      await handle.sync();
    } finally {
      await handle.close();
    }
    // A link, unlike a rename, replaces nothing: of two that are made at one time one stays.
    await link(beside, file);
  } catch (cause) {
    const message = `The key ${file} cannot be written. Check the folder's rights, and that nobody else makes an identity at the same time.`;
    throw new PremotorError('IDENTITY_FILE', message, { file, expected: 'a new file', found: (cause as Error).message, cause });
  } finally {
    await rm(beside, { force: true });
  }
  await syncFolder(join(file, '..'));
  return true;
}

async function makeRequest({ key, request }: IdentityFiles, name: string): Promise<void> {
  const args = ['req', '-new', '-sha256', '-key', key, '-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
  const { code, out, err } = await openssl([...args, '-addext', 'extendedKeyUsage=clientAuth']);
  if (code !== 0) {
    const message = 'openssl made no request. Its message says why.';
    throw new PremotorError('OPENSSL_FAILED', message, { file: request, expected: 'a certificate request', found: err });
  }
  await replaceFile(request, out, 0o644);
}

/** Its name as the request has it. Errors: OPENSSL_*. */
async function requestedName(file: string): Promise<string> {
  const { code, out, err } = await openssl(['req', '-in', file, '-noout', '-verify', '-subject', '-nameopt', 'multiline']);
  const name = /commonName\s*=\s*(.+)$/m.exec(out.toString('utf8'))?.[1];
  if (code === 0 && name !== undefined) return name;
  const message = `The request ${file} cannot be read. Remove it and run premotor identity create --if-missing.`;
  throw new PremotorError('OPENSSL_FAILED', message, { file, expected: 'a certificate request', found: err });
}

/** What is there. Errors: IDENTITY_FILE, IDENTITY_KEY, OPENSSL_*. */
export async function showIdentity(dir: string, nowMs: number = Date.now()): Promise<IdentityView> {
  const files = filesIn(dir);
  const keyText = await textOf(files.key);
  if (keyText === undefined) return { state: 'none', dir };
  const key = privateKeyIn(files.key, keyText);
  const keyFingerprint = fingerprintOf(key);
  if ((await textOf(files.request)) === undefined) return { state: 'key alone', dir, keyFingerprint };
  const name = await requestedName(files.request);
  const known = { dir, name, keyFingerprint };
  const pem = await textOf(files.certificate);
  if (pem === undefined) return { state: 'requested', ...known };
  try {
    const [certificate] = certificatesIn(files.certificate, pem);
    if (certificate === undefined) return { state: 'requested', ...known };
    const facts = factsOfCertificate(certificate, nowMs);
    if (nowMs > facts.untilMs) return { state: 'expired', ...known, certificate: facts };
    checkCertificate({ file: files.certificate, certificate, key, name, nowMs });
    return { state: facts.daysLeft < WARN_DAYS ? 'expiring' : 'ready', ...known, certificate: facts };
  } catch (error) {
    return { state: 'wrong', ...known, why: (error as Error).message };
  }
}

export interface InstallOptions {
  readonly dir: string;
  /** The certificate, and behind it those between it and the authority. */
  readonly certificate: string;
  readonly authority: string;
  readonly nowMs?: number;
}

/**
 * Checks everything and only then replaces the certificate. Errors: IDENTITY_MISSING, IDENTITY_CERTIFICATE, IDENTITY_FILE, IDENTITY_KEY, OPENSSL_*.
 */
export async function installCertificate({ dir, certificate: file, authority, nowMs = Date.now() }: InstallOptions): Promise<CertificateFacts> {
  const files = filesIn(dir);
  const [keyText, pem, caPem] = [await textOf(files.key), await required(file), await required(authority)];
  if (keyText === undefined) {
    const message = `There is no key in ${dir} that a certificate could belong to. Run premotor identity create, and have its request signed.`;
    throw new PremotorError('IDENTITY_MISSING', message, { file: files.key, expected: 'a key', found: 'none' });
  }
  const [certificate] = certificatesIn(file, pem);
  certificatesIn(authority, caPem);
  if (certificate === undefined) throw refusedCertificate(file, 'a certificate', 'none', '');
  checkCertificate({ file, certificate, key: privateKeyIn(files.key, keyText), name: await requestedName(files.request), nowMs });
  const args = ['verify', '-purpose', 'sslclient', '-no-CApath', '-no-CAstore', '-CAfile', authority, '-untrusted', file, file];
  const { code, err } = await openssl(['verify', '-attime', String(Math.floor(nowMs / 1000)), ...args.slice(1)]);
  if (code !== 0) {
    const found = /error \d+ at \d+ depth lookup: ?(.+)$/m.exec(err)?.[1] ?? err;
    throw refusedCertificate(
      file,
      `one that ${authority} vouches for`,
      found,
      "Give the authority's certificate that signed it, and those in between.",
    );
  }
  // First who is believed, then who one is: a power cut in between leaves the old certificate, which its broker still takes.
  await replaceFile(files.authority, caPem, 0o644);
  await replaceFile(files.certificate, pem, 0o644);
  return factsOfCertificate(certificate, nowMs);
}

async function required(file: string): Promise<string> {
  const text = await textOf(file);
  if (text !== undefined) return text;
  throw new PremotorError('IDENTITY_FILE', `${file} is not there. Check the path.`, { file, expected: 'a file that can be read', found: 'none' });
}

/** Whether anybody but its owner may read the key. */
export async function isKeyPrivate(dir: string): Promise<boolean> {
  return ((await stat(filesIn(dir).key)).mode & 0o077) === 0;
}
