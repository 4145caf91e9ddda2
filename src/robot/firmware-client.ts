/**
 * The host's side of the bridge's firmware: what runs there, and how it is replaced (protocol/README.md, "Firmware"). Owned by the command line while
 * no robot is driven; it sends no frame that arms or moves anything. It goes on after lost frames and reports every refusal under a code of its own.
 */
import { type CanBatch, CanBus } from '../can/bus.js';
import { PremotorError } from '../errors.js';
import type { NativeCanFrame, NativeCanModule } from '../native.js';
import { type CanFrame, decodeShort, encodeShort, encodeUpdateBlock, type ShortFields, UPDATE_BLOCK_BYTES } from './bridge-frames.js';
import { type FirmwareImage, lettersOf, slotName, versionText } from './firmware-image.js';

export interface FirmwareIdentity {
  readonly version: string;
  readonly versionWord: number;
  /** First eight digits of the commit's name. */
  readonly source: string;
  /** 0 A, 1 B, 255 the boot loader: no firmware runs. */
  readonly slot: number;
  /** Not confirmed: it falls back after `PM_BOOT_TRIES` starts. */
  readonly isTrial: boolean;
  readonly tries: number;
  /** The slot whose trial was given up, undefined without. */
  readonly failedSlot: number | undefined;
  readonly checksum: number;
  readonly board: string;
  readonly slotBytes: number;
  /** In the slot that an update goes to. */
  readonly otherVersion: string;
  /** 255: this build cannot be updated. */
  readonly targetSlot: number;
}

export interface UpdateOptions {
  /** An older version is meant. */
  readonly force?: boolean;
  /** The bus and the bridge carry CAN FD. */
  readonly fd?: boolean;
  readonly onProgress?: (stage: string, done: number, total: number) => void;
}

const POLL_MS = 1;
const REPLY_MS = 200;
/** A request is repeated so often: 4 s. */
const ASKS_MAX = 20;
/** Once it has answered it is waited for as long as it waits for the host, 10 s. */
const ASKS_OF_UPDATE = 50;
/** After a restart, before the bus is opened anew. */
const ASKS_OF_RESTART = 5;
/** Erasing and verifying, a page or a kilobyte a tick. */
const WORK_MS_MAX = 20_000;
/** From ACTIVATE to the new firmware's first answer. */
const RESTART_MS_MAX = 20_000;
const RESTART_LOOK_MS = 200;
/** On its way without an answer; the bridge reports every 64 bytes. */
const WINDOW_BYTES = 192;
const WORD_BYTES = 4;
const STALL_MS = 300;
/** Without progress in between. */
const STALLS_MAX = 20;

const FACTS = ['version', 'source', 'boot', 'checksum', 'board', 'slotBytes', 'otherVersion', 'target'] as const;
const OPERATIONS = { ask: 0, size: 1, version: 2, checksum: 3, board: 4, begin: 5, finish: 6, activate: 7, confirm: 8, abandon: 9 } as const;
type Operation = keyof typeof OPERATIONS;
const STATES = { idle: 0, erasing: 1, receiving: 2, verifying: 3, verified: 4, restarting: 5 } as const;
const BEYOND: Readonly<Partial<Record<Operation, readonly number[]>>> = {
  finish: [STATES.verifying, STATES.verified],
  activate: [STATES.restarting],
};
const RESULTS = { ok: 0, state: 5, offset: 6 } as const;

