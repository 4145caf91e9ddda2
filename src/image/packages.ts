/**
 * What Debian packages an image consists of: the short list that is wanted, and the recorded versions of everything that came of it. A build
 * compares what it got with the record and refuses a difference, so that a mirror that moved on is noticed and not shipped. Pure but for reading the
 * two files.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PremotorError } from '../errors.js';
import type { Arch } from './layout.js';

const DIFFERENCES_SHOWN = 6;

/** The wanted packages for an architecture. Lines that start with # are remarks. */
export function parsePackages(text: string, arch: Arch): readonly string[] {
  const names = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((name) => (name === 'KERNEL' ? `linux-image-${arch}` : name));
  // Its modules come from inside the tree, so that the boot loader is of the same release as the rest; they leave the tree again.
  return [...names, `grub-efi-${arch}-bin`];
}

export function readPackages(folder: string, arch: Arch): readonly string[] {
  return parsePackages(readFileSync(join(folder, 'packages.txt'), 'utf8'), arch);
}

export const recordPath = (folder: string, arch: Arch): string => join(folder, `packages.${arch}`);

/** `name=version` lines, sorted; undefined when nothing was recorded yet. */
export function readRecord(folder: string, arch: Arch): readonly string[] | undefined {
  const path = recordPath(folder, arch);
  return existsSync(path) ? linesOf(readFileSync(path, 'utf8')) : undefined;
}

export const linesOf = (text: string): readonly string[] =>
  text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .sort();

/** Every difference in words: `openssl 3.0.1 -> 3.0.2`, `+ new 1`, `- gone 1`. */
export function differences(recorded: readonly string[], found: readonly string[]): readonly string[] {
  const parse = (lines: readonly string[]): Map<string, string> =>
    new Map(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
  const [before, after] = [parse(recorded), parse(found)];
  const names = [...new Set([...before.keys(), ...after.keys()])].sort();
  return names.flatMap((name) => {
    const [was, is] = [before.get(name), after.get(name)];
    if (was === is) return [];
    if (was === undefined) return [`+ ${name} ${is}`];
    return is === undefined ? [`- ${name} ${was}`] : [`${name} ${was} -> ${is}`];
  });
}

/** Errors: IMAGE_PACKAGES_CHANGED. */
export function checkRecord(recorded: readonly string[], found: readonly string[], file: string): void {
  const changed = differences(recorded, found);
  if (changed.length === 0) return;
  const left = changed.length - DIFFERENCES_SHOWN;
  const shown = `${changed.slice(0, DIFFERENCES_SHOWN).join('; ')}${left > 0 ? `; and ${left} more` : ''}`;
  const expected = 'the recorded versions of every Debian package';
  throw new PremotorError(
    'IMAGE_PACKAGES_CHANGED',
    `The mirror gives other packages than those that were recorded: expected ${expected}, found ${shown}. ` +
      'Read the changes, then build with --accept-packages, which records the new versions.',
    { file, expected, found: shown },
  );
}
