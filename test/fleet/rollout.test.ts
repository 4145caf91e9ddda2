/**
 * Staged roll-outs: files that are right and wrong, the gates of stages on a clock of the test, and the signed list with the real openssl: whose
 * signature counts, and what is changed in one.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { RobotFacts } from '../../src/fleet/facts.js';
import { openList, type RolloutList, signList } from '../../src/fleet/list.js';
import {
  advance,
  type Judgement,
  judge,
  listOf,
  type Progress,
  parseRollout,
  progressFile,
  readProgress,
  writeProgress,
} from '../../src/fleet/rollout.js';
import { Authority, ssl } from '../identity/authority.js';
import { skipOpenssl } from '../telemetry/certificates.js';
import { fact } from './parts.js';

const MINUTE = 60_000;
const SHA = 'ab'.repeat(32);
const TEXT = `
fleet: plant
version: 1.4.0
bundles:
  amd64: {url: "https://bundles.example/a.raucb", sha256: "${SHA}", bytes: 100}
gate: {healthy_minutes: 10}
offline_minutes: 20
stages:
  - {name: canary, robots: [a], healthy_minutes: 60}
  - {name: rest, robots: [b, c, d], failures_max: 1}
`;
const rollout = parseRollout(TEXT, 'r.yaml');

t.test('files', async (t) => {
  t.match(rollout.stages, [
    { name: 'canary', robots: ['a'], healthyMs: 60 * MINUTE, failuresMax: 0 },
    { name: 'rest', robots: ['b', 'c', 'd'], healthyMs: 10 * MINUTE, failuresMax: 1 },
  ]);
  for (const [what, text, found] of [
    ['a robot twice', TEXT.replace('[b, c, d]', '[b, a]'), /a is in canary already/],
    ['an unknown key', `${TEXT}\npausd: true`, /pausd/],
    ['no bundle', TEXT.replace(/ {2}amd64.*\n/, '').replace('bundles:', 'bundles: {}'), /at least one bundle/],
    ['a bundle over plain http', TEXT.replace('https:', 'http:'), /bundles\.amd64\.url/],
    ['credentials in a URL', TEXT.replace('https://', 'https://me:secret@'), /bundles\.amd64\.url/],
    ['a short hash', TEXT.replace(SHA, 'abc'), /sha256/],
    ['an architecture', TEXT.replace('amd64', 'mips'), /bundles/],
    ['no stage', TEXT.replace(/stages:[\s\S]*/, 'stages: []'), /stages/],
    ['a name that is no topic', TEXT.replace('robots: [a]', 'robots: ["a/b"]'), /stages\.0\.robots\.0/],
    ['no YAML', '{', /./],
  ] as const) {
    t.throws(() => parseRollout(text, 'r.yaml'), { code: 'ROLLOUT_INVALID', found }, what);
  }
});

const on = (node: string, more: Partial<RobotFacts> = {}): RobotFacts =>
  fact(node, { system: '1.4.0', update: 'committed', newest: '1.4.0', ...more });

/** Looks, one after the other, at the given minutes. */
function looks(begin: Partial<Progress>, ...steps: readonly (readonly [minute: number, facts: readonly RobotFacts[]])[]): Judgement {
  let progress: Progress = { ...EMPTY, ...begin };
  let judgement: Judgement | undefined;
  for (const [minute, facts] of steps) {
    judgement = judge(rollout, progress, facts, minute * MINUTE);
    progress = judgement.seen;
  }
  return judgement as Judgement;
}

const EMPTY: Progress = {
  format: 'premotor-rollout-progress-1',
  version: '1.4.0',
  serial: 0,
  round: 1,
  paused: false,
  opened: 0,
  lookedMs: 0,
  robots: {},
};
const shown = ({ stages }: Judgement): string =>
  stages.map(({ progress, robots }) => `${progress}: ${robots.map((one) => one.progress).join(' ')}`).join('; ');

