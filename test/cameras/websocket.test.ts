/**
 * Pictures that another program pushes, over real WebSockets: what is taken, what is refused and how it is answered, and what a frozen sender does.
 */
import { once } from 'node:events';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { PushedCameras } from '../../src/cameras/websocket.js';
import { encodePicture, type PictureMessage, parsePicture, RefusedMessage } from '../../src/cameras/websocket-message.js';
import { failureOf, MS, picture, samplerOf, TestClock } from './rig.js';

const INFO = { camera: 'eye', width: 4, height: 2 };
const rgb = (value: number, change: Partial<PictureMessage> = {}): PictureMessage => ({
  ...picture(4, 2, value),
  camera: 'eye',
  format: 'rgb',
  ...change,
});

/** A server with one sender, whose answers are kept. */
async function opened(t: Test, cameras = [INFO]) {
  const clock = new TestClock({ offsetNs: process.hrtime.bigint() - 5_000n * MS });
  const source = await PushedCameras.open({ port: 0, cameras, clock });
  t.teardown(() => source.close());
  const sender = new WebSocket(source.url);
  await once(sender, 'open');
  const answers: { refused: string; message: string }[] = [];
  const waiting: (() => void)[] = [];
  sender.on('message', (data) => {
    answers.push(JSON.parse(String(data)));
    for (const wake of waiting.splice(0)) wake();
  });
  /** What is sent is answered only when it is refused. */
  const refusal = async (message: Uint8Array | string): Promise<string | undefined> => {
    const answered = new Promise<void>((resolve) => waiting.push(resolve));
    sender.send(message);
    await answered;
    return answers.at(-1)?.refused;
  };
  /** Resolves when so many pictures were accepted. */
  const accepted = async (count: number): Promise<void> => {
    for (let looks = 0; source.counts().accepted < count && looks < 2000; looks++) await new Promise((resolve) => setTimeout(resolve, 2));
    t.equal(source.counts().accepted, count, `${count} accepted`);
    clock.follow();
  };
  return { clock, source, sender, answers, refusal, accepted };
}

t.test('a message is its bytes', (t) => {
  const message = rgb(9, { capturedAtNs: 12_345_678_901_234_567_890n / 10n });
  t.same(parsePicture(encodePicture(message)), message);
  const head = JSON.stringify({ camera: 'eye', captured_at_ns: 17, width: 4, height: 2, format: 'rgb' });
  const length = Buffer.alloc(4);
  length.writeUInt32LE(head.length);
  t.equal(parsePicture(Buffer.concat([length, Buffer.from(head), Buffer.alloc(24)])).capturedAtNs, 17n, 'a number of nanoseconds');
  const offset = Buffer.concat([Buffer.alloc(3), encodePicture(message)]).subarray(3);
  t.same(parsePicture(offset), message, 'wherever it lies in memory');
  t.end();
});

t.test('every way in which a message can be wrong has a name', (t) => {
  const good = Buffer.from(encodePicture(rgb(1)));
  const reasonOf = (bytes: Uint8Array): string => {
    try {
      parsePicture(bytes);
      return 'taken';
    } catch (error) {
      return error instanceof RefusedMessage ? error.reason : String(error);
    }
  };
  const head = (value: unknown, data = 24): Buffer => {
    const text = Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(text.length);
    return Buffer.concat([length, text, Buffer.alloc(data)]);
  };
  const fields = { camera: 'eye', width: 4, height: 2, format: 'rgb' };
  const cases: [string, Uint8Array, string][] = [
    ['the good one', good, 'taken'],
    ['nothing', Buffer.alloc(0), 'malformed'],
    ['three bytes', Buffer.alloc(3), 'malformed'],
    ['a header beyond its end', Buffer.from([255, 0, 0, 0, 1]), 'malformed'],
    ['a huge header', Buffer.from([255, 255, 255, 255]), 'malformed'],
    ['no JSON', head('{'), 'malformed'],
    ['no UTF-8', Buffer.concat([Buffer.from([2, 0, 0, 0, 0xff, 0xfe]), Buffer.alloc(24)]), 'malformed'],
    ['no object', head([1]), 'malformed'],
    ['an unknown field', head({ ...fields, colour: 1 }), 'malformed'],
    ['a missing field', head({ camera: 'eye', width: 4, height: 2 }), 'malformed'],
    ['half a pixel', head({ ...fields, width: 4.5 }), 'malformed'],
    ['no pixels', head({ ...fields, width: 0 }), 'malformed'],
    ['another format', head({ ...fields, format: 'bmp' }), 'malformed'],
    ['a stamp in words', head({ ...fields, captured_at_ns: 'now' }), 'malformed'],
    ['a stamp before time', head({ ...fields, captured_at_ns: -1 }), 'malformed'],
    ['a byte less', good.subarray(0, -1), 'size'],
    ['a byte more', Buffer.concat([good, Buffer.alloc(1)]), 'size'],
    ['a JPEG of nothing', head({ ...fields, format: 'jpeg' }, 0), 'size'],
  ];
  for (const [name, bytes, want] of cases) t.equal(reasonOf(bytes), want, name);
  const random = Buffer.from(good);
  // Every single bit turned: refused or taken, never anything else.
  for (let bit = 0; bit < random.length * 8; bit++) {
    const bytes = Buffer.from(good);
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    if (!/^(taken|malformed|size)$/.test(reasonOf(bytes))) t.fail(`bit ${bit}: ${reasonOf(bytes)}`);
  }
  t.end();
});

