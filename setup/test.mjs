/**
 * `npm test`: sets up whatever is missing, builds the native tests and runs every test through tap; arguments go to tap (files, --reporter=...).
 * With --sanitize, the native tests and the golden cases run against a build with AddressSanitizer and UndefinedBehaviorSanitizer.
 * The TAP stream is kept in build/tests.tap (build/sanitize.tap), from which .ci/run counts.
 */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { ensureAddon, ensureDist, ensureNative, ensurePackages, ensureTools, filesBelow, root, runMain, SetupError, say } from './steps.mjs';

function tap(name, args, env) {
  const bin = join(createRequire(join(root, 'package.json')).resolve('tap/package.json'), '..', 'dist', 'esm', 'run.mjs');
  const result = spawnSync(process.execPath, [bin, `--output-file=${join('build', `${name}.tap`)}`, ...args], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (result.error) throw new SetupError(`tap cannot be started: ${result.error.message}`);
  return result.status ?? 1;
}

/** The sanitizer's library must be loaded before node, which is not built with it. */
function sanitizerLibrary() {
  const compiler = process.env.CXX ?? 'c++';
  const path = spawnSync(compiler, ['-print-file-name=libasan.so'], { encoding: 'utf8' }).stdout?.trim();
  if (!path?.startsWith('/')) throw new SetupError(`${compiler} has no libasan.so: the sanitizer run needs GCC with its sanitizer libraries`);
  return path;
}

function testSanitized(args) {
  const bin = ensureNative('sanitize', { PREMOTOR_TESTS: 'ON', PREMOTOR_SANITIZE: 'ON', PREMOTOR_ADDON: 'ON' });
  const goldens = filesBelow(join(root, 'test')).filter((path) => /golden[^/]*\.test\.ts$/.test(path));
  const files = ['test/native.test.ts', ...goldens.map((path) => relative(root, path))];
  say(`running ${files.length} files under ASan and UBSan`);
  return tap('sanitize', [...args, ...files], {
    PREMOTOR_NATIVE_TESTS: bin,
    PREMOTOR_ADDON: join(root, 'build', 'sanitize', 'Release', 'premotor.node'),
    PREMOTOR_SANITIZER_LIBRARY: sanitizerLibrary(),
    // Node's own allocations at exit are not leaks of ours; the leak test counts resident memory instead.
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  });
}

runMain(() => {
  const args = process.argv.slice(2).filter((arg) => arg !== '--sanitize');
  ensureTools({ mayInstall: true });
  ensurePackages();
  if (process.argv.includes('--sanitize')) return testSanitized(args);
  ensureAddon();
  ensureDist();
  const bin = ensureNative('tests', { PREMOTOR_TESTS: 'ON' });
  return tap('tests', args, { PREMOTOR_NATIVE_TESTS: bin });
});