t.test('the gate of a stage', async (t) => {
  t.equal(shown(looks({}, [1, [on('a')]])), 'closed: waiting; closed: waiting waiting waiting');
  t.equal(shown(looks({ opened: 1 }, [1, [fact('a')]])), 'open: due; closed: waiting waiting waiting');
  t.match(shown(looks({ opened: 1 }, [1, [on('a')]])), /^open: settling/);
  t.match(shown(looks({ opened: 1 }, [1, [on('a')]], [60, [on('a')]])), /^open: settling/);
  t.match(shown(looks({ opened: 1 }, [1, [on('a')]], [61, [on('a')]])), /^passed: done/);
  t.match(
    shown(looks({ opened: 1 }, [1, [on('a')]], [30, [on('a', { uptimeS: 60 })]], [61, [on('a')]])),
    /^open: settling/,
    'started again in between',
  );
  t.match(shown(looks({ opened: 1 }, [1, [on('a', { update: 'trial' })]], [61, [on('a', { update: 'trial' })]])), /^open: settling/, 'not committed');
  const faulty = looks({ opened: 1 }, [1, [on('a')]], [30, [on('a', { fault: 'BUS_OFF' })]]);
  t.match(shown(faulty), /^halted: failed/);
  t.match(faulty.blocks, [/1 failed, at most 0 may: a/]);
  t.match(shown(looks({ opened: 1 }, [1, [on('a')]], [30, [on('a', { fault: 'BUS_OFF' })]], [62, [on('a')]])), /^open: settling/, 'it counts anew');
  t.match(shown(looks({ opened: 1 }, [1, [fact('a', { update: 'fell-back', newest: '1.4.0' })]])), /^halted: failed/);
  t.match(shown(looks({ opened: 1 }, [1, [fact('a', { update: 'fell-back', newest: '1.2.0' })]])), /^open: due/, 'of another update');
  t.match(shown(looks({ opened: 1 }, [1, []])), /^open: missing/);
  t.match(
    shown(looks({ opened: 1 }, [1, [fact('a', { link: 'offline' })]], [99, [fact('a', { link: 'offline' })]])),
    /^open: missing/,
    'it was off before',
  );
  const gone = fact('a', { link: 'offline' });
  t.match(shown(looks({ opened: 1 }, [1, [fact('a')]], [15, [gone]])), /^open: offline/, 'it starts again');
  t.match(shown(looks({ opened: 1 }, [1, [fact('a')]], [22, [gone]])), /^halted: failed/, 'it never came back');
  t.match(shown(looks({ opened: 1 }, [1, [fact('a', { group: 'other', system: '1.4.0' })]])), /^open: missing/, 'of another fleet');
  const rest = (d: RobotFacts): readonly RobotFacts[] => [on('a'), on('b'), on('c'), d];
  const failed = fact('d', { update: 'unhealthy', newest: '1.4.0' });
  const both = looks({ opened: 2 }, [0, rest(failed)], [61, rest(failed)]);
  t.equal(shown(both), 'passed: done; passed: done done failed', 'one may fail');
  t.ok(both.isComplete);
  t.equal(looks({ opened: 2 }, [0, rest(fact('d'))], [61, rest(fact('d'))]).blocks.join(), 'rest: d is due');
});

t.test('advancing, pausing, retrying', async (t) => {
  const first = advance(rollout, looks({}, [1, []]), {}, 'r.yaml');
  t.match(first, { progress: { opened: 1 }, words: /stage 1 of 2 begins: canary/ });
  const list = listOf(rollout, first.progress, 5_000_000);
  t.match(list, { serial: 5000, robots: ['a'], paused: false, round: 1, version: '1.4.0' });
  t.equal(listOf(rollout, { ...first.progress, serial: 5000 }, 5_000_000).serial, 5001, 'two within a second');
  t.equal(listOf(rollout, { ...first.progress, serial: 9000 }, 5_000_000).serial, 9001, 'a clock that was set back');
  const halted = looks({ opened: 1 }, [1, [fact('a', { update: 'fell-back', newest: '1.4.0' })]]);
  t.throws(() => advance(rollout, halted, {}, 'r.yaml'), { code: 'ROLLOUT_GATE' });
  t.match(advance(rollout, halted, { pause: true }, 'r.yaml').progress, { paused: true, opened: 1 });
  t.match(advance(rollout, halted, { retry: true }, 'r.yaml').progress, { paused: false, round: 2, opened: 1 });
  t.match(advance(rollout, { ...halted, seen: { ...halted.seen, paused: true } }, { resume: true }, 'r.yaml').progress, { paused: false, round: 1 });
  const passed = looks({ opened: 1 }, [1, [on('a')]], [61, [on('a')]]);
  const second = advance(rollout, passed, {}, 'r.yaml').progress;
  t.same(listOf(rollout, second, 0).robots, ['a', 'b', 'c', 'd']);
  const file = join(t.testdir(), 'r.yaml');
  t.match(await readProgress(file, '1.4.0'), { opened: 0, serial: 0 });
  await writeProgress(file, { ...second, serial: 77 });
  t.match(await readProgress(file, '1.4.0'), { opened: 2, serial: 77 });
  t.match(await readProgress(file, '1.5.0'), { opened: 0, serial: 77, robots: {} }, 'another version begins anew');
  writeFileSync(progressFile(file), '{');
  await t.rejects(readProgress(file, '1.4.0'), { code: 'ROLLOUT_PROGRESS' });
});

