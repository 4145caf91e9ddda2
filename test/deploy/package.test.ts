/**
 * How the Debian package is put together, on small trees: what goes in, what it asks of the system, and that the same inputs give the same bytes. The
 * whole package is tried by npm run test:install, which takes minutes.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';

const root = fileURLToPath(new URL('../../', import.meta.url));

interface Contents {
  appFiles(root: string, npmCpu: string): { files: string[]; packages: string[]; missing: string[] };
  isRead(path: string, npmCpu: string): boolean;
}
interface Needs {
  readonly machines: readonly string[];
  readonly libraries: readonly string[];
  readonly glibc: string | undefined;
  readonly glibcxx: string | undefined;
}
interface Elf {
  needsOf(text: string): Needs;
  readNeeds(files: readonly string[]): Needs;
  dependenciesOf(needs: Needs, shipped: ReadonlySet<string>): string[];
}
interface Archive {
  packDeb(options: object): number;
}
interface Fetch {
  nativePackages(lock: object, npmCpu: string): { name: string; version: string; integrity: string }[];
}

const load = async <T>(name: string): Promise<T> => (await import(new URL(`../../deploy/deb/${name}.mjs`, import.meta.url).href)) as T;

t.test('what goes in: programs and what dependencies reach, nothing that builds, types or tests', async (t) => {
  const { appFiles } = await load<Contents>('contents');
  const dependency = (more: object): string => JSON.stringify({ name: 'x', version: '1.0.0', ...more });
  const tree = t.testdir({
    'package.json': dependency({
      dependencies: { a: '1', 'cmake-js': '1' },
      devDependencies: { dev: '1' },
      optionalDependencies: { absent: '1', native: '1' },
    }),
    bin: { 'premotor.js': '' },
    dist: { 'index.js': '', 'index.d.ts': '', page: { 'index.html': '' } },
    protocol: { 'a.proto': '', 'README.md': '' },
    docs: { 'ERRORS.md': '', 'OTHER.md': '', figures: { 'a.md': '' } },
    robots: { 'sim.yaml': '' },
    models: { small: { 'job.json': '{}', transformer: { 'w.safetensors': '' }, training: { 'log.json': '' }, 'REPORT.json': '' } },
    node_modules: {
      a: {
        'package.json': dependency({ dependencies: { b: '1', '@img/p': '1' } }),
        'index.js': '',
        'index.d.ts': '',
        'README.md': '',
        LICENSE: '',
        node_modules: { b: { 'package.json': dependency({}), 'b.js': '' } },
      },
      b: { 'package.json': dependency({}), 'wrong.js': '' },
      '@img': { p: { 'package.json': dependency({ cpu: ['x64'] }), 'p.node': '' } },
      native: {
        'package.json': dependency({}),
        bin: { 'napi-v6': { linux: { x64: { 'n.node': '' }, arm64: { 'n.node': '' } }, win32: { x64: { 'n.node': '' } } } },
      },
      dev: { 'package.json': dependency({}), 'dev.js': '' },
      'cmake-js': { 'package.json': dependency({}), 'c.js': '' },
    },
  });
  const { files, packages, missing } = appFiles(tree, 'arm64');
  t.same(missing, []);
  t.same(
    packages,
    ['node_modules/a', 'node_modules/a/node_modules/b', 'node_modules/native'],
    'a package inside a package is found before the one beside it',
  );
  t.same(files.sort(), [
    'bin/premotor.js',
    'dist/index.js',
    'dist/page/index.html',
    'docs/ERRORS.md',
    'docs/OTHER.md',
    'models/small/job.json',
    'models/small/transformer/w.safetensors',
    'node_modules/a/LICENSE',
    'node_modules/a/index.js',
    'node_modules/a/node_modules/b/b.js',
    'node_modules/a/node_modules/b/package.json',
    'node_modules/a/package.json',
    'node_modules/native/bin/napi-v6/linux/arm64/n.node',
    'node_modules/native/package.json',
    'package.json',
    'protocol/a.proto',
    'robots/sim.yaml',
  ]);
});

t.test('a dependency that is not installed is named', async (t) => {
  const { appFiles } = await load<Contents>('contents');
  const tree = t.testdir({ 'package.json': JSON.stringify({ dependencies: { gone: '1' } }) });
  const { missing } = appFiles(tree, 'x64');
  t.ok(missing.includes('gone (asked for by package.json)'), missing.join());
  t.ok(missing.includes('dist'), 'and so is a part of the tree');
});

t.test('this tree: complete, and without what only builds it', async (t) => {
  const { appFiles } = await load<Contents>('contents');
  const { packages, missing } = appFiles(root, 'arm64');
  t.same(
    missing.filter((name) => name !== 'dist'),
    [],
    'dist is compiled when a package is made',
  );
  for (const name of ['typescript', 'tap', 'cmake-js', 'node-addon-api', 'esbuild'])
    t.notOk(packages.includes(`node_modules/${name}`), `${name} stays out`);
  for (const name of ['zod', 'sharp', 'mujoco-js']) t.ok(packages.includes(`node_modules/${name}`), `${name} goes in`);
});

t.test("sharp's libraries for the robot are those of package-lock.json", async (t) => {
  const { nativePackages } = await load<Fetch>('fetch');
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  for (const cpu of ['x64', 'arm64']) {
    const found = nativePackages(lock, cpu);
    t.same(
      found.map(({ name }) => name),
      [`@img/sharp-linux-${cpu}`, `@img/sharp-libvips-linux-${cpu}`],
    );
    for (const { integrity } of found) t.match(integrity, /^sha512-/);
  }
  t.throws(() => nativePackages({ packages: {} }, 'arm64'), /expected an entry "node_modules\/@img\/sharp-linux-arm64"/);
});

t.test('what native code asks of the system becomes dependencies', async (t) => {
  const { needsOf, dependenciesOf } = await load<Elf>('elf');
  const text = [
    '  Machine:                           AArch64',
    ' 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]',
    ' 0x0000000000000001 (NEEDED)             Shared library: [libmine.so.1]',
    '  0x0010:   Name: GLIBC_2.9  Flags: none  Version: 4',
    '  0x0020:   Name: GLIBC_2.34  Flags: none  Version: 5',
    '  0x0030:   Name: GLIBCXX_3.4.29  Flags: none  Version: 6',
  ].join('\n');
  const needs = needsOf(text);
  t.same(needs, { machines: ['AArch64'], libraries: ['libc.so.6', 'libmine.so.1'], glibc: '2.34', glibcxx: '3.4.29' }, '2.34 is newer than 2.9');
  t.same(dependenciesOf(needs, new Set(['libmine.so.1'])), ['libc6 (>= 2.34)', 'libgcc-s1', 'libstdc++6 (>= 11)']);
  t.throws(() => dependenciesOf(needs, new Set()), /libmine\.so\.1/, 'a library that nobody brings');
  t.throws(() => dependenciesOf({ ...needs, glibcxx: '3.4.99' }, new Set(['libmine.so.1'])), /3\.4\.99/);
});

const hasDpkg = spawnSync('dpkg-deb', ['--version']).status === 0;

async function packTwice(t: Test, change: (folder: string) => void): Promise<string[]> {
  const { packDeb } = await load<Archive>('archive');
  const make = (name: string): string => {
    const folder = join(t.testdirName, name);
    return folder;
  };
  const tree = () => ({ usr: { bin: { prog: '#!/bin/sh\n' }, share: { a: { B: '1', b: '2', 'z.txt': '3' } } }, etc: { 'x.conf': 'y\n' } });
  t.testdir({ one: tree(), two: tree() });
  for (const name of ['one', 'two']) chmodSync(join(make(name), 'usr/bin/prog'), 0o755);
  change(make('two'));
  return ['one', 'two'].map((name) => {
    const output = join(t.testdirName, `${name}.deb`);
    const control = 'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: x\n';
    packDeb({
      root: make(name),
      control,
      scripts: { postinst: '#!/bin/sh\n' },
      conffiles: ['/etc/x.conf'],
      epoch_s: 1_700_000_000,
      output,
      compression: 'fast',
    });
    return output;
  });
}

const sumOf = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

t.test('the same inputs give the same bytes', { skip: !hasDpkg && 'SKIPPED: dpkg-deb is not installed' }, async (t) => {
  const [one, two] = await packTwice(t, (folder) => {
    // Another umask, another day.
    chmodSync(join(folder, 'usr/bin/prog'), 0o700);
    chmodSync(join(folder, 'etc/x.conf'), 0o600);
    chmodSync(join(folder, 'usr/share'), 0o700);
    utimesSync(join(folder, 'usr/share/a/b'), 1, 1);
  });
  t.equal(sumOf(two ?? ''), sumOf(one ?? ''));
  const listing = spawnSync('dpkg-deb', ['-c', one ?? ''], { encoding: 'utf8', env: { ...process.env, TZ: 'UTC' } }).stdout;
  t.match(listing, /^-rwxr-xr-x root\/root +\d+ 2023-11-14 22:13 \.\/usr\/bin\/prog$/m);
  t.match(listing, /^-rw-r--r-- root\/root +\d+ 2023-11-14 22:13 \.\/etc\/x\.conf$/m);
});

t.test('and other inputs others', { skip: !hasDpkg && 'SKIPPED: dpkg-deb is not installed' }, async (t) => {
  const [one, two] = await packTwice(t, (folder) => writeFileSync(join(folder, 'usr/share/a/b'), 'x'));
  t.not(sumOf(two ?? ''), sumOf(one ?? ''));
});

t.test('everything that a unit or a place names is in the tree', async (t) => {
  const scripts = /\/usr\/lib\/premotor\/deploy\/([\w.-]+)/g;
  for (const file of [
    'deploy/systemd/premotor.service',
    'deploy/systemd/can@.service',
    'deploy/systemd/can@vcan0.service',
    'deploy/deb/files/prerm',
  ]) {
    for (const [, name] of readFileSync(join(root, file), 'utf8').matchAll(scripts))
      t.ok(existsSync(join(root, 'deploy/lib', name ?? '')), `${file}: ${name}`);
  }
  for (const name of ['postinst', 'prerm', 'postrm']) {
    t.equal(spawnSync('sh', ['-n', join(root, 'deploy/deb/files', name)]).status, 0, `${name} is a shell script`);
  }
});

t.test('the builder refuses a wrong command line before it does anything', async (t) => {
  const build = (...args: string[]): { status: number | null; stderr: string } =>
    spawnSync(process.execPath, [join(root, 'deploy/deb/build.mjs'), ...args], { encoding: 'utf8' });
  t.match(build(), { status: 1, stderr: /--arch: expected amd64 or arm64, found none/ });
  t.match(build('--arch', 'riscv64'), { status: 1, stderr: /found riscv64/ });
  t.match(build('--arch', 'amd64', '--version', 'v1'), { status: 1, stderr: /--version: expected a digit/ });
  t.match(build('--arch', 'amd64', '--colour'), { status: 1, stderr: /colour/ });
});
