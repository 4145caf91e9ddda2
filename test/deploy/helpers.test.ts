/**
 * The small programs that units and the package's scripts run on a robot: bringing a bus up, clearing up after the supervisor, asking whether
 * the robot is disarmed. Real processes; `ip` and the control group are stand-ins.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';

const lib = fileURLToPath(new URL('../../deploy/lib/', import.meta.url));

/** can-up with a stand-in of `ip` that records its calls, and fails on those that hold `fails`. */
function canUp(t: Test, name: string, values: Record<string, string>, fails = 'nothing'): { status: number | null; err: string; calls: string[] } {
  const folder = t.testdir({
    ip: `#!/bin/sh\necho "$*" >>"$LOG"\ncase "$*" in *${fails}*) exit 2 ;; esac\n`,
    calls: '',
    class: { net: { can0: {}, can1: {} } },
  });
  chmodSync(join(folder, 'ip'), 0o755);
  const env = { PATH: `${folder}:${process.env['PATH']}`, LOG: join(folder, 'calls'), PREMOTOR_SYSFS: folder, ...values };
  const { status, stderr } = spawnSync(join(lib, 'can-up'), [name], { env, encoding: 'utf8' });
  return { status, err: stderr, calls: readFileSync(join(folder, 'calls'), 'utf8').split('\n').filter(Boolean) };
}

t.test('a classic bus', async (t) => {
  const { status, calls } = canUp(t, 'can0', { BITRATE: '500000' });
  t.equal(status, 0);
  t.same(calls, ['link set dev can0 down', 'link set dev can0 type can bitrate 500000 restart-ms 0', 'link set dev can0 txqueuelen 64 up']);
});

t.test('an FD bus with every value', async (t) => {
  const values = {
    BITRATE: '1000000',
    SAMPLE_POINT: '0.8',
    FD: 'on',
    DBITRATE: '5000000',
    DSAMPLE_POINT: '0.75',
    RESTART_MS: '100',
    TXQUEUELEN: '128',
  };
  const { status, calls } = canUp(t, 'can1', values);
  t.equal(status, 0);
  t.same(calls.slice(1), [
    'link set dev can1 type can bitrate 1000000 sample-point 0.8 dbitrate 5000000 dsample-point 0.75 fd on restart-ms 100',
    'link set dev can1 txqueuelen 128 up',
  ]);
});

t.test('a virtual bus is made, with room for FD frames', async (t) => {
  const { status, calls } = canUp(t, 'vcan77', {});
  t.equal(status, 0);
  t.same(calls, ['link add dev vcan77 type vcan', 'link set dev vcan77 mtu 72', 'link set dev vcan77 txqueuelen 64 up']);
});

t.test('wrong values bring nothing up', async (t) => {
  const bit = { BITRATE: '500000' };
  const cases: readonly (readonly [string, Record<string, string>, RegExp])[] = [
    ['can0', {}, /BITRATE: expected .* found none/],
    ['can0', { BITRATE: '500k' }, /BITRATE: .* found "500k"/],
    ['can0', { BITRATE: '5000000' }, /BITRATE: .* 1000000/],
    ['can0', { BITRATE: '99999999999999999999' }, /BITRATE/],
    ['can0', { ...bit, SAMPLE_POINT: '80' }, /SAMPLE_POINT: expected 0.5 to 0.95, found "80"/],
    ['can0', { ...bit, SAMPLE_POINT: '0.96' }, /SAMPLE_POINT/],
    ['can0', { ...bit, FD: 'yes' }, /FD: expected on or off/],
    ['can0', { ...bit, FD: 'on' }, /DBITRATE: expected the data bit rate/],
    ['can0', { ...bit, FD: 'on', DBITRATE: '100000' }, /DBITRATE: .* from 500000/],
    ['can0', { ...bit, DBITRATE: '2000000' }, /DBITRATE: expected FD=on/],
    ['can0', { ...bit, RESTART_MS: '-1' }, /RESTART_MS/],
    ['can0', { ...bit, TXQUEUELEN: '0' }, /TXQUEUELEN/],
    ['', bit, /name of a CAN interface/],
    ['can0;reboot', bit, /name of a CAN interface/],
    ['a-name-longer-than-15', bit, /name of a CAN interface/],
  ];
  for (const [name, values, err] of cases) {
    const found = canUp(t, name, values);
    t.match(found, { status: 2, err }, `${name} ${JSON.stringify(values)}`);
    t.same(found.calls, [], 'ip was not called');
  }
});

