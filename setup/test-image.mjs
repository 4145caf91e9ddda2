/**
 * `npm run test:image`: builds disk images, boots them in emulated machines and plays the scenarios of test/image/. It takes minutes to an hour and
 * is run by hand; `npm test` does not. Names on the command line choose scenarios (a part of a name is enough), --list shows them all, --image FILE
 * takes an image that was built with the test's key instead of building one,
 * --folder DIR keeps its guests there: runs side by side need one each. What this machine lacks is skipped, loudly. Prints TAP; guests leave
 * their consoles in build/image/.
 */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { Disk, makeKey, missingFor } from '../test/image/guest.mjs';
import { buildTestImage } from '../test/image/images.mjs';
import { ensureDist, ensurePackages, root, runMain, say } from './steps.mjs';

const folder = join(root, 'build', 'image');

const usage = 'npm run test:image -- [--list] [--deb FILE] [--deb-arm64 FILE] [--image FILE] [--image-arm64 FILE] [--folder DIR] [NAME...]';

/** The scenarios of test/image/: this part's table, then those that other parts keep in files of their own. */
async function allScenarios() {
  const tests = join(root, 'test', 'image');
  const files = ['scenarios.mjs', ...readdirSync(tests).filter((name) => /^(app|update|guide)-.*\.mjs$/.test(name))];
  const modules = await Promise.all(files.map((name) => import(pathToFileURL(join(tests, name)).href)));
  return modules.flatMap(({ scenarios = [] }) => scenarios);
}

/** Assertions that count themselves, as TAP subtests. */
class Checks {
  count = 0;
  #fail(what, detail) {
    throw new Error(`${what}: ${detail}`);
  }
  #pass(what) {
    process.stdout.write(`    ok ${++this.count} - ${what}\n`);
  }
  ok(value, what) {
    if (!value) this.#fail(what, `found ${value}`);
    this.#pass(what);
  }
  equal(found, expected, what) {
    if (found !== expected) this.#fail(what, `expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
    this.#pass(what);
  }
  match(found, pattern, what) {
    if (!pattern.test(found)) this.#fail(what, `expected ${pattern}, found ${JSON.stringify(String(found).slice(0, 400))}`);
    this.#pass(what);
  }
}

async function imageOf(arch, given, debs, key, home) {
  if (given[arch] !== undefined) return resolve(given[arch]);
  ensurePackages();
  ensureDist();
  return buildTestImage({ arch, deb: debs[arch], key, folder: home });
}

async function play(scenario, number, context) {
  const started = Date.now();
  const check = new Checks();
  process.stdout.write(`# Subtest: ${scenario.name}\n`);
  const disk = (name, { image = context.image, ...options } = {}) =>
    new Disk(join(context.home, 'guests', `${number}-${name}`), scenario.arch, image, options);
  let failure;
  try {
    await scenario.run({ ...context, arch: scenario.arch, disk, check, folder: join(context.home, 'guests', String(number)) });
  } catch (error) {
    failure = error;
  }
  process.stdout.write(`    1..${check.count}\n`);
  const seconds = ((Date.now() - started) / 1000).toFixed(0);
  process.stdout.write(`${failure === undefined ? '' : 'not '}ok ${number} - ${scenario.name} # ${seconds} s\n`);
  if (failure !== undefined)
    process.stdout.write(`  ---\n  message: ${JSON.stringify(failure.message)}\n  consoles: ${join(context.home, 'guests')}\n  ...\n`);
  return failure === undefined;
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      list: { type: 'boolean' },
      deb: { type: 'string' },
      'deb-arm64': { type: 'string' },
      image: { type: 'string' },
      'image-arm64': { type: 'string' },
      folder: { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  const scenarios = await allScenarios();
  if (values.help) return say(usage);
  if (values.list) {
    for (const { name, arch, needs } of scenarios)
      process.stdout.write(`${arch}  ${name}${needs.length > 0 ? `  (needs ${needs.join(', ')})` : ''}\n`);
    return;
  }
  const chosen = scenarios.filter(({ name }) => positionals.length === 0 || positionals.some((part) => name.includes(part)));
  if (chosen.length === 0) throw new Error(`no scenario is called so: expected a part of a name that --list shows, found ${positionals.join(', ')}`);
  const home = values.folder === undefined ? folder : resolve(values.folder);
  mkdirSync(home, { recursive: true });
  const debs = { amd64: values.deb, arm64: values['deb-arm64'] };
  const given = { amd64: values.image, arm64: values['image-arm64'] };
  const images = new Map();
  process.stdout.write(`TAP version 14\n1..${chosen.length}\n`);
  let failed = 0;
  for (const [index, scenario] of chosen.entries()) {
    const { arch, needs, name } = scenario;
    const hasApp = debs[arch] !== undefined || given[arch] !== undefined;
    const missing = [...missingFor(arch), ...(needs.includes('premotor') && !hasApp ? ['--deb FILE'] : [])];
    if (missing.length > 0) {
      process.stdout.write(`ok ${index + 1} - ${name} # SKIP SKIPPED: missing ${missing.join(' ')}\n`);
      continue;
    }
    const key = makeKey(join(folder, 'key'));
    // Some scenarios build images of their own.
    if (!scenario.hasOwnImage && !images.has(arch)) images.set(arch, await imageOf(arch, given, debs, key, home));
    if (!scenario.hasOwnImage && !existsSync(images.get(arch))) throw new Error(`no image: expected ${images.get(arch)}, found no file`);
    const deb = debs[arch] === undefined ? undefined : resolve(debs[arch]);
    if (!(await play(scenario, index + 1, { image: images.get(arch), key, root, home, deb }))) failed++;
  }
  process.stdout.write(`# ${chosen.length - failed} passed, ${failed} failed\n`);
  return failed === 0 ? 0 : 1;
}

runMain(main);
