/**
 * The stream process and the firmware as real processes on a cannelloni bus: arming, following, feedback, what a death or a stall of each of them
 * does. States are asserted, and times only where a process says them in its own clock: a host may stall for tens of milliseconds at any moment.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { ArmKinematics } from '../../src/kinematics/arm-kinematics.js';
import type { Pose } from '../../src/kinematics/pose.js';
import { parseUrdf } from '../../src/kinematics/urdf.js';
import { loadNative, type NativeStreamClient } from '../../src/native.js';
import { StreamProcess, workspaceOf } from '../../src/robot/stream-process.js';
import { urdfText } from '../kinematics/robots.js';
import { alone } from '../support/real-time.js';
import { home, isFollowing, joint, makeRig, motionOf, ms, type Rig, type RigOptions, setsInLog, until, wave } from '../support/stream-rig.js';

await alone(t);

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const faultCodes = { estop: 1, hostLost: 2, feedbackLost: 7 };
/** The bridge acts in the tick in which 100 ms are over, at the latest two ticks later. */
const watchdog_us = 100_000;
const ticks_us = 500;
const limits = { velocity: joint.velocityMaxRadPerS * 1.0001, acceleration: joint.accelerationMaxRadPerS2 + 0.2 };

async function rigOf(t: Test, options: RigOptions = {}): Promise<Rig> {
  const rig = await makeRig(options);
  t.teardown(() => {
    rig.bridge.kill();
    rmSync(rig.folder, { recursive: true, force: true });
  });
  return rig;
}

async function openOn(t: Test, rig: Rig): Promise<StreamProcess> {
  const robot = await StreamProcess.open({ configuration: rig.configuration, output: rig.output });
  t.teardown(() => {
    if (isAliveProcess(robot.pid)) process.kill(robot.pid, 'SIGKILL');
    robot.detach();
  });
  return robot;
}

async function arm(client: NativeStreamClient, liveness: bigint): Promise<void> {
  client.arm(liveness);
  await until('armed', () => client.status().stream === 'holding' && client.status().link === 'armed');
}

/**
 * Sets the robot in motion, for two seconds unless told otherwise; it is well on its way then. A host that stalls for longer than the bridge waits
 * makes both sides stop, as it should; such a start does not count.
 */
async function move(client: NativeStreamClient, sequence: bigint, liveness: bigint, knots = 100): Promise<void> {
  for (let starts = 1; ; starts++) {
    const from = client.status().setpointRad;
    const plan = wave(from, { nowNs: client.nowNs(), sequence, liveness, knots });
    if (!client.push(plan)) throw new Error('the timeline is full');
    const isOnItsWay = (): boolean =>
      isFollowing(client.status()) && Math.abs((client.status().setpointRad[0] as number) - (from[0] as number)) > 0.05;
    const isLatched = (): boolean => client.status().faultCode !== '' || client.status().linkFault !== null;
    await until('following', () => isOnItsWay() || isLatched()).catch((error: Error) => {
      const shown = JSON.stringify(client.status(), (_, value) => (typeof value === 'bigint' ? String(value) : value));
      throw new Error(`${error.message}; status: ${shown}`);
    });
    if (isOnItsWay()) return;
    if (starts === 3) throw new Error(`latched at every start: ${client.status().faultCode} ${client.status().linkFault?.message}`);
    await arm(client, liveness);
  }
}

/** A control cycle that decides to go on as planned, ten times a second: without it the bridge latches "token stale" after one. */
function goOnDeciding(t: Test, client: NativeStreamClient): void {
  const timer = setInterval(() => {
    try {
      client.beat(client.nowNs() + 1000n * ms);
    } catch {
      clearInterval(timer); // the test is over and has detached
    }
  }, 100);
  t.teardown(() => clearInterval(timer));
}

