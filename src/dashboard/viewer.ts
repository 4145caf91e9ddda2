/**
 * One viewer's connection: sends it what it can take, skips what it cannot, and judges what it says. A viewer that is slow, gone or hostile costs a
 * bounded amount of memory and is closed in the end. Owned by the server; it knows no robot.
 */
import type { WebSocket } from 'ws';
import type { ServerMessage } from './messages.js';
import { parseRequest } from './requests.js';

/** With more than this waiting to be sent a viewer is skipped. */
export const BACKLOG_BYTES_MAX = 512 * 1024;
/** Behind for so long, it is closed: a page that was asleep comes back by itself. */
export const BEHIND_MS_MAX = 30_000;
/** Messages that are none of ours, until a viewer is closed. */
export const MALFORMED_MAX = 20;
/** Messages in one second, stops aside. */
export const MESSAGES_PER_S_MAX = 50;
const SECOND_MS = 1000;

const CLOSE_AWAY = 1001;
const CLOSE_POLICY = 1008;
const CLOSE_LATER = 1013;

export interface ViewerParts {
  readonly onStop: () => void;
  readonly onLook: () => void;
  readonly onClose: () => void;
}

export class Viewer {
  /** Picture's place -> its time, as sent. */
  readonly seen = new Map<string, number>();
  /** The next stretch of the motion that it has not, and the versions of the lists that it has. */
  motionFrom = 0;
  chunksVersion = -1;
  faultsVersion = -1;
  /** It answered since the last look. */
  isAlive = true;
  readonly #socket: WebSocket;
  #isLooking = true;
  /** Since when; undefined: it is not. */
  #behindSinceMs: number | undefined;
  #malformed = 0;
  #second = { beganMs: 0, messages: 0 };

  constructor(socket: WebSocket, { onStop, onLook, onClose }: ViewerParts) {
    this.#socket = socket;
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      const request = parseRequest(data, isBinary);
      // A stop is heeded whatever else this viewer does.
      if (request?.type === 'stop') onStop();
      if (this.#isTooMuch(request !== undefined)) return;
      if (request?.type !== 'look') return;
      this.#isLooking = request.visible;
      onLook();
    });
    socket.on('pong', () => void (this.isAlive = true));
    socket.on('error', () => undefined);
    socket.on('close', onClose);
  }

  /** Its page is on a screen. */
  get isLooking(): boolean {
    return this.#isLooking;
  }

  #isTooMuch(isOurs: boolean): boolean {
    const nowMs = performance.now();
    if (nowMs - this.#second.beganMs > SECOND_MS) this.#second = { beganMs: nowMs, messages: 0 };
    if (!isOurs && ++this.#malformed >= MALFORMED_MAX) this.#socket.close(CLOSE_POLICY, 'malformed messages');
    else if (++this.#second.messages > MESSAGES_PER_S_MAX) this.#socket.close(CLOSE_POLICY, 'too many messages');
    else return false;
    return true;
  }

  /** false: it is behind, and whatever was due is skipped for it. */
  get canTake(): boolean {
    if (this.#socket.readyState !== this.#socket.OPEN) return false;
    if (this.#socket.bufferedAmount <= BACKLOG_BYTES_MAX) {
      this.#behindSinceMs = undefined;
      return true;
    }
    this.#behindSinceMs ??= performance.now();
    if (performance.now() - this.#behindSinceMs > BEHIND_MS_MAX) this.#socket.terminate();
    return false;
  }

  send(message: ServerMessage): void {
    this.#socket.send(JSON.stringify(message), () => undefined);
  }

  sendPicture(message: Buffer): void {
    this.#socket.send(message, { binary: true }, () => undefined);
  }

  /** Asks for a sign of life; one that gave none since the last time is gone. */
  ping(): void {
    if (!this.isAlive) {
      this.#socket.terminate();
      return;
    }
    this.isAlive = false;
    this.#socket.ping(() => undefined);
  }

  close(): void {
    this.#socket.close(CLOSE_AWAY, 'the process ends');
  }

  /** One more than there may be. */
  static refuse(socket: WebSocket): void {
    socket.on('error', () => undefined);
    socket.close(CLOSE_LATER, 'too many viewers');
  }
}
