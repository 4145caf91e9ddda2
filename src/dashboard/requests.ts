/**
 * What viewers send, parsed once into a checked type. Pure; owned by the server. Anything else is counted by the viewer that sent it, and never acted
 * on.
 */
import { z } from 'zod';
import type { ViewerMessage } from './messages.js';

/** No message of a viewer is longer. */
export const REQUEST_BYTES_MAX = 256;

const request = z.union([z.strictObject({ type: z.literal('stop') }), z.strictObject({ type: z.literal('look'), visible: z.boolean() })]);

/** undefined: not a message of ours. Never throws. */
export function parseRequest(data: Uint8Array, isBinary: boolean): ViewerMessage | undefined {
  if (isBinary || data.byteLength > REQUEST_BYTES_MAX) return undefined;
  try {
    return request.safeParse(JSON.parse(Buffer.from(data).toString('utf8'))).data;
  } catch {
    return undefined;
  }
}
