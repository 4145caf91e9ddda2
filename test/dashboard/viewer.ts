/** A viewer of the status page for tests: connects as a browser would, keeps what it is sent, and waits for what a test wants to see. */
import { once } from 'node:events';
import { WebSocket } from 'ws';
import type { PictureHead, ServerMessage } from '../../src/dashboard/messages.js';

export type Tick = Extract<ServerMessage, { type: 'tick' }>;

export class TestViewer {
  readonly messages: ServerMessage[] = [];
  readonly pictures: { readonly head: PictureHead; readonly jpeg: Buffer }[] = [];
  readonly socket: WebSocket;

  constructor(url: string) {
    this.socket = new WebSocket(`${url.replace('http', 'ws')}live`);
    this.socket.on('error', () => undefined);
    this.socket.on('message', (data: Buffer, isBinary: boolean) => {
      if (!isBinary) this.messages.push(JSON.parse(data.toString('utf8')));
      else {
        const length = data.readUInt16LE();
        this.pictures.push({ head: JSON.parse(data.subarray(2, 2 + length).toString('utf8')), jpeg: data.subarray(2 + length) });
      }
    });
  }

  static async open(url: string): Promise<TestViewer> {
    const viewer = new TestViewer(url);
    await once(viewer.socket, 'open');
    return viewer;
  }

  send(text: string): void {
    this.socket.send(text);
  }

  /** Waits, message by message, until it is so. */
  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await once(this.socket, 'message');
  }

  get ticks(): Tick[] {
    return this.messages.filter((one): one is Tick => one.type === 'tick');
  }

  get last(): Tick | undefined {
    return this.ticks.at(-1);
  }

  kinds(): readonly string[] {
    return [...new Set(this.pictures.map(({ head }) => `${head.kind} ${head.camera}`))].sort();
  }
}
