/**
 * RAUC's backend for NVIDIA L4T against a stand-in of nvbootctrl that prints what the real one prints, and a folder of firmware variables. What the
 * hardware does is not tested here, and nowhere.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';

const backend = fileURLToPath(new URL('../../deploy/jetson/rauc-nvbootctrl', import.meta.url));
const guid = '781e084c-a330-417c-b678-38e696380cb9';

/** Prints a slot's status out of its variable, as the firmware's tool does; keeps the active slot in a file, and a log of calls. */
const standIn = `#!/bin/sh
printf '%s\\n' "$*" >>"$FAKE/calls"
case "$*" in $(cat "$FAKE/fails" 2>/dev/null || echo none)) echo 'Error: failed' >&2; exit 1 ;; esac
[ -e "$FAKE/says" ] && exec cat "$FAKE/says"
status() {
  case $(od -An -tu1 -j4 -N1 "$FAKE/efivars/RootfsStatusSlot$1-${guid}" | tr -d ' ') in
    0) echo normal ;; 255) echo unbootable ;; *) echo strange ;;
  esac
}
letter() { [ "$(cat "$FAKE/$1")" = 0 ] && echo A || echo B; }
case "$*" in
  '-t rootfs dump-slots-info')
    printf 'Current rootfs slot: %s\\nActive rootfs slot: %s\\nnum_slots: 2\\n' "$(letter current)" "$(letter active)"
    printf 'slot: 0,             retry_count: 3,             status: %s             \\n' "$(status A)"
    printf 'slot: 1,             retry_count: 3,             status: %s             \\n' "$(status B)"
    ;;
  '-t rootfs get-current-slot') cat "$FAKE/current" ;;
  '-t rootfs set-active-boot-slot '*) [ -e "$FAKE/deaf" ] || echo "$4" >"$FAKE/active" ;;
  verify) ;;
  *) exit 64 ;;
esac
`;

interface Board {
  readonly folder: string;
  run(...args: string[]): { status: number | null; out: string; err: string };
  /** The four bytes of a slot's status. */
  status(slot: string): number[];
  calls(): string[];
}

function board(t: Test, { current = 0, active = 0, level = 1 }: { current?: number; active?: number; level?: number | null } = {}): Board {
  const folder = t.testdir({ efivars: {}, bin: {}, current: `${current}\n`, active: `${active}\n`, calls: '' });
  writeFileSync(join(folder, 'bin', 'nvbootctrl'), standIn);
  chmodSync(join(folder, 'bin', 'nvbootctrl'), 0o755);
  const variable = (name: string): string => join(folder, 'efivars', `${name}-${guid}`);
  const put = (name: string, byte: number): void => writeFileSync(variable(name), Buffer.from([7, 0, 0, 0, byte, 0, 0, 0]));
  put('RootfsStatusSlotA', 0);
  put('RootfsStatusSlotB', 0);
  if (level !== null) put('RootfsRedundancyLevel', level);
  const env = { PATH: `${join(folder, 'bin')}:${process.env['PATH']}`, FAKE: folder, PREMOTOR_EFIVARS: join(folder, 'efivars') };
  return {
    folder,
    run: (...args) => {
      const { status, stdout, stderr } = spawnSync(backend, args, { env, encoding: 'utf8' });
      return { status, out: stdout.trim(), err: stderr.trim() };
    },
    status: (slot) => [...readFileSync(variable(`RootfsStatusSlot${slot}`))],
    calls: () => readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n'),
  };
}

t.test('what runs and what boots next are told apart', async (t) => {
  const { run } = board(t, { current: 0, active: 1 });
  t.match(run('get-current'), { status: 0, out: 'A' });
  t.match(run('get-primary'), { status: 0, out: 'B' });
  t.match(run('get-state', 'A'), { status: 0, out: 'good' });
});

