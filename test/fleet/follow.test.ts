/**
 * A robot that follows a roll-out, against a real server on loopback and lists signed by the real openssl: what is due, what is not, a robot that
 * moves,
 * downloads that break off or are wrong, installers that fail, old lists; and the question to the service's socket.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { createServer as createSocket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { CommandExit } from '../../src/cli/context.js';
import { runCli } from '../../src/cli/main.js';
import { installBy, runFollow } from '../../src/cli/update-follow.js';
import { PremotorError } from '../../src/errors.js';
import { downloadBundle } from '../../src/fleet/download.js';
import { type FollowParts, follow, type Stillness } from '../../src/fleet/follow.js';
import { type RolloutList, signList } from '../../src/fleet/list.js';
import { stillnessOf } from '../../src/fleet/stillness.js';
import { fakeContext } from '../cli/fakes.js';
import { Authority, SERVER_USES, SIGNER_USES } from '../identity/authority.js';
import { skipOpenssl } from '../telemetry/certificates.js';

const BUNDLE = Buffer.alloc(300_000, 'bundle ');
const SHA = createHash('sha256').update(BUNDLE).digest('hex');
const signal = new AbortController().signal;

/** A server of files by their paths; what answers a path may be replaced. */
class Files {
  readonly content = new Map<string, Buffer>();
  readonly requests: string[] = [];
  /** Bytes after which the connection breaks, once. */
  breakAfter = Infinity;
  readonly #server = createServer((request, response) => this.answer(request, response));

