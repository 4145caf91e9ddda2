/**
 * The precisions that the CPU backend computes. What each does to the weights is in src/policy/precision.ts. Every layer may know these names; the
 * file imports nothing.
 */
export const PRECISIONS = ['f32', 'bf16', 'int8', 'int4'] as const;
export type CpuPrecision = (typeof PRECISIONS)[number];