/** By result: code, what was found, what to do. */
const refusals: readonly (readonly [code: string, found: string, remedy: string])[] = [
  ['FIRMWARE_LOST', 'nothing', ''],
  ['FIRMWARE_ARMED', 'the robot is not disarmed', 'Disarm it (premotor stop) and clear its fault, then update.'],
  ['FIRMWARE_BOARD', 'the image is for another board', 'Take the file of this board.'],
  ['FIRMWARE_SIZE', 'the image does not fit into a slot', 'Build the firmware for this board.'],
  ['FIRMWARE_OLDER', 'the image is older than what runs', 'Take a newer one, or say --force when the older one is meant.'],
  ['FIRMWARE_LOST', 'no update is in progress, or another one', 'Start the update again; only one host may do it.'],
  ['FIRMWARE_LOST', 'parts of the image are missing', 'Start the update again.'],
  ['FIRMWARE_FLASH', 'the flash refused to be erased or written', 'Try once more; then replace the board.'],
  ['FIRMWARE_CHECKSUM', 'what arrived has another checksum', 'Start the update again; check the bus when it happens again.'],
  ['FIRMWARE_IMAGE', 'the image was not made for this slot of this board', 'Build it again with npm run build:firmware.'],
  ['FIRMWARE_TRIAL', 'the firmware that runs has not been confirmed yet', 'Confirm it (premotor firmware confirm), then update.'],
  ['FIRMWARE_NO_SLOTS', 'this firmware was started without a boot loader', 'Flash the boot loader once with a debugger (docs/FIRMWARE.md).'],
  ['FIRMWARE_LOST', 'the bridge heard nothing for ten seconds', 'Start the update again; check the bus.'],
];

function refused(result: number, what: string): PremotorError {
  const [code, found, remedy] = refusals[result] ?? ['FIRMWARE_LOST', `result ${result}`, 'Update the host.'];
  return new PremotorError(code, `The bridge refuses to ${what}: ${found}. ${remedy}`, { expected: what, found });
}

const toNative = ({ id, data }: CanFrame): NativeCanFrame => ({
  id,
  data,
  bytes: data.length,
  isExtended: false,
  isRemote: false,
  isFd: data.length > 8,
  isBitRateSwitched: data.length > 8,
  isErrorPassive: false,
});

interface Status {
  readonly operation: number;
  readonly state: number;
  readonly result: number;
  readonly offset: number;
}

export class FirmwareClient {
  readonly #open: () => CanBus;
  readonly #signal: AbortSignal;
  #bus: CanBus;

  private constructor(open: () => CanBus, signal: AbortSignal) {
    this.#open = open;
    this.#signal = signal;
    this.#bus = open();
  }

  /** Errors: those of CanBus.open. */
  static open(address: string, native: NativeCanModule, signal: AbortSignal): FirmwareClient {
    return new FirmwareClient(() => CanBus.open(address, native, POLL_MS), signal);
  }

  /** Idempotent. */
  close(): void {
    this.#bus.close();
  }

  /** What runs. Errors: FIRMWARE_NO_REPLY, ABORTED, and those of the bus. */
  async identity(asks = ASKS_MAX): Promise<FirmwareIdentity> {
    const words: number[] = [];
    for (const fact of FACTS.keys()) {
      const answer = await this.#ask('firmware_ask', { fact }, 'firmware_fact', (fields) => fields['fact'] === fact, asks);
      words.push(answer['value'] ?? 0);
    }
    const [version = 0, source = 0, boot = 0, checksum = 0, board = 0, slotBytes = 0, other = 0, targetSlot = 255] = words;
    const failed = boot >>> 24;
    return {
      version: versionText(version),
      versionWord: version,
      source: source.toString(16).padStart(8, '0'),
      slot: boot & 0xff,
      isTrial: ((boot >>> 8) & 0xff) === 1,
      tries: (boot >>> 16) & 0xff,
      failedSlot: failed <= 1 ? failed : undefined,
      checksum,
      board: lettersOf(board),
      slotBytes,
      otherVersion: versionText(other),
      targetSlot,
    };
  }

  /** Ends a trial. Errors: FIRMWARE_* of the table above, and as identity. */
  async confirm(): Promise<void> {
    await this.#demand('confirm');
  }

  /**
   * Replaces the firmware by the image of `images` that fits, waits for its first start, confirms it, and gives what runs then. Errors: FIRMWARE_* ,
   * ABORTED, and those of the bus.
   */
  async update(images: readonly FirmwareImage[], options: UpdateOptions = {}): Promise<FirmwareIdentity> {
    const before = await this.identity();
    if (before.targetSlot > 1) throw refused(11, 'be updated');
    const image = images.find(({ board, slot }) => board === before.board && slot === before.targetSlot);
    if (image === undefined) {
      const found = images.map(({ board, slot }) => `${board}, slot ${slotName(slot)}`).join('; ');
      const expected = `an image for board ${before.board}, slot ${slotName(before.targetSlot)}`;
      throw new PremotorError('FIRMWARE_BOARD', `Expected ${expected}, found ${found}. Take the file of this board.`, { expected, found });
    }
    await this.#begin(image, options.force === true);
    await this.#work('erase', 'erasing', STATES.receiving, image.bytes.length, options);
    await this.#transfer(image, options);
    await this.#demand('finish');
    await this.#work('verify', 'verifying', STATES.verified, image.bytes.length, options);
    await this.#demand('activate');
    return await this.#first(image, before, options);
  }

