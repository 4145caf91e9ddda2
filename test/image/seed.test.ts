import { mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parse } from 'yaml';
import { noteReleases } from '../../src/image/first-releases.js';
import { dataMibFor, makeSeed, readPublicKeys, rewriteConfiguration } from '../../src/image/seed.js';
import { readRecord } from '../../src/update/records.js';
import { Releases } from '../../src/update/releases.js';

const KEY = `ssh-ed25519 ${'A'.repeat(68)} someone`;

function inputs(t: Test, yaml: string) {
  const root = t.testdir({
    robots: { 'arm.yaml': yaml },
    models: { tabletop: { 'job.json': '{}', plan: { 'a.plan': 'x' } }, other: { 'model.onnx': 'y' } },
    elsewhere: { tabletop: { z: 'z' } },
  });
  return { root, robot: join(root, 'robots', 'arm.yaml'), seed: join(root, 'seed') };
}

const configuration = `# An arm.
policy:
  # Its checkpoint.
  checkpoint_dir: ../models/tabletop
  job: ../models/tabletop/job.json
control:
  mode: sync
`;

t.test('a configuration finds its model and its folders on the robot', async (t) => {
  const { root, robot, seed } = inputs(t, configuration);
  const made = makeSeed({ robot, models: [join(root, 'models', 'other')], units: ['can@can0.service', 'x.timer'] }, seed);
  const current = join(seed, 'premotor', 'config', 'current', 'robot.yaml');
  const text = readFileSync(current, 'utf8');
  t.match(text, /# An arm\.[\s\S]*# Its checkpoint\./, 'remarks stay');
  t.match(parse(text), {
    policy: { checkpoint_dir: '/var/lib/premotor/models/current', job: '/var/lib/premotor/models/current/job.json' },
    control: { mode: 'sync' },
    recording: { out_dir: '/var/lib/premotor/recordings', journal_dir: '/var/lib/premotor/journal' },
    telemetry: { queue_dir: '/var/lib/premotor/queue' },
  });
  t.same(made.changes[0], { key: 'policy.checkpoint_dir', from: '../models/tabletop', to: '/var/lib/premotor/models/current' });
  t.equal(readFileSync(join(seed, 'premotor/models/current/plan/a.plan'), 'utf8'), 'x');
  t.equal(readFileSync(join(seed, 'premotor/models/besides/other/model.onnx'), 'utf8'), 'y');
  t.match(readlinkSync(join(seed, 'premotor/models/current')), /^releases\/0\.0\.0-image-[0-9a-f]{12}$/, 'what an update replaces');
  t.match(readlinkSync(join(seed, 'premotor/config/current')), /^releases\/0\.0\.0-image-[0-9a-f]{12}$/, 'releases, as updates make them');
  t.equal(readFileSync(join(seed, 'system', 'enable'), 'utf8'), 'can@can0.service\nx.timer\n', 'units of this robot');
  t.throws(() => readFileSync(join(seed, 'ssh', 'authorized_keys')), { code: 'ENOENT' }, 'no key, no door');
});

t.test('files that the configuration names go with it', async (t) => {
  const workspaces = (urdf: string): string => `robot:\n  workspaces: {arm: {urdf: ${urdf}}, leg: {urdf: /etc/premotor/leg.urdf}}\n`;
  const arm = (urdf: string): string => `${configuration}${workspaces(urdf)}cameras:\n  sources: {front: {type: sim}}\n`;
  const { root, robot, seed } = inputs(t, arm('./urdf/arm.urdf'));
  mkdirSync(join(root, 'robots/urdf'));
  writeFileSync(join(root, 'robots/urdf/arm.urdf'), '<robot/>');
  const first = makeSeed({ robot, models: [], units: [] }, seed);
  t.equal(readFileSync(join(seed, 'premotor/config/current/urdf/arm.urdf'), 'utf8'), '<robot/>');
  t.same(first.files, ['urdf/arm.urdf']);
  writeFileSync(join(root, 'robots/urdf/arm.urdf'), '<robot>');
  t.not(makeSeed({ robot, models: [], units: [] }, seed).configurationRelease, first.configurationRelease, 'another release');
  for (const [text, field] of [
    [arm('urdf/gone.urdf'), 'robot.workspaces.arm.urdf'],
    [arm('urdf'), 'robot.workspaces.arm.urdf'],
    [arm('../robots/urdf/arm.urdf'), 'robot.workspaces.arm.urdf'],
    [`${configuration}telemetry:\n  key_file: keys/robot.key\n`, 'telemetry.key_file'],
  ] as const) {
    writeFileSync(robot, text);
    t.throws(() => makeSeed({ robot, models: [], units: [] }, seed), { code: 'IMAGE_INPUT_INVALID', field, file: robot }, text);
  }
});

t.test('the first releases are ones that an update can go back to', async (t) => {
  const { robot, seed } = inputs(t, configuration);
  const made = makeSeed({ robot, models: [], units: [] }, seed);
  await noteReleases(seed, made);
  const stateDir = join(seed, 'premotor');
  for (const [kind, version] of [
    ['config', made.configurationRelease],
    ['model', made.modelRelease ?? ''],
  ] as const) {
    const releases = new Releases({ stateDir }, kind);
    t.equal(await releases.current(), version, `${kind}: its name is a version`);
    t.ok(await releases.has(version));
    t.match(await releases.manifest(version), { kind, version, files: [{ sha256: /^[0-9a-f]{64}$/ }] });
    t.equal((await readRecord(join(stateDir, 'update')))[kind].committed, version, 'noted as good');
  }
  t.same((await readRecord(join(stateDir, 'update'))).highWater, {}, 'and any version may follow');
});

t.test('settings of a robot for a unit', async (t) => {
  const { root, robot, seed } = inputs(t, configuration);
  const at = (name: string, text: string): string => {
    writeFileSync(join(root, name), text);
    return join(root, name);
  };
  const dropIns = [`premotor.service=${at('cpu', '[Service]\nCPUAffinity=2-3\n')}`, `can@can0.service=${at('x y.conf', '# Slow bus.\n[Unit]\n')}`];
  makeSeed({ robot, models: [], units: [], dropIns }, seed);
  t.equal(readFileSync(join(seed, 'system/drop-in/premotor.service.d/cpu.conf'), 'utf8'), '[Service]\nCPUAffinity=2-3\n');
  t.equal(readFileSync(join(seed, 'system/drop-in/can@can0.service.d/x-y.conf'), 'utf8'), '# Slow bus.\n[Unit]\n');
  for (const wrong of ['premotor.service', `../x.service=${at('a', '[Service]\n')}`, 'a.service=/nowhere', `a.service=${at('b', 'text')}`])
    t.throws(
      () => makeSeed({ robot, models: [], units: [], dropIns: [wrong] }, `${seed}2`),
      { code: 'IMAGE_INPUT_INVALID', field: '--drop-in' },
      wrong,
    );
});

t.test('equal inputs give equal trees, others do not', async (t) => {
  const { robot, seed, root } = inputs(t, configuration);
  const { hash } = makeSeed({ robot, models: [], units: [] }, seed);
  t.equal(makeSeed({ robot, models: [], units: [] }, `${seed}2`).hash, hash);
  writeFileSync(join(root, 'models/tabletop/job.json'), '{"a":1}');
  t.not(makeSeed({ robot, models: [], units: [] }, seed).hash, hash, 'a model changed');
});

t.test('what the image would not hold is refused', async (t) => {
  const { root, robot } = inputs(t, configuration);
  const code = 'IMAGE_INPUT_INVALID';
  const outside = configuration.replace('../models/tabletop/job.json', '../elsewhere/job.json');
  t.throws(() => rewriteConfiguration(outside, robot, []), { code, field: 'policy.job' });
  t.throws(() => rewriteConfiguration(configuration, robot, [join(root, 'elsewhere', 'tabletop')]), { code, found: 'two called tabletop' });
  const missing = inputs(t, configuration.replaceAll('models/tabletop', 'models/gone'));
  t.throws(() => makeSeed({ robot: missing.robot, models: [], units: [] }, missing.seed), { code, field: 'models' });
  // Fixtures of one test share a folder: the last one made is there.
  const fresh = inputs(t, configuration);
  for (const unit of ['', 'x', '../x.service', 'a b.service', 'can@.service', 'x.service\ny.service']) {
    t.throws(() => makeSeed({ robot: fresh.robot, models: [], units: [unit] }, fresh.seed), { code, field: '--enable' }, JSON.stringify(unit));
  }
  const odd = inputs(t, configuration);
  writeFileSync(join(odd.root, 'models', 'tabletop', 'a"b'), '');
  t.throws(() => makeSeed({ robot: odd.robot, models: [], units: [] }, odd.seed), { code, field: 'models' }, 'a name that no tool can quote');
  const same = rewriteConfiguration('policy:\n  checkpoint_dir: /var/lib/premotor/models/current/a\n', robot, []);
  t.same(same.models, [], 'a path of the robot is left alone');
});

t.test('only public keys open the door', async (t) => {
  const root = t.testdir({
    good: `# mine\n${KEY}\n\n`,
    private: '-----BEGIN OPENSSH PRIVATE KEY-----\nx\n',
    text: 'hello',
    empty: '',
    mixed: `${KEY}\nhello\n`,
  });
  t.equal(readPublicKeys(join(root, 'good')), `${KEY}\n`);
  for (const name of ['private', 'text', 'empty', 'mixed', 'absent']) {
    t.throws(() => readPublicKeys(join(root, name)), { code: 'IMAGE_INPUT_INVALID', field: '--ssh-key' }, name);
  }
  const { robot, seed } = inputs(t, configuration);
  mkdirSync(seed, { recursive: true });
  writeFileSync(join(root, 'key.pub'), `${KEY}\n`);
  makeSeed({ robot, models: [], units: [], sshKey: join(root, 'key.pub') }, seed);
  t.equal(readFileSync(join(seed, 'ssh', 'authorized_keys'), 'utf8'), `${KEY}\n`);
});

t.test('the data partition has room for its files', async (t) => {
  t.equal(dataMibFor(0, 128), 128);
  t.ok(dataMibFor(1 << 30, 128) > 1024 + 128);
});
