/** What is known of robots by their messages: births, data, deaths, gaps, silence, damage; facts, filters and the memory. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { factsOf, filterFacts, sortFacts } from '../../src/fleet/facts.js';
import { readMemory, writeMemory } from '../../src/fleet/memory.js';
import { ROBOTS_MAX, Robots, SILENCE_MS_MAX } from '../../src/fleet/robots.js';
import { Random } from '../../src/sim/random.js';
import { birth, data, death, fact, GROUP, topic, VALUES } from './parts.js';

const linkOf = (robots: Robots, nowMs = 0): string =>
  robots
    .rows(nowMs)
    .map(({ node, link, why }) => `${node} ${link} ${why}`.trim())
    .join();

t.test('a robot is born, speaks, dies and is born again', async (t) => {
  const robots = new Robots();
  t.ok(robots.accept(topic('NBIRTH', 'arm-01'), birth(0), 1000));
  t.ok(robots.accept(topic('NDATA', 'arm-01'), data(1, { 'Robot/State': 'running' }), 2000));
  const [row] = robots.rows(2000);
  t.match(row, { group: GROUP, node: 'arm-01', link: 'online', sinceMs: 1000, heardMs: 2000 });
  t.match(factsOf(row as never), { state: 'running', version: '0.1.0', fault: null, uptimeS: 3600, slot: 'A', system: '1.3.0', firmware: null });
  t.notOk(robots.accept(topic('NDATA', 'arm-01'), data(2, { 'Robot/State': 'holding' }, { isHistorical: true }), 2500), 'what was kept is not now');
  t.equal(factsOf(robots.rows(2500)[0] as never).state, 'running');
  t.notOk(robots.accept(topic('NDEATH', 'arm-01'), death(7), 3000), 'the will of another session');
  t.equal(linkOf(robots), 'arm-01 online');
  t.ok(robots.accept(topic('NDEATH', 'arm-01'), death(0), 4000));
  t.match(robots.rows(0), [{ link: 'offline', sinceMs: 4000, values: { 'Robot/State': 'running' } }], 'what it said last stays');
  t.ok(robots.accept(topic('NDATA', 'arm-01'), data(3, {}), 5000));
  t.equal(linkOf(robots), 'arm-01 unborn its birth was not heard');
  t.ok(robots.accept(topic('NBIRTH', 'arm-01'), birth(1, { ...VALUES, 'Robot/Fault Code': 'BUS_OFF' }), 6000));
  t.match(factsOf(robots.rows(0)[0] as never), { link: 'online', sinceMs: 6000, fault: 'BUS_OFF', state: 'holding' });
  t.ok(robots.accept(topic('NBIRTH', 'arm-01'), birth(1), 7000), 'a rebirth');
  t.equal(robots.rows(0)[0]?.sinceMs, 6000, 'is no new session');
});

t.test('a robot whose birth was missed is news', async (t) => {
  const robots = new Robots();
  t.ok(robots.accept(topic('NDATA', 'a'), data(5, { 'Robot/State': 'running' }), 1));
  t.ok(robots.needsBirth(GROUP, 'a'));
  t.notOk(robots.accept(topic('NDATA', 'a'), data(6, {}), 2));
});

t.test('a missing message, a wrap of the sequence, silence, a lost observer', async (t) => {
  const robots = new Robots();
  robots.accept(topic('NBIRTH', 'a'), birth(0, VALUES, 254), 0);
  robots.accept(topic('NDATA', 'a'), data(255, {}), 0);
  robots.accept(topic('NDATA', 'a'), data(0, { 'Robot/State': 'running' }), 0);
  t.equal(linkOf(robots), 'a online');
  t.notOk(robots.needsBirth(GROUP, 'a'));
  t.equal(linkOf(robots, SILENCE_MS_MAX), 'a online');
  t.equal(linkOf(robots, SILENCE_MS_MAX + 1), 'a stale silent');
  robots.accept(topic('NDATA', 'a'), data(2, { 'Robot/State': 'fault' }), 10);
  t.equal(linkOf(robots), 'a stale a message is missing');
  t.ok(robots.needsBirth(GROUP, 'a'), 'a rebirth would help');
  robots.accept(topic('NDATA', 'a'), data(3, { 'Robot/State': 'holding' }), 11);
  t.equal(robots.rows(0)[0]?.values['Robot/State'], 'running', 'nothing is believed before the next birth');
  robots.accept(topic('NBIRTH', 'a'), birth(0), 12);
  robots.accept(topic('NBIRTH', 'b'), birth(0), 12);
  robots.accept(topic('NDEATH', 'b'), death(0), 13);
  robots.lost('the observer lost the broker', 20);
  t.equal(linkOf(robots), 'a stale the observer lost the broker,b offline the broker or the robot said so');
});

t.test('what is no message changes nothing', async (t) => {
  const robots = new Robots();
  robots.accept(topic('NBIRTH', 'a'), birth(0), 0);
  const before = JSON.stringify(robots.rows(0));
  const bytes = data(1, { 'Robot/State': 'running' });
  for (const wrong of ['spBv1.0/plant/DDATA/a/device', 'spBv1.0/plant/NCMD/a', 'spBv1.0/STATE/scada', 'spAv1.0/plant/NDATA/a', '']) {
    t.notOk(robots.accept(wrong, bytes, 1), wrong);
  }
  t.notOk(robots.accept(topic('NDATA', 'a'), new Uint8Array([255, 255, 255]), 1), 'no payload');
  t.equal(JSON.stringify(robots.rows(0)), before);
  t.equal(robots.ignored, 6);
  const hostile = birth(0, { ...VALUES, 'Robot/State': `red\u001b[31m\u202e${'x'.repeat(9000)}` });
  robots.accept(topic('NBIRTH', 'b'), hostile, 2);
  const shown = String(robots.rows(0)[1]?.values['Robot/State']);
  t.ok(shown.length <= 500 && !/[\u001b\u202e]/u.test(shown), 'no text of a robot moves the cursor of a terminal');
  const seed = 20261130;
  t.comment(`seed ${seed}`);
  const source = new Random(seed);
  const next = (): number => source.uniform(0, 1);
  for (let round = 0; round < 3000; round++) {
    const damaged = Uint8Array.from(birth(0));
    for (let flips = 0; flips < 4; flips++) damaged[Math.floor(next() * damaged.length)] = Math.floor(next() * 256);
    robots.accept(topic(next() < 0.5 ? 'NBIRTH' : 'NDATA', 'c'), damaged, 3);
  }
  for (let node = 0; node < ROBOTS_MAX + 5; node++) robots.accept(topic('NDEATH', `n-${node}`), death(0), 4);
  t.equal(robots.rows(0).length, ROBOTS_MAX, 'bounded');
});

t.test('sorting and filtering', async (t) => {
  const facts = [fact('arm-2', { uptimeS: 5 }), fact('arm-10', { uptimeS: null, fault: 'BUS_OFF' }), fact('arm-1', { uptimeS: 70, system: '1.4.0' })];
  const names = (found: readonly { node: string }[]): string => found.map(({ node }) => node).join(' ');
  t.equal(names(sortFacts(facts, 'node')), 'arm-1 arm-2 arm-10');
  t.equal(names(sortFacts(facts, '-uptimeS')), 'arm-1 arm-2 arm-10', 'what is unknown comes last');
  t.equal(names(sortFacts(facts, 'uptimeS')), 'arm-2 arm-1 arm-10');
  t.equal(names(filterFacts(facts, ['system!=1.4.0', 'node=arm-1*'])), 'arm-10');
  t.equal(names(filterFacts(facts, ['fault='])), 'arm-2 arm-1');
  t.throws(() => sortFacts(facts, 'uptime'), { code: 'FLEET_FACT' });
  t.throws(() => filterFacts(facts, ['stat=holding']), { code: 'FLEET_FACT', message: /did you mean state/ });
});

t.test('the memory', async (t) => {
  const file = join(t.testdir(), 'memory.json');
  t.same(await readMemory(file), []);
  const robots = new Robots();
  robots.accept(topic('NBIRTH', 'a'), birth(0), 5);
  robots.accept(topic('NBIRTH', 'b'), birth(0), 6);
  robots.accept(topic('NDEATH', 'b'), death(0), 7);
  await writeMemory(file, robots.rows(10));
  const later = new Robots();
  later.remember(await readMemory(file), 100);
  t.match(later.rows(100), [
    { node: 'a', link: 'stale', sinceMs: 5, why: 'not heard of in this session', values: { 'Run/Version': '0.1.0' } },
    { node: 'b', link: 'offline', sinceMs: 7 },
  ]);
  t.ok(later.accept(topic('NDATA', 'a'), data(9, {}), 101));
  t.equal(later.rows(0)[0]?.link, 'unborn', 'aliases are not remembered');
  writeFileSync(file, readFileSync(file, 'utf8').slice(0, -9));
  await t.rejects(readMemory(file), { code: 'FLEET_MEMORY', file });
  await t.rejects(writeMemory(join(file, 'below'), []), { code: 'FLEET_MEMORY' });
});
