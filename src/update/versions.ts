/**
 * Versions that sort: MAJOR.MINOR.PATCH with an optional -PRE, compared as Semantic Versioning does. Owned by the anti-rollback rule, which is
 * only as
 * good as this order. Pure functions.
 */
import { PremotorError } from '../errors.js';

const NUMBER = '(?:0|[1-9]\\d{0,8})';
const VERSION = new RegExp(`^(${NUMBER})\\.(${NUMBER})\\.(${NUMBER})(?:-([0-9A-Za-z-]+(?:\\.[0-9A-Za-z-]+)*))?$`);
const LENGTH_MAX = 64;

interface Version {
  readonly numbers: readonly [number, number, number];
  readonly pre: readonly string[];
}

export function isVersion(text: string): boolean {
  return parse(text) !== undefined;
}

function parse(text: string): Version | undefined {
  const match = text.length <= LENGTH_MAX ? VERSION.exec(text) : null;
  if (match === null) return undefined;
  const pre = match[4] === undefined ? [] : match[4].split('.');
  // A number with a leading zero would equal another text, and equal versions must be equal texts.
  if (pre.some((part) => /^0\d+$/.test(part) || /^\d{10,}$/.test(part))) return undefined;
  return { numbers: [Number(match[1]), Number(match[2]), Number(match[3])], pre };
}

/** Errors: UPDATE_VERSION. */
export function checkVersion(text: string, where = '--version'): string {
  if (isVersion(text)) return text;
  const expected = 'MAJOR.MINOR.PATCH or MAJOR.MINOR.PATCH-PRE, such as 1.4.0 or 1.4.0-rc.1';
  const message = `${where} ${JSON.stringify(text)} does not sort: expected ${expected}. Without an order a robot could be led back.`;
  throw new PremotorError('UPDATE_VERSION', message, { field: where, expected, found: text });
}

/** Below, equal or above 0. Errors: UPDATE_VERSION. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [parse(checkVersion(a, 'version')), parse(checkVersion(b, 'version'))] as [Version, Version];
  for (const [index, number] of left.numbers.entries()) {
    const difference = number - (right.numbers[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return comparePre(left.pre, right.pre);
}

/** No pre-release is above any; numbers are below words; a longer list is above its own beginning. */
function comparePre(a: readonly string[], b: readonly string[]): number {
  if (a.length === 0 || b.length === 0) return b.length - a.length;
  for (let index = 0; index < Math.min(a.length, b.length); index++) {
    const [x, y] = [a[index] ?? '', b[index] ?? ''];
    if (x === y) continue;
    const [xNumber, yNumber] = [/^\d+$/.test(x), /^\d+$/.test(y)];
    if (xNumber && yNumber) return Number(x) - Number(y);
    if (xNumber !== yNumber) return xNumber ? -1 : 1;
    return x < y ? -1 : 1;
  }
  return a.length - b.length;
}
