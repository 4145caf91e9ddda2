/**
 * Cameras whose pictures another program on this machine pushes over a WebSocket. One server per port, on loopback; the sender names its camera in
 * every message. A message that is wrong is refused, counted and answered, and never shown; while one picture of a camera is decoded, only the newest
 * that came meanwhile waits. Owned by whoever opened it.
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type RawData, type WebSocket, WebSocketServer } from 'ws';
import { PremotorError } from '../errors.js';
import type { Frame } from '../policy/contract.js';
import type { CameraClock } from './clock.js';
import { decodePicture } from './pictures.js';
import { ReceivedFrames } from './received.js';
import type { CameraInfo, FrameSource } from './source.js';
import { HEADER_BYTES_MAX, type PictureMessage, parsePicture, type Refusal, RefusedMessage } from './websocket-message.js';

export interface PushedOptions {
  /** 0: any that is free. */
  readonly port: number;
  /** The pictures must have the sizes that are named here. */
  readonly cameras: readonly CameraInfo[];
  readonly clock: CameraClock;
}

/** Since it was opened. */
export interface PushedCounts {
  readonly accepted: number;
  /** Replaced by a newer one before they were decoded. */
  readonly overtaken: number;
  readonly refused: Readonly<Record<Refusal, number>>;
}

const HOST = '127.0.0.1';
const SENDERS_MAX = 16;
/** A JPEG or PNG may be a little larger than the pixels: noise does not compress. */
const OVERHEAD_BYTES = 65_536;
/** A sender's answers that it does not read; more of them close its connection. */
const UNREAD_BYTES_MAX = 1_048_576;
const LOCAL_ORIGIN = /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/;

interface Waiting {
  readonly message: PictureMessage;
  readonly capturedAtNs: bigint;
  readonly refuse: (error: RefusedMessage) => void;
}

/** One camera of the server. */
class Pushed {
  readonly info: CameraInfo;
  readonly frames: ReceivedFrames;
  accepted = 0;
  overtaken = 0;
  #waiting: Waiting | undefined;
  #isDecoding = false;

  constructor(info: CameraInfo, clock: CameraClock) {
    this.info = info;
    this.frames = new ReceivedFrames(clock);
  }

  take(one: Waiting): void {
    if (one.message.format === 'rgb') {
      this.#show(one, one.message);
      return;
    }
    if (this.#waiting) this.overtaken++;
    this.#waiting = one;
    if (!this.#isDecoding) void this.#decode();
  }

  async #decode(): Promise<void> {
    this.#isDecoding = true;
    for (let next = this.#waiting; next; next = this.#waiting) {
      this.#waiting = undefined;
      try {
        // A copy: the bytes of the message are the connection's.
        this.#show(next, await decodePicture(Buffer.from(next.message.data), { failOn: 'error' }));
      } catch (error) {
        next.refuse(error instanceof RefusedMessage ? error : new RefusedMessage('undecodable', (error as Error).message));
      }
    }
    this.#isDecoding = false;
  }

  #show({ message, capturedAtNs, refuse }: Waiting, { width, height, data }: { width: number; height: number; data: Uint8Array }): void {
    const { camera } = this.info;
    if (width !== message.width || height !== message.height) {
      refuse(new RefusedMessage('size', `expected ${message.width} x ${message.height} as the header says, found ${width} x ${height}`));
      return;
    }
    const frame: Frame = { camera, width, height, data: message.format === 'rgb' ? Uint8Array.from(data) : data, capturedAtNs };
    if (this.frames.add(frame)) this.accepted++;
    else refuse(new RefusedMessage('stamp_order', `expected a later capture than the one before, found ${capturedAtNs} ns of the robot's clock`));
  }
}

export class PushedCameras implements FrameSource {
  readonly cameras: readonly CameraInfo[];
  readonly url: string;
  readonly #clock: CameraClock;
  readonly #http: Server;
  readonly #sockets: WebSocketServer;
  readonly #pushed: ReadonlyMap<string, Pushed>;
  readonly #refused: Record<Refusal, number> = { malformed: 0, unknown_camera: 0, size: 0, undecodable: 0, stamp_future: 0, stamp_order: 0 };

