/**
 * The set-up scripts on a machine that lacks things: no compiler, no build, no such target. Each must fail with what was expected, what was found and
 * what to do. The way that works is shown by every other test, which could not run otherwise.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
// @ts-expect-error: the set-up scripts are plain JavaScript without types.
import { refillComments } from '../setup/refill.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function runScript(script: string, args: string[], env: NodeJS.ProcessEnv, folder = root): { status: number | null; text: string } {
  const result = spawnSync(process.execPath, [join(folder, script), ...args], { env, encoding: 'utf8' });
  return { status: result.status, text: result.stdout + result.stderr };
}

t.test('without build tools the install script names the Debian packages and fails', async (t) => {
  const { status, text } = runScript('setup/install.mjs', [], { PATH: t.testdir({}) });
  t.equal(status, 1);
  t.match(text, /CMake >= 3\.22; found: none/);
  t.match(text, /sudo apt-get install cmake g\+\+ make/);
  t.notMatch(text, /\n\s+at /, 'no stack');
});

t.test('only the missing tool is named, and an old CMake counts as missing', async (t) => {
  const bin = t.testdir({
    cmake: '#!/bin/sh\necho cmake version 3.18.4\n',
    'c++': '#!/bin/sh\necho a compiler\n',
    make: '#!/bin/sh\necho GNU Make\n',
  });
  for (const tool of ['cmake', 'c++', 'make']) chmodSync(join(bin, tool), 0o755);
  const { status, text } = runScript('setup/install.mjs', [], { PATH: bin });
  t.equal(status, 1);
  t.match(text, /CMake >= 3\.22; found: version 3\.18; Debian package: cmake\n/);
  t.match(text, /sudo apt-get install cmake\n/);
});

t.test('without the cross compiler and the emulator the tests on 64-bit ARM are skipped, and say what is missing', async (t) => {
  const script = `const { ensureAarch64 } = await import(${JSON.stringify(join(root, 'setup', 'test-aarch64.mjs'))}); console.log(ensureAarch64());`;
  const options = { env: { PATH: t.testdir({}) }, encoding: 'utf8' } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], options);
  t.equal(status, 0, stderr);
  t.match(stdout, /^\{\}/, 'no programs to run');
  if (process.arch === 'arm64') t.pass('named packages', { skip: 'an ARM host needs none' });
  else t.match(stderr, /SKIPPED: .* Debian packages g\+\+-aarch64-linux-gnu qemu-user-static are missing/);
});

t.test('an unknown build target is refused', async (t) => {
  const { status, text } = runScript('setup/build.mjs', ['natvie'], process.env);
  t.equal(status, 1);
  t.match(text, /unknown target "natvie"; expected some of native, dist/);
});

t.test('the command says so when premotor is not built', async (t) => {
  const folder = t.testdir({});
  mkdirSync(join(folder, 'bin'));
  cpSync(join(root, 'bin', 'premotor.js'), join(folder, 'bin', 'premotor.js'));
  writeFileSync(join(folder, 'package.json'), '{"type": "module"}');
  const { status, text } = runScript('bin/premotor.js', ['doctor'], process.env, folder);
  t.equal(status, 1);
  t.match(text, /expected dist\/cli\/main\.js, found none\. Run "npm run build"/);
});

t.test('sources are compiled once, again when one changes, and a type error fails', async (t) => {
  const page = { dashboard: { page: { 'b.ts': 'export const title = (): string => document.title;\n' } } };
  const folder = t.testdir({ src: { 'a.ts': 'export const a: number = 1;\n', 'scene.xml': '<mujoco/>', ...page } });
  for (const file of ['setup', 'tsconfig.json', 'tsconfig.page.json', 'package.json', 'package-lock.json'])
    cpSync(join(root, file), join(folder, file), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const compile = (): { status: number | null; text: string } => runScript('setup/build.mjs', ['dist'], process.env, folder);
  t.match(compile(), { status: 0, text: /compiling TypeScript/ });
  t.ok(existsSync(join(folder, 'dist', 'a.js')), 'JavaScript');
  t.ok(existsSync(join(folder, 'dist', 'a.d.ts')), 'declarations');
  t.ok(existsSync(join(folder, 'dist', 'dashboard', 'page', 'b.js')), 'the page, which knows a document');
  t.ok(existsSync(join(folder, 'dist', 'scene.xml')), 'other files are copied');
  t.same(compile(), { status: 0, text: '' }, 'nothing to do the second time');
  writeFileSync(join(folder, 'src', 'a.ts'), 'export const a: number = "one";\n');
  t.match(compile(), { status: 1, text: /Type 'string' is not assignable to type 'number'/ });
  writeFileSync(join(folder, 'src', 'a.ts'), 'export const a: number = 2;\n');
  t.match(compile(), { status: 0, text: /compiling TypeScript/ });
});

t.test('comments past the limit are refilled, and nothing else changes', async (t) => {
  const source = [
    '/**',
    ' * one two three four five',
    ' * six',
    ' * - a list item stays a paragraph',
    ' */',
    "const code = 'a line of code that is far too long stays';",
    '  // short',
    '  /** a single line that is too long */',
  ];
  const wanted = [
    '/**',
    ' * one two three',
    ' * four five six',
    ' * - a list item',
    ' * stays a',
    ' * paragraph',
    ' */',
    source[5],
    source[6],
    '  /**',
    '   * a single line',
    '   * that is too',
    '   * long',
    '   */',
  ];
  const refilled: string = refillComments(source.join('\n'), 18);
  t.same(refilled.split('\n'), wanted);
  t.equal(refillComments(refilled, 18), refilled, 'a second time changes nothing');
});