t.test('RGB, JPEG and PNG are shown, stamped on the robot’s clock', async (t) => {
  const { source, sender, accepted, clock, answers } = await opened(t);
  t.same(await source.capture(), [], 'nothing yet');
  sender.send(encodePicture(rgb(10)));
  await accepted(1);
  const [first] = await source.capture();
  t.match(first, { camera: 'eye', width: 4, height: 2, data: new Uint8Array(24).fill(10) });
  const ageNs = clock.timeNs - (first?.capturedAtNs ?? 0n);
  t.ok(ageNs >= 0n && ageNs < 60_000n * MS, 'stamped at arrival');
  const image = sharp(Buffer.from(picture(4, 2, 100).data), { raw: { width: 4, height: 2, channels: 3 } });
  const capturedAtNs = process.hrtime.bigint();
  sender.send(encodePicture(rgb(0, { format: 'png', data: await image.png().toBuffer(), capturedAtNs })));
  await accepted(2);
  const [png] = await source.capture();
  t.same([png?.data[0], png?.capturedAtNs], [100, clock.fromMonotonicNs(capturedAtNs)], 'with the time of the sender');
  sender.send(encodePicture(rgb(0, { format: 'jpeg', data: await image.jpeg({ quality: 100 }).toBuffer() })));
  await accepted(3);
  const [jpeg] = await source.capture();
  t.ok(Math.abs((jpeg?.data[0] ?? 0) - 100) <= 2);
  t.equal(source.history().length, 3);
  t.same(answers, [], 'who sends well hears nothing');
});

t.test('a frame is not shown before the robot’s clock has reached it', async (t) => {
  const { source, sender, accepted, clock } = await opened(t);
  sender.send(encodePicture(rgb(1)));
  await accepted(1);
  const [frame] = await source.capture();
  clock.timeNs = (frame?.capturedAtNs ?? 0n) - 1n;
  t.same(await source.capture(), []);
  t.same(source.history(), []);
  clock.timeNs += 1n;
  t.equal((await source.capture()).length, 1);
});

t.test('wrong messages are refused, counted, answered and not shown', async (t) => {
  const { source, sender, refusal, accepted } = await opened(t);
  const now = process.hrtime.bigint();
  sender.send(encodePicture(rgb(50, { capturedAtNs: now })));
  await accepted(1);
  t.equal(await refusal('text'), 'malformed');
  t.equal(await refusal(Buffer.alloc(2)), 'malformed');
  t.equal(await refusal(encodePicture(rgb(1, { camera: 'ear' }))), 'unknown_camera');
  t.equal(await refusal(encodePicture({ ...picture(2, 2, 1), camera: 'eye', format: 'rgb' })), 'size');
  t.equal(await refusal(encodePicture(rgb(1, { format: 'jpeg' }))), 'undecodable');
  const other = await sharp(Buffer.alloc(12), { raw: { width: 2, height: 2, channels: 3 } })
    .png()
    .toBuffer();
  t.equal(await refusal(encodePicture(rgb(1, { format: 'png', data: other }))), 'size', 'a picture that is not what its header says');
  t.equal(await refusal(encodePicture(rgb(1, { capturedAtNs: now + 3_600_000_000_000n }))), 'stamp_future');
  t.equal(await refusal(encodePicture(rgb(1, { capturedAtNs: now }))), 'stamp_order');
  t.same(source.counts().refused, { malformed: 2, unknown_camera: 1, size: 2, undecodable: 1, stamp_future: 1, stamp_order: 1 });
  t.equal((await source.capture())[0]?.data[0], 50, 'the last good one is still shown');
  sender.send(encodePicture(rgb(60)));
  await accepted(2);
});

