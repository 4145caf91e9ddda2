/**
 * The scenario of `npm run test:image` that walks through docs/OPERATING.md on a robot in the guest, with the commands that the guide gives: from the
 * first start to the first motion, a replaced motor, a fault, releases of a configuration and a model, and switching it off. It needs a package
 * (--deb). Keep it and the guide alike.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { untilState, untilStatus } from './app-scenarios.mjs';
import { Disk, Guest } from './guest.mjs';
import { buildTestImage, writeRobot } from './images.mjs';

/** Our command line starts slowly in emulation. */
const command_timeout_ms = 600_000;
const current = '/var/lib/premotor/config/current/robot.yaml';
const flight = '/var/lib/premotor/recordings/flight';

function local(root, ...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'bin', 'premotor.js'), ...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`premotor ${args.join(' ')}: expected 0, found ${status}: ${stderr.slice(-400)}${stdout.slice(-400)}`);
  return stdout;
}

/** Steps 1 to 5, on the fleet's machine. */
function prepared(context) {
  const { root, folder, arch, deb, key } = context;
  const fleet = join(folder, 'fleet');
  rmSync(fleet, { recursive: true, force: true });
  local(root, 'update', 'ca', 'create', fleet);
  local(root, 'update', 'ca', 'signer', fleet, 'ci');
  // The recorder on, as on a new robot: a fault must leave a recording.
  const robot = writeRobot(folder, [['recording.recorder.mode', 'window']], { isPaced: true });
  local(root, 'config', 'check', robot);
  const extra = ['--fleet-ca', join(fleet, 'fleet-ca.pem')];
  const image = buildTestImage({ arch, deb, key, folder, name: 'guide', robot, isPaced: true, extra });
  return { fleet, disk: new Disk(join(folder, 'disk'), arch, image) };
}

/** A command of the guide, as it is typed; its output, with its code if another one than 0 is right too. */
async function typed(guest, command, { codes = [0] } = {}) {
  const { code, out, err } = await guest.run(command, { timeout_ms: command_timeout_ms });
  const text = `${out}\n${err}`.trim();
  if (!codes.includes(code)) throw new Error(`${command}: expected ${codes.join(' or ')}, found ${code}: ${text.slice(-600)}`);
  return text;
}

/** Steps 7 to 12: the supply of the motors is off. */
async function lookAtIt(guest, check) {
  check.match(await guest.line(/premotor: premotor-\S+ slot A data clean/), /slot A data clean/, '7: the console says which system runs');
  check.match(await typed(guest, 'premotor identity show'), /premotor-test0001[\s\S]*robot\.csr/i, '8: its name and its request');
  check.match(await typed(guest, 'ip -details link show vcan0'), /UP/, '9: the bus is up');
  check.match(await typed(guest, 'premotor firmware info socketcan-fd:vcan0'), /^board +HOST[\s\S]*without a boot loader/m, '10: the firmware');
  const doctor = await typed(guest, `premotor doctor --config ${current}`);
  check.match(doctor, /^ok +joints/m, '11: the doctor looks at the robot');
  check.equal(
    doctor
      .split('\n')
      .filter((line) => /^missing/.test(line))
      .join('\n'),
    '',
    '11: nothing is missing',
  );
  await untilState(guest, ['ready']);
  check.match(await typed(guest, 'premotor status'), /ready/, '12: ready');
}

/** Steps 13 to 16: power, no motion; and off again; the first motion; what it thought. */
async function moveIt(guest, check) {
  check.match(await typed(guest, 'premotor arm'), /holding/, '13: armed, it holds');
  check.match(await typed(guest, 'premotor disarm'), /ready/, '14: and off again');
  check.match(await typed(guest, 'premotor arm'), /holding/, '15: armed again');
  check.match(await typed(guest, 'premotor go'), /running/, '15: an episode runs');
  const { cycles } = (await guest.status()).status;
  await untilStatus(guest, (status) => status.cycles > cycles + 1000, 'a second of motion');
  check.match(await typed(guest, 'premotor halt'), /waiting|ready/, '15: and is stopped');
  const { episodes, armed } = await untilState(guest, ['ready']);
  check.ok(episodes.ended >= 1 && !armed, '15: the episode has ended, and power is off (stop category 1)');
  const saved = await typed(guest, 'premotor record save');
  const [file] = /\/\S+saved-\S+\.mcap/.exec(saved) ?? [];
  check.ok(file !== undefined, `16: the last seconds are kept: ${saved}`);
  check.match(await typed(guest, `premotor record info ${file}`), /^\/policy\/calls +\S+ +[1-9]/m, '16: with what it thought');
  check.equal(await guest.output(`stat -c %U ${file}`), 'premotor', "16: and it is the recorder's");
}