t.test('an interface that is not there or refuses', async (t) => {
  t.match(canUp(t, 'can9', { BITRATE: '500000' }), { status: 3, err: /no such interface/, calls: [] });
  t.match(canUp(t, 'can0', { BITRATE: '500000' }, 'bitrate'), { status: 3, err: /the controller refuses: type can bitrate 500000/ });
  t.match(canUp(t, 'can0', { BITRATE: '500000' }, '\\ up'), { status: 3, err: /does not come up/ });
});

/** A control group of stand-ins: sleep under the names that the service's processes have. */
async function group(t: Test): Promise<{ run(result: string): number | null; ended(name: string): Promise<NodeJS.Signals | null> }> {
  const folder = t.testdir({});
  const path = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/';
  mkdirSync(join(folder, path), { recursive: true });
  const processes = new Map<string, ChildProcess>();
  for (const name of ['premotor-stream', 'node']) {
    copyFileSync('/bin/sleep', join(folder, name));
    chmodSync(join(folder, name), 0o755);
    const child = spawn(join(folder, name), ['60'], { stdio: 'ignore' });
    await once(child, 'spawn');
    processes.set(name, child);
    t.teardown(() => child.kill('SIGKILL'));
  }
  writeFileSync(join(folder, path, 'cgroup.procs'), [...processes.values()].map(({ pid }) => `${pid}\n`).join(''));
  return {
    run: (result) => spawnSync(join(lib, 'after-stop'), [], { env: { ...process.env, PREMOTOR_CGROUP_ROOT: folder, SERVICE_RESULT: result } }).status,
    ended: async (name) => {
      const child = processes.get(name);
      if (child === undefined) throw new Error(name);
      if (child.signalCode === null) await once(child, 'exit');
      return child.signalCode;
    },
  };
}

const hasGroups = process.platform === 'linux' && /^0::/m.test(readFileSync('/proc/self/cgroup', 'utf8'));
const skip = !hasGroups && 'SKIPPED: this machine has no control groups of version 2';

t.test('after an orderly stop nothing is left', { skip }, async (t) => {
  const { run, ended } = await group(t);
  t.equal(run('success'), 0);
  t.equal(await ended('node'), 'SIGKILL');
  t.equal(await ended('premotor-stream'), 'SIGTERM', 'the stream stops the robot first: it is asked');
});

t.test('after a crash the stream goes on, an orphaned engine does not', { skip }, async (t) => {
  for (const result of ['signal', 'watchdog']) {
    const { run, ended } = await group(t);
    t.equal(run(result), 0);
    t.equal(await ended('node'), 'SIGKILL', result);
    const stopped = run('timeout');
    t.equal(stopped, 0, 'it was there all the time: the next stop finds it');
    t.equal(await ended('premotor-stream'), 'SIGTERM');
  }
});

interface IsDisarmed {
  objection(text: string): string | undefined;
}

t.test('a package is changed only while the robot says that it is disarmed', async (t) => {
  const { objection } = (await import(new URL('../../deploy/lib/is-disarmed.mjs', import.meta.url).href)) as IsDisarmed;
  t.equal(objection('{"ok":true,"status":{"armed":false,"state":"ready"}}'), undefined);
  t.equal(objection('{"ok":true,"status":{"armed":true}}'), 'the robot is armed');
  for (const text of ['', 'null', '[]', '{"ok":false,"error":{"code":"X"}}', '{"ok":true,"status":{}}', '{"ok":true,"status":{"armed":0}}']) {
    t.match(objection(text), /did not say|no JSON/, JSON.stringify(text));
  }
});

t.test('the question over a real socket', async (t) => {
  const path = join(t.testdir({}), 's');
  let armed = true;
  const questions: string[] = [];
  const server = createServer((socket) => {
    socket.on('data', (bytes) => {
      questions.push(bytes.toString());
      socket.write(`{"ok":true,"status":{"armed":${armed}}}\n`);
    });
  });
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => server.close());
  const ask = async (socket = path): Promise<[number | null, string]> => {
    const child = spawn(process.execPath, [join(lib, 'is-disarmed.mjs'), socket], { stdio: ['ignore', 'ignore', 'pipe'] });
    let err = '';
    child.stderr.on('data', (bytes) => (err += bytes));
    await once(child, 'close');
    return [child.exitCode, err];
  };
  const [refused, why] = await ask();
  t.equal(refused, 1);
  t.match(why, /the robot is armed.*premotor disarm/);
  armed = false;
  t.same(await ask(), [0, ''], 'disarmed in between');
  t.same(questions, ['{"do":"status"}\n', '{"do":"status"}\n'], 'it asks and orders nothing');
  const [none, missing] = await ask(`${path}-missing`);
  t.equal(none, 1);
  t.match(missing, /cannot be asked.*systemctl stop premotor/);
});
