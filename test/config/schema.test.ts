/** The schema, docs/CONFIG.md and the commented example say the same about every key. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type ConfigKey, configKeys, expectedAt, namesUnder } from '../../src/config/schema.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const keys = configKeys();
const defaultText = ({ isRequired, defaultValue, fallback }: ConfigKey): string =>
  isRequired ? 'required' : (fallback ?? `\`${JSON.stringify(defaultValue).replaceAll('"', '')}\``);

t.test('the keys', async (t) => {
  t.ok(keys.length > 20);
  t.equal(new Set(keys.map(({ path }) => path)).size, keys.length);
  for (const { path, expected, meaning } of keys) t.ok(expected && meaning, path);
  t.same(
    keys.filter(({ isRequired }) => isRequired).map(({ path }) => path),
    [
      'robot.type',
      'robot.joints.<name>.lower_rad',
      'robot.joints.<name>.upper_rad',
      'robot.joints.<name>.velocity_max_rad_per_s',
      'robot.joints.<name>.acceleration_max_rad_per_s2',
      'robot.joints.<name>.jerk_max_rad_per_s3',
      'robot.joints.<name>.torque_max_nm',
      'robot.workspaces.<name>.urdf',
      'robot.workspaces.<name>.base_link',
      'robot.workspaces.<name>.tip_link',
      'robot.workspaces.<name>.first_joint',
      'robot.workspaces.<name>.lower_m',
      'robot.workspaces.<name>.upper_m',
      'cameras.sources.<name>.type',
      'control.start_pose.<name>.position_rad',
    ],
  );
  t.same(namesUnder(['control', 'limits', 'yaw']), [
    'lower_rad',
    'upper_rad',
    'velocity_max_rad_per_s',
    'acceleration_max_rad_per_s2',
    'jerk_max_rad_per_s3',
  ]);
  t.match(expectedAt(['control']), /^a section with mode, /);
  t.equal(expectedAt(['control', 'limits', 'yaw', 'lower_rad']), 'an angle in radians');
});

t.test('numbers with a unit have it in their names', async (t) => {
  const unitless =
    /(^|\.)(seed|threads|priority|core|dark_below|(video|action)_steps|(chunks|episodes|starts)_max|\w*port|width|height|jpeg_quality)$/;
  for (const { path, expected } of keys) {
    if (/number|angle/.test(expected) && !unitless.test(path)) t.match(path, /_(ms|s|hz|mib|m|nm|rad|rad_per_s|rad_per_s2|rad_per_s3)$/, path);
  }
});

t.test('docs/CONFIG.md has a row per key, with expectation, default and meaning', async (t) => {
  const text = readFileSync(join(root, 'docs', 'CONFIG.md'), 'utf8');
  const rows = [...text.matchAll(/^\| `([a-z0-9_.<>]+)` \| (.+) \|$/gm)].map(([, path, rest]) => `${path} | ${rest}`);
  t.same(
    rows,
    keys.map((key) => `${key.path} | ${key.expected} | ${defaultText(key)} | ${key.meaning}`),
  );
});

t.test('the example shows every key, those with a default as it is', async (t) => {
  // Keys of a robot on a bus are in the example of that type.
  const lines = ['sim-tabletop.yaml', 'example-can.yaml'].flatMap((name) => readFileSync(join(root, 'robots', name), 'utf8').split('\n'));
  for (const { path, defaultValue } of keys) {
    const name = path.split('.').at(-1) ?? '';
    const line = lines.find((one) => new RegExp(`^\\s*(# +)?${name}:`).test(one));
    t.ok(line, path);
    if (typeof defaultValue === 'number') t.match(line, new RegExp(`: ${defaultValue}$`), path);
  }
});