  static async open(t: Test): Promise<Files> {
    const files = new Files();
    await new Promise<void>((resolve) => files.#server.listen(0, '127.0.0.1', resolve));
    t.teardown(() => files.#server.close());
    return files;
  }

  url(path: string): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}/${path}`;
  }

  answer(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url?.slice(1) ?? '';
    const { range } = request.headers;
    this.requests.push(range === undefined ? path : `${path} ${range}`);
    const found = this.content.get(path);
    const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    if (!found) response.writeHead(404).end();
    else {
      response.writeHead(
        range === undefined ? 200 : 206,
        range === undefined ? {} : { 'content-range': `bytes ${from}-${found.length - 1}/${found.length}` },
      );
      const rest = found.subarray(from);
      if (rest.length > this.breakAfter) response.write(rest.subarray(0, this.breakAfter), () => response.destroy());
      else response.end(rest);
    }
  }
}

interface World {
  readonly files: Files;
  readonly authority: Authority;
  readonly installed: string[];
  readonly publish: (more?: Partial<RolloutList>) => Promise<void>;
  readonly look: (more?: Partial<FollowParts>) => ReturnType<typeof follow>;
}

async function world(t: Test): Promise<World> {
  const folder = t.testdir();
  const files = await Files.open(t);
  const authority = new Authority(join(folder, 'ca'));
  const signer = authority.issue('signer', SIGNER_USES);
  files.content.set('a.raucb', BUNDLE);
  let serial = 10;
  const installed: string[] = [];
  const publish = async (more: Partial<RolloutList> = {}): Promise<void> => {
    const list: RolloutList = {
      format: 'premotor-rollout-1',
      fleet: 'plant',
      serial: ++serial,
      issued: '2026-11-30T00:00:00Z',
      version: '1.4.0',
      round: 1,
      paused: false,
      bundles: { amd64: { url: files.url('a.raucb'), sha256: SHA, bytes: BUNDLE.length } },
      robots: ['arm-01'],
      ...more,
    };
    files.content.set('list', await signList(list, signer));
  };
  const look = (more: Partial<FollowParts> = {}): ReturnType<typeof follow> =>
    follow({
      url: files.url('list'),
      authority: authority.certificate,
      fleet: 'plant',
      name: 'arm-01',
      arch: 'amd64',
      version: '1.3.0',
      dir: join(folder, 'follow'),
      stillness: async () => 'still',
      install: async (file) => {
        t.ok(readFileSync(file).equals(BUNDLE));
        installed.push(file);
      },
      onProgress: () => undefined,
      signal,
      ...more,
    });
  return { files, authority, installed, publish, look };
}

t.test('what is due is installed once; everything else is left alone', { skip: skipOpenssl }, async (t) => {
  const { files, installed, publish, look } = await world(t);
  await t.rejects(look(), { code: 'ROLLOUT_FETCH', found: '404' });
  await publish({ robots: ['arm-02'] });
  t.match(await look(), { outcome: 'not due' });
  await publish({ paused: true });
  t.match(await look(), { outcome: 'paused' });
  await publish();
  t.match(await look({ version: '1.4.0' }), { outcome: 'current' });
  t.match(await look({ arch: 'arm64' }), { outcome: 'no bundle' });
  for (const [stillness, outcome] of [
    ['busy', 'busy'],
    ['no answer', 'no answer'],
  ] as const) {
    t.match(await look({ stillness: async () => stillness }), { outcome });
  }
  t.notOk(files.requests.includes('a.raucb'), 'a robot that moves fetches nothing');
  await t.rejects(look({ bytesFree: async () => BUNDLE.length }), { code: 'ROLLOUT_SPACE' });
  t.match(await look(), { outcome: 'installed', version: '1.4.0' });
  t.equal(installed.length, 1);
  t.notOk(existsSync(installed[0] ?? ''), 'and the download is gone');
  t.match(await look(), { outcome: 'tried' }, 'it fell back: not again');
  t.match(await look({ version: '1.4.0' }), { outcome: 'current' });
  await publish({ round: 2 });
  t.match(await look({ stillness: async () => 'no service' }), { outcome: 'installed' }, 'until the operator asks again');
  t.equal(installed.length, 2);
});

t.test('installers that fail, and a robot that was armed meanwhile', { skip: skipOpenssl }, async (t) => {
  const { installed, publish, look } = await world(t);
  await publish();
  const fails = (code: string) => async (): Promise<void> => {
    throw new PremotorError(code, 'no');
  };
  for (let times = 0; times < 5; times++) t.match(await look({ install: fails('UPDATE_ROBOT_ACTIVE') }), { outcome: 'busy' }, 'does not count');
  for (let times = 0; times < 3; times++) await t.rejects(look({ install: fails('UPDATE_SIGNATURE') }), { code: 'UPDATE_SIGNATURE' });
  t.match(await look(), { outcome: 'given up', why: /3 times: UPDATE_SIGNATURE/ });
  await publish({ bundles: { amd64: { url: 'https://127.0.0.1:1/b', sha256: 'cd'.repeat(32), bytes: 5 } } });
  await t.rejects(look(), { code: 'ROLLOUT_FETCH' }, 'another bundle begins anew; a server that is away is no failure of it');
  await publish({ round: 2 });
  t.match(await look(), { outcome: 'installed' });
  t.equal(installed.length, 1);
});

t.test('lists that are not believed', { skip: skipOpenssl }, async (t) => {
  const { files, authority, installed, publish, look } = await world(t);
  await publish();
  const old = files.content.get('list') as Buffer;
  await publish({ paused: true });
  t.match(await look(), { outcome: 'paused' });
  files.content.set('list', old);
  await t.rejects(look(), { code: 'ROLLOUT_OLD' }, 'an old list, put back by somebody');
  await publish({ fleet: 'other' });
  await t.rejects(look(), { code: 'ROLLOUT_FLEET' });
  await publish();
  await t.rejects(look({ authority: authority.issue('x').certFile }), { code: 'ROLLOUT_LIST' });
  files.content.set('list', Buffer.from('{"version":"1.4.0"}'));
  await t.rejects(look(), { code: 'ROLLOUT_LIST' });
  files.content.set('list', Buffer.alloc(5 * 2 ** 20));
  await t.rejects(look(), { code: 'ROLLOUT_FETCH', found: 'more' });
  await t.rejects(look({ url: 'http://bundles.example/list' }), { code: 'ROLLOUT_FETCH', expected: /https/ });
  writeFileSync(join(t.testdirName, 'follow', 'follow.json'), '{');
  await publish();
  await t.rejects(look(), { code: 'ROLLOUT_STATE' });
  t.equal(installed.length, 0);
});

t.test('downloads go on where they broke off, and are what was named', async (t) => {
  const files = await Files.open(t);
  const file = join(t.testdir(), 'b.raucb');
  files.content.set('b', BUNDLE);
  const fetch = (more: object = {}, path = 'b'): Promise<void> =>
    downloadBundle({ bundle: { url: files.url(path), sha256: SHA, bytes: BUNDLE.length, ...more }, file, signal, onProgress: () => undefined });
  files.breakAfter = 100_000;
  await t.rejects(fetch(), { code: 'ROLLOUT_FETCH' });
  t.notOk(existsSync(file), 'nobody sees half of it');
  // How much of what was sent arrives before a connection breaks is the system's affair.
  const { size } = statSync(`${file}.part`);
  t.ok(size > 0 && size <= files.breakAfter, 'what came is kept');
  files.breakAfter = Infinity;
  await fetch();
  t.ok(readFileSync(file).equals(BUNDLE));
  t.same(files.requests, ['b', `b bytes=${size}-`]);
  files.content.set('c', Buffer.concat([BUNDLE.subarray(1), Buffer.from('x')]));
  await t.rejects(fetch({}, 'c'), { code: 'ROLLOUT_BUNDLE' });
  t.notOk(existsSync(`${file}.part`), 'what is wrong goes');
  await t.rejects(fetch({ bytes: BUNDLE.length + 1 }), { code: 'ROLLOUT_FETCH', found: String(BUNDLE.length) });
  writeFileSync(`${file}.part`, Buffer.alloc(BUNDLE.length + 9));
  await fetch();
  await t.rejects(fetch({ bytes: 10, sha256: SHA }), { code: 'ROLLOUT_FETCH', found: 'more' });
});

t.test('the server is who its certificate says', { skip: skipOpenssl }, async (t) => {
  const authority = new Authority(join(t.testdir(), 'ca'));
  const { certFile, keyFile } = authority.issue('server', SERVER_USES);
  const server = createHttps({ cert: readFileSync(certFile), key: readFileSync(keyFile) }, (_, response) => response.end(BUNDLE));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const address = server.address();
  const url = `https://127.0.0.1:${typeof address === 'object' ? address?.port : 0}/b`;
  const file = join(t.testdirName, 'b.raucb');
  const download = { bundle: { url, sha256: SHA, bytes: BUNDLE.length }, file, signal, onProgress: () => undefined };
  await t.rejects(downloadBundle(download), { code: 'ROLLOUT_FETCH', found: /certificate|self.signed|verify/i });
  await downloadBundle({ ...download, ca: readFileSync(authority.certificate) });
  t.ok(readFileSync(file).equals(BUNDLE));
});

