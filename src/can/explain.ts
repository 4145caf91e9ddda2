/**
 * One line of words for a frame of the bridge protocol (protocol/README.md), for `premotor can dump --decode bridge`. Pure functions; what a frame
 * means to the bridge is decided by the firmware, not here.
 */
import { decodeAxisFeedback, decodeFeedback, decodeSetpoint, decodeShort, decodeUpdateBlock, type Slot } from '../robot/bridge-frames.js';
import type { CanFrame } from './frame-text.js';

/** The table "Identifiers" of protocol/README.md: first and last. */
const identifiers: readonly (readonly [number, number])[] = [
  [0x010, 0x012],
  [0x040, 0x040],
  [0x050, 0x050],
  [0x080, 0x082],
  [0x090, 0x09a],
  [0x100, 0x102],
  [0x110, 0x11d],
  [0x200, 0x201],
  [0x210, 0x213],
  [0x220, 0x224],
  [0x230, 0x230],
  [0x240, 0x240],
  [0x250, 0x250],
  [0x300, 0x305],
];

const pairs = (fields: Readonly<Record<string, number | boolean>>): string =>
  Object.entries(fields)
    .map(([name, value]) => `${name}=${Number(value)}`)
    .join(' ');

/** Position in rad, velocity in rad/s, torque in N m. */
const slotText = ([position, velocity, torque]: Slot): string =>
  `(${(position * 1e-7).toFixed(4)} rad, ${(velocity * 1e-3).toFixed(3)} rad/s, ${(torque * 1e-2).toFixed(2)} N m)`;

function explainLong(frame: CanFrame): string | undefined {
  const setpoint = decodeSetpoint(frame);
  const long = setpoint ?? decodeFeedback(frame);
  if (long === undefined) return undefined;
  const { slots, ...fields } = long;
  const used = slots.slice(0, Math.min(slots.length, Math.max(0, long.axis_count - long.part * slots.length)));
  return `${setpoint === undefined ? 'feedback' : 'setpoint'} ${pairs(fields)} ${used.map(slotText).join(' ')}`;
}

/** The parts of a classic set are checked together with what arming agreed on, which a listener does not know: only their place is told. */
function explainClassic({ id, data }: CanFrame): string | undefined {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.length !== 8) return undefined;
  if (id === 0x090) {
    return `setpoint_head ${pairs({ sequence: view.getUint16(0, true), token: view.getUint16(2, true), due_100us: view.getUint16(4, true) })}`;
  }
  if (id < 0x091 || id > 0x09a) return undefined;
  const [first, second, third] = [2, 4, 6].map((at) => view.getInt16(at, true));
  return `setpoint_part ${id - 0x090} sequence_low=${view.getUint8(0)} values=${first},${second},${third}`;
}

/**
 * `heartbeat version_and_state=17 fault=0 clock_us=1000`. Undefined for an identifier that the protocol does not use; a frame whose identifier it
 * uses, but whose length, checksum or fields are wrong, is called malformed.
 */
export function explainBridge(frame: CanFrame): string | undefined {
  if (frame.isExtended || !identifiers.some(([first, last]) => frame.id >= first && frame.id <= last)) return undefined;
  const short = decodeShort(frame);
  if (short !== undefined) return `${short.kind} ${pairs(short.fields)}`.trimEnd();
  const axis = decodeAxisFeedback(frame);
  if (axis !== undefined) return `axis_feedback ${pairs({ ...axis })}`;
  const block = decodeUpdateBlock(frame);
  if (block !== undefined) return `update_block offset=${block.offset} bytes=${block.data.length}`;
  return explainLong(frame) ?? explainClassic(frame) ?? 'malformed bridge frame';
}
