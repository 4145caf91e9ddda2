/**
 * The server of the status page over real sockets: what it serves and to whom, websockets of strangers, limits, slow and malformed viewers. Seeds are
 * printed.
 */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { Assets } from '../../src/dashboard/assets.js';
import { parseRequest, REQUEST_BYTES_MAX } from '../../src/dashboard/requests.js';
import { PageServer, VIEWERS_MAX } from '../../src/dashboard/server.js';
import { BACKLOG_BYTES_MAX, MALFORMED_MAX, MESSAGES_PER_S_MAX, type Viewer } from '../../src/dashboard/viewer.js';
import { Random } from '../../src/sim/random.js';
import { errorOf } from '../support/fixtures.js';
import { compilePage } from '../support/page.js';

const TOKEN = 'correct-horse-battery';
const pageDir = compilePage(join(t.testdir(), 'page'));

async function open(t: Test, token?: string) {
  const viewers: Viewer[] = [];
  const heard = { stops: 0, looks: 0 };
  const server = await PageServer.open(
    { host: '127.0.0.1', port: 0, token, pageDir },
    { onViewer: (viewer) => void viewers.push(viewer), onLook: () => void heard.looks++, onStop: () => void heard.stops++ },
  );
  t.teardown(() => server.close());
  const get = (path: string, init: RequestInit = {}) => fetch(new URL(path, server.url), { redirect: 'manual', ...init });
  const view = (options: { origin?: string; headers?: Record<string, string> } = {}, path = '/live') =>
    new WebSocket(`ws://127.0.0.1:${server.port}${path}`, options);
  return { server, viewers, heard, get, view };
}

/** A request with headers that fetch would not send. */
async function raw(port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.end(text);
  let answer = '';
  for await (const data of socket) answer += data;
  return answer;
}

const statusOf = (socket: WebSocket): Promise<number | string> =>
  new Promise((resolve) => {
    socket.on('open', () => resolve('open'));
    socket.on('unexpected-response', (_, response) => resolve(response.statusCode ?? 0));
    socket.on('error', () => undefined);
  });

