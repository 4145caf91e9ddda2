/**
 * What servers of ours ask before they let somebody in: whether an address is of this machine alone, and whether two secrets are the same. Pure
 * functions, shared by the policy server, the remote policy and the status page.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';

const NAMES: ReadonlySet<string> = new Set(['localhost', 'ip6-localhost']);

/** Whether an address can be reached from this machine alone: a name or an address, that of IPv6 with or without brackets. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  return NAMES.has(bare) || bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

/** Compares in a time that says nothing about where two texts differ. */
export function isSameSecret(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
