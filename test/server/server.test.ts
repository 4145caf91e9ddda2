/** The server on real sockets: who is let in, what a client hears, every bound, and that a client that goes frees its policy. */
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { PremotorError } from '../../src/errors.js';
import type { Policy } from '../../src/policy/contract.js';
import type { WireMap } from '../../src/server/msgpack.js';
import { NdArray } from '../../src/server/ndarray.js';
import { deferred, errorOf } from '../support/fixtures.js';
import { Client, commit, infer, JOB, reset, SESSION, StrictModel, serve } from './support.js';

interface Heard {
  readonly status: number;
  readonly body: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

function get(port: number, path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Heard> {
  return new Promise((resolve, reject) => {
    const asked = httpRequest({ host: '127.0.0.1', port, path, headers, method }, (response) => {
      let body = '';
      response.on('data', (part) => (body += part));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body, headers: response.headers }));
    });
    asked.on('error', reject);
    asked.end();
  });
}

const handshake = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' };

t.test('an episode: metadata, timing, goodbye', async (t) => {
  const { server, models, url, log, logged } = await serve(t);
  const client = await Client.open(t, url);
  const metadata = (await client.next()) as WireMap;
  t.match(Object.fromEntries(metadata), {
    server: 'premotor',
    cameras: [...JOB.obs_cam_keys],
    action_shape: [3, 2, 4],
    checkpoint: 'fake',
    untrained: false,
  });
  const first = (await client.ask(reset())) as WireMap;
  t.same([...first.keys()], ['server_timing']);
  const timing = (answer: WireMap): string[] => [...(answer.get('server_timing') as WireMap).keys()];
  t.same(timing(first), ['infer_ms']);
  const second = (await client.ask(infer())) as WireMap;
  t.same([...second.keys()], ['action', 'server_timing']);
  t.type(second.get('action'), NdArray);
  t.same(timing(second), ['infer_ms', 'prev_total_ms']);
  t.same([...((await client.ask(commit(4, 2))) as WireMap).keys()], ['server_timing']);
  client.socket.close();
  t.match(await client.closed, { code: 1005 });
  t.match(await logged('closed'), { fields: { connection: 1, requests: 3, why: 'closed by the client' } });
  t.same(
    log.map(({ event }) => event),
    ['connected', 'answered', 'answered', 'answered', 'closed'],
  );
  t.notOk(JSON.stringify(log).includes('pick'), 'the log has no prompts');
  t.equal(server.served, 0);
  t.same(models[0]?.unchecked, []);
});

t.test('HTTP: health without a token, and nothing else', async (t) => {
  const { server } = await serve(t, { token: 'a secret of many characters' });
  t.match(await get(server.port, '/healthz'), { status: 200, body: 'OK\n' });
  t.match(await get(server.port, '/healthz?x=1'), { status: 200, body: 'OK\n' });
  t.match(await get(server.port, '/healthz', {}, 'HEAD'), { status: 200, body: '' });
  t.match(await get(server.port, '/healthz', {}, 'POST'), { status: 405 });
  t.match(await get(server.port, '/'), { status: 426, headers: { upgrade: 'websocket' } });
  t.match(await get(server.port, '/../../etc/passwd'), { status: 426 });
});

t.test('who is let in', async (t) => {
  const token = 'correct-horse-battery';
  const { server, url, logged } = await serve(t, { token, connections: 3 });
  for (const headers of [
    {},
    { Authorization: 'Bearer wrong' },
    { Authorization: `Basic ${token}` },
    { Authorization: `Bearer ${token}x` },
    { Authorization: '' },
  ]) {
    const heard = await get(server.port, '/', { ...handshake, ...headers });
    t.match(heard, { status: 401, body: /^TOKEN_REFUSED: /, headers: { 'www-authenticate': 'Bearer' } });
    t.notOk(heard.body.includes(token));
  }
  t.match(await get(server.port, '/?token=no', handshake), { status: 401 });
  t.match(await get(server.port, '/?token=', handshake), { status: 401 });
  t.match(await get(server.port, '/', { ...handshake, Authorization: `Bearer ${token}`, Origin: 'http://127.0.0.1' }), {
    status: 403,
    body: /^ORIGIN_REFUSED/,
  });
  const ways: [string, Record<string, string>][] = [
    [url, { Authorization: `Bearer ${token}` }],
    [url, { Authorization: `Api-Key ${token}` }],
    [`${url}/?token=${token}`, {}],
  ];
  for (const [where, headers] of ways) t.type(await (await Client.open(t, where, headers)).next(), Map);
  t.match(await logged('refused', 8), { level: 'warn', fields: { status: 403, code: 'ORIGIN_REFUSED' } });
});