  async #begin(image: FirmwareImage, isForced: boolean): Promise<void> {
    await this.#demand('size', image.bytes.length);
    await this.#demand('version', image.versionWord);
    await this.#demand('checksum', image.checksum);
    await this.#demand('board', Buffer.from(image.board, 'latin1').readUInt32LE());
    const begun = await this.#operate('begin', 0, isForced ? 1 : 0);
    if (begun.result === RESULTS.ok) return;
    if (begun.result !== RESULTS.state) throw refused(begun.result, 'begin the update');
    // A host before this one died in the middle of it.
    await this.#demand('abandon');
    const again = await this.#operate('begin', 0, isForced ? 1 : 0);
    if (again.result !== RESULTS.ok) throw refused(again.result, 'begin the update');
  }

  /** Waits for a state that the bridge reaches by itself. */
  async #work(what: string, stage: string, goal: number, total: number, { onProgress }: UpdateOptions): Promise<void> {
    const until = performance.now() + WORK_MS_MAX;
    for (;;) {
      const status = await this.#operate('ask');
      if (status.state === goal) return;
      if (status.state === STATES.idle) throw refused(status.result === RESULTS.ok ? RESULTS.state : status.result, what);
      onProgress?.(stage, Math.min(status.offset, total), total);
      if (performance.now() > until) throw this.#silent(`to ${what}`);
    }
  }

  /** Sends the image, a window ahead of what the bridge has confirmed; a gap or a silence goes back to where the bridge is. */
  async #transfer(image: FirmwareImage, { fd = false, onProgress }: UpdateOptions): Promise<void> {
    const total = image.bytes.length;
    const step = fd ? UPDATE_BLOCK_BYTES : WORD_BYTES;
    const stage = `writing slot ${slotName(image.slot)}`;
    let taken = 0;
    let next = 0;
    let stalls = 0;
    let heard = performance.now();
    for await (const batch of this.#bus.batches({ signal: this.#signal })) {
      for (const status of statusesOf(batch)) {
        if (status.state === STATES.idle) throw refused(status.result === RESULTS.ok ? RESULTS.state : status.result, 'take the image');
        if (status.offset > taken) stalls = 0;
        taken = status.offset;
        // A piece was lost: what followed it was ignored.
        if (status.result === RESULTS.offset) next = taken;
        heard = performance.now();
        onProgress?.(stage, taken, total);
      }
      if (taken === total) return;
      if (performance.now() - heard > STALL_MS) {
        if (++stalls > STALLS_MAX) throw this.#silent('for the rest of the image');
        const { state, result, offset } = await this.#operate('ask');
        if (state !== STATES.receiving) throw refused(result === RESULTS.ok ? RESULTS.state : result, 'take the image');
        taken = next = offset;
        heard = performance.now();
      }
      for (; next < total && next - taken < WINDOW_BYTES; next += Math.min(step, total - next)) {
        // A bus that is full takes no more before its next turn.
        if (this.#bus.send(toNative(pieceOf(image.bytes, next, step, fd))) === 'queued') {
          next += Math.min(step, total - next);
          break;
        }
      }
    }
    throw this.#aborted();
  }

  /** The new firmware's first answers. */
  async #first(image: FirmwareImage, before: FirmwareIdentity, { onProgress }: UpdateOptions): Promise<FirmwareIdentity> {
    const start = performance.now();
    for (;;) {
      onProgress?.('restarting', Math.min(performance.now() - start, RESTART_MS_MAX - 1), RESTART_MS_MAX);
      await this.#listen(RESTART_LOOK_MS, () => undefined);
      const now = await this.identity(ASKS_OF_RESTART).catch((error: unknown) => {
        if (error instanceof PremotorError && error.code === 'FIRMWARE_NO_REPLY') return undefined;
        throw error;
      });
      if (now !== undefined && now.slot === image.slot && now.checksum === image.bodyChecksum) {
        await this.confirm();
        return await this.identity();
      }
      // The old one answers for a moment before it restarts.
      const isBack = now !== undefined && now.slot === before.slot && now.failedSlot === image.slot;
      if (isBack || performance.now() - start > RESTART_MS_MAX) throw fellBack(image, now);
      if (now !== undefined) continue;
      // An slcan adapter in the board has closed its channel.
      this.#bus.close();
      this.#bus = this.#open();
    }
  }

  /** A request whose answer was lost is repeated, and finds the bridge beyond it. */
  async #demand(operation: Operation, value = 0): Promise<void> {
    const { result, state } = await this.#operate(operation, value);
    if (result === RESULTS.state && BEYOND[operation]?.includes(state) === true) return;
    if (result !== RESULTS.ok) throw refused(result, `carry out "${operation}"`);
  }

  async #operate(operation: Operation, value = 0, flags = 0): Promise<Status> {
    const number = OPERATIONS[operation];
    const isIt = (fields: ShortFields): boolean => (fields['operation_and_state'] ?? 0) >> 4 === number;
    return toStatus(await this.#ask('update', { operation: number, flags, value }, 'update_status', isIt, ASKS_OF_UPDATE));
  }

  /** Sends a request, again and again until it is answered. */
  async #ask(kind: string, fields: ShortFields, answerKind: string, isIt: (fields: ShortFields) => boolean, asks = ASKS_MAX): Promise<ShortFields> {
    for (let tries = 0; tries < asks; tries++) {
      this.#bus.send(toNative(encodeShort(kind, fields)));
      const found = await this.#listen(REPLY_MS, (frame) => {
        const decoded = decodeShort(frame);
        return decoded?.kind === answerKind && isIt(decoded.fields) ? decoded.fields : undefined;
      });
      if (found !== undefined) return found;
    }
    throw this.#silent(`to ${kind}`);
  }

  async #listen<T>(wait_ms: number, take: (frame: CanFrame) => T | undefined): Promise<T | undefined> {
    const until = performance.now() + wait_ms;
    for await (const { frames } of this.#bus.batches({ signal: this.#signal })) {
      for (const frame of frames) {
        const found = frame.isExtended || frame.isRemote ? undefined : take(frame);
        if (found !== undefined) return found;
      }
      if (performance.now() > until) return undefined;
    }
    throw this.#aborted();
  }

  #aborted(): PremotorError {
    return new PremotorError('ABORTED', 'Interrupted. What runs on the bridge has not changed; an update begins anew.');
  }

  #silent(what: string): PremotorError {
    const message = `No bridge answers ${what} on ${this.#bus.name}. Check its power, the bus, the bit rate and its release.`;
    return new PremotorError('FIRMWARE_NO_REPLY', message, { expected: 'an answer of the bridge', found: 'none' });
  }
}

