/**
 * The service with the simulated robot in virtual time: every way through its states, what it refuses and why, what systemd hears, and that
 * nothing that comes over a network arms it.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { FrameSource } from '../../src/cameras/source.js';
import type { RobotConfig } from '../../src/config/schema.js';
import { PremotorError } from '../../src/errors.js';
import type { Indication } from '../../src/robot/robot.js';
import { openRig, type Rig } from '../../src/runtime/rig.js';
import { Starts } from '../../src/service/starts.js';
import { atHome, FakePolicy } from '../control/fakes.js';
import { expertPolicy } from '../support/expert-policy.js';
import { Harness, shortDir } from './harness.js';

/** Episodes take their time on a busy machine. */
t.setTimeout(240_000);

/** A robot whose front camera delivers nothing until it is plugged in. */
function latePlug(): { readonly openRig: typeof openRig; plug: () => void } {
  let isIn = false;
  return {
    plug: () => {
      isIn = true;
    },
    openRig: async (config) => {
      const rig = await openRig(config);
      const { cameras } = rig;
      const late: FrameSource = {
        cameras: cameras.cameras,
        capture: async () => (isIn ? cameras.capture() : []),
        close: () => cameras.close(),
      };
      return { ...rig, cameras: late };
    },
  };
}

t.test('a person arms it; episodes come and go; it ends in order', async (t) => {
  const policy = await expertPolicy('touch', 3);
  const one = new Harness(t, { policy: async () => policy });
  await one.reaches('ready');
  t.equal(statSync(one.socket).mode & 0o777, 0o660);
  t.match(await one.status(), {
    state: 'ready',
    armed: false,
    reasons: [],
    autonomy: 'local-arm',
    policy: { loaded: true },
    maintenance: { on: false },
  });
  await t.rejects(one.ask({ do: 'run' }), { code: 'SERVICE_STATE' }, 'nothing runs before it is armed');
  t.match(await one.ask({ do: 'arm' }), { state: 'holding', armed: true, atRest: true });
  await one.looks(2);
  t.equal(one.service.state, 'holding', 'run: none begins nothing');
  t.match(await one.ask({ do: 'run' }), { state: 'running' });
  await t.rejects(one.ask({ do: 'disarm' }), { code: 'SERVICE_STATE' });
  await one.reaches('holding');
  t.match(await one.status(), { armed: true, episodes: { ended: 1, succeeded: 1, last: 'reached' } });
  await t.rejects(one.ask({ do: 'run', task: 'dance' }), { code: 'SIM_TASK' }, 'a task that is none is refused');
  t.match(await one.status(), { state: 'holding', armed: true, reasons: [] });
  // The simulated world has been used: it is set up anew.
  await one.ask({ do: 'run', seed: 4 });
  await one.reaches('holding');
  t.match(await one.status(), { armed: true, episodes: { ended: 2 } });
  t.equal(one.watcher.begun, 2);
  t.equal(one.watcher.ended, 2);
  t.notOk(policy.isClosed, 'the policy outlives the episodes');
  t.match(await one.ask({ do: 'disarm' }), { armed: false });
  await one.reaches('ready');
  await one.end();
  await one.done;
  t.ok(policy.isClosed);
  t.notOk(existsSync(one.socket));
  t.same(one.path.slice(-3), ['stopping', 'waiting', 'ready']);
  t.equal(one.told[0], 'READY=1');
  t.equal(one.told.at(-1), 'STOPPING=1');
  t.ok(one.told.includes('WATCHDOG=1') && one.told.some((text) => /^STATUS=holding/.test(text)));
});

