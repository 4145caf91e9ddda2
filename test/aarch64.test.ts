/**
 * The native tests of cpp/base, cpp/ops and cpp/engine as 64-bit ARM programs, in an emulator of user programs that plays one processor after
 * another, so that every level of the instruction set runs (docs/ENGINE.md). Skipped, with a reason, where the cross compiler or the emulator
 * is missing; `npm test` builds the programs. PREMOTOR_AARCH64=all runs those too that take minutes under emulation.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
// @ts-expect-error: the set-up scripts are plain JavaScript without types.
import { emulator, missing } from '../setup/test-aarch64.mjs';

const folder = dirname(fileURLToPath(import.meta.url));
const programs = process.env['PREMOTOR_AARCH64_TESTS'] ?? join(folder, '..', 'build', 'aarch64', 'bin');
const environment = { ...process.env, PREMOTOR_GOLDENS: process.env['PREMOTOR_GOLDENS'] ?? join(folder, 'goldens') };

/** An emulated processor and the best level that it has. The last one runs the tables of the levels below too. */
const processors = [
  { cpu: 'cortex-a72', level: 'neon' },
  { cpu: 'neoverse-n1', level: 'neon_dot' },
  { cpu: 'max', level: 'neon_bf16' },
];
/** The oracle tests of what differs from level to level, run on each processor. */
const oracles = ['ops_test', 'attention_test', 'packed_test', 'int4_test', 'conv_test', 'packed_pass_test'];
/** Needed beside the oracles, whatever else is there. */
const expected = ['kv_cache_test', 'units_test', 'vae_structures_test', 'philox_test', 'preprocess_test', 'text_encoder_test'];
/** Half a minute and more each: the code above the operations, which is the same for every processor. */
const slow = ['golden_test', 'grounded_step_test', 'vae_test', 'plan_test', 'plan_format_test', 'precision_test'];

function reasonToSkip(): string | undefined {
  if (process.arch === 'arm64') return 'this is an ARM host, whose native tests are ARM programs (test/native.test.ts)';
  const packages: string[] = missing();
  if (packages.length > 0) return `not installed: Debian packages ${packages.join(' ')}`;
  if (!existsSync(programs)) return `not built: expected ${programs}; run npm test, which builds it`;
  return undefined;
}

function run(cpu: string, program: string, env: NodeJS.ProcessEnv): void {
  const path = join(programs, program);
  if (!existsSync(path)) t.fail(`${program} is not built: expected ${path}; run npm test, which builds it`);
  else t.spawn(emulator(), ['-cpu', cpu, path], { cwd: join(folder, '..'), env: { ...environment, ...env } }, `${program} on ${cpu}`);
}

const reason = reasonToSkip();
if (reason !== undefined) t.pass('64-bit ARM', { skip: reason });
else {
  const known = spawnSync(emulator(), ['-cpu', 'help'], { encoding: 'utf8' }).stdout.split(/\s+/);
  for (const { cpu, level } of processors) {
    if (!known.includes(cpu)) t.pass(`level ${level}`, { skip: `this emulator is too old to know ${cpu}` });
    else for (const program of oracles) run(cpu, program, { PREMOTOR_EXPECTED_LEVEL: `cpu-${level}` });
  }
  // The level that no processor above has as its best.
  run('max', 'packed_pass_test', { PREMOTOR_ISA: 'neon_i8mm' });
  const built = readdirSync(join(folder, 'cpp')).map((name) => basename(name, '.cpp'));
  const others = new Set([...expected, ...built.filter((name) => name.endsWith('_test') && existsSync(join(programs, name)))]);
  for (const program of [...others].sort()) {
    if (oracles.includes(program)) continue;
    if (slow.includes(program) && process.env['PREMOTOR_AARCH64'] !== 'all') {
      t.pass(program, { skip: 'takes minutes under emulation; PREMOTOR_AARCH64=all runs it' });
    } else run('max', program, {});
  }
}
