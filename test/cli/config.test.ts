/** `premotor config`: what is printed of right and wrong configurations, for people and for programs, and the example. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runCli } from '../../src/cli/main.js';
import { parseRobotConfig } from '../../src/config/reader.js';
import { VOCABULARY } from '../../src/runtime/rig.js';
import { fakeContext } from './fakes.js';

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const { out, err, context } = fakeContext();
  const code = await runCli(['config', ...argv], context);
  return { code, out: out.text, err: err.text };
}
const minimal = 'robot:\n  type: sim\npolicy:\n  checkpoint_dir: ckpt\n';

t.test('a right file: every key, with the defaults marked', async (t) => {
  const file = join(t.testdir({ 'a.yaml': `${minimal}control:\n  hold_ms: 5\n  limits: {yaw: {upper_rad: 1}}\n` }), 'a.yaml');
  const { code, out } = await run('check', file);
  t.equal(code, 0);
  t.match(out, new RegExp(`^${file}: ok\n`));
  t.match(out, /^ {2}control\.hold_ms +5$/m);
  t.match(out, /^ {2}control\.action_rate_hz +25 {2}# default$/m);
  t.match(out, /^ {2}policy\.threads +\(all cores but one\) {2}# default$/m);
  t.match(out, /^ {2}control\.limits\.yaw +\{"upper_rad":1\}$/m);
  const json = JSON.parse((await run('check', file, '--json')).out);
  t.match(json, { files: [{ file, ok: true, problems: [], config: { control: { hold_ms: 5 } }, defaults: /./ }] });
});

t.test('wrong files: every problem of every file, exit code 1', async (t) => {
  const dir = t.testdir({ 'a.yaml': minimal, 'b.yaml': `${minimal}contrl: 1\ntask: {seed: x}\n`, 'c.yaml': 'a: [' });
  const files = ['a', 'b', 'c', 'none'].map((name) => join(dir, `${name}.yaml`));
  const { code, out, err } = await run('check', ...files);
  t.equal(code, 1);
  t.equal(err, '', 'the problems are the result');
  t.match(out, /a\.yaml: ok\n/);
  t.match(out, /b\.yaml: 2 problems\n {2}.*b\.yaml:5:1: contrl: expected .*did you mean control\?\n {2}.*b\.yaml:6:8: task\.seed: expected/);
  t.match(out, /c\.yaml: 1 problem\n {2}.*c\.yaml:1:\d: expected YAML/);
  t.match(out, /none\.yaml: 1 problem\n.*expected a YAML file, found no readable file/);
  const json = JSON.parse((await run('check', ...files, '--json')).out);
  t.same(
    json.files.map(({ ok, problems }: { ok: boolean; problems: unknown[] }) => [ok, problems.length]),
    [
      [true, 0],
      [false, 2],
      [false, 1],
      [false, 1],
    ],
  );
});

t.test('the job is checked too, at the place of its key', async (t) => {
  const dir = t.testdir({ 'a.yaml': `${minimal}  job: {height: 96}\n`, 'b.yaml': `${minimal}  job: none.json\n` });
  t.match(await run('check', join(dir, 'a.yaml')), { code: 1, out: /a\.yaml:5:3: policy\.job: expected a usable job, found .*obs_cam_keys/ });
  t.match(await run('check', join(dir, 'b.yaml')), { code: 1, out: /b\.yaml:5:3: policy\.job: .*none\.json/ });
  writeFileSync(join(dir, 'job.json'), '{');
  writeFileSync(join(dir, 'a.yaml'), `${minimal.replace('ckpt', '.')}`);
  t.match(
    await run('check', join(dir, 'a.yaml')),
    { code: 1, out: /a\.yaml:3:1: policy\.job: .*is not JSON/ },
    "the checkpoint folder's own job.json",
  );
});

t.test('robot descriptions beside the file are read', async (t) => {
  const example = readFileSync('robots/example-can.yaml', 'utf8');
  const dir = t.testdir({ 'a.yaml': example, urdf: {} });
  const check = (): ReturnType<typeof run> => run('check', join(dir, 'a.yaml'));
  t.match(await check(), { code: 1, out: /a\.yaml:\d+:7: robot\.workspaces\.arm\.urdf: expected a URDF file, found no file .*sim-arm\.urdf/ });
  writeFileSync(join(dir, 'urdf/sim-arm.urdf'), '<robot name="x"><link name="base"/></robot>');
  t.match(await check(), { code: 1, out: /arm\.urdf: expected a usable URDF file, found .*tip/ });
  writeFileSync(join(dir, 'urdf/sim-arm.urdf'), readFileSync('robots/urdf/sim-arm.urdf'));
  t.match(await check(), { code: 0, out: /: ok/ });
  writeFileSync(join(dir, 'a.yaml'), example.replace('urdf/sim-arm.urdf', '/var/lib/premotor/none.urdf'));
  t.match(await check(), { code: 0, out: /: ok/ }, 'a place on the robot: the doctor looks there');
});

t.test('the examples are valid files', async (t) => {
  const { code, out } = await run('example');
  t.equal(code, 0);
  t.equal(out, readFileSync('robots/sim-tabletop.yaml', 'utf8'));
  t.equal(parseRobotConfig(out, '/x/y.yaml', VOCABULARY).config.robot.type, 'sim');
  const can = await run('example', '--type', 'can');
  t.same([can.code, can.out], [0, readFileSync('robots/example-can.yaml', 'utf8')]);
  const files = ['robots/example-can.yaml', 'robots/hil-tabletop.yaml'];
  const checked = await run('check', ...files);
  t.equal(checked.code, 0, checked.out);
  t.match(checked.out, /^ {2}robot\.joints\.base +\{"lower_rad":-1\.5,/m);
  t.notMatch((await run('check', 'robots/sim-tabletop.yaml')).out, /robot\.bus/, 'what belongs to another type of robot is left out');
  t.equal((await run('example', '--type', 'cam')).code, 2);
  t.equal((await run('check')).code, 2, 'at least one file');
});