t.test('every file of the page is there, typed, and may load nothing from elsewhere', async (t) => {
  const { get } = await open(t);
  for (const path of Assets.paths) {
    const response = await get(path);
    t.equal(response.status, 200, path);
    t.ok((await response.text()).length > 50);
    t.match(response.headers.get('content-security-policy'), /default-src 'none'.*frame-ancestors 'none'/);
    t.equal(response.headers.get('x-content-type-options'), 'nosniff');
  }
  const html = await (await get('/')).text();
  t.notMatch(html, /<script(?![^>]*src=)|\son[a-z]+=|\sstyle=|https?:\/\//, 'no inline code or style, no other host');
  for (const [, path = ''] of html.matchAll(/(?:src|href)="([^"]+)"/g)) t.ok(Assets.paths.includes(path), path);
  for (const path of Assets.paths.filter((one) => one.startsWith('/page/'))) {
    const code = await (await get(path)).text();
    for (const [, module = ''] of code.matchAll(/from '([^']+)'/g)) t.ok(Assets.paths.includes(`/page/${module.slice(2)}`), `${path}: ${module}`);
  }
});

t.test('nothing else is there', async (t) => {
  const { server, get, heard } = await open(t);
  for (const path of ['/x', '/page/../server.js', '/page/%2e%2e/access.ts', '/__proto__', '/constructor', '/stop/']) {
    t.equal((await get(path)).status, 404, path);
  }
  t.match(await raw(server.port, 'GET /../../package.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n'), /^HTTP\/1.1 404/);
  t.match(await raw(server.port, 'GET //etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n'), /^HTTP\/1.1 404/);
  t.equal((await get('/', { method: 'POST' })).status, 405);
  t.equal((await get('/stop')).status, 405, 'a link cannot stop');
  t.equal((await (await get('/', { method: 'HEAD' })).text()).length, 0);
  t.equal(heard.stops, 0);
  t.match(await raw(server.port, 'nonsense\r\n\r\n'), '', 'what is no HTTP gets nothing');
});

t.test('a page that was not built says so', async (t) => {
  const parts = { onViewer: () => undefined, onLook: () => undefined, onStop: () => undefined };
  const server = await PageServer.open({ host: '127.0.0.1', port: 0, token: undefined, pageDir: t.testdir() }, parts);
  t.teardown(() => server.close());
  const response = await fetch(server.url);
  t.equal(response.status, 503);
  t.match(await response.text(), /npm run build/);
});

t.test('without a token: names that merely point here, and pages of strangers, get nothing', async (t) => {
  const { server, heard, view } = await open(t);
  const request = (line: string, headers: string): Promise<string> => raw(server.port, `${line} HTTP/1.1\r\n${headers}Connection: close\r\n\r\n`);
  t.match(await request('GET /', `Host: evil.example:${server.port}\r\n`), /^HTTP\/1.1 421/);
  t.match(await request('POST /stop', `Host: 127.0.0.1:${server.port}\r\nOrigin: http://evil.example\r\n`), /^HTTP\/1.1 403/);
  t.match(await request('POST /stop', `Host: 127.0.0.1:${server.port}\r\nSec-Fetch-Site: cross-site\r\n`), /^HTTP\/1.1 403/);
  t.equal(heard.stops, 0);
  t.match(await request('POST /stop', `Host: 127.0.0.1:${server.port}\r\nOrigin: http://127.0.0.1:${server.port}\r\n`), /^HTTP\/1.1 202/);
  t.match(await request('POST /stop', `Host: localhost:${server.port}\r\n`), /^HTTP\/1.1 202/, 'a program on this machine');
  t.equal(heard.stops, 2);
  t.equal(await statusOf(view({ origin: 'http://evil.example' })), 403);
  t.equal(await statusOf(view({ headers: { Host: 'evil.example' } })), 421);
  t.equal(await statusOf(view({}, '/other')), 404);
  t.equal(await statusOf(view({ origin: `http://127.0.0.1:${server.port}` })), 'open');
});

t.test('with a token: the link sets a cookie and leaves the address; everything else is refused', async (t) => {
  const { server, heard, get, view } = await open(t, TOKEN);
  t.ok(server.needsToken);
  for (const path of ['/', '/style.css', '/nothing']) t.equal((await get(path)).status, 401, path);
  t.equal((await get('/?token=wrong')).status, 401);
  t.equal((await get(`/style.css?token=${TOKEN}`)).status, 401, 'only the page itself is a link');
  t.equal((await get('/stop', { method: 'POST' })).status, 401);
  t.equal(await statusOf(view()), 401);
  const link = await get(`/?token=${TOKEN}`);
  t.same([link.status, link.headers.get('location')], [303, '/']);
  const cookie = link.headers.get('set-cookie')?.split(';')[0] ?? '';
  t.equal((await get('/', { headers: { cookie } })).status, 200);
  t.equal((await get('/', { headers: { authorization: `Bearer ${TOKEN}` } })).status, 200);
  t.equal((await get('/stop', { method: 'POST', headers: { cookie } })).status, 202);
  t.equal((await get('/stop', { method: 'POST', headers: { cookie, origin: 'http://evil.example' } })).status, 403, 'a cookie is no excuse');
  t.equal(heard.stops, 1);
  t.equal(await statusOf(view({ headers: { cookie } })), 'open');
  t.equal(await statusOf(view({ headers: { cookie }, origin: 'http://evil.example' })), 403);
});

t.test('addresses that cannot or must not be served', async (t) => {
  const parts = { onViewer: () => undefined, onLook: () => undefined, onStop: () => undefined };
  const opening = (host: string, port: number, token?: string) => errorOf(PageServer.open({ host, port, token }, parts));
  for (const host of ['0.0.0.0', '::', '192.0.2.1']) t.match(await opening(host, 0), { code: 'DASHBOARD_ADDRESS', found: host });
  t.match(await opening('192.0.2.1', 0, TOKEN), { code: 'DASHBOARD_PORT', message: /no address of this machine/ });
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as { port: number };
  t.match(await opening('127.0.0.1', port), { code: 'DASHBOARD_PORT', message: new RegExp(`port ${port} .* taken.*dashboard\\.port to 0`) });
  other.close();
  const everywhere = await PageServer.open({ host: '0.0.0.0', port: 0, token: TOKEN, pageDir }, parts);
  t.equal((await fetch(`http://127.0.0.1:${everywhere.port}/`)).status, 401);
  await everywhere.close();
  await everywhere.close();
});

t.test('so many viewers and no more; one that leaves makes room', async (t) => {
  const { server, view } = await open(t);
  const sockets = Array.from({ length: VIEWERS_MAX }, () => view());
  t.same(await Promise.all(sockets.map(statusOf)), Array(VIEWERS_MAX).fill('open'));
  const surplus = view();
  const [code, reason] = await once(surplus, 'close');
  t.same([code, String(reason)], [1013, 'too many viewers']);
  t.equal(server.viewers.size, VIEWERS_MAX);
  sockets[0]?.close();
  await once(sockets[0] as WebSocket, 'close');
  t.equal(await statusOf(view()), 'open');
});

t.test('a viewer that does not read is skipped, the others are not', async (t) => {
  const { server, view, viewers } = await open(t);
  const [slow, fast] = [view(), view()];
  await Promise.all([once(slow, 'open'), once(fast, 'open')]);
  t.equal(server.viewers.size, 2);
  slow.pause();
  let received = 0;
  fast.on('message', () => void received++);
  const picture = Buffer.alloc(200_000, 1);
  const sent = [0, 0];
  for (let round = 0; round < 100; round++) {
    viewers.forEach((viewer, index) => {
      if (!viewer.canTake) return;
      viewer.sendPicture(picture);
      sent[index] = (sent[index] ?? 0) + 1;
    });
    await new Promise((resolve) => setImmediate(resolve));
  }
  while (received < (sent[1] ?? 0)) await once(fast, 'message');
  t.ok((sent[0] ?? 0) < 100 && (sent[0] ?? 0) > 0, `the slow one was given ${sent[0]}`);
  t.ok((sent[1] ?? 0) > (sent[0] ?? 0), `the other ${sent[1]}`);
  t.ok((sent[0] ?? 0) * picture.length < BACKLOG_BYTES_MAX + 40 * picture.length, 'what waits for it is bounded');
});

t.test('malformed messages are counted, then end the connection; a stop among them is heeded', async (t) => {
  const { heard, view } = await open(t);
  const socket = view();
  await once(socket, 'open');
  for (let message = 1; message < MALFORMED_MAX; message++) socket.send('{"type":"go"}');
  socket.send('{"type":"stop"}');
  socket.send('{}');
  t.equal((await once(socket, 'close'))[0], 1008);
  t.equal(heard.stops, 1);
  const chatty = view();
  await once(chatty, 'open');
  for (let message = 0; message <= MESSAGES_PER_S_MAX; message++) chatty.send('{"type":"look","visible":true}');
  t.equal((await once(chatty, 'close'))[0], 1008);
  const long = view();
  await once(long, 'open');
  long.send('x'.repeat(REQUEST_BYTES_MAX + 1));
  t.equal((await once(long, 'close'))[0], 1009);
  t.equal(heard.stops, 1);
});

/** Texts near to a message of ours. */
function mutant(random: Random): Buffer {
  const texts = [
    '{"type":"stop"}',
    '{"type":"look","visible":true}',
    '{"type":"look","visible":false}',
    '[]',
    'null',
    '{"__proto__":{"type":"stop"}}',
  ];
  const text = texts[random.integer(texts.length)] ?? '';
  const bytes = Buffer.from(text);
  for (let change = random.integer(4); change >= 0; change--) {
    const kind = random.integer(3);
    if (kind === 0) bytes[random.integer(bytes.length)] = random.integer(256);
    if (kind === 1) return bytes.subarray(0, random.integer(bytes.length));
    if (kind === 2) return Buffer.concat([bytes, bytes.subarray(0, random.integer(bytes.length)), Buffer.from([random.integer(256)])]);
  }
  return bytes;
}

t.test('30 000 malformed messages: none throws, none is taken for something that it does not say', async (t) => {
  const seed = 20261130;
  t.comment(`seed ${seed}`);
  const random = new Random(seed);
  let accepted = 0;
  for (let round = 0; round < 30_000; round++) {
    const data = mutant(random);
    const request = parseRequest(data, false);
    if (request) {
      accepted++;
      if (JSON.stringify(JSON.parse(data.toString('utf8'))) !== JSON.stringify(request))
        t.fail(`${data.toString('latin1')} became ${JSON.stringify(request)}`);
    }
    if (parseRequest(data, true)) t.fail('binary');
  }
  t.ok(accepted > 0, `${accepted} were still valid`);
  t.equal(parseRequest(Buffer.from('{"type":"stop","why":"x"}'), false), undefined);
});

t.test('150 connections that send nonsense: the server goes on', async (t) => {
  const seed = 7;
  t.comment(`seed ${seed}`);
  const random = new Random(seed);
  const { server, view, get } = await open(t);
  for (let connection = 0; connection < 100; connection++) {
    const socket = view();
    socket.on('error', () => undefined);
    await once(socket, 'open');
    const closed = once(socket, 'close');
    for (let message = 0; message < 30 && socket.readyState === WebSocket.OPEN; message++)
      socket.send(mutant(random), { binary: random.integer(2) === 0 });
    socket.close();
    await closed;
  }
  for (let connection = 0; connection < 50; connection++) {
    const bytes = Buffer.from(Array.from({ length: 40 }, () => random.integer(256)));
    await raw(
      server.port,
      `GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${bytes.toString('latin1')}\r\n\r\n`,
    ).catch(() => '');
  }
  t.equal((await get('/')).status, 200);
});

t.test('closing ends viewers and leaves nothing open', async (t) => {
  const { server, view } = await open(t);
  const socket = view();
  await once(socket, 'open');
  const deaf = connect(server.port, '127.0.0.1');
  await once(deaf, 'connect');
  const closed = once(socket, 'close');
  await server.close();
  t.equal((await closed)[0], 1001);
  await t.rejects(fetch(server.url));
  deaf.destroy();
});