t.test('the question to the service', async (t) => {
  const file = join(t.testdir(), 'control.sock');
  const nobody = (): boolean => false;
  t.equal(await stillnessOf(file, nobody), 'no service');
  t.equal(await stillnessOf(file, () => true), 'no answer', 'a stream process may hold the motors');
  let answer = '';
  const server = createSocket((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (asked) => socket.end(String(asked) === '{"do":"status"}\n' ? `${answer}\n` : ''));
  });
  await new Promise<void>((resolve) => server.listen(file, resolve));
  t.teardown(() => server.close());
  for (const [status, expected] of [
    [{ armed: false, atRest: true }, 'still'],
    [{ armed: true, atRest: true }, 'busy'],
    [{ armed: false, atRest: false }, 'busy'],
    [{ armed: 'no', atRest: true }, 'no answer'],
  ] as readonly [object, Stillness][]) {
    answer = JSON.stringify({ ok: true, status });
    t.equal(await stillnessOf(file, nobody), expected, answer);
  }
  for (answer of ['', '{"ok":false,"error":{"code":"X","message":"no"}}', 'no json', '{'])
    t.equal(await stillnessOf(file, nobody), 'no answer', answer);
});

t.test('the command and its installer', { skip: skipOpenssl }, async (t) => {
  const { files, authority, publish } = await world(t);
  await publish();
  const script = join(t.testdirName, 'installer.mjs');
  const does = (text: string): void => writeFileSync(script, text);
  const restarts: number[] = [];
  const programs = { install: (file: string) => installBy(script, file, signal), restart: async () => void restarts.push(1) };
  mkdirSync(join(t.testdirName, 'data'));
  const options = {
    authority: authority.certificate,
    stateDir: join(t.testdirName, 'data'),
    socket: join(t.testdirName, 'none.sock'),
    running: '1.3.0',
    name: 'arm-01',
    fleet: 'plant',
    reboot: true,
    json: true,
    config: join(t.testdirName, 'robot.yaml'),
  };
  writeFileSync(options.config, 'robot: {type: sim}\npolicy: {checkpoint_dir: none}\ntelemetry: {node_id: arm-01, group_id: plant}\n');
  process.env['PREMOTOR_RUNTIME_DIR'] = t.testdirName;
  const run = async (): Promise<{ readonly outcome?: string }> => {
    const { out, context } = fakeContext();
    const { name: _n, fleet: _f, ...configured } = options;
    await runFollow(files.url('list'), configured, context, programs);
    return JSON.parse(out.text);
  };
  does('console.log(JSON.stringify({ error: { code: "UPDATE_OLDER", message: "older" } })); process.exitCode = 1;');
  await t.rejects(run(), { code: 'UPDATE_OLDER' });
  does('process.exitCode = 7;');
  await t.rejects(run(), { code: 'ROLLOUT_INSTALL', found: '7' });
  t.same(restarts, []);
  does(`import { copyFileSync } from 'node:fs'; copyFileSync(process.argv[4], ${JSON.stringify(join(t.testdirName, 'copied'))});`);
  t.match(await run(), { outcome: 'installed', name: 'arm-01', fleet: 'plant' });
  t.ok(readFileSync(join(t.testdirName, 'copied')).equals(BUNDLE));
  t.same(restarts, [1]);
  t.equal(await run().catch((error: Error) => error instanceof CommandExit && error.exitCode), 3, 'somebody has to look');
  const { err, context } = fakeContext();
  t.equal(
    await runCli(
      ['update', 'follow', 'http://bundles.example/list', '--fleet', 'plant', '--config', options.config, '--state-dir', options.stateDir],
      context,
    ),
    1,
  );
  t.match(err.text, /ROLLOUT_FETCH/);
});