t.test('arm-on-boot waits for a camera that comes late, says so, and arms itself once', async (t) => {
  const { openRig, plug } = latePlug();
  const one = new Harness(t, { openRig, more: 'autonomy: arm-on-boot' });
  await one.reaches('waiting');
  const { reasons } = await one.until(({ reasons: found }) => found.length === 2);
  t.match(reasons, [{ code: 'CAMERA_MISSING' }, { code: 'CAMERA_MISSING' }], 'each camera by itself');
  await t.rejects(one.ask({ do: 'arm' }), { code: 'SERVICE_STATE', message: /CAMERA_MISSING/ });
  await one.looks(2);
  t.match(one.watcher.reports.at(-1), { state: 'waiting', isArmed: false, reasons: [{ code: 'CAMERA_MISSING' }, {}] });
  plug();
  await one.reaches('holding');
  t.same(one.path, ['starting', 'waiting', 'ready', 'arming', 'holding']);
  await one.ask({ do: 'disarm' });
  await one.reaches('ready');
  await one.looks(3);
  t.equal(one.service.state, 'ready', 'after a disarm a person is needed');
});

t.test('a robot that is not set up anew learns what each episode is about, or says why not', async (t) => {
  const told: RobotConfig['task'][] = [];
  const one = new Harness(t, {
    openRig: async (config) => {
      const { snapshot: _, ...rig } = await openRig(config);
      const checkTask = ({ name }: RobotConfig['task']): void => {
        if (name === 'push') throw new PremotorError('SIM_TASK', 'Another table.');
      };
      const setTask = (task: RobotConfig['task']): void => {
        if (task.name === 'press-n') throw new PremotorError('SIM_LAYOUT', 'No room.');
        told.push(task);
      };
      // Without a snapshot it counts as real, and so has a link.
      return { ...rig, checkTask, setTask, status: () => ({ ...rig.status(), link: 'armed' }) };
    },
  });
  await one.reaches('ready');
  await one.ask({ do: 'arm' });
  await one.ask({ do: 'run' });
  await one.reaches('holding');
  t.same(told, [], 'the first is what it was opened for');
  await one.ask({ do: 'run', seed: 7, instruction: 'touch it' });
  await one.reaches('holding');
  t.match(told, [{ name: 'touch', seed: 7, instruction: 'touch it' }]);
  await t.rejects(one.ask({ do: 'run', task: 'push' }), { code: 'SIM_TASK' }, 'what cannot begin is refused');
  t.match(await one.status(), { state: 'holding', armed: true, reasons: [] }, 'and nothing has changed');
  await one.ask({ do: 'run', task: 'press-n' });
  await one.reaches('fault');
  t.match((await one.status()).reasons, [{ code: 'SIM_LAYOUT' }], 'what fails later is a fault');
});

t.test('told to end while an episode runs: a controlled stop, then STOPPING=1', async (t) => {
  const one = new Harness(t);
  await one.reaches('ready');
  await one.ask({ do: 'arm' });
  const moving = one.next(({ event }) => event === 'chunk');
  await one.ask({ do: 'run' });
  await moving;
  const before = one.told.length;
  await one.end();
  const states = one.entries.filter(({ event }) => event === 'cycle').map(({ fields }) => fields['to']);
  t.same(states, ['armed', 'running', 'stopping', 'holding', 'disarmed']);
  t.same(one.path.slice(-3), ['running', 'stopping', 'waiting']);
  t.equal(one.told.at(-1), 'STOPPING=1');
  t.ok(
    one.told.slice(before).some((text) => /^STATUS=waiting/.test(text)),
    'it had come to rest before',
  );
});

t.test('a stop from telemetry stops and disarms; only somebody local arms again', async (t) => {
  const one = new Harness(t, { more: 'autonomy: arm-on-boot', service: 'run: loop, pause_s: 0' });
  const moving = one.next(({ event }) => event === 'chunk');
  await one.reaches('running');
  await moving;
  one.watcher.control?.requestStop('asked for over MQTT');
  await one.reaches('ready');
  await one.looks(3);
  t.match(await one.status(), { state: 'ready', armed: false, reasons: [{ code: 'STOPPED' }] });
  t.match(await one.ask({ do: 'arm' }), { state: 'holding' });
  await one.reaches('running');
  one.watcher.control?.requestStop('again');
  await one.reaches('ready');
  await one.ask({ do: 'arm' });
  await one.reaches('running');
});

