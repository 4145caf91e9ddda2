/**
 * A cache of tactics: what builds of plans found about cutting products on the processors that they ran on, in one JSON file, so that the next build
 * finds the same and gives the same plan. The engine checks the text that is read; this file merges and writes. Owned by plan/build.ts; the
 * command that explains plans takes its words for tactics from here.
 */
import { randomBytes } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { type PlanTuning, planTuning } from './directory.js';

type TunedProduct = PlanTuning['products'][number];
type Tactic = TunedProduct['tactics'][number];

const cache = z.object({ tunings: z.array(planTuning) });

/** What every product takes without a tactic (cpp/ops/tactic.h). */
const RULE_TILES = 20;

/** Those that differ from the built-in rule. */
export function otherTactics({ products }: PlanTuning): { readonly product: TunedProduct; readonly tactic: Tactic }[] {
  const all = products.flatMap((product) => product.tactics.map((tactic) => ({ product, tactic })));
  return all.filter(({ tactic }) => tactic.split !== 'rule' || tactic.tiles !== RULE_TILES);
}

/** "on one thread, tasks of 10 tiles" */
export function tacticWords({ split, tiles }: Tactic): string {
  const who = split === 'alone' ? ['on one thread'] : split === 'shared' ? ['on all threads'] : [];
  return [...who, ...(tiles === RULE_TILES ? [] : [`tasks of ${tiles} tiles of rows`])].join(', ');
}

/** The file's text, empty when there is none. Error: TACTICS_INVALID. */
export async function readTactics(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return '';
    const [expected, found] = ['a readable file', (cause as Error).message];
    const message = `Cannot use the tactics in ${file}: expected ${expected}, found ${found}. Check the path and its permissions.`;
    throw new PremotorError('TACTICS_INVALID', message, { file, expected, found, cause });
  }
}

const keyOf = ({ product, outputs, inputs, group }: TunedProduct): string => JSON.stringify([product, outputs, inputs, group]);

/** The order of the plan's format, which the engine asks for. */
function byKey(a: TunedProduct, b: TunedProduct): number {
  if (a.product !== b.product) return a.product < b.product ? -1 : 1;
  return a.outputs - b.outputs || a.inputs - b.inputs || a.group - b.group;
}

function mergedTactics(before: TunedProduct, found: TunedProduct): TunedProduct {
  const rows = new Map([...before.tactics, ...found.tactics].map((tactic) => [tactic.rows, tactic]));
  return { ...found, tactics: [...rows.values()].sort((a, b) => a.rows - b.rows) };
}

/** What was known and what a plan has found; what is in both is as the plan has it. */
export function mergedTunings(tunings: readonly PlanTuning[], found: PlanTuning): PlanTuning[] {
  const isSame = (one: PlanTuning): boolean => one.processor === found.processor && one.threads === found.threads;
  const products = new Map<string, TunedProduct>();
  for (const product of [...tunings.filter(isSame), found].flatMap((one) => one.products)) {
    const before = products.get(keyOf(product));
    products.set(keyOf(product), before === undefined ? product : mergedTactics(before, product));
  }
  return [...tunings.filter((one) => !isSame(one)), { ...found, products: [...products.values()].sort(byKey) }];
}

/** Adds what a plan has found to the file, whose text was `before`. Error: FILE_WRITE. */
export async function extendTactics(file: string, before: string, found: PlanTuning): Promise<void> {
  if (found.products.length === 0) return;
  const known = before === '' ? [] : cache.parse(JSON.parse(before)).tunings;
  const text = `${JSON.stringify({ tunings: mergedTunings(known, found) }, null, 1)}\n`;
  if (text === before) return;
  // Written beside and renamed: a build that is killed leaves the file as it was.
  const temporary = `${file}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await writeFile(temporary, text, { flag: 'wx' });
    await rename(temporary, file);
  } catch (cause) {
    await rm(temporary, { force: true });
    const reason = (cause as Error).message;
    throw new PremotorError('FILE_WRITE', `Cannot write the tactics to ${file}: ${reason}. Check the folder and its space.`, { file, cause });
  }
}
