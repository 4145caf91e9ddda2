/**
 * The bridge protocol's frames in TypeScript: encodes and decodes what protocol/README.md describes, written from that text and not from frames.c,
 * so that protocol/vectors.json checks two readings of the same prose. Pure functions for tools and tests; the motor path itself is native.
 */

export interface CanFrame {
  readonly id: number;
  readonly data: Uint8Array;
}

/** In the wire's units: position 1e-7 rad, velocity 1e-3 rad/s, torque 1e-2 N m. */
export type Slot = readonly [position: number, velocity: number, torque: number];

export interface Setpoint {
  readonly part: number;
  readonly sequence: number;
  readonly session: number;
  readonly token: number;
  readonly due_us: number;
  readonly has_torque: boolean;
  readonly axis_count: number;
  readonly slots: readonly Slot[];
}

export interface Feedback {
  readonly part: number;
  readonly sequence: number;
  readonly accepted_sequence: number;
  readonly state: number;
  readonly fault: number;
  readonly clock_us: number;
  readonly valid: number;
  readonly axis_count: number;
  readonly slots: readonly Slot[];
}

export interface ClassicSet {
  readonly sequence: number;
  readonly token: number;
  readonly due_100us: number;
  readonly session: number;
  readonly axis_count: number;
  /** Position (2.5e-4 rad) and velocity (1e-3 rad/s) of axis 0, of axis 1, ... */
  readonly values: readonly number[];
}

export interface AxisFeedback {
  readonly axis: number;
  readonly position_e6: number;
  readonly velocity: number;
  readonly is_valid: boolean;
}

export type ShortFields = Readonly<Record<string, number>>;

const version = 1;
const axesMax = 14;
const slotsPerPart = 6;
const valuesPerPart = 3;

/** CRC-16/CCITT-FALSE. */
export function crc16(bytes: Iterable<number>, start = 0xffff): number {
  let crc = start;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = ((crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021) & 0xffff;
  }
  return crc;
}

/** Nearest integer, halves away from zero, saturated at +-max; "not a number" is the value below -max. */
export function quantise(value: number, scale: number, max: number): number {
  const scaled = value * scale;
  if (Number.isNaN(scaled)) return -max - 1;
  const rounded = Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5);
  return Math.max(-max, Math.min(max, rounded)) + 0;
}

type Width = 'u8' | 'u16' | 'i16' | 'i24' | 'u32' | 'i32' | 'pad';
const bytesOf: Readonly<Record<Width, number>> = { u8: 1, u16: 2, i16: 2, i24: 3, u32: 4, i32: 4, pad: 1 };
const pad = (count: number): readonly (readonly [string, Width])[] => Array.from({ length: count }, () => ['', 'pad'] as const);

/** The table "Frames of eight bytes": fields in their order. */
const shortFrames: Readonly<Record<string, { readonly id: number; readonly fields: readonly (readonly [string, Width])[] }>> = {
  estop: { id: 0x010, fields: pad(6) },
  disarm: { id: 0x011, fields: pad(6) },
  silence: { id: 0x012, fields: pad(6) },
  fault: {
    id: 0x040,
    fields: [
      ['fault', 'u8'],
      ['axis', 'u8'],
      ['detail', 'u8'],
      ['later_count', 'u8'],
      ['age_ms', 'u16'],
    ],
  },
  heartbeat: {
    id: 0x050,
    fields: [
      ['version_and_state', 'u8'],
      ['fault', 'u8'],
      ['clock_us', 'u32'],
    ],
  },
  hello: { id: 0x200, fields: [['version_min', 'u8'], ['version_max', 'u8'], ['wishes', 'u8'], ['axis_count', 'u8'], ...pad(2)] },
  welcome: {
    id: 0x201,
    fields: [
      ['version', 'u8'],
      ['version_max', 'u8'],
      ['agreed', 'u8'],
      ['axis_count', 'u8'],
      ['boot', 'u16'],
    ],
  },
  arm_request: {
    id: 0x210,
    fields: [
      ['host_nonce', 'u32'],
      ['version', 'u8'],
      ['axis_count', 'u8'],
    ],
  },
  arm_challenge: { id: 0x211, fields: [['bridge_nonce', 'u32'], ...pad(2)] },
  arm_response: { id: 0x212, fields: [['answer', 'u32'], ...pad(2)] },
  arm_result: { id: 0x213, fields: [['result', 'u8'], ['axis', 'u8'], ['session', 'u16'], ...pad(2)] },
  limit_write: {
    id: 0x220,
    fields: [
      ['axis', 'u8'],
      ['field', 'u8'],
      ['value', 'i32'],
    ],
  },
  limit_read: { id: 0x221, fields: [['axis', 'u8'], ['field', 'u8'], ...pad(4)] },
  limit_value: {
    id: 0x222,
    fields: [
      ['axis', 'u8'],
      ['field', 'u8'],
      ['value', 'i32'],
    ],
  },
  limit_commit: { id: 0x223, fields: [['axis_count', 'u8'], ...pad(1), ['checksum', 'u16'], ...pad(2)] },
  limit_result: { id: 0x224, fields: [['result', 'u8'], ['axis', 'u8'], ['field', 'u8'], ...pad(1), ['checksum', 'u16']] },
  fault_clear: { id: 0x230, fields: [['fault', 'u8'], ...pad(5)] },
  counter: { id: 0x240, fields: [['counter', 'u8'], ...pad(1), ['value', 'u32']] },
  indicate: { id: 0x250, fields: [['pattern', 'u8'], ...pad(5)] },
  firmware_ask: { id: 0x300, fields: [['fact', 'u8'], ...pad(5)] },
  firmware_fact: { id: 0x301, fields: [['fact', 'u8'], ...pad(1), ['value', 'u32']] },
  update: {
    id: 0x302,
    fields: [
      ['operation', 'u8'],
      ['flags', 'u8'],
      ['value', 'u32'],
    ],
  },
  update_status: {
    id: 0x303,
    fields: [
      ['operation_and_state', 'u8'],
      ['result', 'u8'],
      ['offset', 'u32'],
    ],
  },
  update_word: {
    id: 0x304,
    fields: [
      ['word_index', 'u16'],
      ['word', 'u32'],
    ],
  },
};

