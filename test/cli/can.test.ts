/** `premotor can dump` and `can send` over buses that any machine has: cannelloni on the loopback, and a pipe for an slcan adapter. */
import { spawn } from 'node:child_process';
import { constants, existsSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { CanBus } from '../../src/can/bus.js';
import { parseFrame } from '../../src/can/frame-text.js';
import { runCli } from '../../src/cli/main.js';
import { loadNative } from '../../src/native.js';
import { encodeShort } from '../../src/robot/bridge-frames.js';
import { loopAddresses, makePipe, watchedNative } from '../support/can-loop.js';
import { fakeContext } from './fakes.js';

const native = loadNative();

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(argv: readonly string[], parts = {}): Promise<Ended> {
  const { out, err, context } = fakeContext({ loadNative: () => native, ...parts });
  const code = await runCli(['can', ...argv], context);
  return { code, out: out.text, err: err.text };
}

/** Runs a dump and, once its bus is open, sends these frames from the other end. */
async function dump(options: readonly string[], texts: readonly string[], parts = {}): Promise<Ended> {
  const [here, there] = await loopAddresses();
  const watched = watchedNative();
  const running = run(['dump', here, ...options], { loadNative: () => watched.native, ...parts });
  await watched.opened;
  const sender = CanBus.open(there, native);
  for (const text of texts) sender.send(parseFrame(text));
  const ended = await running;
  sender.close();
  return ended;
}

const framesOf = (out: string): string[] => out.split('\n').map((line) => line.split('  ').slice(2).join('  '));

t.test('dump prints frames, keeps a log and counts', async (t) => {
  const log = join(t.testdir(), 'a.log');
  const { code, out, err } = await dump(['--count', '4', '--log', log], ['123#DEADBEEF', '12345678#R', '100##1AABB', '7FF#']);
  t.equal(code, 0, err);
  t.same(framesOf(out), ['123  [4]  DE AD BE EF', '12345678  [0]  remote request', '100  [2] FD BRS  AA BB', '7FF  [0]', '']);
  t.match(out, /^\(\d{10}\.\d{6}\) {2}cannelloni {2}123 /);
  t.equal(err, '4 shown, 4 received\n');
  t.match(readFileSync(log, 'utf8').split('\n'), [/^\(\d{10}\.\d{6}\) cannelloni 123#DEADBEEF$/, / 12345678#R$/, / 100##1AABB$/, / 7FF#$/, '']);
  const again = await dump(['--for', '1', '--log', log], []);
  t.equal(again.code, 1);
  t.match(again.err, /error FILE_WRITE: .*a\.log.*name a new file/);
});

t.test('dump filters what it shows and not what it logs, and explains', async (t) => {
  const log = join(t.testdir(), 'a.log');
  const { id, data } = encodeShort('heartbeat', { version_and_state: 0x11, clock_us: 5 });
  const heartbeat = `${id.toString(16).padStart(3, '0')}#${Buffer.from(data).toString('hex')}`;
  const options = ['--count', '2', '--filter', '050:7FF', '--filter', '12345678:1FFFFFFF', '--decode', 'bridge', '--log', log];
  const { code, out } = await dump(options, ['051#', heartbeat, '123#00', '12345678#']);
  t.equal(code, 0);
  const [first, second] = framesOf(out);
  t.match(first, /^050 .* {4}heartbeat version_and_state=17 fault=0 clock_us=5$/);
  t.equal(second, '12345678  [0]');
  t.equal(readFileSync(log, 'utf8').match(/\n/g)?.length, 4);
});

t.test('dump as JSON is one document', async (t) => {
  const { code, out } = await dump(['--count', '2', '--json'], ['123#AA', '12345678##1BB']);
  t.equal(code, 0);
  const document = JSON.parse(out) as { frames: { receivedUs: number }[] };
  t.match(document, {
    bus: 'cannelloni',
    frames: [
      { text: '123#AA', id: 0x123, isFd: false, bytes: 1, data: 'AA' },
      { text: '12345678##1BB', id: 0x12345678, isExtended: true, isFd: true, isBitRateSwitched: true, data: 'BB' },
    ],
    counters: { received: 2, malformed: 0 },
    interrupted: false,
  });
});

t.test('dump ends with the time, and with an interrupt in order', async (t) => {
  t.equal((await dump(['--for', '0.0105', '--json'], [])).code, 0, 'of a millisecond, too');
  const timed = await dump(['--for', '0.05', '--json'], []);
  t.equal(timed.code, 0);
  t.match(JSON.parse(timed.out), { frames: [], counters: { received: 0 } });
  const log = join(t.testdir(), 'a.log');
  const controller = new AbortController();
  const out = {
    write: (text: string): void => {
      if (text.includes('123')) controller.abort();
    },
  };
  const { code, err } = await dump(['--log', log], ['123#AA'], { signal: controller.signal, out });
  t.equal(code, 130);
  t.equal(err, '1 shown, 1 received\n');
  t.match(readFileSync(log, 'utf8'), / 123#AA\n$/);
});

t.test('an adapter that sends nonsense is counted', async (t) => {
  const path = makePipe(t.testdir());
  const watched = watchedNative();
  const running = run(['dump', `slcan:${path}`, '--count', '1'], { loadNative: () => watched.native });
  await watched.opened;
  writeSync(openSync(path, 'r+'), 'nonsense\rt1232AABB\r');
  const { code, out, err } = await running;
  t.equal(code, 0);
  t.match(out, /adapter {2}123 {2}\[2\] {2}AA BB/);
  t.match(err, /^1 shown, 1 received, \d+ malformed\n$/);
});

t.test('send sends frames in order, as often as asked', async (t) => {
  const [here, there] = await loopAddresses();
  const receiver = CanBus.open(there, native);
  const sent = await run(['send', here, '123#DEADBEEF', '100##1AABB', '--repeat', '3', '--period-ms', '1']);
  t.same(sent, { code: 0, out: '6 frames sent on cannelloni\n', err: '' });
  t.same(
    receiver.receive().frames.map(({ id }) => id),
    [0x123, 0x100, 0x123, 0x100, 0x123, 0x100],
  );
  const json = await run(['send', here, '123#R', '--json']);
  t.same(JSON.parse(json.out), { bus: 'cannelloni', sent: 1, interrupted: false });
  t.match(receiver.receive().frames, [{ id: 0x123, isRemote: true }]);
  const controller = new AbortController();
  const stopped = run(['send', here, '124#', '--repeat', '1000000', '--period-ms', '1'], { signal: controller.signal });
  for await (const frame of receiver) if (frame.id === 0x124) break;
  controller.abort();
  t.match(await stopped, { code: 130, out: /^\d+ frames? sent on cannelloni\n$/ });
  receiver.close();
});

t.test('send refuses what is no frame or does not fit the bus, and sends nothing then', async (t) => {
  const [here, there] = await loopAddresses();
  const receiver = CanBus.open(there, native);
  t.match(await run(['send', here, '123#00', '123#0']), { code: 1, err: /^error CAN_FRAME_INVALID: .*expected .*found "123#0"/i });
  t.same(receiver.receive().frames, [], 'not even the good ones before it');
  receiver.close();
  const path = makePipe(t.testdir());
  t.match(await run(['send', `slcan:${path}`, '123##1AA']), { code: 1, err: /^error CAN_REFUSED: adapter does not carry 123##1AA/ });
});

/** Fills a pipe; returns how many bytes it took. */
function fill(path: string): number {
  const pipe = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  let bytes = 0;
  try {
    for (;;) bytes += writeSync(pipe, '\r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
  }
  return bytes;
}

t.test('send says when a full bus dropped frames', async (t) => {
  const capacity = fill(makePipe(t.testdir()));
  // The pipe takes the channel's opening and then nothing: of two frames of one identifier the newer replaces the older.
  const path = makePipe(t.testdir({ other: {} }));
  writeSync(openSync(path, 'r+'), '\r'.repeat(capacity - '\rC\rS8\rO\r'.length));
  const { code, err } = await run(['send', `slcan:${path}`, '123#01', '123#02']);
  t.equal(code, 1);
  t.match(err, /^error CAN_QUEUE_FULL: adapter took [01] of 2 frames/);
});

t.test('errors of the command line and of the bus', async (t) => {
  const cases: readonly (readonly [string[], number, RegExp])[] = [
    [['dump'], 2, /missing required argument 'address'/],
    [['send', 'socketcan:can0'], 2, /missing required argument 'frame'/],
    [['dump', 'usb:1'], 1, /^error ARGUMENT_INVALID: expected a CAN bus such as socketcan:can0/],
    [['dump', 'slcan:/dev/no-such-adapter', '--count', '1'], 1, /^error CAN_DEVICE_MISSING/],
    [['send', 'socketcan:nosuchcan7', '123#'], 1, /^error (CAN_UNSUPPORTED|CAN_INTERFACE_MISSING): .*nosuchcan7/],
    [['dump', 'socketcan:can0', '--json'], 2, /give --count or --for/],
    [['dump', 'socketcan:can0', '--filter', '12:7FF'], 2, /--filter <id:mask>.*123:7FF/],
    [['dump', 'socketcan:can0', '--for', '0'], 2, /--for <seconds>.*above 0/],
    [['dump', 'socketcan:can0', '--count', '0'], 2, /--count <n>.*whole number/],
    [['dump', 'socketcan:can0', '--decode', 'morse'], 2, /Allowed choices are bridge/],
  ];
  for (const [argv, code, message] of cases) {
    const ended = await run(argv);
    t.equal(ended.code, code, argv.join(' '));
    t.match(ended.err, message);
  }
});

t.test('the help warns, and the documents name every option', async (t) => {
  const document = readFileSync('docs/CLI.md', 'utf8');
  for (const command of ['dump', 'send']) {
    const { code, out } = await run([command, '--help']);
    t.equal(code, 0);
    t.match(out, /Examples:\n {2}premotor can/);
    for (const [option] of out.matchAll(/--[a-z-]+/g)) t.ok(document.includes(option), `docs/CLI.md has ${option}`);
    if (command === 'send') t.match(out, /FRAMES MOVE MOTORS/);
  }
});

t.test('the process itself ends with its counters on SIGINT', async (t) => {
  const dir = t.testdir();
  const [here] = await loopAddresses();
  const source = new URL('../../src/cli/main.ts', import.meta.url).href;
  const log = join(dir, 'a.log');
  const script = `
    import { runCli } from ${JSON.stringify(source)};
    process.exitCode = await runCli(${JSON.stringify(['can', 'dump', here, '--log', log])});`;
  writeFileSync(join(dir, 'run.mts'), script);
  const child = spawn(process.execPath, ['--import', 'tsx', join(dir, 'run.mts')], { stdio: ['ignore', 'pipe', 'pipe'] });
  let err = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  // The log exists once the bus is open and the command listens.
  const waiting = setInterval(() => existsSync(log) && child.kill('SIGINT') && clearInterval(waiting), 20);
  const code = await new Promise((resolve) => child.on('close', resolve));
  clearInterval(waiting);
  t.equal(code, 130, err);
  t.match(err, /0 shown, 0 received\n$/);
});
