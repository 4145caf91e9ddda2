/**
 * The properties of the systemd units that safety rests on, read out of the files that are installed; and what systemd itself says about them,
 * where it is installed.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';

const folder = fileURLToPath(new URL('../../deploy/systemd/', import.meta.url));
const lib = fileURLToPath(new URL('../../deploy/lib/', import.meta.url));

type Unit = ReadonlyMap<string, readonly string[]>;

/** Section.Key -> values in order. An empty assignment resets the list, as in systemd. */
function parse(text: string): Unit {
  const unit = new Map<string, string[]>();
  let section = '';
  for (const line of text.split('\n')) {
    if (line === '' || /^[#;]/.test(line)) continue;
    const header = /^\[(\w+)\]$/.exec(line)?.[1];
    if (header !== undefined) {
      section = header;
      continue;
    }
    const match = /^(\w+)=(.*)$/.exec(line);
    if (match === null) throw new Error(`neither a section nor an assignment: ${line}`);
    const key = `${section}.${match[1]}`;
    if (match[2] === '') unit.set(key, []);
    else unit.set(key, [...(unit.get(key) ?? []), match[2] ?? '']);
  }
  return unit;
}

const read = (name: string): Unit => parse(readFileSync(join(folder, name), 'utf8'));
const last = (unit: Unit, key: string): string | undefined => unit.get(`Service.${key}`)?.at(-1);
const words = (unit: Unit, key: string): string[] => (unit.get(key) ?? []).flatMap((value) => value.split(' '));

t.test('the parser', async (t) => {
  t.same(
    [...parse('# x\n[Unit]\nAfter=a\nAfter=b\n[Service]\nUser=x\nUser=\n')],
    [
      ['Unit.After', ['a', 'b']],
      ['Service.User', []],
    ],
  );
  t.throws(() => parse('[Unit]\nAfter: a\n'));
});

t.test('premotor.service: watched, stopped in order, and its stream outlives it', async (t) => {
  const unit = read('premotor.service');
  for (const [key, value] of Object.entries({
    Type: 'notify',
    NotifyAccess: 'main',
    ExecStart: '/usr/bin/premotor service',
    ExecStartPre: '-/usr/lib/premotor/deploy/doctor',
    WatchdogSec: '10',
    KillMode: 'process',
    ExecStopPost: '/usr/lib/premotor/deploy/after-stop',
    Restart: 'on-failure',
    RuntimeDirectoryPreserve: 'restart',
    OOMPolicy: 'continue',
    MemorySwapMax: '0',
    LimitRTPRIO: '80',
    RestrictRealtime: 'no',
    User: 'premotor',
    NoNewPrivileges: 'yes',
    ProtectSystem: 'strict',
    DevicePolicy: 'closed',
  })) {
    t.equal(last(unit, key), value, key);
  }
  t.same(unit.get('Service.CapabilityBoundingSet'), [], 'no capability');
  t.same(unit.get('Service.AmbientCapabilities'), [], 'none lent either');
  t.ok(unit.has('Service.MemoryMax'), 'a bound that its own engine meets before the machine does');
  t.notOk(unit.has('Service.FinalKillSignal') || last(unit, 'SendSIGKILL') === 'no');
  const seconds = (key: string): number => Number(unit.get(key)?.at(-1));
  t.ok(seconds('Service.TimeoutStopSec') > seconds('Service.WatchdogSec'), 'a controlled stop has more time than a hang');
  t.ok(seconds('Unit.StartLimitIntervalSec') > seconds('Unit.StartLimitBurst') * seconds('Service.RestartSec'), 'the start limit can be reached');
  t.ok(Number(last(unit, 'OOMScoreAdjust')) < 0, 'the supervisor is not the first to go');
  t.ok(words(unit, 'Service.RestrictAddressFamilies').includes('AF_CAN'));
  const devices = unit.get('Service.DeviceAllow') ?? [];
  t.same(devices.map((line) => line.split(' ')[0]).sort(), ['/dev/cpu_dma_latency', 'char-media', 'char-ttyACM', 'char-ttyUSB', 'char-video4linux']);
});

t.test('buses are up before the supervisor, and down after it', async (t) => {
  for (const name of ['can@.service', 'can@vcan0.service', 'premotor-sim-bridge.service']) {
    const unit = read(name);
    t.ok(words(unit, 'Unit.Before').includes('premotor.service'), `${name}: stopped after the supervisor`);
    t.notOk(unit.get('Unit.DefaultDependencies'), `${name}: stopped at shutdown like any service`);
  }
  t.ok(words(read('premotor.service'), 'Unit.After').includes('network.target'), 'the last report leaves before the network goes');
  const can = read('can@.service');
  t.same(can.get('Unit.BindsTo'), ['sys-subsystem-net-devices-%i.device'], 'an unplugged adapter ends it');
  t.same(can.get('Unit.ConditionPathExists'), ['/etc/premotor/can/%i.conf'], 'nobody guesses a bit rate');
  t.equal(last(can, 'Restart'), 'on-failure');
  t.same(can.get('Service.CapabilityBoundingSet'), ['CAP_NET_ADMIN']);
  t.notOk(read('can@vcan0.service').has('Unit.BindsTo'), 'a virtual interface is not there before');
  t.ok(words(read('premotor-sim-bridge.service'), 'Unit.Requires').includes('can@vcan0.service'));
});

t.test('no unit gains privileges or sees homes', async (t) => {
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.service'))) {
    const unit = read(name);
    t.ok((unit.get('Unit.Description') ?? []).length === 1, `${name}: says what it is`);
    t.equal(last(unit, 'NoNewPrivileges'), 'yes', name);
    t.match(last(unit, 'ProtectHome'), /yes|read-only/, name);
  }
});

/** A root with our units, empty stand-ins of systemd's targets and of the programs, so that verify sees everything and nothing of this machine. */
function fakeRoot(t: Test): string {
  const root = t.testdir({});
  const units = join(root, 'usr/lib/systemd/system');
  mkdirSync(units, { recursive: true });
  cpSync(folder, units, { recursive: true });
  for (const target of ['sysinit', 'basic', 'shutdown', 'network', 'multi-user', 'local-fs', 'time-set']) {
    writeFileSync(join(units, `${target}.target`), `[Unit]\nDescription=${target}\nDefaultDependencies=no\n`);
  }
  writeFileSync(join(units, 'system.slice'), '[Unit]\nDescription=slice\nDefaultDependencies=no\n');
  for (const program of ['usr/bin/premotor', 'usr/bin/ip', 'usr/lib/premotor/build/Release/premotor-bridge']) {
    mkdirSync(join(root, program, '..'), { recursive: true });
    writeFileSync(join(root, program), '#!/bin/sh\n');
    chmodSync(join(root, program), 0o755);
  }
  cpSync(lib, join(root, 'usr/lib/premotor/deploy'), { recursive: true });
  for (const link of ['bin', 'sbin']) if (!existsSync(join(root, link))) symlinkSync('usr/bin', join(root, link));
  return root;
}

const hasAnalyze = spawnSync('systemd-analyze', ['--version']).status === 0;

t.test('systemd-analyze', { skip: !hasAnalyze && 'SKIPPED: systemd-analyze is not installed (Debian package systemd)' }, async (t) => {
  const root = fakeRoot(t);
  const analyze = (...args: string[]): { status: number | null; out: string } => {
    const { status, stdout, stderr } = spawnSync('systemd-analyze', args, {
      encoding: 'utf8',
      env: { ...process.env, SYSTEMD_LOG_LEVEL: 'warning' },
    });
    return { status, out: `${stdout}${stderr}` };
  };
  const names = ['premotor.service', 'can@can0.service', 'can@vcan0.service', 'premotor-sim-bridge.service'];
  const verified = analyze('verify', `--root=${root}`, '--man=no', '--recursive-errors=no', ...names);
  t.match(verified, { status: 0, out: '' }, 'verify says nothing');
  for (const name of names) {
    // An exposure of 0 to 10, here in tenths; hardening that is taken away shows.
    t.equal(analyze('security', '--offline=yes', `--root=${root}`, '--threshold=25', name).status, 0, `${name}: exposure at most 2.5`);
  }
  writeFileSync(join(root, 'usr/lib/systemd/system/open.service'), '[Service]\nExecStart=/usr/bin/premotor\n');
  t.not(analyze('security', '--offline=yes', `--root=${root}`, '--threshold=25', 'open.service').status, 0, 'an open unit is above it');
  writeFileSync(join(root, 'usr/lib/systemd/system/wrong.service'), '[Service]\nExecStart=/usr/bin/missing\nKilMode=process\n');
  t.not(analyze('verify', `--root=${root}`, '--man=no', 'wrong.service').out, '', 'a wrong unit is talked about');
});
