/**
 * Scenarios of `npm run test:image` in which premotor itself runs in the guest: hardware in the loop (real bus, real stream process, host build of
 * the bridge with simulated drives, simulated cameras), telemetry to a broker on this machine, and what the death of each process does. They need a
 * package (--deb). The robot's configuration is robots/hil-tabletop.yaml with what a test needs set.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Disk, Guest } from './guest.mjs';
import { buildTestImage, writeRobot } from './images.mjs';

/** In emulation a policy's chunk takes minutes of this machine's time. */
const state_timeout_ms = 900_000;
const broker_start_timeout_ms = 10_000;
const settle_timeout_ms = 120_000;
const look_interval_ms = 3000;

const pause = (duration_ms) => new Promise((resolve) => setTimeout(resolve, duration_ms));

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A mosquitto on loopback, which guests reach at 10.0.2.2, and the topics that it has seen. */
async function startBroker(folder) {
  if (!existsSync('/usr/sbin/mosquitto')) throw new Error('expected mosquitto, found none: apt-get install mosquitto mosquitto-clients');
  mkdirSync(folder, { recursive: true });
  const port = await freePort();
  const file = join(folder, 'mosquitto.conf');
  writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\n`);
  const broker = spawn('/usr/sbin/mosquitto', ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  const started = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('mosquitto does not start')), broker_start_timeout_ms);
    broker.stderr.on('data', (chunk) => {
      if (!/running/.test(chunk.toString('utf8'))) return;
      clearTimeout(timer);
      resolve();
    });
  });
  await started;
  const topics = [];
  const listener = spawn('mosquitto_sub', ['-p', String(port), '-t', 'spBv1.0/#', '-F', '%t'], { stdio: ['ignore', 'pipe', 'ignore'] });
  listener.stdout.on('data', (chunk) =>
    topics.push(
      ...chunk
        .toString('utf8')
        .split('\n')
        .filter((line) => line !== ''),
    ),
  );
  const stop = () => {
    listener.kill();
    broker.kill();
  };
  return { port, topics, stop };
}

/** An image whose robot arms itself, runs one episode after another and tells the broker; and a disk with it. */
function runningDisk(context, port) {
  const robot = writeRobot(context.folder, [
    ['autonomy', 'arm-on-boot'],
    ['service.run', 'loop'],
    ['telemetry.enabled', true],
    ['telemetry.broker_url', `mqtt://10.0.2.2:${port}`],
  ]);
  const image = buildTestImage({ arch: context.arch, deb: context.deb, key: context.key, folder: context.folder, name: 'running', robot });
  return new Disk(join(context.folder, 'disk'), context.arch, image);
}

/** Waits until the service is in one of the states; throws with its reasons when it is not in time. */
async function untilState(guest, states, timeout_ms = state_timeout_ms) {
  const until = Date.now() + timeout_ms;
  let last = 'no answer';
  for (let left = 1; left > 0; left = until - Date.now()) {
    const answer = await guest.status().catch((error) => ({ ok: false, error: { message: error.message } }));
    if (answer.ok && states.includes(answer.status.state)) return answer.status;
    last = JSON.stringify(answer.ok ? { state: answer.status.state, reasons: answer.status.reasons } : answer.error);
    await pause(look_interval_ms);
  }
  throw new Error(`expected ${states.join(' or ')} within ${timeout_ms / 1000} s, found ${last}`);
}

async function withRunningGuest(context, work) {
  const broker = await startBroker(join(context.folder, 'broker'));
  try {
    const guest = await Guest.start(runningDisk(context, broker.port), context.key);
    try {
      await guest.reachable();
      await untilState(guest, ['running']);
      await work(guest, broker);
    } finally {
      await guest.powerCut();
    }
  } finally {
    broker.stop();
  }
}

async function bootsToRunning({ check, ...context }) {
  await withRunningGuest(context, async (guest, broker) => {
    const { armed, telemetry, policy } = (await guest.status()).status;
    check.ok(armed, 'armed without a person');
    check.ok(policy.loaded, 'the policy is loaded');
    check.ok(telemetry.connected, 'telemetry is connected');
    check.ok(
      broker.topics.some((topic) => /\/NBIRTH\//.test(topic)),
      'a broker outside saw the birth',
    );
    check.match(await guest.output('cat /sys/class/net/vcan0/statistics/tx_packets'), /^[1-9]/, 'frames are on the bus');
    const { cycles } = (await guest.status()).status;
    await pause(settle_timeout_ms / 4);
    check.ok((await guest.status()).status.cycles > cycles, 'cycles advance');
    check.match(await guest.line(/premotor: premotor-\S+ slot A data \w+: running/), /armed/, 'the console says so');
  });
}

/** Every process of the product, and what must be true afterwards. docs/SAFETY.md has the times; an emulator cannot measure them. */
const victims = [
  { name: 'the engine', pattern: 'engine', states: ['running', 'holding', 'ready', 'waiting', 'fault'] },
  { name: 'the stream process', pattern: 'premotor-stream', states: ['fault', 'waiting', 'ready', 'holding', 'running'] },
  { name: 'the bridge', pattern: 'premotor-bridge', states: ['fault', 'waiting', 'ready', 'holding', 'running'] },
  { name: 'the supervisor', pattern: 'premotor service|main.js service', states: ['waiting', 'ready', 'holding', 'running', 'fault'] },
];

async function everyProcessDies({ check, ...context }) {
  await withRunningGuest(context, async (guest) => {
    for (const { name, pattern, states } of victims) {
      const before = await guest.output(`pgrep -f ${JSON.stringify(pattern)} | head -n 1 || true`);
      check.match(before, /^\d+$/, `${name} runs`);
      await guest.output(`kill -9 ${before}`);
      const { state } = await untilState(guest, states, state_timeout_ms);
      check.ok(true, `${name} killed: ${state}`);
      check.equal(await guest.output(`kill -0 ${before} 2>/dev/null && echo alive || echo gone`), 'gone', `${name} is gone`);
    }
    check.equal(await guest.output('systemctl is-active premotor.service'), 'active', 'the service is there in the end');
  });
}

async function arm64ComputesAChunk({ check, disk, ...context }) {
  const guest = await Guest.start(disk('arm64'), context.key);
  try {
    await guest.reachable();
    check.equal(await guest.output('uname -m'), 'aarch64', 'an arm64 system');
    await untilState(guest, ['ready', 'holding']);
    check.ok(true, 'ready');
    const answer = await guest.output('premotor selftest /var/lib/premotor/config/current/robot.yaml --json', { timeout_ms: state_timeout_ms });
    check.equal(JSON.parse(answer).ok, true, 'the self-test chunk matches its hash');
  } finally {
    await guest.powerCut();
  }
}

export const scenarios = [
  {
    name: 'a robot boots headless to running, and a broker outside sees it',
    arch: 'amd64',
    needs: ['premotor'],
    hasOwnImage: true,
    run: bootsToRunning,
  },
  { name: 'kill -9 of every process of the product in turn', arch: 'amd64', needs: ['premotor'], hasOwnImage: true, run: everyProcessDies },
  { name: 'arm64 boots to ready and computes one self-test chunk', arch: 'arm64', needs: ['premotor'], run: arm64ComputesAChunk },
];
