/**
 * `premotor plan`: what a plan file holds and whether it is whole. Gathers `explain` and `verify`; whether a machine keeps up with a job is
 * `premotor plan-cycle`.
 */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { verifyPlan } from '../plan/build.js';
import { readPlan } from '../plan/directory.js';
import { type CliContext, formatBytes, printResult } from './context.js';
import { registerExplain } from './plan-explain.js';
import { ProgressBar } from './progress.js';

/** Runs `plan verify`. Errors: PLAN_*, ABORTED. */
export async function runVerify(path: string, options: { readonly json: boolean }, context: CliContext): Promise<void> {
  const file = resolve(path);
  const native = context.loadNative();
  const { fileBytes, checkpoint, precision, tensors } = await readPlan(file, native);
  const bar = new ProgressBar(context.err, { show: formatBytes });
  try {
    await verifyPlan(file, { signal: context.signal, onProgress: (_, done, total) => bar.update('checking', done, total) }, native);
  } finally {
    bar.clear();
  }
  const document = { file, bytes: fileBytes, checkpoint, precision, tensors: tensors.length, whole: true };
  printResult(context, options.json, document, () => `${file}: ${formatBytes(fileBytes)}, ${tensors.length} tensors, every byte as it was written`);
}

const examples = `
Examples:
  premotor plan verify checkpoint.plan

Opening a plan checks all of a small one, and the rest of a large one while the robot already runs. This reads everything, once, now: after a copy,
or when a disk is in doubt. Exit code 1 and error PLAN_DAMAGED when a byte is not what was written.`;

/** Adds `premotor plan` and its subcommands to the program. */
export function registerPlan(program: Command, context: CliContext): void {
  const plan = program.command('plan').description('a plan file: what it consists of, whether it is whole (premotor build makes one)');
  registerExplain(plan, context);
  plan
    .command('verify')
    .description('check every byte of a plan')
    .argument('<file>', 'plan file')
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((file: string, options: { json: boolean }) => runVerify(file, options, context));
}