t.test('a message that is too large ends its connection, and nothing else', async (t) => {
  const { source, sender, accepted } = await opened(t);
  const closed = once(sender, 'close');
  sender.on('error', () => undefined);
  sender.send(Buffer.alloc(200_000));
  await closed;
  t.equal(source.counts().refused.malformed, 1);
  const next = new WebSocket(source.url);
  await once(next, 'open');
  next.send(encodePicture(rgb(5)));
  await accepted(1);
  next.terminate();
});

t.test('pages of other sites and too many senders are turned away', async (t) => {
  const { source } = await opened(t);
  const statusOf = async (origin?: string): Promise<number | 'open'> => {
    const socket = new WebSocket(source.url, origin === undefined ? {} : { origin });
    t.teardown(() => socket.terminate());
    return new Promise((resolve) => {
      socket.once('open', () => resolve('open'));
      socket.once('unexpected-response', (_, response) => resolve(response.statusCode ?? 0));
      socket.on('error', () => undefined);
    });
  };
  t.equal(await statusOf('https://example.org'), 401);
  t.equal(await statusOf('http://localhost.example.org'), 401);
  t.equal(await statusOf('http://localhost:8080'), 'open');
  for (let senders = 2; senders < 16; senders++) t.equal(await statusOf(), 'open');
  t.equal(await statusOf(), 401, 'the seventeenth');
  const { status } = await fetch(source.url.replace('ws:', 'http:'));
  t.equal(status, 426);
});

t.test('a sender that freezes: its picture gets old and is refused', async (t) => {
  const { source, sender, accepted, clock } = await opened(t);
  const sample = samplerOf(source, ['eye']);
  t.match(await failureOf(() => sample(clock.timeNs)), { code: 'CAMERA_MISSING', message: /eye/ }, 'before its first picture');
  sender.send(encodePicture(rgb(1)));
  await accepted(1);
  const stampNs = (await source.capture())[0]?.capturedAtNs ?? 0n;
  clock.timeNs = stampNs + 99n * MS;
  t.equal((await sample(clock.timeNs)).ageNsMax, 99n * MS);
  clock.timeNs = stampNs + 101n * MS;
  t.match(await failureOf(() => sample(clock.timeNs)), { code: 'CAMERA_FRAME_STALE', found: '101 ms' });
  clock.follow();
  sender.send(encodePicture(rgb(2)));
  await accepted(2);
  t.equal((await sample(clock.timeNs)).frames[0]?.data[0], 2, 'and goes on when it goes on');
});

t.test('two cameras of one sender that saw different moments are refused', async (t) => {
  const other = { ...INFO, camera: 'ear' };
  const { source, sender, accepted, clock } = await opened(t, [INFO, other]);
  const now = process.hrtime.bigint();
  sender.send(encodePicture(rgb(1, { capturedAtNs: now - 60n * MS })));
  sender.send(encodePicture(rgb(2, { camera: 'ear', capturedAtNs: now })));
  await accepted(2);
  clock.timeNs = clock.fromMonotonicNs(now);
  const sample = samplerOf(source, ['eye', 'ear']);
  t.match(await failureOf(() => sample(clock.timeNs)), { code: 'CAMERA_SKEW', found: '60 ms' });
});

t.test('a port that is taken', async (t) => {
  const { source } = await opened(t);
  const port = Number(new URL(source.url).port);
  const clock = new TestClock();
  t.match(await failureOf(() => PushedCameras.open({ port, cameras: [INFO], clock })), { code: 'CAMERA_PORT', message: /EADDRINUSE/ });
  await source.close();
  await source.close();
  const again = await PushedCameras.open({ port, cameras: [INFO], clock });
  await again.close();
});
