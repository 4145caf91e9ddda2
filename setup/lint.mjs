/**
 * `npm run lint`: Biome, the TypeScript compiler over src and test, and clang-format over the C++ when version 14 is installed (other versions format
 * otherwise). `npm run format` (--write) repairs what can be repaired. The rules that no tool knows are in test/tidy.test.ts.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { refillComments } from './refill.mjs';
import { filesBelow, root, runMain, say, typescript } from './steps.mjs';

const isWriting = process.argv.includes('--write');
let failures = 0;

function check(name, command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  say(`${name}: ${result.status === 0 ? 'ok' : 'failed'}`);
  if (result.status !== 0) failures += 1;
}

function clangFormat() {
  for (const command of ['clang-format-14', 'clang-format']) {
    const result = spawnSync(command, ['--version'], { encoding: 'utf8' });
    if (result.status === 0 && / version 14\./.test(result.stdout)) return command;
  }
  return undefined;
}

/** One line per file that would change: the compiler-like listing of clang-format is too long to read. */
function checkCpp(formatter, sources) {
  const unformatted = sources.filter((path) => {
    if (isWriting) return spawnSync(formatter, ['-i', path]).status !== 0;
    return spawnSync(formatter, ['--dry-run', '-Werror', path]).status !== 0;
  });
  for (const path of unformatted) say(`clang-format: ${relative(root, path)} is not formatted; run npm run format`);
  say(`clang-format: ${unformatted.length === 0 ? 'ok' : 'failed'}`);
  if (unformatted.length > 0) failures += 1;
}

const lineColumnsMax = 150;

function refillAll() {
  for (const path of ['src', 'test', 'bench', 'setup'].flatMap((folder) => filesBelow(join(root, folder)))) {
    if (!/\.(ts|mjs)$/.test(path)) continue;
    const text = readFileSync(path, 'utf8');
    const refilled = refillComments(text, lineColumnsMax);
    if (refilled !== text) writeFileSync(path, refilled);
  }
}

await runMain(() => {
  if (isWriting) refillAll();
  const biome = createRequire(join(root, 'package.json')).resolve('@biomejs/biome/bin/biome');
  check('biome', process.execPath, [biome, 'check', '--no-errors-on-unmatched', ...(isWriting ? ['--write'] : [])]);
  const sources = ['cpp', 'protocol', 'firmware-bridge', 'cuda', 'test/cpp', 'test/cuda', 'test/fuzz', 'test/vm']
    .flatMap((folder) => filesBelow(join(root, folder)))
    .filter((path) => /\.(cpp|h|c|cu)$/.test(path));
  const formatter = clangFormat();
  if (formatter === undefined) say('clang-format 14 is not installed (Debian package clang-format-14): C++ formatting is not checked');
  else checkCpp(formatter, sources);
  for (const name of isWriting ? [] : ['tsconfig.test.json', 'tsconfig.page.json']) {
    check(`tsc ${name}`, process.execPath, [typescript(), '--noEmit', '-p', join(root, name)]);
  }
  return failures === 0 ? 0 : 1;
});
