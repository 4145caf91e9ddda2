/** The service over a real bus, a real stream process and the host build of the bridge: what happens when the stream process dies. */
import t from 'tap';
import { readRobotConfig } from '../../src/config/reader.js';
import { openRig, type Rig, VOCABULARY } from '../../src/runtime/rig.js';
import { makeHil } from '../support/hil.js';
import { alone } from '../support/real-time.js';
import { until } from '../support/stream-rig.js';
import { Harness } from './harness.js';

await alone(t);

/** A host that stalls is no slow camera. */
const cameras = 'cameras: {frame_age_max_ms: 5000, frame_skew_max_ms: 5000}';
const pidOf = ({ path }: Rig): number => Number(/process (\d+)/.exec(path)?.[1]);

t.test('the stream process dies: a fault that stays until it is cleared, and another process, without power', async (t) => {
  const hil = await makeHil(t, { more: `task: {name: touch, seed: 3}\n${cameras}\n` });
  const { config } = await readRobotConfig(hil.file, VOCABULARY);
  const rigs: Rig[] = [];
  const open = async (): Promise<Rig> => {
    const rig = await openRig(config);
    rigs.push(rig);
    return rig;
  };
  const one = new Harness(t, { openRig: open, more: cameras });
  await one.reaches('ready');
  t.match(await one.ask({ do: 'arm' }), { state: 'holding', armed: true });
  const [first] = rigs as [Rig];
  process.kill(pidOf(first), 'SIGKILL');
  await one.reaches('fault');
  t.match((await one.status()).reasons, [{ code: 'STREAM_PROCESS_DIED', message: /The bridge stops the robot/ }]);
  await until('another one is opened', () => rigs.length === 2);
  const [, second] = rigs as [Rig, Rig];
  t.not(pidOf(second), pidOf(first));
  const { cycles } = await one.status();
  const later = await one.until((status) => status.cycles > cycles);
  t.match(later, { state: 'fault', armed: false, reasons: [{ code: 'STREAM_PROCESS_DIED' }] }, 'cycles advance again; the fault stays');
  await until('the bridge misses its host', () => hil.bridge.events.all.some(({ faultName }) => faultName === 'host lost'));
  await one.ask({ do: 'clear' });
  await one.reaches('ready');
  t.match(await one.ask({ do: 'arm' }), { state: 'holding', armed: true }, 'and the robot can be used');
  t.equal(one.entries.filter(({ event, fields }) => event === 'robot' && fields['code'] === 'STREAM_PROCESS_DIED').length, 1);

  // A robot that nobody uses is only opened anew.
  await one.ask({ do: 'disarm' });
  await one.reaches('ready');
  process.kill(pidOf(second), 'SIGKILL');
  await until('another one is opened', () => rigs.length === 3);
  await one.reaches('ready');
  t.match(await one.status(), { state: 'ready', armed: false, robot: { faultCode: '' } }, 'and it is ready again');
});
