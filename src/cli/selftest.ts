/**
 * `premotor selftest`: one chunk of the configured model against the reference beside it. Run by the health check after an update, and by people who
 * wonder whether a machine computes what it should. Owned by the command line; nothing moves.
 */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { readRobotConfig } from '../config/reader.js';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import { VOCABULARY } from '../runtime/rig.js';
import { createReference, runSelftest, type SelftestResult } from '../runtime/selftest.js';
import { type CliContext, formatMs, printResult } from './context.js';

export interface SelftestOptions {
  readonly create: boolean;
  readonly checkpoint?: string;
  readonly json: boolean;
}

/** Errors: CONFIG_*, SELFTEST_*, those of loadPolicy. */
export async function runSelftestCommand(file: string, { create, checkpoint, json }: SelftestOptions, context: CliContext): Promise<void> {
  const { config: read } = await readRobotConfig(file, VOCABULARY);
  const config: RobotConfig = checkpoint === undefined ? read : { ...read, policy: { ...read.policy, checkpoint_dir: resolve(checkpoint) } };
  const parts = { loadPolicy: context.loadPolicy, signal: context.signal };
  if (create) {
    const made = await createReference(config, parts);
    printResult(context, json, made, () => `reference  ${made.file}\nhash       ${made.sha256}`);
    return;
  }
  const result = await runSelftest(config, parts);
  if (!result.matches) throw mismatch(result);
  printResult(context, json, result, () => textOf(result));
}

const textOf = ({ checkpoint, precision, backend, sha256, worst, tolerance, values, tookMs }: SelftestResult): string =>
  [
    `ok          ${checkpoint}`,
    `engine      ${backend}, ${precision}; ${formatMs(tookMs)} ms with loading`,
    `chunk       ${values} values, the worst ${worst.toExponential(1)} of its channel's spread away (allowed ${tolerance})`,
    `hash        ${sha256}`,
  ].join('\n');

function mismatch({ checkpoint, precision, backend, worst, tolerance, sha256, expectedSha256 }: SelftestResult): PremotorError {
  const expected = `hash ${expectedSha256}`;
  const found = `hash ${sha256}: a value ${worst.toExponential(1)} of its channel's spread away, ${tolerance} allowed`;
  const message =
    `The model in ${checkpoint} does not compute what it should (${backend}, ${precision}): expected ${expected}, found ${found}. ` +
    `Do not run it; copy it again.`;
  return new PremotorError('SELFTEST_MISMATCH', message, { file: checkpoint, expected, found });
}

const examples = `
Examples:
  premotor selftest /etc/premotor/robot.yaml
  premotor selftest robots/sim-tabletop.yaml --json
  premotor selftest my-robot.yaml --create         where the model is known to be good: writes selftest.json beside it

Exit codes: 0 the chunk matches, 1 it does not, or could not be computed.`;

/** Adds `premotor selftest` to the program. */
export function registerSelftest(program: Command, context: CliContext): void {
  program
    .command('selftest')
    .description('compute one chunk of the configured model and compare it with the reference beside the model')
    .argument('<config>', 'robot configuration, a YAML file')
    .option('--create', 'write the reference instead of comparing', false)
    .option('--checkpoint <dir>', "another model than the configuration's")
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((file: string, options: SelftestOptions) => runSelftestCommand(file, options, context));
}
