/**
 * The images that the scenarios boot: built by the product's own command, with the test's key, and kept in build/image/ while their inputs stay the
 * same (the command caches the slow parts). Owned by `npm run test:image`.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The robot of the guests: hardware in the loop when it is there, else the simulation alone. */
const robotFile = () => ['hil-tabletop.yaml', 'sim-tabletop.yaml'].map((name) => join(root, 'robots', name)).find((file) => existsSync(file));

/** Builds an image and returns its path. `robot` and `extra` are for scenarios that need another one. */
export function buildTestImage({ arch, deb, key, folder, name = 'test', robot = robotFile(), extra = [] }) {
  const out = join(folder, `${name}-${arch}.img`);
  const args = [join(root, 'bin', 'premotor.js'), 'image', 'build', '--arch', arch, '--robot', robot, '-o', out];
  args.push(
    '--ssh-key',
    key.publicKey,
    '--cache-dir',
    join(folder, 'cache'),
    ...(deb === undefined ? ['--without-premotor'] : ['--deb', deb]),
    ...extra,
  );
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (status !== 0) throw new Error(`the image cannot be built: expected 0, found ${status}`);
  return out;
}