/** "Replace a motor", steps 1 and 3: there is no motor to turn a screw of. */
async function replaceMotor(guest, check) {
  await typed(guest, 'systemctl stop premotor');
  check.match(await typed(guest, 'premotor stop'), /^Nothing of premotor runs here/, 'motor 1: nothing of premotor runs');
  check.equal(await guest.output('pgrep -x premotor-stream || true'), '', 'motor 1: nor does anything move motors');
  await typed(guest, 'systemctl start premotor');
  await untilState(guest, ['ready']);
  check.match(await typed(guest, 'premotor status'), /^(?![\s\S]*BRIDGE_)/, 'motor 3: the bridge is there again');
}

/** "Read a fault", steps 1 to 6. */
async function readFault(guest, check) {
  await typed(guest, 'premotor arm');
  // An episode is over before the next command would get here: what kills the bridge waits for the first chunk in the guest.
  const first = 'journalctl -u premotor -n 5 --no-pager | grep -q "chunk.:0"';
  await guest.output(`nohup sh -c 'until ${first}; do sleep 0.1; done; pkill -KILL -x premotor-bridge' >/dev/null 2>&1 &`);
  await typed(guest, 'premotor go');
  await untilState(guest, ['fault']);
  const told = await typed(guest, 'premotor status');
  const [, code] = /\b((?:BRIDGE|STREAM)_[A-Z_]+)\b/.exec(told) ?? [];
  check.ok(code !== undefined, `fault 1: ${code}`);
  check.match(await typed(guest, 'journalctl -u premotor -n 200 --no-pager'), new RegExp(code), 'fault 3: the journal has it');
  const file = await guest.output(`i=0; until ls ${flight}/fault-*.mcap 2>/dev/null || [ $i -gt 60 ]; do i=$((i+1)); sleep 1; done`);
  check.match(file, /fault-.*\.mcap/, `fault 4: a recording of it`);
  check.match(await typed(guest, `premotor record info ${file.split('\n')[0]}`), new RegExp(code), 'fault 4: that names it');
  check.match(await typed(guest, 'premotor clear'), /waiting|ready/, 'fault 6: cleared');
  await untilState(guest, ['ready']);
  check.match(await typed(guest, 'premotor arm'), /holding/, 'fault 6: and armed');
}

/** "Update": a configuration and a model, refused while armed; and back. */
async function updateIt(guest, check, { root, folder }, { fleet }) {
  const signed = ['--cert', join(fleet, 'ci.pem')];
  const release = join(folder, 'configuration');
  rmSync(release, { recursive: true, force: true });
  mkdirSync(release);
  writeFileSync(join(release, 'robot.yaml'), await guest.output(`sed 's/^  seed: 0$/  seed: 7/' ${current}`));
  const [config, model] = [join(folder, 'config-7.0.0.tar'), join(folder, 'model-2.0.0.tar')];
  for (const file of [config, model]) rmSync(file, { force: true });
  local(root, 'update', 'config', 'pack', release, '--version', '7.0.0', ...signed, '-o', config);
  local(root, 'update', 'model', 'pack', join(root, 'models', 'tabletop'), '--version', '2.0.0', ...signed, '-o', model);
  await guest.send(readFileSync(config), '/data/config-7.0.0.tar');
  await guest.send(readFileSync(model), '/data/model-2.0.0.tar');
  check.match(
    await typed(guest, 'premotor update config install /data/config-7.0.0.tar', { codes: [1] }),
    /UPDATE_ROBOT_ACTIVE/,
    'update: refused while armed',
  );
  await typed(guest, 'premotor disarm');
  await untilState(guest, ['ready']);
  check.match(await typed(guest, 'premotor update config install /data/config-7.0.0.tar --timeout 900'), /7\.0\.0/, 'update: a configuration');
  check.match(await guest.output(`grep seed: ${current}`), /7/, 'update: it is the one in use');
  check.match(await typed(guest, 'premotor update status'), /7\.0\.0/, 'update: its status says so');
  check.match(await typed(guest, 'premotor update config rollback --timeout 900'), /image-/, 'update: and back');
  check.match(await guest.output(`grep seed: ${current}`), /0/, 'update: the old one is in use again');
  check.match(await typed(guest, 'premotor update model install /data/model-2.0.0.tar --timeout 900'), /2\.0\.0/, 'update: a model');
  check.equal(await guest.output('readlink /var/lib/premotor/models/current'), 'releases/2.0.0', 'update: it is the one in use');
  await untilState(guest, ['ready']);
}

async function guide({ check, ...context }) {
  const made = prepared(context);
  const guest = await Guest.start(made.disk, context.key, { isPaced: true });
  try {
    await guest.reachable();
    await lookAtIt(guest, check);
    await moveIt(guest, check);
    await replaceMotor(guest, check);
    await readFault(guest, check);
    await updateIt(guest, check, context, made);
    const from = guest.lines.length;
    await guest.output('nohup sh -c "sleep 1; poweroff" >/dev/null 2>&1 &');
    check.match(await guest.line(/[Pp]ower down|Powering off|reboot: Power/, { from }), /./, 'every day: switched off');
  } finally {
    await guest.powerCut();
  }
}

export const scenarios = [{ name: "the operator's guide, command by command", arch: 'amd64', needs: ['premotor'], hasOwnImage: true, run: guide }];
