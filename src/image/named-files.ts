/**
 * The files that a robot's configuration names beside itself (robot descriptions, recorded pictures): they go with it into the image. Owned by the
 * image builder. Secrets are never among them: an image is one for many robots.
 */
import { existsSync, statSync } from 'node:fs';
import { dirname, isAbsolute, normalize, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { PremotorError } from '../errors.js';

export interface NamedFile {
  readonly key: string;
  /** On this machine. */
  readonly from: string;
  /** Below the configuration's folder, on both machines. */
  readonly path: string;
}

/** Keys of files that belong to a robot and not to its configuration: its secrets, and what the authority gave it. */
const own = [
  ...['policy.token_file', 'dashboard.token_file', 'telemetry.password_file'],
  ...['telemetry.ca_file', 'telemetry.cert_file', 'telemetry.key_file'],
];

function refused(key: string, file: string, expected: string, found: string): PremotorError {
  const message = `${key} of ${file} would name nothing on the robot: expected ${expected}, found ${found}. Correct it.`;
  return new PremotorError('IMAGE_INPUT_INVALID', message, { field: key, file, expected, found });
}

/**
 * What `text`, the configuration `file`, names by relative paths. Absolute paths are places on the robot and left alone. Errors: IMAGE_INPUT_INVALID
 * for files that are missing or above the configuration's folder, and for secrets with a relative path.
 */
export function namedFiles(text: string, file: string): NamedFile[] {
  const document = parseDocument(text);
  const relativeAt = (key: readonly string[]): string | undefined => {
    const path = document.getIn(key);
    return typeof path === 'string' && !isAbsolute(path) ? path : undefined;
  };
  for (const key of own) {
    const path = relativeAt(key.split('.'));
    if (path !== undefined) throw refused(key, file, 'an absolute path, a place on the robot', path);
  }
  const within = (section: readonly string[], key: string): string[][] =>
    Object.keys(document.toJS()?.[section[0] ?? '']?.[section[1] ?? ''] ?? {}).map((name) => [...section, name, key]);
  return [...within(['robot', 'workspaces'], 'urdf'), ...within(['cameras', 'sources'], 'path')].flatMap((at) => {
    const path = relativeAt(at);
    if (path === undefined) return [];
    const [key, from] = [at.join('.'), resolve(dirname(file), path)];
    if (normalize(path).startsWith('..')) throw refused(key, file, "a path inside the configuration's folder, or an absolute one on the robot", path);
    if (!existsSync(from) || !statSync(from).isFile()) throw refused(key, file, 'a file', `no file ${from}`);
    return [{ key, from, path: normalize(path) }];
  });
}