t.test('another address than loopback needs a token, before anything is loaded', async (t) => {
  for (const host of ['0.0.0.0', '::', '192.168.1.7', 'robot.example']) {
    const load = (): Promise<Policy> => Promise.reject(new Error('nothing may be loaded'));
    t.match(await errorOf(serve(t, { host, load })), { code: 'SERVER_OPEN', field: 'host' }, host);
  }
  const open = await serve(t, { host: '0.0.0.0', token: 'a secret of many characters' });
  t.ok(open.server.port > 0);
  t.match(await errorOf(serve(t, { port: open.server.port })), { code: 'SERVER_LISTEN', field: 'port' });
});

t.test('more clients than policies are told so, and a place is free when one goes', async (t) => {
  const { server, url, logged } = await serve(t);
  const first = await Client.open(t, url);
  await first.next();
  t.match(await get(server.port, '/', handshake), { status: 503, body: /^SERVER_BUSY: 1 of 1 /, headers: { 'retry-after': '5' } });
  first.socket.terminate();
  await logged('closed');
  const second = await Client.open(t, url);
  t.type(await second.next(), Map);
});

t.test('errors are a text frame, then 1011; the episode of the next client is its own', async (t) => {
  const { models, url, logged } = await serve(t);
  const bad: [string | Uint8Array, RegExp][] = [
    ['{"reset": true}', /^REQUEST_INVALID: .*text frame/],
    [Uint8Array.of(0xc1), /^MESSAGE_INVALID: /],
    [Uint8Array.of(0x80), /^REQUEST_INVALID: /],
  ];
  for (const [index, [message, text]] of bad.entries()) {
    const client = await Client.open(t, url);
    await client.next();
    client.socket.send(message);
    t.match(await client.next(), text);
    t.match(await client.closed, { code: 1011, reason: /^[A-Z_]+$/ });
    await logged('closed', index + 1);
  }
  const unasked = await Client.open(t, url);
  await unasked.next();
  t.match(await unasked.ask(infer()), /^NO_EPISODE: /);
  await unasked.closed;
  t.same(models[0]?.calls, []);
});

t.test('a client that goes while the policy computes stops it and frees it', async (t) => {
  const { models, url, logged } = await serve(t);
  const client = await Client.open(t, url);
  await client.next();
  await client.ask(reset());
  const model = models[0] as StrictModel;
  const { promptly, begun } = waits(model);
  client.socket.send(await encoded(infer()));
  await begun;
  client.socket.terminate();
  t.equal(await promptly, 'aborted');
  await logged('closed');
  const next = await Client.open(t, url);
  t.type(await next.next(), Map);
  model.predict = StrictModel.prototype.predict;
  await next.ask(reset());
  t.type(await next.ask(infer()), Map);
});

/** Makes predictions last until they are stopped. */
function waits(model: StrictModel): { promptly: Promise<string>; begun: Promise<void> } {
  const begun = deferred();
  let stopped: (how: string) => void = () => undefined;
  const promptly = new Promise<string>((resolve) => (stopped = resolve));
  model.predict = async ({ signal } = {}) => {
    begun.release();
    await new Promise<void>((resolve) => signal?.addEventListener('abort', () => resolve()));
    stopped('aborted');
    throw new PremotorError('ABORTED', 'stopped');
  };
  return { promptly, begun: begun.promise };
}

async function encoded(request: Parameters<Client['ask']>[0]): Promise<Buffer> {
  return (await import('../../src/server/msgpack.js')).encode(request);
}

t.test('a second request before the answer ends the connection', async (t) => {
  const { models, url } = await serve(t);
  const client = await Client.open(t, url);
  await client.next();
  await client.ask(reset());
  const { begun } = waits(models[0] as StrictModel);
  client.socket.send(await encoded(infer()));
  await begun;
  t.match(await client.ask(infer()), /^REQUEST_OVERLAP: /);
  t.match(await client.closed, { code: 1011 });
});

t.test('an engine that died is replaced for the next client', async (t) => {
  const { models, url, logged } = await serve(t);
  const client = await Client.open(t, url);
  await client.next();
  await client.ask(reset());
  (models[0] as StrictModel).hook = () => {
    throw new PremotorError('ENGINE_DIED', 'The engine process ended.');
  };
  t.match(await client.ask(infer()), /^ENGINE_DIED: /);
  await client.closed;
  await logged('closed');
  const next = await Client.open(t, url);
  t.type(await next.next(), Map);
  t.equal(models.length, 2);
  t.ok(models[0]?.isClosed);
  t.type(await next.ask(reset()), Map);
});