t.test('a stop of category 2 keeps the power, and holds until somebody local asks', async (t) => {
  const one = new Harness(t, { more: 'control: {stop_category: 2}', service: 'run: loop, pause_s: 0' });
  await one.reaches('ready');
  const moving = one.next(({ event }) => event === 'chunk');
  await one.ask({ do: 'arm' });
  await moving;
  t.match(await one.ask({ do: 'stop' }), { state: 'holding', armed: true, reasons: [{ code: 'STOPPED' }] });
  await one.looks(3);
  t.equal(one.service.state, 'holding');
  await one.ask({ do: 'arm' });
  await one.reaches('running');
});

t.test('run: once, and loop with an end', async (t) => {
  const once = new Harness(t, { more: 'control: {chunks_max: 1}', service: 'run: once' });
  await once.reaches('ready');
  await once.ask({ do: 'arm' });
  await once.sees('episode');
  await once.reaches('holding');
  await once.looks(3);
  t.match(await once.status(), { state: 'holding', episodes: { ended: 1, last: 'finished' } });
  await once.end();
  const loop = new Harness(t, { dir: once.dir, more: 'control: {chunks_max: 1}', service: 'run: loop, pause_s: 0, episodes_max: 2' });
  await loop.reaches('ready');
  await loop.ask({ do: 'arm' });
  await loop.sees('episode', 2);
  await loop.reaches('holding');
  await loop.looks(3);
  t.match(await loop.status(), { state: 'holding', episodes: { ended: 2 } });
});

t.test('maintenance: only while disarmed and at rest, and then nothing arms', async (t) => {
  const one = new Harness(t);
  await one.reaches('ready');
  await one.ask({ do: 'arm' });
  await t.rejects(one.ask({ do: 'maintenance', on: true }), { code: 'SERVICE_STATE' });
  await one.ask({ do: 'disarm' });
  t.match(await one.ask({ do: 'maintenance', on: true, reason: 'update' }), { state: 'maintenance', maintenance: { on: true, reason: 'update' } });
  await t.rejects(one.ask({ do: 'arm' }), { code: 'SERVICE_STATE', message: /maintenance/ });
  await one.looks(2);
  t.equal(one.watcher.reports.at(-1)?.isInMaintenance, true);
  t.match(await one.ask({ do: 'maintenance', on: false }), { maintenance: { on: false } });
  await one.reaches('ready');
  await one.ask({ do: 'arm' });
});

t.test('a failing episode is a fault that is latched until it is cleared', async (t) => {
  const policy = new FakePolicy(atHome);
  policy.before = (call) => {
    if (call === 'predict') throw new PremotorError('OUT_OF_MEMORY', 'No memory.');
  };
  const shown: Indication[] = [];
  const showing = async (...given: Parameters<typeof openRig>): Promise<Rig> => {
    const rig = await openRig(...given);
    return { ...rig, robot: Object.assign(Object.create(rig.robot), rig.robot, { indicate: (pattern: Indication) => void shown.push(pattern) }) };
  };
  const one = new Harness(t, { policy: async () => policy, openRig: showing, more: 'autonomy: arm-on-boot', service: 'run: once' });
  await one.reaches('fault');
  t.match(await one.status(), { state: 'fault', armed: true, reasons: [{ code: 'OUT_OF_MEMORY' }] }, 'it holds with power');
  await t.rejects(one.ask({ do: 'arm' }), { code: 'SERVICE_STATE', message: /OUT_OF_MEMORY/ });
  await one.looks(2);
  t.match(await one.ask({ do: 'clear' }), { state: 'waiting', armed: false });
  await one.reaches('ready');
  await one.looks(2);
  t.equal(one.service.state, 'ready', 'after a fault a person is needed');
  t.same(shown, ['starting', 'ready', 'holding', 'holding', 'running', 'fault', 'waiting', 'ready'], 'the robot shows it, too');
});

