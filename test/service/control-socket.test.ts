/** The control socket: real sockets, requests that are none, a socket that is left over, a service that is there already, clients that misbehave. */
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { PremotorError } from '../../src/errors.js';
import { ask } from '../../src/service/control-client.js';
import { type ControlAnswer, LINE_BYTES_MAX } from '../../src/service/control-protocol.js';
import { ControlSocket } from '../../src/service/control-socket.js';
import { shortDir } from './harness.js';

/** Everything that comes back for a text. */
function say(path: string, text: string, lines: number): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    const connection = createConnection(path, () => connection.write(text));
    let heard = '';
    connection.setEncoding('utf8');
    connection.once('error', reject);
    connection.on('data', (part: string) => {
      heard += part;
      const all = heard.split('\n');
      if (all.length <= lines) return;
      connection.destroy();
      resolve(all.slice(0, lines));
    });
  });
}

const fine = async (): Promise<ControlAnswer> => ({ ok: true });

t.test('one answer a line, in order; what is no request is refused and does nothing', async (t) => {
  const path = join(shortDir(t), 'run', 'c.sock');
  const seen: string[] = [];
  const socket = await ControlSocket.open(path, async (request) => {
    seen.push(request.do);
    if (request.do === 'arm') throw new PremotorError('SERVICE_STATE', 'Not now.', { expected: 'ready', found: 'waiting' });
    return { ok: true };
  });
  t.teardown(() => socket.close());
  t.equal(statSync(path).mode & 0o777, 0o660);
  const bad = [
    '',
    'x',
    '[]',
    '{}',
    '{"do":"dance"}',
    '{"do":"arm","now":true}',
    '{"do":"run","seed":-1}',
    '{"do":"run","seed":1.5}',
    '{"do":"maintenance"}',
  ];
  const answers = await say(path, `${bad.join('\n')}\n{"do":"status"}\n{"do":"arm"}\n{"do":"run","task":"push","seed":4294967295}\n`, bad.length + 3);
  for (const [index, text] of bad.entries()) t.match(JSON.parse(answers[index] ?? ''), { ok: false, error: { code: 'CONTROL_REQUEST' } }, text);
  t.same(
    answers.slice(bad.length).map((one) => JSON.parse(one)),
    [{ ok: true }, { ok: false, error: { code: 'SERVICE_STATE', message: 'Not now.', expected: 'ready', found: 'waiting' } }, { ok: true }],
  );
  t.same(seen, ['status', 'arm', 'run']);
  t.match(
    JSON.parse((await say(path, 'x'.repeat(LINE_BYTES_MAX + 1), 1))[0] ?? ''),
    { ok: false, error: { code: 'CONTROL_REQUEST' } },
    'a line without an end',
  );
  await t.rejects(ask(path, { do: 'arm' }), { code: 'SERVICE_STATE', expected: 'ready', found: 'waiting' });
  t.equal(await ask(path, { do: 'stop' }), undefined);
});

t.test('left over, taken, impossible', async (t) => {
  const dir = shortDir(t);
  const path = join(dir, 'c.sock');
  writeFileSync(path, '');
  const socket = await ControlSocket.open(path, fine);
  await t.rejects(ControlSocket.open(path, fine), { code: 'SERVICE_RUNNING' });
  t.equal(await ask(path, { do: 'stop' }), undefined, 'the first still answers');
  await socket.close();
  await socket.close();
  t.notOk(existsSync(path));
  await t.rejects(ask(path, { do: 'status' }), { code: 'SERVICE_ABSENT' });
  writeFileSync(join(dir, 'file'), '');
  await t.rejects(ControlSocket.open(join(dir, 'file', 'c.sock'), fine), { code: 'CONTROL_SOCKET' });
});

t.test('a service that does not answer, and one that answers nonsense', async (t) => {
  const path = join(shortDir(t), 'c.sock');
  let answer: () => Promise<ControlAnswer> = () => new Promise(() => undefined);
  const socket = await ControlSocket.open(path, () => answer());
  t.teardown(() => socket.close());
  await t.rejects(ask(path, { do: 'status' }, 20), { code: 'CONTROL_ANSWER' });
  answer = async () => ({ ok: 'maybe' }) as unknown as ControlAnswer;
  await t.rejects(ask(path, { do: 'status' }), { code: 'CONTROL_ANSWER' });
  answer = async () => Promise.reject(new TypeError('a bug'));
  await t.rejects(ask(path, { do: 'status' }), { code: 'INTERNAL' });
});
