/**
 * HostState: whether the primary host application is online, by its STATE messages. Owned by the edge node, which acts on it; it keeps the newest
 * timestamp, so that a late message of an earlier session of the host changes nothing.
 */
import { z } from 'zod';

const STATE_BYTES_MAX = 4096;
const stateSchema = z.object({ online: z.boolean(), timestamp: z.int().min(0) });

/** What a message changes: it is online, it is offline, or the message is old or none. */
export type HostVerdict = 'online' | 'offline' | 'ignored';

export class HostState {
  #timestampMs: number | undefined;
  #isOnline = false;

  /** Said in this session with the broker. */
  get isOnline(): boolean {
    return this.#isOnline;
  }

  /** Another session begins: the host must be heard again. Times are remembered. */
  forget(): void {
    this.#isOnline = false;
  }

  accept(payload: Uint8Array): HostVerdict {
    const state = parse(payload);
    if (!state || state.timestamp < (this.#timestampMs ?? 0)) return 'ignored';
    this.#timestampMs = state.timestamp;
    this.#isOnline = state.online;
    return state.online ? 'online' : 'offline';
  }
}

function parse(payload: Uint8Array): z.output<typeof stateSchema> | undefined {
  if (payload.length > STATE_BYTES_MAX) return undefined;
  try {
    return stateSchema.parse(JSON.parse(Buffer.from(payload).toString('utf8')));
  } catch {
    return undefined;
  }
}
