/**
 * Scenarios of `npm run test:image` in which premotor itself runs in the guest: hardware in the loop (real bus, real stream process, host build of
 * the bridge with simulated drives, simulated cameras), telemetry to a broker on this machine, and what the death of each process does. They need a
 * package (--deb). The robot's configuration is robots/hil-tabletop.yaml with what a test needs set.
 */
import { execFileSync, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Disk, Guest } from './guest.mjs';
import { buildTestImage, writeRobot } from './images.mjs';

/** In emulation a policy's chunk takes minutes of this machine's time. */
const state_timeout_ms = 900_000;
const broker_start_timeout_ms = 10_000;
const look_interval_ms = 3000;

const pause = (duration_ms) => new Promise((resolve) => setTimeout(resolve, duration_ms));

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const run = (program, ...args) => execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** A fleet's authority, as docs/FLEET.md has it; signs what it is given. Guests see this machine at 10.0.2.2. */
class Authority {
  constructor(folder) {
    mkdirSync(folder, { recursive: true });
    this.folder = folder;
    this.ca = join(folder, 'ca.pem');
    run('openssl', 'req', '-x509', ...this.#newKey('ca'), '-out', this.ca, '-days', '2', '-subj', '/CN=fleet');
    this.issue('broker', 'subjectAltName=IP:10.0.2.2,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n');
    this.issue('fleet-view', 'extendedKeyUsage=clientAuth\n');
  }
  #newKey(name) {
    return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', join(this.folder, `${name}.key`)];
  }
  issue(name, extensions) {
    const request = join(this.folder, `${name}.csr`);
    run('openssl', 'req', ...this.#newKey(name), '-out', request, '-subj', `/CN=${name}`);
    return this.sign(request, name, extensions);
  }
  sign(request, name, extensions) {
    const [file, extension] = [join(this.folder, `${name}.pem`), join(this.folder, `${name}.ext`)];
    writeFileSync(extension, `basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n${extensions}`);
    const signer = ['-CA', this.ca, '-CAkey', join(this.folder, 'ca.key'), '-CAcreateserial'];
    run('openssl', 'x509', '-req', '-in', request, ...signer, '-days', '2', '-extfile', extension, '-out', file);
    return file;
  }
}

/** A mosquitto with the fleet's shipped settings, and the topics that it has seen. */
async function startBroker(folder, root) {
  if (!existsSync('/usr/sbin/mosquitto')) throw new Error('expected mosquitto, found none: apt-get install mosquitto mosquitto-clients');
  const authority = new Authority(join(folder, 'fleet'));
  const port = await freePort();
  const file = join(folder, 'mosquitto.conf');
  const shipped = join(root, 'deploy', 'broker');
  copyFileSync(join(shipped, 'acl'), join(folder, 'fleet', 'acl'));
  const settings = readFileSync(join(shipped, 'mosquitto.conf'), 'utf8')
    .replaceAll('/etc/mosquitto/fleet', join(folder, 'fleet'))
    .replace('listener 8883', `listener ${port} 127.0.0.1`);
  writeFileSync(file, `${settings}user root\n`);
  const broker = spawn('/usr/sbin/mosquitto', ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  const started = new Promise((resolve, reject) => {
    let said = '';
    const timer = setTimeout(() => reject(new Error(`mosquitto does not start: ${said}`)), broker_start_timeout_ms);
    broker.stderr.on('data', (chunk) => {
      said += chunk.toString('utf8');
      if (!/running/.test(said)) return;
      clearTimeout(timer);
      resolve();
    });
  });
  await started;
  const topics = [];
  const identity = ['--cafile', authority.ca, '--cert', join(folder, 'fleet', 'fleet-view.pem'), '--key', join(folder, 'fleet', 'fleet-view.key')];
  const listener = spawn('mosquitto_sub', ['-h', '127.0.0.1', '-p', String(port), ...identity, '-t', 'spBv1.0/#', '-F', '%t'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
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
  return { port, topics, stop, authority };
}

/** The operator's part: brings the robot's request to the authority and the certificate back. */
async function certify(guest, { authority }) {
  const request = join(authority.folder, 'robot.csr');
  writeFileSync(request, await guest.output('cat /var/lib/premotor/identity/robot.csr'));
  const file = authority.sign(request, 'robot', 'extendedKeyUsage=clientAuth\n');
  // A paced guest's clock is behind by now; on a robot the network's time sets it. The service must bear that.
  await guest.output(`date -s @${Math.ceil(Date.now() / 1000) + 60}`);
  await guest.send(readFileSync(file), '/tmp/robot.pem');
  await guest.send(readFileSync(authority.ca), '/tmp/ca.pem');
  return guest.output('premotor identity install-cert /tmp/robot.pem --ca /tmp/ca.pem');
}

/** An image whose robot arms itself, runs one episode after another and tells the broker; and a disk with it. */
function runningDisk(context, port) {
  const changes = [
    ['autonomy', 'arm-on-boot'],
    ['service.run', 'loop'],
    ['telemetry.enabled', true],
    ['telemetry.broker_url', `mqtts://10.0.2.2:${port}`],
    // The guest's seconds are longer than the broker's.
    ['telemetry.keepalive_s', 600],
    ['telemetry.group_id', 'plant'],
    ['telemetry.ca_file', '/var/lib/premotor/identity/ca.pem'],
    ['telemetry.cert_file', '/var/lib/premotor/identity/robot.pem'],
    ['telemetry.key_file', '/var/lib/premotor/identity/robot.key'],
  ];
  const robot = writeRobot(context.folder, changes, { isPaced: true });
  const { arch, deb, key, folder } = context;
  const image = buildTestImage({ arch, deb, key, folder, name: 'running', robot, isPaced: true });
  return new Disk(join(context.folder, 'disk'), context.arch, image);
}

/** Until a question about the service's status is answered with yes; the status. */
export async function untilStatus(guest, ask, what, timeout_ms = state_timeout_ms) {
  const until = Date.now() + timeout_ms;
  let last;
  for (let left = 1; left > 0; left = until - Date.now()) {
    const answer = await guest.status().catch((error) => ({ ok: false, error: { message: error.message } }));
    if (answer.ok && ask(answer.status)) return answer.status;
    last = JSON.stringify(answer).slice(0, 600);
    await pause(look_interval_ms);
  }
  throw new Error(`expected ${what} within ${timeout_ms / 1000} s, found ${last}`);
}

export const untilState = (guest, states) => untilStatus(guest, ({ state }) => states.includes(state), `the state ${states.join(' or ')}`);

async function withRunningGuest(context, work) {
  const broker = await startBroker(join(context.folder, 'broker'), context.root);
  try {
    const guest = await Guest.start(runningDisk(context, broker.port), context.key, { isPaced: true });
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
    const status = await guest.status();
    const { armed, policy, remarks } = status.status;
    check.ok(armed, `armed without a person: ${status.status.state} ${JSON.stringify(status.status.reasons)}`);
    check.ok(policy.loaded, 'the policy is loaded');
    check.match(JSON.stringify(remarks), /TELEMETRY_FILE/, 'a new robot has no certificate, and says so');
    check.match(await guest.output('cat /sys/class/net/vcan0/statistics/tx_packets'), /^[1-9]/, 'frames are on the bus');
    const { cycles } = (await guest.status()).status;
    await pause(look_interval_ms);
    check.ok((await guest.status()).status.cycles > cycles, 'cycles advance');
    check.match(await guest.line(/premotor: premotor-\S+ slot A data \w+: running/), /armed/, 'the console says so');
    check.match(await certify(guest, broker), /ready|cert_file/, 'the authority signs its request');
    const { episodes } = await untilStatus(guest, ({ telemetry }) => telemetry.connected, 'telemetry that is connected');
    check.ok(true, `telemetry is connected, without a restart, after ${episodes.ended} episodes`);
    const [, node] = /^spBv1\.0\/plant\/NBIRTH\/(.+)$/.exec(broker.topics.find((topic) => topic.includes('/NBIRTH/')) ?? '') ?? [];
    check.equal(node, 'premotor-test0001', 'a broker outside the guest saw its birth');
    await untilStatus(guest, () => broker.topics.some((topic) => topic.includes('/NDATA/')), 'data at the broker');
    check.ok(true, 'and its data');
    await untilStatus(guest, (status) => status.episodes.ended > episodes.ended, 'another episode');
    check.ok(true, 'one episode after another');
  });
}

const pidOf = async (guest, find) => {
  const pid = await guest.output(`${find} | head -n 1`);
  return /^[1-9]\d*$/.test(pid) ? pid : undefined;
};

/** Every process of the product, and how its number is found in the guest. */
const processes = {
  engine: 'pgrep -f engine-process.js',
  stream: 'pgrep -x premotor-stream',
  bridge: 'pgrep -x premotor-bridge',
  supervisor: 'systemctl show -P MainPID premotor.service',
};

const isRobotFault = ({ state, armed, reasons }) => state === 'fault' && !armed && /^(STREAM|BRIDGE|ROBOT)_/.test(reasons[0]?.code ?? '');

/**
 * What is killed while an episode runs, and what must be seen then (docs/SAFETY.md, "Processes that die or stand still"). `keeps`: processes that
 * must be the same afterwards.
 */
const victims = [
  {
    name: 'engine',
    keeps: ['stream', 'bridge', 'supervisor'],
    what: 'the episode goes on with another engine, and power stays on',
    isSeen: ({ state, armed, reasons }) => ['running', 'holding'].includes(state) && armed && reasons.length === 0,
  },
  {
    name: 'stream',
    keeps: ['bridge', 'supervisor'],
    what: 'a fault that waits for somebody, and nothing is armed',
    isSeen: isRobotFault,
  },
  {
    name: 'bridge',
    keeps: ['supervisor'],
    what: 'a fault that waits for somebody, and nothing is armed',
    isSeen: isRobotFault,
  },
  {
    name: 'supervisor',
    keeps: ['stream', 'bridge'],
    what: 'another supervisor finds the robot at rest and does not go on by itself',
    isSeen: ({ state, atRest, reasons }) => ['waiting', 'ready', 'holding', 'fault'].includes(state) && atRest && reasons.length > 0,
  },
];

/** What an operator does after a fault, until an episode runs again. */
async function backToRunning(guest) {
  const until = Date.now() + state_timeout_ms;
  let last;
  while (Date.now() < until) {
    const { ok, status, error } = await guest.status().catch((thrown) => ({ ok: false, error: { message: thrown.message } }));
    last = ok ? { state: status.state, reasons: status.reasons } : error;
    if (ok && status.state === 'running') return;
    const next = { fault: 'clear', waiting: 'clear', ready: 'arm', holding: 'arm' }[ok ? status.state : ''];
    if (next !== undefined) await guest.ask({ do: next }).catch(() => undefined);
    await pause(look_interval_ms);
  }
  throw new Error(`expected a running episode within ${state_timeout_ms / 1000} s, found ${JSON.stringify(last)}`);
}

async function everyProcessDies({ check, ...context }) {
  await withRunningGuest(context, async (guest) => {
    for (const { name, keeps, what, isSeen } of victims) {
      await backToRunning(guest);
      const before = {};
      for (const [one, find] of Object.entries(processes)) before[one] = await pidOf(guest, find);
      check.ok(before[name] !== undefined, `${name} runs`);
      await guest.output(`kill -9 ${before[name]}`);
      const killed = Date.now();
      const { state, reasons } = await untilStatus(guest, isSeen, what);
      const seconds = ((Date.now() - killed) / 1000).toFixed(0);
      check.ok(true, `${name} killed: ${what}; ${state} ${reasons.map(({ code }) => code).join(' ')} (within ${seconds} s of the emulator)`);
      for (const one of keeps) check.equal(await pidOf(guest, processes[one]), before[one], `${one} is the same`);
      await backToRunning(guest);
      const after = await pidOf(guest, processes[name]);
      check.ok(after !== undefined && after !== before[name], `another ${name} runs, and an episode with it`);
    }
    check.equal(await guest.output('systemctl is-active premotor.service'), 'active', 'the service is there in the end');
  });
}

async function arm64ComputesAChunk({ check, ...context }) {
  const robot = writeRobot(context.folder, [['autonomy', 'arm-on-boot']], { isPaced: true });
  const { arch, deb, key, folder } = context;
  const image = buildTestImage({ arch, deb, key, folder, name: 'holding', robot, isPaced: true });
  const guest = await Guest.start(new Disk(join(folder, 'disk'), arch, image), key, { isPaced: true });
  try {
    await guest.reachable();
    check.equal(await guest.output('uname -m'), 'aarch64', 'an arm64 system');
    const status = await untilState(guest, ['holding']);
    check.ok(status.armed && status.policy.loaded, 'armed without a person, and holding');
    const answer = await guest.output('premotor selftest /var/lib/premotor/config/current/robot.yaml --json', { timeout_ms: state_timeout_ms });
    check.equal(JSON.parse(answer).matches, true, 'the self-test chunk matches its hash');
    check.equal((await guest.status()).status.state, 'holding', 'and the robot holds all the same');
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
  {
    name: 'arm64 boots to holding and computes one self-test chunk',
    arch: 'arm64',
    needs: ['premotor'],
    hasOwnImage: true,
    run: arm64ComputesAChunk,
  },
];
