/**
 * The fleet's certificates for updates: an authority whose key stays off the robots, signers that it certifies for a limited time, and detached
 * signatures (CMS) by them. openssl computes; this says what a certificate may be used for. Owned by the update commands.
 */
import { chmod, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { PremotorError } from '../errors.js';
import { lastLine, runTool, runToolWell } from './tools.js';

/** EC P-256: what RAUC's and openssl's CMS verify everywhere. */
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'] as const;
const CA_KEY = 'fleet-ca.key';
export const CA_CERTIFICATE = 'fleet-ca.pem';

export const CA_DAYS = 7300;
export const SIGNER_DAYS = 365;

/**
 * Robots' certificates come from elsewhere, and may say neither of these uses: a key stolen from a robot signs no update even if one authority issued
 * both. emailProtection is the use that CMS asks for by default, codeSigning the one that RAUC can be told to ask for.
 */
const SIGNER_EXTENSIONS = [
  'basicConstraints=critical,CA:false',
  'keyUsage=critical,digitalSignature',
  'extendedKeyUsage=critical,codeSigning,emailProtection',
  'subjectKeyIdentifier=hash',
  'authorityKeyIdentifier=keyid',
];

export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

/** Makes an authority in an empty or new folder. Errors: UPDATE_KEY (there is one), UPDATE_TOOL_*. */
export async function createAuthority(folder: string, name: string, days = CA_DAYS): Promise<KeyPair> {
  const pair = { certificate: join(folder, CA_CERTIFICATE), key: join(folder, CA_KEY) };
  await checkAbsent(pair);
  await makeFolder(folder);
  const uses = ['-addext', 'basicConstraints=critical,CA:true,pathlen:0', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'];
  const subject = ['-subj', subjectOf(name, 'update authority'), '-days', String(days)];
  await runToolWell('openssl', ['req', '-x509', ...NEW_KEY, '-keyout', pair.key, '-out', pair.certificate, ...subject, ...uses]);
  await chmod(pair.key, 0o600);
  return pair;
}

/** Certifies a new signer. Errors: UPDATE_KEY, UPDATE_TOOL_*. */
export async function createSigner(authority: string, name: string, days = SIGNER_DAYS): Promise<KeyPair> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) throw keyError(name, 'a name of letters, digits, dots and dashes', JSON.stringify(name));
  const [caCertificate, caKey] = [join(authority, CA_CERTIFICATE), join(authority, CA_KEY)];
  await checkThere(caCertificate);
  await checkThere(caKey);
  const pair = { certificate: join(authority, `${name}.pem`), key: join(authority, `${name}.key`) };
  await checkAbsent(pair);
  return inScratch(async (scratch) => {
    const [request, extensions] = [join(scratch, 'request'), join(scratch, 'extensions')];
    await writeFile(extensions, `${SIGNER_EXTENSIONS.join('\n')}\n`);
    await runToolWell('openssl', ['req', ...NEW_KEY, '-keyout', pair.key, '-out', request, '-subj', subjectOf(name, 'update signer')]);
    await chmod(pair.key, 0o600);
    const by = ['-CA', caCertificate, '-CAkey', caKey, '-days', String(days), '-extfile', extensions];
    await runToolWell('openssl', ['x509', '-req', '-in', request, '-out', pair.certificate, ...by]);
    return pair;
  });
}

/** A detached signature in DER. Errors: UPDATE_KEY (expired, or the key does not belong to it), UPDATE_TOOL_*. */
export async function signDetached(bytes: Uint8Array, { certificate, key }: KeyPair): Promise<Buffer> {
  await checkSigner({ certificate, key });
  return inScratch(async (scratch) => {
    const [content, signature] = [join(scratch, 'content'), join(scratch, 'signature')];
    await writeFile(content, bytes);
    const args = ['cms', '-sign', '-binary', '-outform', 'DER', '-nosmimecap', '-md', 'sha256', '-signer', certificate, '-inkey', key];
    const result = await runTool('openssl', [...args, '-in', content, '-out', signature]);
    if (result.code !== 0) throw keyError(certificate, 'a certificate and its key', lastLine(result));
    const { readFile } = await import('node:fs/promises');
    return readFile(signature);
  });
}