t.test('a policy that cannot be loaded again is tried again with each client, who is told why', async (t) => {
  let loads = 0;
  const model = new StrictModel();
  const load = async (): Promise<Policy> => {
    loads++;
    if (loads === 2 || loads === 3) throw new PremotorError('OUT_OF_MEMORY', 'No memory for the weights.');
    return loads === 1 ? model : new StrictModel();
  };
  const { url, logged } = await serve(t, { load });
  model.hook = () => {
    throw new PremotorError('ENGINE_DIED', 'The engine process ended.');
  };
  const first = await Client.open(t, url);
  await first.next();
  t.match(await first.ask(reset()), /^ENGINE_DIED/);
  await logged('closed', 1);
  const second = await Client.open(t, url);
  t.match(await second.next(), /^OUT_OF_MEMORY/);
  t.match(await second.closed, { code: 1011 });
  await logged('closed', 2);
  const third = await Client.open(t, url);
  t.type(await third.next(), Map);
  t.equal(loads, 4);
});

t.test('loading that fails starts no server and leaves none open', async (t) => {
  const first = new StrictModel();
  let loads = 0;
  const load = async (): Promise<Policy> => {
    if (++loads === 1) return first;
    throw new PremotorError('OUT_OF_MEMORY', 'No memory for a second one.');
  };
  t.equal((await errorOf(serve(t, { load, connections: 2 }))).code, 'OUT_OF_MEMORY');
  t.ok(first.isClosed);
});

t.test('bounds: idle, a message that does not end, a computation without end, a message that is too large', async (t) => {
  const bounds = { idle_timeout_ms: 60_000, message_timeout_ms: 60_000, call_timeout_ms: 60_000 };
  const idle = await serve(t, { limits: { ...bounds, idle_timeout_ms: 30 } });
  const silent = await Client.open(t, idle.url);
  t.match(await silent.closed, { code: 1008, reason: 'no request came' });
  t.match(await idle.logged('timeout'), { fields: { bound: 'idle' } });

  const slow = await serve(t, { limits: { ...bounds, message_timeout_ms: 200 } });
  const half = await raw(t, slow.server.port);
  // The head of a binary frame of 1000 bytes, and one of its bytes.
  half.write(Uint8Array.of(0x82, 0xfe, 0x03, 0xe8, 1, 2, 3, 4, 5));
  await once(half, 'close');
  t.match(await slow.logged('closed'), { fields: { why: 'a message did not come to its end' } });

  const endless = await serve(t, { limits: { ...bounds, call_timeout_ms: 30 } });
  const patient = await Client.open(t, endless.url);
  await patient.next();
  await patient.ask(reset());
  const { promptly } = waits(endless.models[0] as StrictModel);
  patient.socket.send(await encoded(infer()));
  t.match(await patient.closed, { code: 1008, reason: 'a request took too long' });
  t.equal(await promptly, 'aborted');

  const small = await serve(t);
  const large = await Client.open(t, small.url);
  await large.next();
  large.socket.send(Buffer.alloc((1 << 20) + 1));
  t.match(await large.closed, { code: 1009 });
  t.match(await small.logged('closed'), { fields: { why: /size/ } });
});

/** A websocket connection by hand. */
async function raw(t: Test, port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  const head = Object.entries({ Host: 'x', ...handshake }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET / HTTP/1.1\r\n${head.join('')}\r\n`);
  const [data] = (await once(socket, 'data')) as [Buffer];
  t.match(data.toString('latin1'), /^HTTP\/1\.1 101 /);
  t.notMatch(data.toString('latin1'), /permessage-deflate/i);
  return socket;
}

t.test('bytes that are no websocket end the connection and nothing else', async (t) => {
  const { server, url, logged } = await serve(t);
  const hostile: Uint8Array[] = [
    Uint8Array.of(0x82, 0x01, 0x80),
    Uint8Array.of(0xc2, 0x81, 1, 2, 3, 4, 5),
    Uint8Array.of(0x83, 0x80, 1, 2, 3, 4),
    Uint8Array.of(0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4),
    Uint8Array.of(0x09, 0x80, 1, 2, 3, 4),
  ];
  for (const [index, bytes] of hostile.entries()) {
    const socket = await raw(t, server.port);
    socket.write(bytes);
    socket.resume();
    await once(socket, 'close');
    await logged('closed', index + 1);
  }
  t.type(await (await Client.open(t, url)).next(), Map);
});

t.test('stopping says goodbye, stops what runs, and closes the policies', async (t) => {
  const { server, models, url } = await serve(t, { connections: 2, session: SESSION });
  const [busy, idle] = [await Client.open(t, url), await Client.open(t, url)];
  for (const client of [busy, idle]) await client.next();
  await busy.ask(reset());
  const both = models.map((model) => waits(model));
  busy.socket.send(await encoded(infer()));
  await Promise.race(both.map(({ begun }) => begun));
  await Promise.all([server.close(), server.close()]);
  for (const client of [busy, idle]) t.match(await client.closed, { code: 1001, reason: 'the server is stopping' });
  t.ok(models.every(({ isClosed }) => isClosed));
  t.equal(server.served, 0);
});