t.test('an update: the new slot becomes primary and good, whatever it was', async (t) => {
  const { run, status, calls } = board(t);
  t.equal(run('set-state', 'B', 'bad').status, 0, 'RAUC marks the slot bad before it writes');
  t.same(status('B'), [7, 0, 0, 0, 255, 0, 0, 0]);
  t.match(run('get-state', 'B'), { status: 0, out: 'bad' });
  t.match(run('get-state', 'A'), { status: 0, out: 'good' }, 'the running slot is untouched');
  t.equal(run('set-primary', 'B').status, 0);
  t.same(status('B'), [7, 0, 0, 0, 0, 0, 0, 0], 'the backend marks it good: RAUC does not');
  t.equal(run('get-primary').out, 'B');
  t.notOk(calls().includes('verify'), 'retries of the running slot are not given back by an installation');
});

t.test('after the boot: the running slot is marked good by nvbootctrl, the other one bad', async (t) => {
  const { run, calls, status } = board(t, { current: 1, active: 1 });
  t.equal(run('set-state', 'B', 'good').status, 0);
  t.ok(calls().includes('verify'));
  t.equal(run('set-state', 'A', 'bad').status, 0);
  t.equal(status('A')[4], 255);
  t.equal(run('set-state', 'A', 'good').status, 0, 'and good again');
  t.equal(status('A')[4], 0);
});

t.test('a board without two root file systems changes nothing and says so', async (t) => {
  for (const level of [0, null]) {
    const { run, calls } = board(t, { level });
    for (const args of [
      ['set-primary', 'B'],
      ['set-state', 'A', 'good'],
      ['set-state', 'B', 'bad'],
    ]) {
      t.match(run(...args), { status: 3, err: /RootfsRedundancyLevel.*ROOTFS_AB=1/ }, args.join(' '));
    }
    t.same(calls(), [''], 'nvbootctrl was not called');
    t.equal(run('get-primary').status, 0, 'questions are answered');
  }
});

t.test('what fails or is not understood is an error, never a guess', async (t) => {
  const { folder, run } = board(t);
  const fails = (pattern: string): void => writeFileSync(join(folder, 'fails'), pattern);
  fails('*dump-slots-info');
  t.match(run('get-primary'), { status: 4, out: '', err: /dump-slots-info failed/ });
  t.match(run('get-state', 'A'), { status: 4, out: '' });
  fails('*set-active-boot-slot*');
  t.match(run('set-primary', 'B'), { status: 4, err: /set-active-boot-slot 1 failed/ });
  fails('verify');
  t.match(run('set-state', 'A', 'good'), { status: 4, err: /verify failed/ });
  fails('none');
  writeFileSync(join(folder, 'deaf'), '');
  t.match(run('set-primary', 'B'), { status: 4, err: /nvbootctrl says that A is/ }, 'a tool that says yes and does nothing');
  for (const text of [
    '',
    'Error: rootfs AB is not enabled\n',
    'Current rootfs slot: C\nActive rootfs slot: C\nslot: 0, status: normal\nslot: 1, status: normal\n',
  ]) {
    writeFileSync(join(folder, 'says'), text);
    t.match(run('get-primary'), { status: 4, out: '' }, JSON.stringify(text));
  }
  writeFileSync(
    join(folder, 'says'),
    'Current rootfs slot: A\nActive rootfs slot: A\nslot: 0, retry_count: 3, status: dubious\nslot: 1, status: normal\n',
  );
  t.match(run('get-state', 'A'), { status: 4, out: '', err: /found "dubious"/ });
  t.match(run('get-state', 'B'), { status: 0, out: 'good' });
});

t.test('wrong use', async (t) => {
  const { run } = board(t);
  for (const args of [
    [],
    ['get-primary', 'A'],
    ['get-state'],
    ['get-state', 'C'],
    ['set-primary', 'APP_b'],
    ['set-state', 'A'],
    ['set-state', 'A', 'fine'],
    ['reboot'],
  ]) {
    t.equal(run(...args).status, 2, args.join(' ') || 'nothing');
  }
});

t.test('a variable that cannot be written', { skip: process.platform !== 'linux' && 'SKIPPED: L4T is Linux' }, async (t) => {
  const { folder, run } = board(t);
  mkdirSync(join(folder, 'other'));
  const path = join(folder, 'efivars', `RootfsStatusSlotB-${guid}`);
  // A folder in its place: not even root writes over it.
  spawnSync('mv', [path, `${path}.kept`]);
  mkdirSync(path);
  t.match(run('set-state', 'B', 'bad'), { status: 4, err: /cannot be written/ });
  t.ok(existsSync(path));
});
