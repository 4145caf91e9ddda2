/** Whether a robot is well after an update: every check, as an operator reads them, and the self-test within what is left of the time. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { healthOf } from '../../src/cli/update-options.js';
import { PremotorError } from '../../src/errors.js';
import { examineHealth, unwell } from '../../src/update/health.js';
import { fakeContext } from '../cli/fakes.js';
import { FakeService, placesIn } from './fakes.js';

const configuration = join(import.meta.dirname, '..', '..', 'robots', 'sim-tabletop.yaml');

async function robot(t: Test) {
  const places = placesIn(t, '');
  const service = await FakeService.listen(t, places.socket);
  service.state.configuration.file = configuration;
  return { places, service };
}

t.test('all is well: the self-test comes last, with the time that is left in whole milliseconds', async (t) => {
  const { places } = await robot(t);
  const asked: [string, number][] = [];
  const selftest = async (file: string, left_ms: number): Promise<string> => {
    asked.push([file, left_ms]);
    return 'hash abc';
  };
  const health = await examineHealth(places, { timeout_ms: 5000, telemetry: true, selftest });
  t.same(
    health.findings.map(({ check, ok }) => [check, ok]),
    [
      ['service', true],
      ['telemetry', true],
      ['policy', true],
      ['selftest', true],
    ],
  );
  t.ok(health.ok);
  const [[file, left_ms] = ['', 0]] = asked;
  t.equal(file, configuration);
  t.ok(Number.isInteger(left_ms) && left_ms > 0 && left_ms < 5000, `${left_ms} ms`);
});

t.test('a self-test that fails is the reason; of a service that is not well none is asked for', async (t) => {
  const { places, service } = await robot(t);
  const selftest = async (): Promise<string> => {
    throw new PremotorError('SELFTEST_MISMATCH', 'another hash', { expected: 'a', found: 'b' });
  };
  t.same(unwell(await examineHealth(places, { timeout_ms: 5000, telemetry: true, selftest })), ['selftest: another hash']);
  service.state.state = 'fault';
  service.state.reasons = [{ code: 'BRIDGE_FAULT', message: 'host lost' }];
  t.same(unwell(await examineHealth(places, { timeout_ms: 5000, telemetry: true, selftest })), ['service: fault (BRIDGE_FAULT: host lost)']);
});

t.test('the command runs the self-test of the configuration that the service has', async (t) => {
  const { places } = await robot(t);
  const { context } = fakeContext({
    loadPolicy: async () => {
      throw new PremotorError('CHECKPOINT_MISSING_FILE', 'no weights', { expected: 'weights', found: 'none' });
    },
  });
  const health = await healthOf(places, { timeout_ms: 5000, telemetry: false, selftest: true }, context);
  t.same(unwell(health), ['selftest: no weights'], 'it came as far as loading the model');
});