/** Errors: UPDATE_SIGNATURE, UPDATE_KEY (no keyring), UPDATE_TOOL_*. */
export async function verifyDetached(bytes: Uint8Array, signature: Uint8Array, keyring: string, file: string): Promise<void> {
  await checkThere(keyring);
  await inScratch(async (scratch) => {
    const [content, cms] = [join(scratch, 'content'), join(scratch, 'signature')];
    await writeFile(content, bytes);
    await writeFile(cms, signature);
    // Only the fleet's authority counts, never those that the system trusts for websites.
    const trust = ['-CAfile', keyring, '-no-CApath', '-no-CAstore', '-purpose', 'smimesign'];
    const result = await runTool('openssl', [
      'cms',
      '-verify',
      '-binary',
      '-inform',
      'DER',
      '-in',
      cms,
      '-content',
      content,
      ...trust,
      '-out',
      '/dev/null',
    ]);
    if (result.code !== 0) throw signatureError(file, keyring, opensslReason(result.err));
  });
}

export function signatureError(file: string, keyring: string, found: string): PremotorError {
  const expected = `a signature by a signer of ${keyring}`;
  const message =
    `${file} is not signed for this fleet: expected ${expected}, found ${found}. Nothing was written. ` +
    "Sign it with this fleet's signer, or check the clock if a certificate is said to be expired or not yet valid.";
  return new PremotorError('UPDATE_SIGNATURE', message, { file, expected, found });
}

/** The last part of openssl's colon-separated reasons. */
function opensslReason(text: string): string {
  const line =
    text
      .split('\n')
      .filter((one) => one.includes(':'))
      .at(-1) ?? text.trim();
  const verify = /Verify error:(.+)$/.exec(text)?.[1];
  return (
    verify ??
    line
      .split(':')
      .filter((part) => part.trim() !== '')
      .at(-1) ??
    'no valid signature'
  ).trim();
}

/** A signer that has expired is found here, not by fifty robots. Errors: UPDATE_KEY. */
export async function checkSigner({ certificate, key }: KeyPair): Promise<void> {
  await checkThere(certificate);
  await checkThere(key);
  const valid = await runTool('openssl', ['x509', '-in', certificate, '-noout', '-checkend', '0']);
  if (valid.code === 0) return;
  const found = /will expire/.test(valid.out) ? 'one that has expired' : lastLine(valid) || 'no certificate';
  throw keyError(certificate, 'a certificate that is valid now', found);
}

async function checkThere(file: string): Promise<void> {
  await stat(file).catch((cause: Error) => {
    throw keyError(file, 'a readable file', cause.message, cause);
  });
}

async function checkAbsent({ certificate, key }: KeyPair): Promise<void> {
  for (const file of [certificate, key]) {
    // A key that is replaced by mistake cuts a fleet off from its updates for good.
    if (await stat(file).catch(() => undefined)) throw keyError(file, 'no file of this name', 'one: it is not replaced');
  }
}

async function makeFolder(folder: string): Promise<void> {
  await mkdir(resolve(folder), { recursive: true, mode: 0o700 }).catch((cause: Error) => {
    throw keyError(folder, 'a folder to write to', cause.message, cause);
  });
}

function subjectOf(name: string, role: string): string {
  if (!/^[A-Za-z0-9 ._-]{1,60}$/.test(name)) throw keyError(name, 'a name of letters, digits, spaces, dots and dashes', JSON.stringify(name));
  return `/O=premotor fleet/OU=${role}/CN=${name}`;
}

export async function inScratch<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'premotor-update-'));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function keyError(file: string, expected: string, found: string, cause?: unknown): PremotorError {
  const message = `${file} cannot be used: expected ${expected}, found ${found}. docs/UPDATE.md, "Keys", says how they are made.`;
  return new PremotorError('UPDATE_KEY', message, { file, expected, found, cause });
}
