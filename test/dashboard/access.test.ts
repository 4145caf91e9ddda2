/** Who may look at the status page, and which requests come from a stranger's page. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Access, hostName, readPageToken, strangerRefusal } from '../../src/dashboard/access.js';
import { isLoopback, isSameSecret } from '../../src/local-access.js';
import { errorOf } from '../support/fixtures.js';

const TOKEN = 'correct-horse-battery';

t.test('loopback is loopback, and nothing that only looks like it', async (t) => {
  for (const host of ['127.0.0.1', '127.3.2.1', '::1', 'localhost', 'LOCALHOST']) t.ok(isLoopback(host), host);
  for (const host of ['0.0.0.0', '::', '192.168.0.7', 'localhost.example.org', '127.0.0.1.example.org', '127.1', '', 'robot']) {
    t.notOk(isLoopback(host), host);
  }
});

t.test('names of hosts', async (t) => {
  t.same(
    ['localhost:80', '[::1]:80', '[::1]', '127.0.0.1', 'a:b:c', '', undefined].map((host) => hostName(host)),
    ['localhost', '::1', '::1', '127.0.0.1', '', '', ''],
  );
});

t.test('tokens are read, or refused with what to do', async (t) => {
  const dir = t.testdir();
  const file = join(dir, 'token');
  const read = (text: string) => {
    writeFileSync(file, text);
    return readPageToken(file);
  };
  t.equal(read(`${TOKEN}\n`), TOKEN);
  for (const [text, found] of [
    ['', '0 characters'],
    ['short', '5 characters'],
    ['x'.repeat(513), '513 characters'],
    ['two words of a token', 'other characters'],
    ['a-token-with-a;semicolon', 'other characters'],
  ] as const) {
    const error = await errorOf(Promise.resolve().then(() => read(text)));
    t.match(error, { code: 'DASHBOARD_TOKEN', found, file });
    t.match(error.message, /openssl rand/);
    if (text !== '') t.notMatch(error.message, text, 'the token is not told');
  }
  t.match(await errorOf(Promise.resolve().then(() => readPageToken(join(dir, 'none')))), { code: 'DASHBOARD_TOKEN' });
});

t.test('equal texts are equal, of whatever length', async (t) => {
  t.ok(isSameSecret(TOKEN, TOKEN));
  for (const other of ['', TOKEN.slice(1), `${TOKEN} `, TOKEN.toUpperCase()]) t.notOk(isSameSecret(TOKEN, other));
});

t.test('without a token: this machine, by its own names', async (t) => {
  const access = new Access(undefined);
  for (const host of ['127.0.0.1:8080', 'localhost:1', '[::1]:8080']) t.equal(access.refusal({ host }, 8080), undefined, host);
  for (const host of ['evil.example:8080', '10.0.0.1:8080', undefined]) t.equal(access.refusal({ host }, 8080)?.status, 421, String(host));
  t.notOk(access.isToken(''));
});

t.test('with a token: by bearer or by the cookie that its link set, whatever the host', async (t) => {
  const access = new Access(TOKEN);
  const cookie = (access.setCookie(8080).split(';')[0] ?? '').trim();
  t.notMatch(cookie, TOKEN, 'the cookie is not the token');
  t.match(access.setCookie(8080), /HttpOnly; SameSite=Lax/);
  const host = 'robot.local:8080';
  t.equal(access.refusal({ host, cookie }, 8080), undefined);
  t.equal(access.refusal({ host, cookie: `a=b; ${cookie}; c` }, 8080), undefined);
  t.equal(access.refusal({ host, authorization: `Bearer ${TOKEN}` }, 8080), undefined);
  for (const headers of [
    { host },
    { host: '127.0.0.1:8080' },
    { host, cookie: `${cookie}x` },
    { host, cookie: cookie.replace('=', '-x=') },
    { host, authorization: `Bearer ${TOKEN}x` },
    { host, authorization: `Basic ${TOKEN}` },
    { host, authorization: TOKEN },
  ]) {
    t.match(access.refusal(headers, 8080), { status: 401, why: /token=TOKEN/ }, JSON.stringify(headers));
  }
  t.equal(access.refusal({ host, cookie }, 8081)?.status, 401, 'the cookie of another port is of another page');
  t.equal(new Access(`${TOKEN}2`).refusal({ host, cookie }, 8080)?.status, 401, 'and of another token');
});

t.test('pages of strangers', async (t) => {
  const host = '127.0.0.1:8080';
  for (const own of [
    { host },
    { host, origin: 'http://127.0.0.1:8080' },
    { host, origin: 'http://127.0.0.1:8080', 'sec-fetch-site': 'same-origin' },
  ]) {
    t.equal(strangerRefusal(own), undefined);
  }
  for (const origin of ['http://127.0.0.1:8081', 'http://localhost:8080', 'null', 'https://evil.example', 'nonsense', '']) {
    t.equal(strangerRefusal({ host, origin })?.status, 403, origin);
  }
  t.equal(strangerRefusal({ host, 'sec-fetch-site': 'cross-site' })?.status, 403);
  t.equal(strangerRefusal({ host: undefined, origin: 'nonsense' })?.status, 403, 'nothing equals nothing');
});