function isAliveProcess(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

t.test('a wrong start is an error that says why', async (t) => {
  const rig = await rigOf(t);
  const { configuration } = rig;
  await t.rejects(StreamProcess.open({ configuration: { ...configuration, bus: 'canopener:1' } }), { code: 'ARGUMENT_INVALID' });
  await t.rejects(StreamProcess.open({ configuration: { ...configuration, bus: 'slcan:/dev/no-such-device' } }), { code: 'CAN_DEVICE_MISSING' });
  await t.rejects(StreamProcess.open({ configuration: { ...configuration, gapMs: -1 } }), { code: 'STREAM_PROCESS_CONFIG', message: /gapMs.*20 to/ });
  const misspelt = { ...configuration, planerGraceMs: 20 };
  await t.rejects(StreamProcess.open({ configuration: misspelt }), { code: 'STREAM_PROCESS_CONFIG', message: /planerGraceMs/ });
  const slow = { ...joint, velocityMaxRadPerS: 0 };
  await t.rejects(StreamProcess.open({ configuration: { ...configuration, joints: [slow] } }), { code: 'STREAM_LIMITS' });
  await t.rejects(StreamProcess.open({ configuration, program: join(rig.folder, 'nothing') }), { code: 'STREAM_PROCESS_START', message: /ENOENT/ });
  await t.rejects(StreamProcess.open({ configuration, program: '/bin/true' }), { code: 'STREAM_PROCESS_START' });
  const nowhere = { ...configuration, sharedMemory: join(rig.folder, 'no', 'folder') };
  await t.rejects(StreamProcess.open({ configuration: nowhere }), { code: 'STREAM_PROCESS_MEMORY' });
  t.same(
    readdirSync(rig.folder).filter((name) => !/json|lock|log/.test(name)),
    [],
    'no shared memory is left behind',
  );
});

t.test('one robot: one process, one supervisor, one configuration', async (t) => {
  const rig = await rigOf(t);
  const robot = await openOn(t, rig);
  t.equal(robot.isNew, true);
  t.match(robot.client.info(), { joints: 3, periodNs: ms, leadNs: 4n * ms, generation: 1 });
  const known = /^STREAM_REALTIME_(PRIORITY|MEMORY|CORE|SLEEP)$/;
  for (const { code, message } of robot.client.warnings()) t.ok(known.test(code) && message.length > 20, `${code} says what to do`);
  await t.rejects(StreamProcess.open({ configuration: rig.configuration }), {
    code: 'STREAM_PROCESS_BUSY',
    message: new RegExp(`process ${process.pid}`),
  });
  robot.detach();
  t.throws(() => robot.client.arm(1n), { code: 'STREAM_PROCESS_DETACHED' });
  await t.rejects(StreamProcess.open({ configuration: { ...rig.configuration, leadUs: 5000 } }), { code: 'STREAM_PROCESS_CONFIG' });
  const again = await openOn(t, rig);
  t.match({ isNew: again.isNew, pid: again.pid, generation: again.client.info().generation }, { isNew: false, pid: robot.pid, generation: 3 });
  await again.stop();
  await again.stop();
  await until('its end', () => !isAliveProcess(robot.pid));
  t.match(rig.streamEvents().at(-1), { event: 'end', atRest: true });
  t.throws(() => new (loadNative().StreamClient)(rig.configuration.sharedMemory), { code: 'STREAM_PROCESS_MISSING' });
});

t.test('arm, follow, feedback, stop of both categories', async (t) => {
  const rig = await rigOf(t);
  const robot = await openOn(t, rig);
  const { client } = robot;
  t.match(await rig.bridge.report(), { state: /^(silent|disarmed)$/, isPowered: false }, 'the bridge is looked for, but gives no power unasked');
  await arm(client, 7n);
  t.ok(
    client.status().setpointRad.every((rad, j) => Math.abs(rad - (home[j] as number)) < 1e-3),
    'the first setpoint is the measured pose',
  );
  goOnDeciding(t, client);
  await move(client, 1n, 7n, 60);
  await until('the plan has ended', () => client.status().stream === 'holding');
  const executed = client.executed();
  t.ok(executed.length >= 55 && executed.every((one, i) => i === 0 || one.timeNs > (executed[i - 1]?.timeNs as bigint)), 'executed knots come back');
  t.equal(executed.at(-1)?.knot, 59, 'up to the last one');
  const { count, timesNs, hasSetpoint, positionRad, setpointRad } = client.samples();
  t.ok(count > 500 && hasSetpoint[count - 1] === 1, `${count} cycles of the process were told`);
  const times = timesNs.slice(0, count);
  t.ok(
    times.every((timeNs, cycle) => cycle === 0 || timeNs > (times[cycle - 1] as bigint)),
    'in order',
  );
  const ends = [0, 1, 2].map((j) => [positionRad[3 * (count - 1) + j], setpointRad[3 * (count - 1) + j]] as [number, number]);
  t.ok(
    ends.every(([measured, told]) => Math.abs(measured - told) < 0.05),
    'with what was told and measured',
  );
  const status = client.status();
  t.ok(
    status.measuredRad.every((rad, j) => Math.abs(rad - (status.setpointRad[j] as number)) < 0.05),
    'feedback: the axes are where they were told to be',
  );
  const { counters } = await rig.bridge.report();
  t.ok((counters[10] as number) > 500, `the bridge accepted ${counters[10]} sets`);
  const late = wave(client.status().setpointRad, { nowNs: client.nowNs() - 60_000n * ms, sequence: 2n, liveness: 7n, knots: 10 });
  t.ok(client.push(late));
  await until('judged', () => client.status().judgedSequence === 2n);
  t.equal(client.status().refusal, 'STREAM_CHUNK_STALE');
  await move(client, 3n, 7n);
  client.stop(2);
  await until('category 2: at rest, powered', () => client.status().stream === 'holding' && client.status().isAtRest);
  t.match({ link: client.status().link, report: await rig.bridge.report() }, { link: 'armed', report: { isPowered: true, fault: 0 } });
  await move(client, 4n, 7n);
  client.stop(1);
  await until('category 1: at rest, power off', () => client.status().stream === 'disarmed' && client.status().link === 'ready');
  t.match(await rig.bridge.report(), { state: 'disarmed', isPowered: false, fault: 0 });
  const { cycles, setsSent } = client.loopCounts();
  const { wakeUp, cycle, frameAge } = client.histograms();
  t.ok(wakeUp.count >= cycles && cycle.count >= cycles && frameAge.count >= 500 && setsSent >= 500, 'histograms count every cycle');
  t.ok(wakeUp.p50Ns <= wakeUp.p99Ns && wakeUp.p99Ns <= wakeUp.maxNs && wakeUp.buckets.length > 0);
  await robot.stop();
  for (let axis = 0; axis < home.length; axis += 1) {
    const { velocity, acceleration } = motionOf(setsInLog(rig.configuration.log as string, axis));
    t.ok(velocity <= limits.velocity && acceleration <= limits.acceleration, `axis ${axis}: limits kept on the bus, ${velocity} ${acceleration}`);
  }
});

t.test('the supervisor is killed: decelerate, hold, latch; its successor takes over without a step', async (t) => {
  const rig = await rigOf(t, { stream: { plannerGraceMs: 50 } });
  const supervisor = join(root, 'test', 'support', 'stream-supervisor.ts');
  const child = spawn(process.execPath, ['--import=tsx', supervisor, JSON.stringify(rig.configuration), rig.output], {
    stdio: ['ignore', 'pipe', 2],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const plans: { sequence: string; endNs: string }[] = [];
  createInterface({ input: child.stdout as Readable }).on('line', (line) => plans.push(JSON.parse(line)));
  await until('three plans', () => plans.length >= 3);
  t.throws(() => new (loadNative().StreamClient)(rig.configuration.sharedMemory), {
    code: 'STREAM_PROCESS_BUSY',
    message: new RegExp(`${child.pid}`),
  });
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  const robot = await openOn(t, rig);
  const { client } = robot;
  t.equal(robot.isNew, false, 'the stream process outlived it');
  t.match(client.status(), { stream: 'following', link: 'armed', faultCode: '' }, 'and goes on with the plan there is');
  const { judgedSequence } = client.status();
  const endNs = plans.find((plan) => plan.sequence === `${judgedSequence}`)?.endNs;
  await until('the silence is latched', () => client.status().faultCode === 'STREAM_PLANNER_LOST' && client.status().isAtRest);
  t.match(client.status(), { stream: 'fault', link: 'armed', linkFault: null }, 'at rest, with power');
  t.match(await rig.bridge.report(), { state: 'following', isPowered: true, fault: 0 }, 'the bridge is told to stand');
  await until('its event', () => rig.streamEvents().some((event) => event.fault === 'STREAM_PLANNER_LOST'));
  const latched = rig.streamEvents().find((event) => event.fault === 'STREAM_PLANNER_LOST');
  // The cycle whose setpoint lies 50 ms behind the plan's end left a lead earlier; the loop may have woken up late for it.
  const after_ms = (latched?.timeUs as number) / 1000 - Number(endNs) / 1e6 + 4;
  const late_ms = client.histograms().wakeUp.maxNs / 1e6;
  t.ok(after_ms >= 50 && after_ms <= 52 + late_ms, `latched ${after_ms.toFixed(2)} ms after the plan's end, latest wake-up ${late_ms.toFixed(2)} ms`);
  const { velocity, acceleration } = motionOf(setsInLog(rig.configuration.log as string, 0));
  t.ok(velocity > 0.1 && velocity <= limits.velocity && acceleration <= limits.acceleration, `no step at the takeover: ${acceleration} rad/s^2`);
  const held = client.status().setpointRad;
  await arm(client, 12n);
  t.ok(
    client.status().setpointRad.every((rad, j) => Math.abs(rad - (held[j] as number)) < 0.02),
    're-armed where it stands, within what the bridge allows a first setpoint',
  );
  await move(client, 1n, 12n);
  t.equal((await rig.bridge.report()).fault, 0, 'and it follows its new supervisor');
  await robot.stop();
});

t.test('the stream process is killed: the bridge stops by itself within its watchdog', async (t) => {
  const rig = await rigOf(t);
  const robot = await openOn(t, rig);
  await arm(robot.client, 7n);
  await move(robot.client, 1n, 7n);
  process.kill(robot.pid, 'SIGKILL');
  const fault = await rig.bridge.events.find('a fault', (event) => event.fault > 0);
  t.equal(fault.fault, faultCodes.hostLost);
  t.ok(fault.sinceFreshUs > watchdog_us && fault.sinceFreshUs <= watchdog_us + ticks_us, `${fault.sinceFreshUs} us after the last accepted set`);
  const slowing = rig.bridge.events.all.findLast((event) => event.state === 'slowing');
  t.ok((slowing?.timeUs as number) < fault.timeUs, 'the deceleration began before');
  await rig.bridge.events.find('latched', (event) => event.state === 'fault');
  const report = await rig.bridge.report();
  t.match(report, { state: 'fault', isPowered: true }, 'it holds, with power');
  await until('the process is gone', () => !robot.isAlive);
  const later = await rig.bridge.report();
  t.same(later.referenceRad, report.referenceRad, 'its motors are told to stand');
  robot.detach();
  const again = await openOn(t, rig);
  t.equal(again.isNew, true, 'a new process takes the path of the dead one');
  await arm(again.client, 8n);
  t.equal((await rig.bridge.report()).fault, 0, 'arming clears the fault');
  await again.stop();
});

t.test('the stream process stands still and comes back: no step', async (t) => {
  // The bound that this test is about.
  const rig = await rigOf(t, { stream: { gapMs: 100 } });
  const log = rig.configuration.log as string;
  const robot = await openOn(t, rig);
  const { client } = robot;
  await arm(client, 7n);
  await move(client, 1n, 7n);
  process.kill(robot.pid, 'SIGSTOP');
  const fault = await rig.bridge.events.find('a fault', (event) => event.fault > 0);
  t.equal(fault.fault, faultCodes.hostLost);
  t.ok(fault.sinceFreshUs > watchdog_us && fault.sinceFreshUs <= watchdog_us + ticks_us, `${fault.sinceFreshUs} us after the last accepted set`);
  await rig.bridge.events.find('latched', (event) => event.state === 'fault');
  const stopped = await rig.bridge.report();
  process.kill(robot.pid, 'SIGCONT');
  await until('the stream has seen it', () => client.status().stream === 'fault' && client.status().isAtRest);
  // Its own clock says so before a frame of the bridge does: more frames wait than one cycle takes.
  t.equal(client.status().faultCode, 'STREAM_GAP');
  await until('the bridge has told it', () => client.status().linkFault?.code === 'BRIDGE_FAULT');
  const report = await rig.bridge.report();
  t.same(report.referenceRad, stopped.referenceRad, 'the motors are told the same as before');
  t.match(report, { state: 'fault', fault: faultCodes.hostLost });
  t.ok(client.loopCounts().skipped >= 99, `${client.loopCounts().skipped} cycles were skipped`);
  await arm(client, 8n);
  t.equal((await rig.bridge.report()).fault, 0, 'arming clears both sides');
  await robot.stop();
  const sets = setsInLog(log, 0);
  const gap = sets.findIndex((set, i) => i > 0 && set.dueUs - (sets[i - 1]?.dueUs as number) > 90_000);
  t.ok(gap > 100, 'the gap is in the log');
  // Twenty cycles around it: the sets that left before the link heard of the bridge's fault.
  const { velocity, acceleration } = motionOf(sets.slice(0, gap + 1));
  t.ok(velocity <= limits.velocity && acceleration <= limits.acceleration, `limits kept on the bus across the gap: ${velocity} ${acceleration}`);
});

for (const category of [1, 2] as const) {
  t.test(`SIGTERM, category ${category}`, async (t) => {
    const rig = await rigOf(t, { stream: { stopCategory: category } });
    const robot = await openOn(t, rig);
    await arm(robot.client, 7n);
    await move(robot.client, 1n, 7n);
    await robot.stop();
    t.match(rig.streamEvents().at(-1), { event: 'end', atRest: true });
    const sets = setsInLog(rig.configuration.log as string, 0);
    t.equal(sets.at(-1)?.velocityRadPerS, 0, 'the last set stands still');
    const { velocity, acceleration } = motionOf(sets);
    t.ok(velocity <= limits.velocity && acceleration <= limits.acceleration, 'limits were kept');
    if (category === 1) {
      t.match(await rig.bridge.report(), { state: 'disarmed', isPowered: false, fault: 0 }, 'power is off');
    } else {
      // Nobody sends sets any more: the bridge keeps the power on, and says that it has lost its host.
      await rig.bridge.events.find('latched', (event) => event.state === 'fault');
      t.match(await rig.bridge.report(), { state: 'fault', isPowered: true, fault: faultCodes.hostLost }, 'power is kept');
    }
  });
}

t.test('e-stop, and a motor that falls silent', async (t) => {
  const rig = await rigOf(t);
  const robot = await openOn(t, rig);
  const { client } = robot;
  await arm(client, 7n);
  await move(client, 1n, 7n);
  client.estop();
  await until('latched', () => client.status().faultCode === 'STREAM_ESTOP' && client.status().isAtRest);
  await rig.bridge.events.find('latched', (event) => event.state === 'fault');
  t.match(await rig.bridge.report(), { fault: faultCodes.estop, isPowered: false });
  await arm(client, 8n);
  const from = rig.bridge.events.all.length;
  rig.bridge.tell({ axis: 1, mute: true });
  const lost = await rig.bridge.events.find('feedback lost', (event) => event.fault === faultCodes.feedbackLost, from);
  t.equal(lost.axis, 1);
  await until('told', () => client.status().linkFault?.fault === faultCodes.feedbackLost);
  t.match(client.status(), { stream: 'fault', faultCode: 'BRIDGE_FAULT', linkFault: { axis: 1, message: /feedback lost \(axis 1\)/ } });
  rig.bridge.tell({ axis: 1, mute: false });
  await arm(client, 9n);
  t.equal((await rig.bridge.report()).fault, 0, 'armed again once the cause is gone');
  await robot.stop();
});

t.test('a workspace: the path that would leave it is left, and wrong boxes are refused', async (t) => {
  const chain = parseUrdf(urdfText('sim-arm'), { base: 'base', tip: 'tip' });
  const kinematics = ArmKinematics.open(chain);
  const start = [...home, 0.1];
  const tip = kinematics.forward(start).positionM;
  const box = { lowerM: tip.map((value) => value - 0.05) as never, upperM: tip.map((value) => value + 0.05) as never };
  const mount: Pose = { positionM: [0, 0, 0], quaternion: [0, 0, 0, 1] };
  const workspaces = [workspaceOf(chain, mount, 0, box)];
  const rig = await rigOf(t, { joints: 4, stream: { workspaces } });
  const robot = await openOn(t, rig);
  goOnDeciding(t, robot.client);
  await arm(robot.client, 3n);
  const from = robot.client.status().setpointRad;
  const plan = wave(from, { nowNs: robot.client.nowNs(), sequence: 1n, liveness: 3n, knots: 100 });
  t.ok(robot.client.push(plan));
  await until('stopped at the wall', () => robot.client.status().faultCode === 'STREAM_WORKSPACE' && robot.client.status().isAtRest);
  const end = kinematics.forward(robot.client.status().setpointRad).positionM;
  end.forEach((value, axis) => void t.ok(Math.abs(value - (tip[axis] ?? 0)) < 0.055, `axis ${axis}: ${value} m`));
  await robot.stop();
  const wrong = { ...rig.configuration, workspaces: [{ ...workspaces[0], lowerM: [1, 2] }] } as never;
  await t.rejects(StreamProcess.open({ configuration: wrong }), { code: 'STREAM_PROCESS_CONFIG', message: /lowerM/ });
});

t.test('steps of the wall clock cannot matter: nothing here reads it', (t) => {
  const clocks = /CLOCK_REALTIME|system_clock|gettimeofday|\btime\(nullptr\)/;
  for (const folder of ['motion', 'stream', 'can', 'rig', 'programs']) {
    for (const name of readdirSync(join(root, 'cpp', folder))) {
      t.notMatch(readFileSync(join(root, 'cpp', folder, name), 'utf8'), clocks, `cpp/${folder}/${name}`);
    }
  }
  t.match('std::chrono::system_clock::now()', clocks, 'the pattern can fail');
  t.end();
});