t.test('a robot that is found holding is left as it is', async (t) => {
  const holding = async (...given: Parameters<typeof openRig>): Promise<Rig> => {
    const rig = await openRig(...given);
    await rig.robot.arm();
    return rig;
  };
  const one = new Harness(t, { openRig: holding, more: 'autonomy: arm-on-boot', service: 'run: loop' });
  await one.reaches('holding');
  await one.looks(3);
  t.match(await one.status(), { state: 'holding', armed: true, reasons: [{ code: 'FOUND_HOLDING' }], episodes: { ended: 0 } });
  t.same(one.path, ['starting', 'holding']);
});

t.test('what cannot be opened is tried again', async (t) => {
  let tries = 0;
  let build: () => void = () => undefined;
  const built = new Promise<void>((resolve) => {
    build = resolve;
  });
  const flaky = async (...given: Parameters<typeof openRig>): Promise<Rig> => {
    if (++tries < 3) throw new PremotorError('CAN_OPEN', 'No bus can0.');
    await built;
    return openRig(...given);
  };
  let loads = 0;
  const loading = async (): Promise<FakePolicy> => {
    if (++loads < 2) throw new PremotorError('CHECKPOINT_MISSING_FILE', 'No weights.');
    return new FakePolicy(atHome);
  };
  const one = new Harness(t, { openRig: flaky, policy: loading });
  await one.reaches('waiting');
  await one.sees('robot', 2);
  t.match(await one.status(), { state: 'waiting', robot: { stream: 'unknown' }, reasons: [{ code: 'CAN_OPEN' }, { code: 'POLICY_LOADING' }] });
  build();
  await one.reaches('ready');
  t.equal(tries, 3);
  t.equal(loads, 2);
  const codes = one.entries.filter(({ event }) => event === 'robot' || event === 'policy').map(({ fields }) => fields['code']);
  t.same(codes, ['CAN_OPEN', 'CAN_OPEN', 'CHECKPOINT_MISSING_FILE', undefined]);
});

t.test('memory and disks count; telemetry only where it is wanted', async (t) => {
  let free = 2 ** 20;
  const one = new Harness(t, { memoryFree: async () => free, service: 'require_telemetry: true' });
  Object.defineProperty(one.watcher, 'isConnected', { value: false, writable: true });
  await one.reaches('waiting');
  const { reasons } = await one.until(({ policy, reasons: found }) => policy.loaded && found.length <= 2);
  t.same(
    reasons.map(({ code }) => code),
    ['MEMORY_LOW', 'TELEMETRY_OFFLINE'],
  );
  free = 2 ** 40;
  Object.defineProperty(one.watcher, 'isConnected', { value: true });
  await one.reaches('ready');
  await one.end();
  const lax = new Harness(t, { dir: one.dir });
  Object.defineProperty(lax.watcher, 'isConnected', { value: false });
  await lax.reaches('ready');
  await lax.looks(2);
  t.match(await lax.status(), { reasons: [], remarks: [{ code: 'TELEMETRY_OFFLINE' }] }, 'otherwise it is a remark');
  const notOpen = new PremotorError('TELEMETRY_FILE', 'no certificate', { expected: 'a file', found: 'none' });
  Object.defineProperty(lax.watcher, 'notOpen', { value: notOpen });
  await lax.looks(2);
  t.match(await lax.status(), { state: 'ready', reasons: [], remarks: [{ code: 'TELEMETRY_FILE', message: 'no certificate' }] }, 'and why');
});