t.test('the signed list', { skip: skipOpenssl }, async (t) => {
  const folder = t.testdir();
  const authority = new Authority(join(folder, 'ca'));
  const signer = authority.issue('signer', 'extendedKeyUsage=critical,codeSigning,emailProtection');
  const list: RolloutList = listOf(rollout, { ...EMPTY, opened: 1 }, 5_000_000);
  const signed = await signList(list, signer);
  t.same(await openList('rollout.list', signed, authority.certificate), list);
  const refuses = async (what: string, bytes: Uint8Array, found: RegExp, ca = authority.certificate): Promise<void> => {
    await t.rejects(openList('rollout.list', bytes, ca), { code: 'ROLLOUT_LIST', found }, what);
  };
  const robot = authority.issue('arm-01');
  await t.rejects(signList(list, robot), { code: 'ROLLOUT_SIGN', found: /may not/ }, 'a robot signs no list');
  await t.rejects(signList(list, { ...signer, keyFile: robot.keyFile }), { code: 'ROLLOUT_SIGN' });
  await t.rejects(signList(list, { ...signer, certFile: join(folder, 'none.pem') }), { code: 'ROLLOUT_SIGN' });
  const content = join(folder, 'content');
  writeFileSync(content, JSON.stringify(list));
  const sign = (pair: { certFile: string; keyFile: string }, file = content): Buffer => {
    const args = ['-sign', '-binary', '-nodetach', '-outform', 'PEM', '-signer', pair.certFile, '-inkey', pair.keyFile];
    return Buffer.from(ssl('cms', ...args, '-in', file));
  };
  t.same(await openList('rollout.list', sign(signer), authority.certificate), list, 'as openssl alone makes it');
  await refuses('by a robot of the same authority', sign(robot), /arm-01, which may sign no updates/);
  await refuses('by another authority', signed, /./, new Authority(join(folder, 'stranger')).certificate);
  const der = Buffer.from(signed.toString('latin1').replace(/-----[^-]+-----|\s/g, ''), 'base64');
  const at = der.indexOf('"paused": false');
  t.ok(at > 0);
  der.write('"paused": true ', at);
  const pem = `-----BEGIN CMS-----\n${der.toString('base64').replace(/(.{64})/g, '$1\n')}\n-----END CMS-----\n`;
  await refuses('changed', Buffer.from(pem), /./);
  await refuses('not signed', readFileSync(content), /./);
  await refuses('cut', signed.subarray(0, signed.length >> 1), /./);
  await refuses('empty', Buffer.alloc(0), /./);
  await refuses('too long', Buffer.alloc(5 * 2 ** 20), /5242880 bytes/);
  writeFileSync(join(folder, 'odd'), JSON.stringify({ ...list, robots: ['a/b'] }));
  await refuses('signed, and none', sign(signer, join(folder, 'odd')), /robots\.0/);
  const past = authority.issue('past', 'extendedKeyUsage=critical,codeSigning,emailProtection', '0');
  await new Promise((resolve) => setTimeout(resolve, 1100));
  await refuses('by a signer whose time is over', sign(past), /expired/);
});