  private constructor(http: Server, { cameras, clock }: PushedOptions) {
    this.cameras = cameras;
    this.#clock = clock;
    this.#http = http;
    this.url = `ws://${HOST}:${(http.address() as AddressInfo).port}`;
    this.#pushed = new Map(cameras.map((info) => [info.camera, new Pushed(info, clock)]));
    const maxPayload = Math.max(...cameras.map(({ width, height }) => width * height * 3)) + HEADER_BYTES_MAX + OVERHEAD_BYTES;
    this.#sockets = new WebSocketServer({
      server: http,
      maxPayload,
      perMessageDeflate: false,
      verifyClient: ({ req }: { req: IncomingMessage }) => this.#mayConnect(req),
    });
    this.#sockets.on('connection', (socket) => this.#serve(socket));
  }

  /** Errors: CAMERA_PORT. */
  static async open(options: PushedOptions): Promise<PushedCameras> {
    const http = createServer((_, response) => {
      response.writeHead(426, { 'content-type': 'text/plain' }).end('Pictures are pushed over a WebSocket: docs/CAMERAS.md.\n');
    });
    await new Promise<void>((resolve, reject) => {
      http.once('error', (cause) => {
        const found = (cause as Error).message;
        const message = `Pictures cannot be taken on port ${options.port} of ${HOST}: expected a free port, found ${found}. Name another port, or 0.`;
        reject(new PremotorError('CAMERA_PORT', message, { field: 'cameras.sources', expected: 'a free port', found, cause }));
      });
      http.listen(options.port, HOST, resolve);
    });
    return new PushedCameras(http, options);
  }

  counts(): PushedCounts {
    const sum = (of: (one: Pushed) => number): number => [...this.#pushed.values()].reduce((total, one) => total + of(one), 0);
    return { accepted: sum(({ accepted }) => accepted), overtaken: sum(({ overtaken }) => overtaken), refused: { ...this.#refused } };
  }

  /** Cameras of which nothing has come yet are left out. */
  async capture(): Promise<readonly Frame[]> {
    return [...this.#pushed.values()].flatMap(({ frames }) => frames.visible().slice(-1));
  }

  history(): readonly Frame[] {
    return [...this.#pushed.values()].flatMap(({ frames }) => frames.visible());
  }

  /** Idempotent. */
  async close(): Promise<void> {
    for (const socket of this.#sockets.clients) socket.terminate();
    this.#sockets.close();
    this.#http.closeAllConnections();
    await new Promise<void>((resolve) => this.#http.close(() => resolve()));
    for (const { frames } of this.#pushed.values()) frames.clear();
  }

  /** A page of some site in a browser on this machine reaches loopback too: it says where it comes from. */
  #mayConnect({ headers: { origin } }: IncomingMessage): boolean {
    return this.#sockets.clients.size < SENDERS_MAX && (origin === undefined || LOCAL_ORIGIN.test(origin));
  }

  #serve(socket: WebSocket): void {
    // Too large a message, or bytes that are no WebSocket's: ws has closed the connection already.
    socket.on('error', () => {
      this.#refused.malformed++;
    });
    socket.on('message', (data: RawData, isBinary) => {
      const refuse = (error: RefusedMessage): void => this.#refuse(socket, error);
      try {
        if (!isBinary) throw new RefusedMessage('malformed', 'expected a binary message, found text');
        this.#take(bytesOf(data), refuse);
      } catch (error) {
        refuse(error instanceof RefusedMessage ? error : new RefusedMessage('malformed', (error as Error).message));
      }
    });
  }

  #take(bytes: Uint8Array, refuse: (error: RefusedMessage) => void): void {
    const message = parsePicture(bytes);
    const one = this.#pushed.get(message.camera);
    if (!one) {
      throw new RefusedMessage('unknown_camera', `expected one of ${[...this.#pushed.keys()].join(', ')}, found ${message.camera}`);
    }
    const { width, height } = one.info;
    if (message.width !== width || message.height !== height)
      throw new RefusedMessage('size', `expected ${width} x ${height}, found ${message.width} x ${message.height}`);
    const nowNs = process.hrtime.bigint();
    const capturedNs = message.capturedAtNs ?? nowNs;
    if (capturedNs > nowNs) {
      throw new RefusedMessage('stamp_future', `expected a capture before ${nowNs} ns of the monotonic clock, found ${capturedNs}`);
    }
    one.take({ message, capturedAtNs: this.#clock.fromMonotonicNs(capturedNs), refuse });
  }

  #refuse(socket: WebSocket, { reason, message }: RefusedMessage): void {
    this.#refused[reason]++;
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount > UNREAD_BYTES_MAX) socket.terminate();
    else socket.send(JSON.stringify({ refused: reason, message }));
  }
}

function bytesOf(data: RawData): Uint8Array {
  if (Array.isArray(data)) return Buffer.concat(data);
  return data instanceof ArrayBuffer ? new Uint8Array(data) : data;
}