t.test('a step of the wall clock is told and changes nothing', async (t) => {
  let aheadMs = 0;
  const clocks = { monotonicMs: () => performance.now(), wallMs: () => performance.now() + aheadMs };
  const one = new Harness(t, { clocks });
  await one.reaches('ready');
  const told = one.next(({ event, fields }) => event === 'warning' && fields['code'] === 'CLOCK_STEPPED');
  aheadMs = 3_600_000;
  await told;
  await one.looks(1);
  t.match(await one.status(), { state: 'ready', clock: { steps: 1 } });
  t.ok(Math.abs(((await one.status()).clock.lastStepMs ?? 0) - 3_600_000) < 5);
  t.match(one.watcher.events.at(-1), { type: 'warning', error: { code: 'CLOCK_STEPPED' } }, 'observers record it');
  t.equal(one.watcher.reports.at(-1)?.clockSteps, 1);
});

t.test('starts that ended badly: it waits for a person, and arms nothing by itself', async (t) => {
  const dir = shortDir(t);
  const options = { dir: join(dir, 'state'), max: 2, windowS: 600, onWarning: () => t.fail('a warning') };
  for (let start = 0; start < 3; start++) new Starts(options).begin();
  const one = new Harness(t, { dir, more: 'autonomy: arm-on-boot', service: 'starts_max: 2' });
  await one.reaches('waiting');
  const found = await one.until(({ robot, reasons }) => robot.stream !== 'unknown' && !reasons.some(({ code }) => code === 'ROBOT_OPENING'));
  t.match(found, { state: 'waiting', policy: { loaded: false }, reasons: [{ code: 'CRASH_LOOP' }, { code: 'POLICY_LOADING' }] });
  await one.looks(3);
  t.equal((await one.status()).policy.loaded, false, 'nothing is loaded');
  await one.ask({ do: 'clear' });
  await one.reaches('ready');
  await one.looks(3);
  t.equal(one.service.state, 'ready', 'after a crash a person arms');
  await one.end();
  const next = new Harness(t, { dir, more: 'autonomy: arm-on-boot', service: 'starts_max: 2' });
  await next.reaches('holding');
});

t.test('silence for systemd: a look that hangs, a robot whose cycles stand still', async (t) => {
  let hang: Promise<never> | undefined;
  let enter: () => void = () => undefined;
  const entered = new Promise<void>((resolve) => {
    enter = resolve;
  });
  const hanging = async (...given: Parameters<typeof openRig>): Promise<Rig> => {
    const rig = await openRig(...given);
    const { cameras } = rig;
    const capture = async (): ReturnType<FrameSource['capture']> => {
      if (hang) enter();
      return hang ?? cameras.capture();
    };
    return { ...rig, cameras: { cameras: cameras.cameras, capture, close: () => cameras.close() } };
  };
  const one = new Harness(t, { openRig: hanging });
  await one.reaches('ready');
  let free: (error: Error) => void = () => undefined;
  hang = new Promise((_, reject) => {
    free = reject;
  });
  await entered;
  const before = one.told.length;
  await new Promise((resolve) => setTimeout(resolve, 200));
  t.same(one.told.slice(before), [], 'ten periods without a word');
  hang = undefined;
  free(new Error('the driver is back'));
  await one.looks(2);
  t.ok(one.told.slice(before).includes('WATCHDOG=1'), 'and then it lives again');

  const still = async (...given: Parameters<typeof openRig>): Promise<Rig> => ({ ...(await openRig(...given)), watch: () => () => undefined });
  const other = new Harness(t, { openRig: still });
  await other.reaches('ready');
  await other.looks(2);
  const words = other.told.length;
  await other.looks(5);
  t.same(other.told.slice(words), [], 'looks alone are no sign of life');
});

t.test('two services do not share a robot', async (t) => {
  const one = new Harness(t);
  await one.reaches('ready');
  const second = new Harness(t, { dir: one.dir });
  await t.rejects(second.done, { code: 'SERVICE_RUNNING' });
  t.match(await one.status(), { state: 'ready' });
});
