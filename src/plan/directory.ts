/**
 * What a plan file says about itself, read and checked: facts, sizes, and the steps of its passes. Owned by the commands that show plans; the engine
 * reads plans by itself.
 */
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { callNative } from '../native.js';
import type { NativePlanModule } from '../native-plan.js';

const count = z.number().nonnegative();

const step = z.object({
  op: z.string(),
  product: z.string(),
  weight: z.string().optional(),
  fused: z.string().optional(),
  rows: count,
  outputs: count,
  inputs: count,
  flops: count,
  weightBytes: count,
  cacheBytes: count,
  activationBytes: count,
});

const pass = z.object({
  name: z.string(),
  perChunk: count,
  guidanceRows: count,
  videoTokens: count,
  actionTokens: count,
  entries: count,
  pictures: count,
  height: count,
  width: count,
  /** What they are held in; plans of earlier versions do not say. */
  kvCache: z.string().optional(),
  groups: z.array(z.object({ times: count, steps: z.array(step) })),
});

/** How products are cut on one processor; its name is empty where nothing was tuned. */
export const planTuning = z.object({
  processor: z.string(),
  threads: count,
  products: z.array(
    z.object({
      product: z.string(),
      outputs: count,
      inputs: count,
      group: count,
      tactics: z.array(z.object({ rows: count, split: z.enum(['rule', 'alone', 'shared']), tiles: count })),
    }),
  ),
});

const schema = z.object({
  tool: z.string(),
  device: z.string(),
  backend: z.string(),
  precision: z.string(),
  rounding: z.string(),
  layout: count,
  checkpoint: z.string(),
  parts: z.array(z.object({ name: z.string(), parameters: count, weight_bytes: count })),
  tensors: z.array(z.object({ key: z.string(), kind: z.enum(['prepared', 'plain', 'floats']), product: z.string().optional(), bytes: count })),
  conditioning: z.array(z.object({ bytes: count })),
  passes: z.array(pass),
  tuning: planTuning,
  arena: z.object({ rows: count, bytes: count, unshared: count }),
});

export type PlanStep = z.output<typeof step>;
export type PlanPass = z.output<typeof pass>;
export type PlanTuning = z.output<typeof planTuning>;
export type PlanDirectory = z.output<typeof schema> & { readonly file: string; readonly fileBytes: number };

/** Passes as the engine writes them. */
export function parsePasses(json: string): readonly PlanPass[] {
  return z.array(pass).parse(JSON.parse(json));
}

/** Errors: PLAN_MISSING, PLAN_FOREIGN, PLAN_VERSION, PLAN_TRUNCATED, PLAN_DAMAGED. */
export async function readPlan(file: string, native: Pick<NativePlanModule, 'planDirectory'>): Promise<PlanDirectory> {
  const { json, bytes } = await callNative(() => native.planDirectory(file));
  const parsed = schema.safeParse(JSON.parse(json));
  if (parsed.success) return { ...parsed.data, file, fileBytes: bytes };
  const issue = parsed.error.issues[0];
  const [expected, found] = ['a directory that this version reads', `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'something else'}`];
  const message = `Cannot use the plan ${file}: expected ${expected}, found ${found}. Build it again with premotor build.`;
  throw new PremotorError('PLAN_DAMAGED', message, { file, expected, found });
}
