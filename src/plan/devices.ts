/**
 * Devices that a plan's passes are predicted for: what they reach, not what their data sheets promise. Pure data; docs/PERF.md says where the figures
 * come from. Nothing here was measured by this project.
 */
import type { Ceilings } from './ceilings.js';

/** What a prediction rests on, for those who read it. */
export const ASSUMPTIONS: readonly string[] = [
  'every step of the CPU backend is one kernel; a GPU backend that fuses more has fewer',
  'a step takes the larger of arithmetic at the rate that large products reach and of its bytes at the bandwidth that copies reach, and its launch',
  'weights and KV cache come from memory once a pass; activations are 16 bits wide and go through memory, too',
  'int4 weights multiply at the rate of bf16; f32 products run without tensor cores',
  'passes follow one another: encoding, commit and prediction do not overlap, and the host costs nothing (graphs)',
];

interface Device {
  readonly name: string;
  readonly gigabytesPerSecond: number;
  /** Tera operations a second. */
  readonly f32: number;
  readonly bf16: number;
  readonly bits8: number;
  readonly launchUs: number;
}

const devices = {
  orin: { name: 'Jetson AGX Orin', gigabytesPerSecond: 173, f32: 4, bf16: 29.9, bits8: 38.7, launchUs: 4 },
  thor: { name: 'Jetson AGX Thor', gigabytesPerSecond: 240, f32: 6, bf16: 110, bits8: 270, launchUs: 3 },
  rtx4090: { name: 'GeForce RTX 4090', gigabytesPerSecond: 857, f32: 55, bf16: 132, bits8: 231, launchUs: 2 },
  h100: { name: 'H100 SXM', gigabytesPerSecond: 2680, f32: 45, bf16: 643, bits8: 1088, launchUs: 2 },
} as const satisfies Record<string, Device>;

export type DeviceName = keyof typeof devices;
export const DEVICE_NAMES = Object.keys(devices) as readonly DeviceName[];

const ACTIVATION_SHARE = 0.5;

/** The ceilings that predictions for a device are made with. */
export function deviceCeilings(name: DeviceName): Ceilings {
  const { name: title, gigabytesPerSecond, f32, bf16, bits8, launchUs }: Device = devices[name];
  const rate = (tera: number): number => tera * 1000;
  return {
    name: `${title}, predicted`,
    gigabytesPerSecond,
    gigaflops: { f32: rate(f32), bf16: rate(bf16), bf16_dot: rate(bf16), int8: rate(bits8), int4: rate(bf16) },
    launchMs: launchUs / 1000,
    activationShare: ACTIVATION_SHARE,
  };
}
