/**
 * Malformed messages: 300 000 mutations of good ones through the message handler, some thousands through real sockets. None ends the process, leaks,
 * or reaches the policy unchecked; every refusal has a code.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { PremotorError } from '../../src/errors.js';
import { type Encodable, encode, WireFloat } from '../../src/server/msgpack.js';
import { arrayOf, NdArray } from '../../src/server/ndarray.js';
import { Session } from '../../src/server/session.js';
import { Random } from '../../src/sim/random.js';
import { Client, commit, infer, moment, picture, reset, SESSION, StrictModel, serve } from './support.js';

const SEED = 20_261_130;
const MESSAGES = Number(process.env['PREMOTOR_FUZZ_MESSAGES'] ?? 300_000);
const SOCKET_MESSAGES = 2_000;
const HEAP_GROWTH_MAX_BYTES = 8 << 20;
// Traces of refused messages would be most of the work.
Error.stackTraceLimit = 0;

/** Good requests, each with what it needs before it. */
const REQUESTS: readonly Readonly<Record<string, Encodable>>[] = [
  reset(),
  infer({ seed: 3, premotor: true, video_steps: 2, action_steps: 2 }),
  infer(),
  commit(4, 2),
  commit(0, 1, { obs: [] }),
  { reset: true },
  {
    'observation/cam_high': picture(2, 2),
    images: { cam_wrist: picture(2, 2) },
    prompt: 'a',
    'observation/state': arrayOf(new Float32Array(3), [3]),
  },
  { ...infer(), reset: false, compute_kv_cache: false, extra: [null, -1, 1.5, 'é', new NdArray('<U2', [1], new Uint8Array(8)), { a: { b: [1] } }] },
  { obs: [moment(1)], prompt: 'x'.repeat(300) },
];
const CORPUS: readonly Buffer[] = REQUESTS.map((one) => encode(one));
/** What may stand where something else is wanted. */
const VALUES: readonly Encodable[] = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  2 ** 53 - 1,
  new WireFloat(Number.NaN),
  new WireFloat(Infinity),
  '',
  'reset',
  'x'.repeat(20_000),
  new Uint8Array(5),
  [],
  [[]],
  {},
  [{}, {}],
  moment(0),
  [moment(1), moment(2), moment(3), moment(4)],
  Array.from({ length: 9 }, () => moment(1)),
  picture(2, 2),
  picture(0, 0),
  picture(1, 65),
  new NdArray('|u1', [12], new Uint8Array(12)),
  new NdArray('<f4', [2, 2, 3], new Uint8Array(48)),
  new NdArray('|u1', [2, 2, 4], new Uint8Array(16)),
  arrayOf(new Float32Array(24).fill(Number.NaN), [3, 2, 4]),
  arrayOf(new Float32Array(24), [4, 2, 3]),
  arrayOf(new Float32Array(12), [3, 1, 4]),
  new NdArray('<f8', [3, 2, 4], new Uint8Array(192)),
  new NdArray('<f8', [3, 2, 4], new Uint8Array(192).fill(255)),
  new NdArray('|b1', [1], new Uint8Array(1)),
  new NdArray('<i8', [], new Uint8Array(8)),
];
const NAMES = [
  'reset',
  'compute_kv_cache',
  'obs',
  'state',
  'prompt',
  'seed',
  'video_steps',
  'action_steps',
  'premotor',
  'observation.images.cam_high',
  'cam_wrist',
  '__proto__',
  'constructor',
];

/** A request with something else somewhere in it, properly written. */
function altered(random: Random): Buffer {
  const pick = <T>(list: readonly T[]): T => list[random.integer(list.length)] as T;
  const alter = (value: Encodable): Encodable => {
    const isMap = typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
    if (random.integer(isMap || Array.isArray(value) ? 4 : 1) === 0) return pick(VALUES);
    if (Array.isArray(value)) return value.length === 0 ? [pick(VALUES)] : value.with(random.integer(value.length), alter(pick(value)));
    const map = value as Readonly<Record<string, Encodable>>;
    const name = random.integer(4) === 0 ? pick(NAMES) : pick(Object.keys(map));
    const { [name]: old = null, ...rest } = map;
    return random.integer(5) === 0 ? rest : { ...rest, [name]: alter(old) };
  };
  return encode(alter({ ...pick(REQUESTS), ...(random.integer(4) === 0 ? pick(REQUESTS) : {}) }));
}

/** Bytes that mean something in msgpack. */
const TAGS = [
  0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc6, 0xc7, 0xca, 0xcb, 0xcf, 0xd3, 0xd9, 0xdb, 0xdc, 0xdd, 0xde,
  0xdf, 0xff,
];
/** Values that a field may not have: no numbers, infinities. */
const FLOATS = [0x7f, 0xc0, 0x00, 0x00, 0x80, 0x7f];

function mutated(random: Random): Buffer {
  return random.integer(2) === 0 ? altered(random) : broken(random);
}