function put(view: DataView, at: number, width: Width, value: number): void {
  if (width === 'u8' || width === 'pad') view.setUint8(at, value);
  else if (width === 'u16') view.setUint16(at, value, true);
  else if (width === 'i16') view.setInt16(at, value, true);
  else if (width === 'u32') view.setUint32(at, value, true);
  else if (width === 'i32') view.setInt32(at, value, true);
  else {
    view.setUint16(at, value & 0xffff, true);
    view.setInt8(at + 2, value >> 16);
  }
}

function get(view: DataView, at: number, width: Width): number {
  if (width === 'u8' || width === 'pad') return view.getUint8(at);
  if (width === 'u16') return view.getUint16(at, true);
  if (width === 'i16') return view.getInt16(at, true);
  if (width === 'u32') return view.getUint32(at, true);
  if (width === 'i32') return view.getInt32(at, true);
  return view.getUint16(at, true) | (view.getInt8(at + 2) << 16);
}

const viewOf = (data: Uint8Array): DataView => new DataView(data.buffer, data.byteOffset, data.byteLength);
const identifierBytes = (id: number): number[] => [id & 0xff, id >> 8];
const checksumOf = (id: number, data: Uint8Array): number => crc16(data.subarray(0, -2), crc16(identifierBytes(id)));

function seal(id: number, data: Uint8Array): CanFrame {
  viewOf(data).setUint16(data.length - 2, checksumOf(id, data), true);
  return { id, data };
}

const isSealed = ({ id, data }: CanFrame, bytes: number): boolean =>
  data.length === bytes && viewOf(data).getUint16(bytes - 2, true) === checksumOf(id, data);

/** `kind` is the frame's name in lower case: `arm_request`. */
export function encodeShort(kind: string, fields: ShortFields): CanFrame {
  const form = shortFrames[kind];
  if (form === undefined) throw new RangeError(`no frame is called ${kind}`);
  const data = new Uint8Array(8);
  let at = 0;
  for (const [name, width] of form.fields) {
    put(viewOf(data), at, width, fields[name] ?? 0);
    at += bytesOf[width];
  }
  return seal(form.id, data);
}

/** Undefined when the frame is foreign or malformed. */
export function decodeShort(frame: CanFrame): { readonly kind: string; readonly fields: ShortFields } | undefined {
  const found = Object.entries(shortFrames).find(([, { id }]) => id === frame.id);
  if (found === undefined || !isSealed(frame, 8)) return undefined;
  const [kind, form] = found;
  const fields: Record<string, number> = {};
  let at = 0;
  for (const [name, width] of form.fields) {
    const value = get(viewOf(frame.data), at, width);
    at += bytesOf[width];
    if (width !== 'pad') fields[name] = value;
    else if (value !== 0) return undefined;
  }
  return { kind, fields };
}

const partCount = (axisCount: number): number => Math.ceil(axisCount / slotsPerPart);
const classicPartCount = (axisCount: number): number => Math.ceil((2 * axisCount) / valuesPerPart);

