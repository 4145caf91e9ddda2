/**
 * Builds what is named on the command line: `native` (the addon), `dist` (TypeScript), `tests` (C++ tests), `sanitize` (the same and the addon under
 * ASan and UBSan), `aarch64` (the engine's C++ tests for 64-bit ARM, needs the cross compiler), `fuzz` (libFuzzer targets, needs clang).
 */
import { spawnSync } from 'node:child_process';
import { ensureAddon, ensureDist, ensureNative, ensureTools, runMain, SetupError } from './steps.mjs';
import { ensureAarch64 } from './test-aarch64.mjs';

/** Debian's clang-14 comes without the plain names. */
function fuzzCompilers() {
  for (const suffix of ['', '-14']) {
    if (spawnSync(`clang++${suffix}`, ['--version']).status === 0)
      return { CMAKE_CXX_COMPILER: `clang++${suffix}`, CMAKE_C_COMPILER: `clang${suffix}` };
  }
  throw new SetupError('the fuzz targets need clang with its run-time libraries (Debian packages clang-14 and libclang-rt-14-dev)');
}

const targets = {
  native: ensureAddon,
  dist: ensureDist,
  tests: () => ensureNative('tests', { PREMOTOR_TESTS: 'ON' }),
  sanitize: () => ensureNative('sanitize', { PREMOTOR_TESTS: 'ON', PREMOTOR_SANITIZE: 'ON', PREMOTOR_ADDON: 'ON' }),
  aarch64: ensureAarch64,
  fuzz: () => ensureNative('fuzz', { PREMOTOR_FUZZ: 'ON', PREMOTOR_SANITIZE: 'ON', ...fuzzCompilers() }),
};

await runMain(() => {
  const names = process.argv.slice(2);
  for (const name of names) {
    if (!Object.hasOwn(targets, name)) throw new SetupError(`unknown target "${name}"; expected some of ${Object.keys(targets).join(', ')}`);
  }
  if (names.length === 0) throw new SetupError(`name a target: ${Object.keys(targets).join(', ')}`);
  if (names.some((name) => name !== 'dist')) ensureTools({ mayInstall: false });
  for (const name of names) targets[name]();
});
