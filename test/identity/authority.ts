/**
 * An authority of one test, as docs/FLEET.md tells an operator to make one: it signs requests of robots, and signers of updates. Not a test itself.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const ROBOT_USES = 'extendedKeyUsage=clientAuth';
export const SIGNER_USES = 'extendedKeyUsage=critical,codeSigning,emailProtection';
export const SERVER_USES = 'extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost';

export function ssl(...args: readonly string[]): string {
  const made = spawnSync('openssl', args, { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`openssl ${args.join(' ')}: ${made.stderr}`);
  return made.stdout;
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

export class Authority {
  readonly #folder: string;

  constructor(folder: string, name = 'fleet') {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
    ssl('req', '-x509', ...NEW_KEY, '-days', '10', '-keyout', this.file('ca.key'), '-out', this.file('ca.pem'), '-subj', `/CN=${name}`);
  }

  file(name: string): string {
    return join(this.#folder, name);
  }

  get certificate(): string {
    return this.file('ca.pem');
  }

  /** Signs a request; returns the certificate's file. */
  sign(request: string, out: string, extensions = ROBOT_USES, days = '5'): string {
    writeFileSync(this.file('ext'), `basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n${extensions}\n`);
    const by = ['-CA', this.certificate, '-CAkey', this.file('ca.key'), '-CAcreateserial', '-days', days, '-extfile', this.file('ext')];
    ssl('x509', '-req', '-in', request, ...by, '-out', this.file(out));
    return this.file(out);
  }

  /** A key and a certificate of its own: NAME.key, NAME.pem. */
  issue(name: string, extensions = ROBOT_USES, days = '5'): { readonly certFile: string; readonly keyFile: string } {
    ssl('req', ...NEW_KEY, '-keyout', this.file(`${name}.key`), '-out', this.file(`${name}.csr`), '-subj', `/CN=${name}`);
    return { certFile: this.sign(this.file(`${name}.csr`), `${name}.pem`, extensions, days), keyFile: this.file(`${name}.key`) };
  }
}