function putSlots(view: DataView, slots: readonly Slot[]): void {
  slots.forEach(([position, velocity, torque], slot) => {
    view.setInt32(14 + 8 * slot, position, true);
    view.setInt16(18 + 8 * slot, velocity, true);
    view.setInt16(20 + 8 * slot, torque, true);
  });
}

function getSlots(view: DataView): Slot[] {
  return Array.from({ length: slotsPerPart }, (_, slot): Slot => {
    const at = 14 + 8 * slot;
    return [view.getInt32(at, true), view.getInt16(at + 4, true), view.getInt16(at + 6, true)];
  });
}

function longHead(part: number, axisCount: number): { readonly data: Uint8Array; readonly view: DataView } {
  const data = new Uint8Array(64);
  data[0] = version;
  data[1] = part;
  data[13] = axisCount;
  return { data, view: viewOf(data) };
}

function isLong(frame: CanFrame, base: number): boolean {
  if (!isSealed(frame, 64)) return false;
  const [found, part] = frame.data;
  const axisCount = frame.data[13] ?? 0;
  return found === version && part === frame.id - base && axisCount >= 1 && axisCount <= axesMax && part < partCount(axisCount);
}

export function encodeSetpoint(setpoint: Setpoint): CanFrame {
  const { data, view } = longHead(setpoint.part, setpoint.axis_count);
  view.setUint16(2, setpoint.sequence, true);
  view.setUint16(4, setpoint.session, true);
  view.setUint16(6, setpoint.token, true);
  view.setUint32(8, setpoint.due_us, true);
  data[12] = setpoint.has_torque ? 1 : 0;
  putSlots(view, setpoint.slots);
  return seal(0x080 + setpoint.part, data);
}

export function decodeSetpoint(frame: CanFrame): Setpoint | undefined {
  if (!isLong(frame, 0x080) || (frame.data[12] ?? 0) > 1) return undefined;
  const view = viewOf(frame.data);
  const setpoint: Setpoint = {
    part: view.getUint8(1),
    sequence: view.getUint16(2, true),
    session: view.getUint16(4, true),
    token: view.getUint16(6, true),
    due_us: view.getUint32(8, true),
    has_torque: view.getUint8(12) === 1,
    axis_count: view.getUint8(13),
    slots: getSlots(view),
  };
  const isGood = setpoint.slots.every(([position, velocity, torque], slot) => {
    const isUsed = setpoint.part * slotsPerPart + slot < setpoint.axis_count;
    if (!isUsed) return position === 0 && velocity === 0 && torque === 0;
    return position !== -(2 ** 31) && velocity !== -(2 ** 15) && torque !== -(2 ** 15) && (setpoint.has_torque || torque === 0);
  });
  return isGood ? setpoint : undefined;
}

export function encodeFeedback(feedback: Feedback): CanFrame {
  const { data, view } = longHead(feedback.part, feedback.axis_count);
  view.setUint16(2, feedback.sequence, true);
  view.setUint16(4, feedback.accepted_sequence, true);
  data[6] = feedback.state;
  data[7] = feedback.fault;
  view.setUint32(8, feedback.clock_us, true);
  data[12] = feedback.valid;
  putSlots(view, feedback.slots);
  return seal(0x100 + feedback.part, data);
}

export function decodeFeedback(frame: CanFrame): Feedback | undefined {
  if (!isLong(frame, 0x100) || (frame.data[12] ?? 0) >= 1 << slotsPerPart) return undefined;
  const view = viewOf(frame.data);
  return {
    part: view.getUint8(1),
    sequence: view.getUint16(2, true),
    accepted_sequence: view.getUint16(4, true),
    state: view.getUint8(6),
    fault: view.getUint8(7),
    clock_us: view.getUint32(8, true),
    valid: view.getUint8(12),
    axis_count: view.getUint8(13),
    slots: getSlots(view),
  };
}

export function encodeClassicSet(set: ClassicSet): CanFrame[] {
  const head = new Uint8Array(8);
  put(viewOf(head), 0, 'u16', set.sequence);
  put(viewOf(head), 2, 'u16', set.token);
  put(viewOf(head), 4, 'u16', set.due_100us);
  const parts = Array.from({ length: classicPartCount(set.axis_count) }, (_, index): CanFrame => {
    const data = new Uint8Array(8);
    data[0] = set.sequence & 0xff;
    data[1] = (version << 4) | (index + 1);
    for (let i = 0; i < valuesPerPart; i++) put(viewOf(data), 2 + 2 * i, 'i16', set.values[valuesPerPart * index + i] ?? 0);
    return { id: 0x091 + index, data };
  });
  put(viewOf(head), 6, 'u16', classicChecksum(head, set.session, parts));
  return [{ id: 0x090, data: head }, ...parts];
}

