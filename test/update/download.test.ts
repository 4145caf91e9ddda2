/**
 * Downloads over HTTPS: interrupted and resumed, changed in between, without end, refused. The server is real and has a certificate of
 * its own authority.
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { download } from '../../src/update/download.js';
import { runToolWell } from '../../src/update/tools.js';

const content = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7 + (index >> 8)) & 255));
const home = t.testdir();
const certificate = { cert: join(home, 'server.pem'), key: join(home, 'server.key') };

t.before(async () => {
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', certificate.key];
  await runToolWell('openssl', ['req', '-x509', ...key, '-out', certificate.cert, '-days', '1', ...subject]);
});

async function server(t: Test, answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const asked: (string | undefined)[] = [];
  const tls = { cert: readFileSync(certificate.cert), key: readFileSync(certificate.key) };
  const made = createServer(tls, (request, response) => {
    asked.push(request.headers.range);
    answer(request, response);
  });
  await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    made.closeAllConnections();
    made.close();
  });
  const url = `https://localhost:${(made.address() as AddressInfo).port}/bundle`;
  const get = (change: { url?: string; signal?: AbortSignal } = {}): Promise<string> =>
    download({ url, folder: join(t.testdirName, 'd'), tls: { ca: certificate.cert }, signal: new AbortController().signal, retry_ms: 1, ...change });
  return { url, asked, get };
}

/** Serves ranges as servers of files do, and cuts each answer after so many bytes. */
function ranged(tag: () => string, cutAfter: number) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
    const partial = from !== undefined && request.headers['if-range'] === tag();
    const rest = content.subarray(partial ? Number(from) : 0);
    response.writeHead(partial ? 206 : 200, { ETag: tag(), 'Content-Length': rest.length });
    response.write(rest.subarray(0, cutAfter), () => (rest.length > cutAfter ? response.destroy() : response.end()));
  };
}

t.test('an interrupted download goes on where it ended', async (t) => {
  t.testdir();
  const { asked, get } = await server(
    t,
    ranged(() => '"one"', 120_000),
  );
  t.ok(readFileSync(await get()).equals(content));
  t.equal(asked[0], undefined);
  t.ok(asked.length >= 3 && asked.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range ?? '')), asked.join(' '));
});

t.test('a file that changes in between is fetched anew', async (t) => {
  t.testdir();
  let count = 0;
  const { get } = await server(t, (request, response) =>
    ranged(() => (count++ === 0 ? '"old"' : '"new"'), count < 1 ? 1000 : 1 << 20)(request, response),
  );
  t.ok(readFileSync(await get()).equals(content));
});

t.test('a server that never brings anything ends it', async (t) => {
  t.testdir();
  const { asked, get } = await server(t, (_, response) => void response.destroy());
  await t.rejects(get(), { code: 'UPDATE_DOWNLOAD' });
  t.equal(asked.length, 5);
});

t.test('answers that end it at once', async (t) => {
  t.testdir();
  const { asked, get } = await server(t, (_, response) => void response.writeHead(404).end());
  await t.rejects(get(), { code: 'UPDATE_DOWNLOAD', found: 'status 404' });
  t.equal(asked.length, 1);
  const plain = await server(t, (_, response) => void response.writeHead(302, { Location: 'http://localhost/x' }).end());
  await t.rejects(plain.get(), { code: 'UPDATE_DOWNLOAD', found: /redirection to http:/ });
  const endless = await server(t, (_, response) => void response.end('no length'));
  t.ok(await endless.get(), 'a short answer has a length');
});

t.test('what is no address, no trust, no patience', async (t) => {
  t.testdir();
  const { get, url } = await server(
    t,
    ranged(() => '"one"', 1 << 20),
  );
  for (const other of ['http://localhost/x', 'ftp://localhost/x', 'https://user:secret@localhost/x']) {
    await t.rejects(get({ url: other }), { code: 'UPDATE_URL' }, other);
  }
  const untrusting = download({ url, folder: join(t.testdirName, 'e'), tls: {}, signal: new AbortController().signal, retry_ms: 1 });
  await t.rejects(untrusting, { code: 'UPDATE_DOWNLOAD', found: /certificate/ });
  await t.rejects(get({ signal: AbortSignal.abort() }), { code: 'ABORTED' });
});
