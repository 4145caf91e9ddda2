/**
 * The page's connection to the robot's supervisor: connects, notices silence, connects again, and says so. It never guesses: without a message there
 * is no state. It knows nothing of what messages mean.
 */
import type { PictureHead, ServerMessage, ViewerMessage } from '../messages.js';

/** The server speaks five times a second. */
const SILENCE_MS_MAX = 2000;
const WATCH_PERIOD_MS = 500;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 4000;
const HEAD_LENGTH_BYTES = 2;
const CLOSE_TOO_MANY = 1013;

export interface LinkParts {
  readonly onMessage: (message: ServerMessage) => void;
  readonly onPicture: (head: PictureHead, jpeg: Blob) => void;
  /** Something was heard after silence. */
  readonly onAlive: () => void;
  /** Called at once and then again and again, as long as nothing is heard. `heardMs`: how long ago; undefined: never. */
  readonly onLost: (why: string, heardMs: number | undefined) => void;
}

export class Link {
  readonly #parts: LinkParts;
  #socket: WebSocket | undefined;
  #retry_ms = RETRY_MS_MIN;
  #heardAtMs: number | undefined;
  #isAlive = false;
  #why = 'connecting';

  constructor(parts: LinkParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#connect();
    setInterval(() => this.#watch(), WATCH_PERIOD_MS);
    document.addEventListener('visibilitychange', () => this.#look());
  }

  get isOpen(): boolean {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  send(message: ViewerMessage): void {
    if (this.isOpen) this.#socket?.send(JSON.stringify(message));
  }

  #connect(): void {
    const { protocol, host } = location;
    const socket = new WebSocket(`${protocol === 'https:' ? 'wss' : 'ws'}://${host}/live`);
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.addEventListener('open', () => this.#look());
    socket.addEventListener('message', ({ data }) => this.#hear(data as string | ArrayBuffer));
    socket.addEventListener('close', (event) => void this.#closed(event));
  }

  /** Nobody computes pictures for a page that is behind another. */
  #look(): void {
    const visible = document.visibilityState === 'visible';
    this.send({ type: 'look', visible });
    if (visible && this.#heardAtMs !== undefined) this.#heardAtMs = Math.max(this.#heardAtMs, performance.now() - SILENCE_MS_MAX / 2);
  }

  #hear(data: string | ArrayBuffer): void {
    this.#heardAtMs = performance.now();
    if (!this.#isAlive) {
      this.#isAlive = true;
      this.#retry_ms = RETRY_MS_MIN;
      this.#parts.onAlive();
    }
    if (typeof data === 'string') {
      const message = JSON.parse(data) as ServerMessage;
      if (message.type === 'bye') this.#why = 'premotor has ended';
      this.#parts.onMessage(message);
      return;
    }
    const length = new DataView(data).getUint16(0, true);
    const head = new TextDecoder().decode(new Uint8Array(data, HEAD_LENGTH_BYTES, length));
    this.#parts.onPicture(JSON.parse(head) as PictureHead, new Blob([data.slice(HEAD_LENGTH_BYTES + length)], { type: 'image/jpeg' }));
  }

  async #closed({ code, reason }: CloseEvent): Promise<void> {
    if (this.#why !== 'premotor has ended' || !this.#isAlive) this.#why = code === CLOSE_TOO_MANY ? reason : 'no connection';
    this.#lose();
    setTimeout(() => this.#connect(), this.#retry_ms);
    this.#retry_ms = Math.min(2 * this.#retry_ms, RETRY_MS_MAX);
  }

  #watch(): void {
    const isSilent = this.#heardAtMs === undefined || performance.now() - this.#heardAtMs > SILENCE_MS_MAX;
    // A page that nobody sees is told nothing.
    if (this.#isAlive && isSilent && document.visibilityState === 'visible') {
      this.#why = 'nothing heard';
      this.#socket?.close();
      this.#lose();
    } else if (!this.#isAlive) this.#lose();
  }

  #lose(): void {
    this.#isAlive = false;
    this.#parts.onLost(this.#why, this.#heardAtMs === undefined ? undefined : performance.now() - this.#heardAtMs);
  }
}
