/** A host that arms a firmware bridge by hand, frame by frame over any CAN bus, for tests of what is refused meanwhile. Not a test itself. */
import type { CanBus } from '../../src/can/bus.js';
import { armAnswer, type CanFrame, decodeShort, encodeShort, limitsChecksum, type ShortFields } from '../../src/robot/bridge-frames.js';

const REPLY_MS = 500;
const TRIES_MAX = 40;

export const nativeFrame = ({ id, data }: CanFrame) => ({
  id,
  data,
  bytes: data.length,
  isExtended: false,
  isRemote: false,
  isFd: data.length > 8,
  isBitRateSwitched: data.length > 8,
  isErrorPassive: false,
});

/** Sends a frame until one of `kind` comes back. */
export async function ask(bus: CanBus, frame: CanFrame, kind: string): Promise<ShortFields> {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    bus.send(nativeFrame(frame));
    const until = performance.now() + REPLY_MS;
    for await (const { frames } of bus.batches()) {
      for (const one of frames) {
        const found = decodeShort(one);
        if (found?.kind === kind) return found.fields;
      }
      if (performance.now() > until) break;
    }
  }
  throw new Error(`no ${kind} came`);
}

export const hello = (bus: CanBus, axes: number): Promise<ShortFields> =>
  ask(bus, encodeShort('hello', { version_min: 1, version_max: 1, wishes: 0, axis_count: axes }), 'welcome');

/** Limits, then challenge and response; the result of arming. */
export async function arm(bus: CanBus, axes: number, limits: readonly number[]): Promise<number> {
  for (let axis = 0; axis < axes; axis++) {
    for (const [field, value] of limits.entries()) await ask(bus, encodeShort('limit_write', { axis, field, value }), 'limit_value');
  }
  const checksum = limitsChecksum(Array.from({ length: axes }, () => limits));
  await ask(bus, encodeShort('limit_commit', { axis_count: axes, checksum }), 'limit_result');
  const nonce = 0x11223344;
  const challenge = await ask(bus, encodeShort('arm_request', { host_nonce: nonce, version: 1, axis_count: axes }), 'arm_challenge');
  const answer = armAnswer(nonce, challenge['bridge_nonce'] ?? 0);
  return (await ask(bus, encodeShort('arm_response', { answer }), 'arm_result'))['result'] ?? -1;
}
