/** `premotor doctor` on made-up machines: a bare container, a Jetson with buses, a half-installed GPU, a robot that lacks one thing after another. */
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { examine } from '../../src/cli/doctor.js';
import { runCli } from '../../src/cli/main.js';
import { type Finding, type Level, SystemFiles } from '../../src/cli/probes.js';
import { examineRobot, probeBus } from '../../src/cli/robot-probes.js';
import { readRobotConfig } from '../../src/config/reader.js';
import { PremotorError } from '../../src/errors.js';
import { VOCABULARY } from '../../src/runtime/rig.js';
import { fakeContext, fakeNative, smallJob } from './fakes.js';

const native = fakeNative({ cpu: () => ({ name: 'cpu-test', features: ['avx2'] }) });

function machine(root: string, content: Record<string, string>): Record<string, Finding> {
  for (const [path, text] of Object.entries(content)) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return Object.fromEntries(examine({ loadNative: native }, new SystemFiles(root)).map((finding) => [finding.name, finding]));
}

t.test('an empty root is findings with advice, never a crash', async (t) => {
  const found = machine(t.testdir(), {});
  for (const name of ['GPU', 'CAN', 'serial ports', 'cameras']) t.match(found[name], { level: 'missing', advice: /./ }, name);
  for (const name of ['CPU', 'memory', 'kernel', 'real-time priority', 'locked memory', 'instructions'])
    t.match(found[name], { level: 'warn', advice: /./ }, name);
  t.match(found['engine'], { level: 'ok', found: 'addon loads; backend cpu-test (avx2)' });
});