function fellBack(image: FirmwareImage, now: FirmwareIdentity | undefined): PremotorError {
  const found = now === undefined ? 'no answer' : `${now.version} in slot ${slotName(now.slot)}`;
  const expected = `${image.version} in slot ${slotName(image.slot)}`;
  const message = `The new firmware did not start: expected ${expected}, found ${found}. The old one is kept.`;
  return new PremotorError('FIRMWARE_FELL_BACK', message, { expected, found });
}

function toStatus(fields: ShortFields): Status {
  const both = fields['operation_and_state'] ?? 0;
  return { operation: both >> 4, state: both & 15, result: fields['result'] ?? 0, offset: fields['offset'] ?? 0 };
}

function statusesOf({ frames }: CanBatch): Status[] {
  return frames.flatMap((frame) => {
    const decoded = frame.isExtended || frame.isRemote ? undefined : decodeShort(frame);
    return decoded?.kind === 'update_status' ? [toStatus(decoded.fields)] : [];
  });
}

function pieceOf(image: Uint8Array, offset: number, step: number, fd: boolean): CanFrame {
  const data = image.subarray(offset, offset + step);
  if (fd) return encodeUpdateBlock({ offset, data });
  return encodeShort('update_word', { word_index: offset / WORD_BYTES, word: Buffer.from(data).readUInt32LE() });
}
