/**
 * A robot's certificate as its owner must read it: whose it is, whether the key belongs to it, who vouches for it and until when. Pure checks on
 * bytes;
 * owned by the identity commands and by telemetry, which warns before one expires.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { PremotorError } from '../errors.js';

export const WARN_DAYS = 30;
const MS_PER_DAY = 86_400_000;
const CLIENT_AUTHENTICATION = '1.3.6.1.5.5.7.3.2';
const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';

export interface CertificateFacts {
  readonly name: string;
  readonly issuer: string;
  readonly serial: string;
  readonly fromMs: number;
  readonly untilMs: number;
  readonly daysLeft: number;
  readonly fingerprint: string;
}

const commonName = (distinguished: string): string => /^CN=(.*)$/m.exec(distinguished)?.[1] ?? '';

export function factsOfCertificate(certificate: X509Certificate, nowMs: number): CertificateFacts {
  const [fromMs, untilMs] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  return {
    name: commonName(certificate.subject),
    issuer: commonName(certificate.issuer),
    serial: certificate.serialNumber,
    fromMs,
    untilMs,
    daysLeft: Math.floor((untilMs - nowMs) / MS_PER_DAY),
    fingerprint: certificate.fingerprint256,
  };
}

/** Errors: IDENTITY_CERTIFICATE. */
export function refusedCertificate(file: string, expected: string, found: string, remedy: string): PremotorError {
  const message = `The certificate ${file} is not taken: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('IDENTITY_CERTIFICATE', message, { file, expected, found });
}

const PEM = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** The certificates of a PEM file in their order. Errors: IDENTITY_CERTIFICATE. */
export function certificatesIn(file: string, text: string): readonly X509Certificate[] {
  try {
    const found = [...text.matchAll(PEM)].map(([pem]) => new X509Certificate(pem));
    if (found.length > 0) return found;
  } catch {
    // Said below: the text looks like one and is none.
  }
  throw refusedCertificate(file, 'a certificate (PEM)', 'none', 'Give the file that the authority sent.');
}

export interface CertificateCheck {
  readonly file: string;
  readonly certificate: X509Certificate;
  readonly key: KeyObject;
  readonly name: string;
  readonly nowMs: number;
}

/** Whether a certificate is this robot's, now. Who vouches for it is checked elsewhere. Errors: IDENTITY_CERTIFICATE. */
export function checkCertificate({ file, certificate, key, name, nowMs }: CertificateCheck): void {
  const refuse = (expected: string, found: string, remedy: string): never => {
    throw refusedCertificate(file, expected, found, remedy);
  };
  const facts = factsOfCertificate(certificate, nowMs);
  if (!certificate.checkPrivateKey(key)) refuse("one for this robot's key", 'one for another key', 'Have robot.csr of this robot signed.');
  if (facts.name !== name)
    refuse(`the name ${name}`, facts.name === '' ? 'none' : facts.name, 'Have robot.csr signed with the name that it asks for.');
  if (certificate.ca) refuse("a robot's certificate", "an authority's", 'Sign it with basicConstraints CA:false.');
  const uses = certificate.keyUsage ?? [];
  if (uses.includes(CODE_SIGNING)) refuse('one that cannot sign updates', 'one that can', 'Sign it with extendedKeyUsage clientAuth alone.');
  if (uses.length > 0 && !uses.includes(CLIENT_AUTHENTICATION))
    refuse('one for clients (clientAuth)', uses.join(', '), 'Sign it with extendedKeyUsage clientAuth.');
  const iso = (ms: number): string => new Date(ms).toISOString();
  if (nowMs < facts.fromMs) refuse(`a day after ${iso(facts.fromMs)}`, iso(nowMs), 'Set the clock of this computer, or wait.');
  if (nowMs > facts.untilMs) refuse(`a day before ${iso(facts.untilMs)}`, iso(nowMs), 'Have robot.csr signed again.');
}

/** The private key in a PEM text. Errors: IDENTITY_KEY. */
export function privateKeyIn(file: string, text: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch (cause) {
    const message = `The private key ${file} cannot be used. Move the folder aside and make a new identity; the old certificate is then of no use.`;
    throw new PremotorError('IDENTITY_KEY', message, { file, expected: 'a private key (PEM)', found: (cause as Error).message, cause });
  }
}

/** What an operator should hear about the certificate that telemetry shows; undefined: nothing. */
export function certificateRemark(pem: Buffer, node: string, nowMs: number): PremotorError | undefined {
  let facts: CertificateFacts;
  try {
    facts = factsOfCertificate(new X509Certificate(pem), nowMs);
  } catch {
    // TLS says what is wrong with it when it is used.
    return undefined;
  }
  const expected = `a certificate of ${node} that is valid for ${WARN_DAYS} days or more`;
  if (facts.untilMs - nowMs < WARN_DAYS * MS_PER_DAY) {
    const found = facts.untilMs < nowMs ? `one that ended on ${new Date(facts.untilMs).toISOString()}` : `${facts.daysLeft} days left`;
    const how = facts.untilMs < nowMs ? 'has expired' : 'expires soon';
    const message = `This robot's certificate ${how}: ${found}. Have robot.csr signed again and install it.`;
    return new PremotorError('IDENTITY_EXPIRES', message, { field: 'telemetry.cert_file', expected, found });
  }
  if (facts.name === node) return undefined;
  const message = `This robot's certificate is for "${facts.name}", but it reports as "${node}". Correct telemetry.node_id.`;
  return new PremotorError('IDENTITY_NAME', message, { field: 'telemetry.node_id', expected: facts.name, found: node });
}
