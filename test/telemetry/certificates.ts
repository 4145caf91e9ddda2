/**
 * An authority of one test, and certificates that it signed, one per name. Made by openssl; not a test itself.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const skipOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'SKIPPED: no openssl here: certificates cannot be made';

/** Returns the path of a file: `ca.pem`, `NAME.pem`, `NAME.key`. */
export function certificates(folder: string, names: readonly string[]): (file: string) => string {
  const ssl = (...args: string[]): void => {
    const made = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' });
    if (made.status !== 0) throw new Error(made.stderr);
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  ssl('req', '-x509', ...key, '-days', '2', '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=test authority');
  writeFileSync(join(folder, 'san'), 'subjectAltName=IP:127.0.0.1');
  for (const name of names) {
    ssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'san'];
    ssl('x509', '-req', '-in', `${name}.csr`, ...signing, '-out', `${name}.pem`);
  }
  return (file) => join(folder, file);
}