t.test('a robot computer', async (t) => {
  const root = t.testdir();
  const found = machine(root, {
    '/proc/device-tree/model': 'NVIDIA Jetson AGX Orin\0',
    '/proc/cpuinfo': 'processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd42\n',
    '/proc/meminfo': 'MemTotal:       64348228 kB\nMemAvailable:   60000000 kB\n',
    '/proc/version': 'Linux version 5.15.148-tegra (x) #1 SMP PREEMPT_RT',
    '/proc/self/limits':
      'Max locked memory         unlimited            unlimited            bytes\nMax realtime priority     95                   95\n',
    '/proc/self/status': 'CapEff:\t0000000000000000\n',
    '/dev/nvhost-gpu': '',
    '/dev/video0': '',
    '/dev/video10': '',
    '/sys/class/video4linux/video0/name': 'wrist\n',
    '/etc/nv_tegra_release': '# R36 (release), REVISION: 4.0\nmore',
    '/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1': '',
    '/sys/class/net/can0/type': '280\n',
    '/sys/class/net/can0/operstate': 'up\n',
    '/sys/class/net/eth0/type': '1\n',
  });
  t.match(found['CPU'], { level: 'ok', found: 'NVIDIA Jetson AGX Orin, ARM part 0xd42' });
  t.match(found['instructions'], { level: 'ok', found: 'asimddp' });
  t.match(found['memory'], { level: 'ok', found: '61.4 GiB, 57.2 GiB available' });
  t.match(found['kernel'], { level: 'ok', found: /PREEMPT_RT/ });
  t.match(found['real-time priority'], { level: 'ok', found: 'allowed up to 95' });
  t.match(found['locked memory'], { level: 'ok', found: 'unlimited' });
  t.match(found['GPU'], { level: 'ok', found: /nvhost-gpu; # R36 .*libcuda in .*nvidia/ });
  t.match(found['CAN'], { level: 'ok', found: 'can0 up' });
  t.match(found['cameras'], { level: 'ok', found: '/dev/video0 wrist, /dev/video10' });
});

t.test('half of things', async (t) => {
  const root = t.testdir();
  mkdirSync(join(root, 'dev', 'serial', 'by-id'), { recursive: true });
  symlinkSync('../../ttyACM0', join(root, 'dev', 'serial', 'by-id', 'usb-adapter-if00'));
  const found = machine(root, {
    '/proc/driver/nvidia/version': 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu',
    '/proc/driver/nvidia/gpus/0000:01:00.0/information': 'Model: \t\t NVIDIA GeForce RTX 4090\nIRQ: 1\n',
    '/proc/meminfo': 'MemTotal:       8000000 kB\n',
    '/proc/self/status': 'CapEff:\t0000000000800000\n',
    '/proc/self/limits': 'Max locked memory         8388608              8388608              bytes\n',
    '/proc/version': 'Linux version 6.1.0 (x) #1 SMP PREEMPT_DYNAMIC',
    '/sys/kernel/realtime': '1\n',
    '/sys/class/net/can1/type': '280\n',
    '/sys/class/net/can1/operstate': 'down\n',
  });
  t.match(found['GPU'], { level: 'warn', found: /no device file; NVIDIA GeForce RTX 4090; driver 550\.54\.14/, advice: /driver/ });
  t.match(found['memory'], { level: 'warn', found: '7.6 GiB, ? GiB available' });
  t.match(found['real-time priority'], { level: 'ok', found: /CAP_SYS_NICE/ });
  t.match(found['locked memory'], { level: 'warn', found: 'limit 8 MiB' });
  t.match(found['kernel'], { level: 'ok', found: '6.1.0, PREEMPT_RT' });
  t.match(found['CAN'], { level: 'warn', found: 'can1 down', advice: /ip link set can1 up/ });
  t.match(found['serial ports'], { level: 'ok', found: 'usb-adapter-if00 -> ttyACM0' });
  writeFileSync(join(root, 'dev', 'nvidia0'), '');
  t.match(machine(root, {})['GPU'], { level: 'warn', found: /no libcuda/ });
});

t.test('the command prints every finding, and runs without the engine', async (t) => {
  const broken = () => {
    throw new PremotorError('NATIVE_MISSING', 'The native addon is not built: expected x. Run something.');
  };
  const text = fakeContext({ loadNative: broken });
  t.equal(await runCli(['doctor'], text.context), 0);
  t.match(text.out.text, /^ok {7}Node\.js/);
  t.match(text.out.text, /missing +engine +NATIVE_MISSING: The native addon is not built: expected x\n +Run "npm run build:native"/);
  t.match(text.out.text, /\d+ ok, \d+ to look at, \d+ missing\n$/);
  const json = fakeContext({ loadNative: native });
  t.equal(await runCli(['doctor', '--json'], json.context), 0);
  const { findings } = JSON.parse(json.out.text) as { findings: Finding[] };
  t.equal(findings.length, 13);
  t.ok(
    findings.every(({ level, advice }) => (level === 'ok') === (advice === undefined)),
    'advice exactly where something is to do',
  );
});

/** A machine that has everything a robot on a bus needs, under a root of its own. */
function robotMachine(root: string): (content: Record<string, string>) => void {
  const put = (content: Record<string, string>): void => {
    for (const [path, text] of Object.entries(content)) {
      mkdirSync(join(root, dirname(path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
  };
  put({
    '/sys/class/net/can0/type': '280\n',
    '/sys/class/net/can0/flags': '0x40041\n',
    '/sys/class/net/can0/mtu': '72\n',
    '/dev/video0': '',
    '/models/arm/transformer/config.json': '',
    '/models/arm/vae/config.json': '',
    '/models/arm/tokenizer/tokenizer.json': '',
    '/opt/premotor-stream': '',
    '/secrets/ca.pem': '',
    '/data/kept': '',
    '/run/kept': '',
  });
  return put;
}

const robotYaml = (job: string): string => `robot:
  type: can
  bus: socketcan-fd:can0
  shared_memory: /run/premotor/bus
  joints:
    turn: {lower_rad: -1, upper_rad: 1, velocity_max_rad_per_s: 1, acceleration_max_rad_per_s2: 10, jerk_max_rad_per_s3: 100, torque_max_nm: 5}
task: {instruction: turn it}
policy: {checkpoint_dir: /models/arm, job: ${job}}
cameras: {sources: {front: {type: v4l2, device: /dev/video0}}}
control: {chunks_max: 3}
recording: {out_dir: /data/out}
telemetry: {ca_file: /secrets/ca.pem}
`;

async function needsOf(
  t: Test,
  telemetry = 'telemetry: {ca_file: /secrets/ca.pem}',
): Promise<{ put: (content: Record<string, string>) => void; root: string; look: () => Promise<Record<string, Finding>> }> {
  const dir = t.testdir({ root: {} });
  const root = join(dir, 'root');
  const put = robotMachine(root);
  writeFileSync(join(dir, 'job.json'), JSON.stringify(smallJob({ obs_cam_keys: ['front'], used_action_channel_ids: [0] })));
  writeFileSync(join(dir, 'robot.yaml'), robotYaml(join(dir, 'job.json')).replace(/^telemetry: .*$/m, telemetry));
  const { config } = await readRobotConfig(join(dir, 'robot.yaml'), VOCABULARY);
  const look = async (): Promise<Record<string, Finding>> =>
    Object.fromEntries((await examineRobot(config, new SystemFiles(root), () => '/opt/premotor-stream')).map((one) => [one.name, one]));
  return { put, root, look };
}

t.test('a configuration whose robot can start', async (t) => {
  const { look } = await needsOf(t);
  const found = await look();
  t.same(
    Object.values(found).filter(({ level }) => level === 'missing'),
    [],
  );
  t.match(found['bus'], { level: 'ok', found: 'can0 is up, FD' });
  t.match(found['job'], { level: 'ok', found: '1 action channels, cameras front' });
  t.match(found['joints'], { level: 'ok', found: '1, no workspace' });
  t.match(found['camera front'], { level: 'ok', found: '/dev/video0' });
  for (const name of ['checkpoint', 'stream process', 'shared memory', 'output folder', 'journal', 'flight recorder', 'telemetry queue', 'disk'])
    t.ok(found[name], name);
  t.match(found['real-time priority'], { level: 'warn' }, 'the stream process runs without it, and says so');
});

t.test('a broker that would not be spoken to', async (t) => {
  const { look } = await needsOf(t, 'telemetry: {broker_url: "mqtt://10.0.2.2:1883"}');
  t.match((await look())['broker'], { level: 'missing', found: /^TELEMETRY_INSECURE/, advice: /mqtts:/ });
  const other = await needsOf(t, 'telemetry: {broker_url: "mqtt://127.0.0.1:1883"}');
  t.match((await other.look())['broker'], { level: 'ok', found: 'mqtt://127.0.0.1:1883' });
  const later = await needsOf(t, 'telemetry: {broker_url: "mqtts://10.0.2.2", cert_file: /none/robot.pem, key_file: /none/robot.key}');
  const found = await later.look();
  t.equal(found['broker'], undefined, 'its files are looked at alone');
  t.match(found['telemetry.cert_file'], { level: 'warn' });
});

t.test('each thing that is taken away is found, with what to do', async (t) => {
  const { put, root, look } = await needsOf(t);
  const without = async (path: string, name: string, found: RegExp, level: Level = 'missing'): Promise<void> => {
    const [at, aside] = [join(root, path), join(root, 'aside')];
    renameSync(at, aside);
    t.match((await look())[name], { level, found, advice: /./ }, path);
    renameSync(aside, at);
  };
  await without('sys/class/net/can0', 'bus', /no interface can0/);
  await without('dev/video0', 'camera front', /no \/dev\/video0/);
  await without('models/arm/vae', 'checkpoint', /no vae in \/models\/arm/);
  await without('opt/premotor-stream', 'stream process', /no \/opt\/premotor-stream/);
  await without('secrets/ca.pem', 'telemetry.ca_file', /no \/secrets\/ca\.pem/, 'warn');
  put({ '/sys/class/net/can0/mtu': '16\n' });
  t.match((await look())['bus'], { level: 'missing', found: 'can0 is up without FD', advice: /socketcan:can0/ });
  put({ '/sys/class/net/can0/flags': '0x40040\n' });
  t.match((await look())['bus'], { level: 'missing', found: 'can0 is down', advice: /can@can0/ });
  put({ '/sys/class/net/can0/type': '1\n' });
  t.match((await look())['bus'], { level: 'missing', found: 'can0 is no CAN interface' });
  rmSync(join(root, 'data'), { recursive: true });
  put({ '/data': 'a file where the folder should be' });
  t.match((await look())['output folder'], { level: 'missing', found: /\/data\/out cannot be written \(\/data\)/ });
  const files = new SystemFiles(root);
  t.match(probeBus('slcan:/dev/ttyACM0', files), { level: 'missing', found: 'no /dev/ttyACM0', advice: /dialout/ });
  t.match(probeBus('socketcan-fd:vcan0', files), { level: 'missing', advice: /ip link add dev vcan0 type vcan/ });
  t.match(probeBus('cannelloni:1:127.0.0.1:2', files), { level: 'ok' });
});

t.test('doctor --config: exit code 1 where something is missing, as JSON too', async (t) => {
  const dir = t.testdir({
    'bad.yaml': 'robot: {type: can}\npolicy: {checkpoint_dir: none}\n',
    'sim.yaml': 'robot: {type: sim}\npolicy: {checkpoint_dir: none}\n',
  });
  const run = async (...argv: string[]): Promise<{ code: number; out: string }> => {
    const { out, context } = fakeContext({ loadNative: native });
    return { code: await runCli(['doctor', ...argv], context), out: out.text };
  };
  t.match(await run('--config', join(dir, 'bad.yaml')), {
    code: 1,
    out: /missing +configuration +.*robot\.bus: expected[\s\S]*The robot cannot start/,
  });
  t.match(await run('--config', join(dir, 'none.yaml')), { code: 1, out: /missing +configuration/ });
  t.match(await run('--config', join(dir, 'sim.yaml')), { code: 1, out: /missing +checkpoint +no transformer, vae, tokenizer in/ });
  const good = await run('--config', 'robots/sim-tabletop.yaml');
  t.match(good, { code: 0, out: /ok +configuration[\s\S]*The robot can start\.\n$/ });
  const json = await run('--config', join(dir, 'sim.yaml'), '--json');
  t.match(JSON.parse(json.out), { ok: false, findings: [{ name: 'Node.js' }, { name: 'engine' }, { name: 'configuration', level: 'ok' }] });
});