/** A message whose bytes are not what they were. */
function broken(random: Random): Buffer {
  const pick = <T>(list: readonly T[]): T => list[random.integer(list.length)] as T;
  let message = Buffer.from(pick(CORPUS));
  for (let mutation = random.integer(4); mutation >= 0; mutation--) {
    const at = random.integer(message.length);
    switch (random.integer(8)) {
      case 0:
        message[at] = (message[at] as number) ^ (1 << random.integer(8));
        break;
      case 1:
        message[at] = pick(TAGS);
        break;
      case 2:
        message = message.subarray(0, at);
        break;
      case 3:
        message = Buffer.concat([message.subarray(0, at), message.subarray(at + 1 + random.integer(8))]);
        break;
      case 4:
        message = Buffer.concat([
          message.subarray(0, at),
          Buffer.from(Array.from({ length: 1 + random.integer(6) }, () => random.integer(256))),
          message.subarray(at),
        ]);
        break;
      case 5: {
        const other = pick(CORPUS);
        message = Buffer.concat([message.subarray(0, at), other.subarray(random.integer(other.length))]);
        break;
      }
      case 6:
        message.set(FLOATS.slice(0, message.length - at), at);
        break;
      default:
        message = Buffer.concat([message.subarray(0, at), message.subarray(Math.max(0, at - random.integer(32)))]);
    }
    if (message.length === 0) return message;
  }
  return message;
}

/** Where an episode stands when the message comes. */
const STAGES: readonly (readonly Buffer[])[] = [[], [CORPUS[0]], [CORPUS[0], CORPUS[2]], [CORPUS[0], CORPUS[2], CORPUS[3]]] as Buffer[][];

t.test(`${MESSAGES} malformed messages through the message handler`, async (t) => {
  t.comment(`seed ${SEED}`);
  const random = new Random(SEED);
  const model = new StrictModel();
  const outcomes = new Map<string, number>();
  const others: unknown[] = [];
  const count = (what: string): void => void outcomes.set(what, (outcomes.get(what) ?? 0) + 1);
  let session = new Session(model, SESSION);
  let heapBefore = 0;
  for (let number = 0; number < MESSAGES; number++) {
    if (number % 16 === 0) {
      session = new Session(model, SESSION);
      for (const message of STAGES[random.integer(STAGES.length)] as readonly Buffer[]) await session.handle(message);
      // What the model keeps for other tests would look like a leak here.
      model.calls.length = model.frames.length = model.seeds.length = 0;
    }
    try {
      count(`answered ${(await session.handle(mutated(random))).kind}`);
    } catch (error) {
      if (error instanceof PremotorError && error.message.length < 2_000) count(error.code);
      else others.push(error);
    }
    if (number % 4096 === 0) await nextTurn();
    // By then everything that is made once has been made.
    if (number === 8192) heapBefore = heapUsed();
  }
  t.same(others, [], 'every refusal is a PremotorError');
  t.same(model.unchecked, [], 'the policy saw nothing unchecked');
  for (const [what, times] of [...outcomes].sort()) t.comment(`${what}: ${times}`);
  for (const code of ['MESSAGE_INVALID', 'REQUEST_INVALID', 'FRAME_INVALID', 'ACTIONS_INVALID', 'ARGUMENT_INVALID', 'NO_EPISODE', 'OBS_REQUIRED'])
    t.ok((outcomes.get(code) ?? 0) > 0, `${code} was reached`);
  for (const kind of ['reset', 'commit', 'infer', 'act']) t.ok((outcomes.get(`answered ${kind}`) ?? 0) > 0, `${kind} was answered`);
  const grown = heapUsed() - heapBefore;
  t.ok(grown < HEAP_GROWTH_MAX_BYTES, `the heap grew by ${grown} bytes`);
});

/** What is still reachable. */
function heapUsed(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed;
}

t.test(`${SOCKET_MESSAGES} of them through real sockets: each client is told, and the server goes on`, async (t) => {
  const random = new Random(SEED + 1);
  const { server, url, models, logged, log } = await serve(t);
  let told = 0;
  let sent = 0;
  let closed = 0;
  while (sent < SOCKET_MESSAGES) {
    const client = await Client.open(t, url);
    await client.next();
    for (const message of STAGES[random.integer(STAGES.length)] as readonly Buffer[]) {
      client.socket.send(message);
      await client.next();
    }
    for (let answer: unknown = {}; typeof answer === 'object' && sent < SOCKET_MESSAGES; sent++) {
      client.socket.send(mutated(random));
      answer = await client.next();
      if (typeof answer === 'string') {
        told++;
        if (!/^[A-Z][A-Z_]+: .+\n$/s.test(answer)) t.fail(answer);
      } else if (answer === undefined) t.fail('a client was left without a word');
    }
    client.socket.terminate();
    await logged('closed', ++closed);
  }
  t.ok(told > SOCKET_MESSAGES / 2, `${told} errors were told`);
  t.equal(models.length, 1, 'no policy was lost');
  t.same(models[0]?.unchecked, []);
  t.notOk(log.some(({ fields }) => fields['code'] === 'INTERNAL'));
  t.equal(server.served, 0);
});
