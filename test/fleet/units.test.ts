/** The fleet's units: what their safety rests on is read line by line, and systemd itself reads them where it is installed. */
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const folder = fileURLToPath(new URL('../../deploy/systemd/', import.meta.url));
const UNITS = ['premotor-firstboot.service', 'premotor-update.service', 'premotor-update.timer'] as const;
const hasVerify = spawnSync('systemd-analyze', ['--version']).status === 0;

/** Values of a key, in their order. */
function valuesOf(unit: string, key: string): readonly string[] {
  return [...readFileSync(join(folder, unit), 'utf8').matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value]) => value ?? '');
}

t.test('the key belongs to the user of the service, and nobody else reads it', async (t) => {
  const unit = 'premotor-firstboot.service';
  t.same(valuesOf(unit, 'ExecStart'), ['/usr/bin/premotor identity create --if-missing']);
  t.same([valuesOf(unit, 'User'), valuesOf(unit, 'UMask'), valuesOf(unit, 'StateDirectory')], [['premotor'], ['0027'], ['premotor']]);
  t.same(valuesOf(unit, 'Before'), ['premotor.service']);
  t.same([valuesOf(unit, 'PrivateNetwork'), valuesOf(unit, 'NoNewPrivileges'), valuesOf(unit, 'CapabilityBoundingSet')], [['yes'], ['yes'], ['']]);
});

t.test('following is behind the robot in everything, and bounded', async (t) => {
  const unit = 'premotor-update.service';
  t.match(valuesOf(unit, 'ExecStart').join(), /^\/usr\/bin\/premotor update follow /);
  t.same(
    [valuesOf(unit, 'CPUSchedulingPolicy'), valuesOf(unit, 'IOSchedulingClass'), valuesOf(unit, 'OOMScoreAdjust')],
    [['idle'], ['idle'], ['900']],
  );
  t.same([valuesOf(unit, 'Type'), valuesOf(unit, 'SuccessExitStatus')], [['oneshot'], ['3']]);
  t.ok(
    valuesOf(unit, 'ConditionPathExists').every((value) => value.startsWith('|')),
    'either file is enough',
  );
  t.same(valuesOf(unit, 'TimeoutStartSec'), ['3h']);
  t.ok(valuesOf('premotor-update.timer', 'RandomizedDelaySec').length === 1, 'a fleet does not ask at once');
});

t.test('systemd reads them', { skip: hasVerify ? false : 'SKIPPED: no systemd-analyze here: systemd itself reads no unit' }, async (t) => {
  const root = t.testdir();
  const units = join(root, 'units');
  mkdirSync(units);
  const program = join(root, 'premotor');
  writeFileSync(program, '#!/bin/sh\n');
  chmodSync(program, 0o755);
  for (const unit of UNITS) {
    copyFileSync(join(folder, unit), join(units, unit));
    writeFileSync(join(units, unit), readFileSync(join(units, unit), 'utf8').replaceAll('/usr/bin/premotor', program));
  }
  const verify = (): string => spawnSync('systemd-analyze', ['verify', ...UNITS.map((unit) => join(units, unit))], { encoding: 'utf8' }).stderr;
  const about = (said: string): readonly string[] => said.split('\n').filter((line) => line.includes(units));
  t.same(about(verify()), []);
  writeFileSync(join(units, UNITS[0]), `${readFileSync(join(units, UNITS[0]), 'utf8')}\n[Service]\nNoSuchKey=yes\n`);
  t.match(about(verify()).join(), /NoSuchKey/, 'what is wrong would be said');
});
