/**
 * `premotor sim`: what can be done with the simulated robot alone. Only gathers the subcommands.
 */
import type { Command } from 'commander';
import type { CliContext } from './context.js';
import { registerCollect } from './sim-collect.js';
import { registerView } from './sim-view.js';

/** Adds `premotor sim` and its subcommands to the program. */
export function registerSim(program: Command, context: CliContext): void {
  const sim = program.command('sim').description('the simulated robot: demonstrations and how they look');
  registerCollect(sim, context);
  registerView(sim, context);
}