function classicChecksum(head: Uint8Array, session: number, parts: readonly CanFrame[]): number {
  const start = [...identifierBytes(0x090), version, session & 0xff, session >> 8, ...head.subarray(0, 6)];
  return crc16([...start, ...parts.flatMap(({ data }) => [...data.subarray(2)])]);
}

/** The frames of one set, the head first; the receiver knows session and axes from arming. */
export function decodeClassicSet(frames: readonly CanFrame[], session: number, axisCount: number): ClassicSet | undefined {
  const [head, ...parts] = frames;
  if (head?.id !== 0x090 || head.data.length !== 8 || parts.length !== classicPartCount(axisCount)) return undefined;
  const isInPlace = ({ id, data }: CanFrame, index: number): boolean =>
    id === 0x091 + index && data.length === 8 && data[0] === head.data[0] && data[1] === ((version << 4) | (index + 1));
  if (!parts.every(isInPlace)) return undefined;
  const view = viewOf(head.data);
  const filled = parts.flatMap(({ data }) => [0, 1, 2].map((i) => viewOf(data).getInt16(2 + 2 * i, true)));
  if (view.getUint16(6, true) !== classicChecksum(head.data, session, parts) || filled.includes(-(2 ** 15))) return undefined;
  if (filled.slice(2 * axisCount).some((value) => value !== 0)) return undefined;
  const due_100us = view.getUint16(4, true);
  const values = filled.slice(0, 2 * axisCount);
  return { sequence: view.getUint16(0, true), token: view.getUint16(2, true), due_100us, session, axis_count: axisCount, values };
}

export function encodeAxisFeedback(feedback: AxisFeedback): CanFrame {
  const data = new Uint8Array(8);
  put(viewOf(data), 0, 'i24', feedback.position_e6);
  put(viewOf(data), 3, 'i16', feedback.velocity);
  data[5] = feedback.is_valid ? 1 : 0;
  return seal(0x110 + feedback.axis, data);
}

export function decodeAxisFeedback(frame: CanFrame): AxisFeedback | undefined {
  const axis = frame.id - 0x110;
  if (!isSealed(frame, 8) || axis < 0 || axis >= axesMax || (frame.data[5] ?? 0) > 1) return undefined;
  const view = viewOf(frame.data);
  return { axis, position_e6: get(view, 0, 'i24'), velocity: get(view, 3, 'i16'), is_valid: frame.data[5] === 1 };
}

/** A piece of a firmware image in an FD frame; its data is 4 .. 56 bytes, a multiple of 4. */
export interface UpdateBlock {
  readonly offset: number;
  readonly data: Uint8Array;
}

const BLOCK_AT = 6;
/** The most bytes of an image in one FD frame. */
export const UPDATE_BLOCK_BYTES = 56;

export function encodeUpdateBlock({ offset, data: piece }: UpdateBlock): CanFrame {
  const data = new Uint8Array(64);
  data[0] = version;
  data[1] = piece.length;
  viewOf(data).setUint32(2, offset, true);
  data.set(piece, BLOCK_AT);
  return seal(0x305, data);
}

export function decodeUpdateBlock(frame: CanFrame): UpdateBlock | undefined {
  if (frame.id !== 0x305 || !isSealed(frame, 64) || frame.data[0] !== version) return undefined;
  const bytes = frame.data[1] ?? 0;
  const offset = viewOf(frame.data).getUint32(2, true);
  if (bytes === 0 || bytes > UPDATE_BLOCK_BYTES || bytes % 4 !== 0 || offset % 4 !== 0) return undefined;
  if (frame.data.subarray(BLOCK_AT + bytes, 62).some((byte) => byte !== 0)) return undefined;
  return { offset, data: frame.data.slice(BLOCK_AT, BLOCK_AT + bytes) };
}

/** The answer to a challenge; its low 16 bits are the session. */
export function armAnswer(hostNonce: number, bridgeNonce: number): number {
  const data = new Uint8Array(12);
  [hostNonce, bridgeNonce, hostNonce].forEach((nonce, index) => {
    put(viewOf(data), 4 * index, 'u32', nonce);
  });
  return crc16(data.subarray(4)) * 0x10000 + crc16(data.subarray(0, 8));
}

/** values: [axes][fields 0 - 5] */
export function limitsChecksum(values: readonly (readonly number[])[]): number {
  const data = new Uint8Array(4 * values.flat().length);
  values.flat().forEach((value, index) => {
    put(viewOf(data), 4 * index, 'i32', value);
  });
  return crc16(data);
}
