/**
 * What the package needs and the tree does not hold: Node itself and the native npm packages of the robot's processor. They come through the npm
 * client from wherever that is set up to fetch from, are checked against recorded SHA-512 sums, and are kept in build/package/cache. It installs
 * nothing.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { SetupError, say } from '../../setup/steps.mjs';

/** The Node that robots run: one version for all, changed here only. */
const NODE = {
  version: '20.20.2',
  integrity: {
    x64: 'sha512-PeHQM8wAdmHtZA1mBocygZxs5LiUWtsJezQTkBd0iY987KpGrD1O2tVEydvMZiuXceRanxt7rjTnDEBwOPujoQ==',
    arm64: 'sha512-LCXJnNTFiyGuYBw2gZSI5OBFMbkjAPt8sqD/NKrWoE2QmDgSubTqFng6GaNJ9EJ8HpxBMGcWWpbbcs4Vo+CnGg==',
  },
};

const pack_timeout_ms = 300_000;

function sumOf(file) {
  return `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`;
}

/** The archive of one npm package, from the cache or by `npm pack`; an archive with another sum is an error and is not kept. */
function archiveOf({ name, version, integrity }, cache) {
  const file = join(cache, `${name.replace('@', '').replace('/', '-')}-${version}.tgz`);
  if (existsSync(file) && sumOf(file) === integrity) return file;
  mkdirSync(cache, { recursive: true });
  say(`fetching ${name} ${version}`);
  const part = join(cache, `part-${process.pid}`);
  rmSync(part, { recursive: true, force: true });
  mkdirSync(part);
  try {
    const npm = process.env.npm_execpath;
    const args = ['pack', '--silent', '--pack-destination', part, `${name}@${version}`];
    const [command, all] = npm?.endsWith('.js') ? [process.execPath, [npm, ...args]] : ['npm', args];
    const result = spawnSync(command, all, { encoding: 'utf8', timeout: pack_timeout_ms });
    const packed = join(part, (result.stdout ?? '').trim().split('\n').at(-1) ?? '');
    if (result.status !== 0 || !packed.endsWith('.tgz') || !existsSync(packed))
      throw new SetupError(
        `fetching ${name} ${version} failed: npm pack ended with ${result.status ?? result.signal}\n${(result.stderr ?? '').trim()}`,
      );
    const found = sumOf(packed);
    if (found !== integrity)
      throw new SetupError(`${name} ${version} is not what was recorded: expected ${integrity}, found ${found}; it is not used`);
    renameSync(packed, file);
  } finally {
    rmSync(part, { recursive: true, force: true });
  }
  return file;
}

/** Native packages of sharp for Linux on `npmCpu`, with the versions and sums of package-lock.json. */
export function nativePackages(lock, npmCpu) {
  return [`@img/sharp-linux-${npmCpu}`, `@img/sharp-libvips-linux-${npmCpu}`].map((name) => {
    const entry = lock.packages?.[`node_modules/${name}`];
    if (entry?.version === undefined || entry.integrity === undefined)
      throw new SetupError(
        `package-lock.json has no version and sum of ${name}: expected an entry "node_modules/${name}", found ${JSON.stringify(entry)}`,
      );
    return { name, version: entry.version, integrity: entry.integrity };
  });
}

/** Unpacks an npm archive into `folder`; only the members `wanted` names (paths below the archive's package folder), all without it. */
function unpack(file, folder, wanted = []) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const members = wanted.map((name) => `package/${name}`);
  const args = ['-xzf', file, '-C', folder, '--strip-components=1', '--no-same-owner', '--no-same-permissions', ...members];
  const result = spawnSync('tar', args, { encoding: 'utf8' });
  if (result.status !== 0) throw new SetupError(`unpacking ${file} failed: ${result.stderr.trim()}`);
}

/** Unpacks Node into `folder`/node (program and licence) and sharp's packages into `folder`/node_modules. Returns what came, for the contents. */
export function fetchNative({ lock, npmCpu, cache, folder }) {
  const node = { name: `node-linux-${npmCpu}`, version: NODE.version, integrity: NODE.integrity[npmCpu] };
  unpack(archiveOf(node, cache), join(folder, 'node'), ['bin/node', 'LICENSE']);
  const packages = nativePackages(lock, npmCpu);
  for (const entry of packages) unpack(archiveOf(entry, cache), join(folder, 'node_modules', entry.name));
  return [node, ...packages];
}
