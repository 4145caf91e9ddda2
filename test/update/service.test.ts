/** Keeping a robot still: every state in which the service can be, and every way of not answering. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startOf } from '../../src/runtime/registry.js';
import { keepStill, serviceStatus } from '../../src/update/service.js';
import { FakeService, placesIn } from './fakes.js';

async function robot(t: Test) {
  const places = placesIn(t, '');
  return { places, service: await FakeService.listen(t, places.socket) };
}

t.test('a robot at rest is kept so until it is released', async (t) => {
  const { places, service } = await robot(t);
  const quiet = await keepStill(places);
  t.equal(service.state.state, 'maintenance');
  await quiet.release();
  t.equal(service.state.state, 'ready');
  t.same(
    service.asked.map((request) => [request['do'], request['on']]),
    [
      ['status', undefined],
      ['maintenance', true],
      ['maintenance', false],
    ],
  );
});

t.test('a robot that is armed, or moves, is left alone', async (t) => {
  for (const change of [
    { armed: true, state: 'holding' },
    { armed: true, atRest: false, state: 'running' },
    { atRest: false, state: 'stopping' },
  ]) {
    const { places, service } = await robot(t);
    Object.assign(service.state, change);
    await t.rejects(keepStill(places), { code: 'UPDATE_ROBOT_ACTIVE', message: new RegExp(change.state) });
    t.notOk(
      service.asked.some((request) => request['do'] === 'maintenance'),
      'it is not even asked for maintenance',
    );
  }
});

t.test('one that is armed between the question and the request refuses', async (t) => {
  const { places, service } = await robot(t);
  service.answer = ({ do: what }) =>
    what === 'status'
      ? JSON.stringify({ ok: true, status: { ...service.state } })
      : JSON.stringify({ ok: false, error: { code: 'X', message: 'armed a moment ago' } });
  await t.rejects(keepStill(places), { code: 'UPDATE_ROBOT_ACTIVE', found: 'armed a moment ago' });
});

t.test('whoever keeps it still already also lets it go', async (t) => {
  const { places, service } = await robot(t);
  service.state.state = 'maintenance';
  await (await keepStill(places)).release();
  t.equal(service.state.state, 'maintenance');
});

t.test('no service at all is fine, and said', async (t) => {
  const places = placesIn(t, '');
  const { remark, release } = await keepStill(places);
  t.match(remark, /No service runs/);
  await release();
  t.equal(await serviceStatus(places), undefined);
});

t.test('no service, but a stream process that holds motors', async (t) => {
  const places = placesIn(t, '');
  mkdirSync(places.registry, { recursive: true });
  const entry = { pid: process.pid, started: startOf(process.pid), kind: 'stream', about: 'socketcan-fd:can0' };
  writeFileSync(join(places.registry, `stream-${process.pid}.json`), JSON.stringify(entry));
  await t.rejects(keepStill(places), { code: 'UPDATE_SERVICE_UNREACHABLE', found: /stream, socketcan-fd:can0/ });
  writeFileSync(join(places.registry, `stream-${process.pid}.json`), JSON.stringify({ ...entry, started: '1' }));
  t.match((await keepStill(places)).remark, /No service/, 'a number that was given again is not that process');
});

t.test('answers that are none', async (t) => {
  for (const answer of ['what?', '{}', '{"ok":true}', '{"ok":true,"status":{"state":"ready"}}', 'x'.repeat(1 << 21)]) {
    const { places, service } = await robot(t);
    service.answer = () => answer;
    await t.rejects(keepStill(places), { code: 'UPDATE_SERVICE_UNREACHABLE' }, answer.slice(0, 40));
  }
});

t.test('a service that hangs up', async (t) => {
  const places = placesIn(t, '');
  const server = createServer((connection) => connection.end());
  await new Promise<void>((resolve) => server.listen(places.socket, resolve));
  t.teardown(() => server.close());
  await t.rejects(keepStill(places), { code: 'UPDATE_SERVICE_UNREACHABLE' });
});
