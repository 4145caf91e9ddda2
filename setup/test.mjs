/**
 * `npm test`: sets up whatever is missing, builds the native tests and runs every test through tap; arguments go to tap (files, --reporter=...).
 * With --sanitize, the native tests and the golden cases run against a build with AddressSanitizer and UndefinedBehaviorSanitizer.
 * A whole run builds the engine's tests for 64-bit ARM too (setup/test-aarch64.mjs).
 * With --firmware (npm run test:firmware), the firmware runs in an emulator. The TAP stream is kept in build/tests.tap (build/sanitize.tap,
 * build/firmware.tap), from which .ci/run counts.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import { ensureAddon, ensureDist, ensureNative, ensurePackages, ensureTools, filesBelow, root, run, runMain, SetupError, say } from './steps.mjs';
import { ensureAarch64 } from './test-aarch64.mjs';
import { ensureFirmware } from './test-firmware.mjs';
import { ensureTestServices } from './test-services.mjs';

const tapProgram = () => join(dirname(createRequire(join(root, 'package.json')).resolve('tap/package.json')), 'dist', 'esm', 'run.mjs');

/**
 * tap's plugins are compiled into it. .taprc leaves the TypeScript plugin out, and tap obeys only after a rebuild: in a fresh node_modules its first
 * run would still load that plugin beside tsx, and compile every test twice.
 */
function ensureTap() {
  const built = join(root, 'node_modules', '@tapjs', 'test', 'test-built', 'dist', 'esm', 'index.js');
  if (!existsSync(built) || !/signature = `[^`]*@tapjs\/typescript/.test(readFileSync(built, 'utf8'))) return;
  say("building tap with this project's plugins");
  run('tap build', process.execPath, [tapProgram(), 'build'], { stdio: ['ignore', 'ignore', 2] });
}

/** Of a TAP stream, what a log needs: one line per file, the totals, and each failure with its diagnostics. */
function makeLogFilter() {
  let isDiagnosing = false;
  let isPrintingBlock = false;
  return (line) => {
    const text = line.trimStart();
    if (isPrintingBlock || (isDiagnosing && text === '---')) {
      isPrintingBlock = text !== '...';
      isDiagnosing = false;
      return true;
    }
    isDiagnosing = text.startsWith('not ok ');
    if (isDiagnosing) return true;
    return /^(ok |# \{ total|# time=|Bail out!)/.test(line);
  };
}

/** Runs tap. On a terminal its own reporter shows progress; into a pipe or a log only what makeLogFilter keeps is written. */
function tap(name, args, env) {
  const file = join(root, 'build', `${name}.tap`);
  mkdirSync(dirname(file), { recursive: true });
  const options = { cwd: root, env: { ...process.env, ...env } };
  return new Promise((resolve, reject) => {
    const isReporting = process.stdout.isTTY || args.some((arg) => /^(-R|--reporter)/.test(arg));
    const child = isReporting
      ? spawn(process.execPath, [tapProgram(), `--output-file=${file}`, ...args], { ...options, stdio: 'inherit' })
      : spawn(process.execPath, [tapProgram(), '--reporter=tap', ...args], { ...options, stdio: ['inherit', 'pipe', 'inherit'] });
    child.on('error', (error) => reject(new SetupError(`tap cannot be started: ${error.message}`)));
    child.on('close', (code) => resolve(code ?? 1));
    if (isReporting) return;
    const kept = createWriteStream(file);
    const isWanted = makeLogFilter();
    createInterface({ input: child.stdout }).on('line', (line) => {
      kept.write(`${line}\n`);
      if (isWanted(line)) process.stdout.write(`${line}\n`);
    });
    child.stdout.on('close', () => kept.end());
  });
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
    LD_PRELOAD: sanitizerLibrary(),
    // Node's own allocations at exit are not leaks of ours: test/native.test.ts turns leak detection on for the native programs.
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0',
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  });
}

function testFirmware(args) {
  ensureAddon();
  const env = ensureFirmware();
  const bin = ensureNative('tests', { PREMOTOR_TESTS: 'ON' });
  return tap('firmware', [...args, 'test/firmware-emulated/emulated.test.ts', 'test/firmware-emulated/update.test.ts'], {
    ...env,
    PREMOTOR_NATIVE_TESTS: bin,
  });
}

await runMain(() => {
  const args = process.argv.slice(2).filter((arg) => arg !== '--sanitize' && arg !== '--firmware');
  ensureTools({ mayInstall: true });
  ensurePackages();
  ensureTap();
  if (process.argv.includes('--sanitize')) return testSanitized(args);
  if (process.argv.includes('--firmware')) return testFirmware(args);
  ensureAddon();
  ensureDist();
  const bin = ensureNative('tests', { PREMOTOR_TESTS: 'ON' });
  // The cross build is for its own test only: a run of other files does without.
  const files = args.filter((arg) => !arg.startsWith('-'));
  if (files.length === 0) ensureTestServices();
  const arm = files.length === 0 || files.some((file) => file.includes('aarch64')) ? ensureAarch64() : {};
  return tap('tests', args, { PREMOTOR_NATIVE_TESTS: bin, ...arm });
});
