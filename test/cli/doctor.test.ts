/** `premotor doctor` on made-up machines: a bare container, a Jetson with buses, a half-installed GPU. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { examine } from '../../src/cli/doctor.js';
import { runCli } from '../../src/cli/main.js';
import { type Finding, SystemFiles } from '../../src/cli/probes.js';
import { PremotorError } from '../../src/errors.js';
import { fakeContext, fakeNative } from './fakes.js';

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
