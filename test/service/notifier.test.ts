/** What systemd hears: which evidence is a sign of life, and the bytes on a real datagram socket, by path and by abstract name. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import type { PremotorError } from '../../src/errors.js';
import { Notifier, systemdSend, watchdogMs } from '../../src/service/notifier.js';
import { shortDir } from './harness.js';

t.test('a sign of life needs cycles that advance and an episode that gets somewhere', async (t) => {
  const told: string[] = [];
  const notifier = new Notifier(
    (text) => void told.push(text),
    () => t.fail('a warning'),
  );
  const looked = (cycles: number | undefined, isProgressing = true): boolean => notifier.looked({ cycles, isProgressing });
  t.ok(looked(undefined), 'no robot is open: the look alone');
  t.ok(looked(100));
  t.notOk(looked(100), 'the stream stands still');
  t.notOk(looked(100));
  t.ok(looked(101));
  t.notOk(looked(150, false), 'the episode gets nowhere');
  t.ok(looked(151));
  t.ok(looked(3), 'another robot counts from the beginning');
  t.equal(told.filter((text) => text === 'WATCHDOG=1').length, 5);
});

t.test('states in one line, when they change', async (t) => {
  const told: string[] = [];
  const notifier = new Notifier(
    (text) => void told.push(text),
    () => t.fail('a warning'),
  );
  notifier.ready();
  for (const text of ['waiting: CAMERA_DARK\nREADY=1', 'waiting: CAMERA_DARK\nREADY=1', 'ready', `x${'y'.repeat(500)}`]) notifier.status(text);
  notifier.stopping();
  t.same(told.slice(0, 3), ['READY=1', 'STATUS=waiting: CAMERA_DARK READY=1', 'STATUS=ready']);
  t.equal(told[3]?.length, 'STATUS='.length + 200);
  t.equal(told[4], 'STOPPING=1');
});

t.test('a socket that fails is a warning, once until it works again', async (t) => {
  const warnings: PremotorError[] = [];
  let fails = true;
  const notifier = new Notifier(
    () => {
      if (fails) throw Object.assign(new Error('gone'), { code: 'NOTIFY_FAILED' });
    },
    (error) => warnings.push(error),
  );
  notifier.ready();
  notifier.stopping();
  fails = false;
  notifier.ready();
  fails = true;
  notifier.ready();
  t.match(warnings, [{ code: 'NOTIFY_FAILED' }, { code: 'NOTIFY_FAILED' }]);
  new Notifier(undefined, () => t.fail('nobody wants to be told')).ready();
});

t.test('what the environment says', async (t) => {
  t.equal(watchdogMs({}), undefined);
  t.equal(watchdogMs({ WATCHDOG_USEC: '10000000' }), 10_000);
  t.equal(watchdogMs({ WATCHDOG_USEC: '10000000', WATCHDOG_PID: String(process.pid) }), 10_000);
  t.equal(watchdogMs({ WATCHDOG_USEC: '10000000', WATCHDOG_PID: '1' }), undefined, "another process's");
  for (const text of ['', '0', '-1', 'x']) t.equal(watchdogMs({ WATCHDOG_USEC: text }), undefined, text);
  t.equal(systemdSend({}), undefined);
  t.equal(systemdSend({ NOTIFY_SOCKET: '' }), undefined);
});

const RECEIVER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = sys.argv[1]
s.bind('\\0' + name[1:] if name[0] == '@' else name)
print('bound', flush=True)
while True:
    print(s.recv(4096).decode(), flush=True)
`;

t.test(
  'datagrams to a real socket',
  { skip: spawnSync('python3', ['-V']).status === 0 ? false : 'SKIPPED: needs python3 for its end of the socket' },
  async (t) => {
    for (const name of [join(shortDir(t), 'notify'), `@premotor-test-${process.pid}`]) {
      const receiver: ChildProcess = spawn('python3', ['-c', RECEIVER, name], { stdio: ['ignore', 'pipe', 2] });
      t.teardown(() => receiver.kill());
      if (!receiver.stdout) throw new Error('no output');
      const lines = createInterface(receiver.stdout)[Symbol.asyncIterator]();
      const next = async (): Promise<unknown> => (await lines.next()).value;
      t.equal(await next(), 'bound');
      const environment: NodeJS.ProcessEnv = { NOTIFY_SOCKET: name };
      const send = systemdSend(environment);
      t.same(environment, {}, 'children do not inherit it');
      const notifier = new Notifier(send, (error) => t.fail(error.message));
      notifier.ready();
      t.equal(await next(), 'READY=1', name);
      notifier.looked({ cycles: undefined, isProgressing: true });
      t.equal(await next(), 'WATCHDOG=1');
      receiver.kill();
      await new Promise((resolve) => receiver.once('exit', resolve));
      t.throws(() => send?.('READY=1'), { code: 'NOTIFY_FAILED' }, 'nobody listens any more');
    }
  },
);
