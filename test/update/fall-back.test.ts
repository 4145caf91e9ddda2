/** The script that gives up a new system in which premotor cannot run: it starts again when a system is on trial, and never otherwise. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { changeRecord } from '../../src/update/records.js';

const script = fileURLToPath(new URL('../../deploy/update/fall-back', import.meta.url));

function run(folder: string): { readonly code: number | null; readonly out: string; readonly asked: string } {
  const systemctl = join(folder, 'systemctl');
  const asked = join(folder, 'asked');
  writeFileSync(systemctl, `#!/bin/sh\necho "$@" >>${asked}\n`);
  chmodSync(systemctl, 0o755);
  const env = { ...process.env, PREMOTOR_UPDATE_RECORD: join(folder, 'record.json'), SYSTEMCTL: systemctl };
  const { status, stdout } = spawnSync(script, [], { env, encoding: 'utf8' });
  return { code: status, out: stdout, asked: existsSync(asked) ? readFileSync(asked, 'utf8').trim() : '' };
}

t.test('no record, and none on trial', async (t) => {
  const folder = t.testdir();
  t.match(run(folder), { code: 0, out: /nothing to do/, asked: '' });
  await changeRecord(folder, (record) => {
    record.highWater.system = '1.0.0';
    record.model = { trial: { to: '2.0.0', since: 'now' } };
  });
  t.match(run(folder), { code: 0, asked: '' }, 'a model on trial is no reason to start another system');
});

t.test('a system on trial', async (t) => {
  const folder = t.testdir();
  const trial = { way: 'install', phase: 'activated', version: '1.1.0', slot: 'rootfs.1', fromSlot: 'rootfs.0', since: 'now' } as const;
  await changeRecord(folder, (record) => {
    record.systemTrial = trial;
  });
  t.match(run(folder), { code: 0, asked: 'reboot' });
  await changeRecord(folder, (record) => {
    delete record.systemTrial;
  });
  t.match(run(folder), { code: 0, asked: 'reboot' }, 'judged meanwhile: not again');
});
