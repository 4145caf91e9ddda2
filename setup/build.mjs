/**
 * Builds what is named on the command line: `native` (the addon), `dist` (TypeScript), `tests` (C++ tests), `sanitize` (the same and the addon under
 * ASan and UBSan), `fuzz` (libFuzzer targets, needs clang).
 */
import { ensureAddon, ensureDist, ensureNative, ensureTools, runMain, SetupError } from './steps.mjs';

const targets = {
  native: ensureAddon,
  dist: ensureDist,
  tests: () => ensureNative('tests', { PREMOTOR_TESTS: 'ON' }),
  sanitize: () => ensureNative('sanitize', { PREMOTOR_TESTS: 'ON', PREMOTOR_SANITIZE: 'ON', PREMOTOR_ADDON: 'ON' }),
  fuzz: () => ensureNative('fuzz', { PREMOTOR_FUZZ: 'ON', PREMOTOR_SANITIZE: 'ON', CMAKE_CXX_COMPILER: 'clang++', CMAKE_C_COMPILER: 'clang' }),
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
