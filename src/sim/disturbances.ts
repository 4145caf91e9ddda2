/**
 * Disturbances for evaluation: cameras that deliver late, an actuator that lags, a block that is knocked aside while it is pushed, buttons that slide
 * about. Numbers with units, their form on the command line, and the arithmetic of each; src/sim/simulation.ts applies them. Everything that is drawn
 * is drawn from the episode's seed.
 */
import { PremotorError } from '../errors.js';
import { Random } from './random.js';
import type { TablePoint, World } from './world.js';

export interface Disturbances {
  /** Frames are delivered so much later than they were taken; their stamps stay the time of capture. Default: 0. */
  readonly cameraDelayMs?: number;
  /** Time constant of a first-order lag between setpoints and servos. Default: 0, no lag. */
  readonly actuatorLagMs?: number;
  /** Speed that the block is knocked aside with, once, while it is being pushed. Default: 0, never. */
  readonly blockNudgeMPerS?: number;
  /** The buttons slide so far, all together, once. Default: 0, never. */
  readonly boardShiftM?: number;
}

/** Name on the command line -> field, unit, largest value. */
const KINDS = {
  'camera-delay': { field: 'cameraDelayMs', unit: 'ms', max: 2000 },
  'actuator-lag': { field: 'actuatorLagMs', unit: 'ms', max: 2000 },
  nudge: { field: 'blockNudgeMPerS', unit: 'm/s', max: 2 },
  shift: { field: 'boardShiftM', unit: 'm', max: 0.2 },
} as const;

/** Reads "camera-delay=80ms,actuator-lag=60ms,nudge=0.25m/s,shift=0.05m"; an empty text is no disturbance. Errors: SIM_DISTURBANCE. */
export function parseDisturbances(text: string): Disturbances {
  const found: Partial<Record<keyof Disturbances, number>> = {};
  for (const part of text.split(',').filter((piece) => piece.trim() !== '')) {
    const [, name = '', digits = '', unit = ''] = /^\s*([a-z-]+)=([0-9.]+)\s*([a-z/]+)\s*$/.exec(part) ?? [];
    const kind = KINDS[name as keyof typeof KINDS] as (typeof KINDS)[keyof typeof KINDS] | undefined;
    const value = Number(digits);
    if (!kind || unit !== kind.unit || !(value >= 0 && value <= kind.max) || found[kind.field] !== undefined) throw unreadable(part);
    found[kind.field] = value;
  }
  return found;
}

function unreadable(part: string): PremotorError {
  const expected = Object.entries(KINDS)
    .map(([name, { unit, max }]) => `${name}=0..${max}${unit}`)
    .join(', ');
  const message = `The disturbance "${part}" cannot be read: expected each once of ${expected}.`;
  return new PremotorError('SIM_DISTURBANCE', message, { field: 'disturb', expected, found: part });
}

/** The form that parseDisturbances reads; empty without disturbances. */
export function formatDisturbances(disturbances: Disturbances): string {
  return Object.entries(KINDS)
    .filter(([, { field }]) => (disturbances[field] ?? 0) > 0)
    .map(([name, { field, unit }]) => `${name}=${disturbances[field]}${unit}`)
    .join(',');
}

/** First-order lag: the output approaches the input by the share 1 - exp(-dt / tau) in every step. */
export class Lag {
  readonly #share: number;
  readonly #output: Float64Array;

  constructor(timeConstantMs: number, stepMs: number, values: number) {
    this.#share = timeConstantMs > 0 ? 1 - Math.exp(-stepMs / timeConstantMs) : 1;
    this.#output = new Float64Array(values);
  }

  /** From here on, as if the input had always been this. */
  restart(input: Float64Array): void {
    this.#output.set(input);
  }

  /** The output after one step; valid until the next. Without a lag it is the input, bit for bit. */
  step(input: Float64Array): Float64Array {
    if (this.#share === 1) return input;
    for (let index = 0; index < this.#output.length; index++) {
      const before = this.#output[index] ?? 0;
      this.#output[index] = before + this.#share * ((input[index] ?? 0) - before);
    }
    return this.#output;
  }
}

/** The block counts as being pushed when it has moved so far, and is knocked so long after that. */
const PUSHED_M = 0.005;
const WAIT_MIN_S = 0.1;
const WAIT_MAX_S = 0.8;
/** So that the knock is not drawn from the numbers that drew the scene. */
const NUDGE_STREAM = 0x5eed_0b1c;

/** One knock per episode. Who never pushes the block is never disturbed. */
export class Nudge {
  readonly #world: World;
  readonly #speedMPerS: number;
  #start: TablePoint | undefined;
  #zone: TablePoint | undefined;
  #waitNs = 0n;
  #side = 1;
  #atNs: bigint | undefined;
  #isDone = true;

  constructor(world: World, speedMPerS: number) {
    this.#world = world;
    this.#speedMPerS = speedMPerS;
  }

  /** @param places where block and zone are at the start; absent in a scene without them */
  restart(seed: number, places: { readonly block: TablePoint; readonly zone: TablePoint } | undefined): void {
    const random = new Random((seed ^ NUDGE_STREAM) >>> 0);
    this.#waitNs = BigInt(Math.round(1e9 * random.uniform(WAIT_MIN_S, WAIT_MAX_S)));
    this.#side = random.integer(2) === 0 ? 1 : -1;
    this.#start = places?.block;
    this.#zone = places?.zone;
    this.#atNs = undefined;
    this.#isDone = places === undefined || this.#speedMPerS === 0;
  }

  /** Time of the knock, once it is known. */
  get atNs(): bigint | undefined {
    return this.#atNs;
  }

  /** Called after every physics step. */
  tick(): void {
    if (this.#isDone || !this.#start || !this.#zone) return;
    const [x, y] = this.#world.block() ?? [Number.NaN, Number.NaN];
    if (this.#atNs === undefined) {
      if (Math.hypot(x - this.#start.x, y - this.#start.y) > PUSHED_M) this.#atNs = this.#world.timeNs + this.#waitNs;
    } else if (this.#world.timeNs >= this.#atNs) {
      const across = Math.atan2(this.#zone.y - y, this.#zone.x - x) + (this.#side * Math.PI) / 2;
      this.#world.nudgeBlock(this.#speedMPerS * Math.cos(across), this.#speedMPerS * Math.sin(across));
      this.#isDone = true;
    }
  }
}

/** The board with the buttons is knocked so long after the start, and slides for so long. */
const SHIFT_WAIT_MIN_S = 0.6;
const SHIFT_WAIT_MAX_S = 2;
const SHIFT_SLIDE_S = 0.2;
const SHIFT_STREAM = 0x5b1f_7000;

/** A board of buttons that is knocked once and slides along the table. */
export class Shift {
  readonly #world: World;
  readonly #distanceM: number;
  #startS: number | undefined;
  #angleRad = 0;
  /** How far it has slid. */
  #slidM = 0;

  constructor(world: World, distanceM: number) {
    this.#world = world;
    this.#distanceM = distanceM;
  }

  /** `seed` draws when and in which direction; undefined: never. Time begins anew. */
  restart(seed: number | undefined): void {
    const random = seed === undefined || this.#distanceM === 0 ? undefined : new Random((seed ^ SHIFT_STREAM) >>> 0);
    this.#angleRad = random?.uniform(0, 2 * Math.PI) ?? 0;
    this.#startS = random?.uniform(SHIFT_WAIT_MIN_S, SHIFT_WAIT_MAX_S);
    this.#slidM = 0;
  }

  /** Called after every physics step. */
  tick(): void {
    if (this.#startS === undefined || this.#slidM === this.#distanceM) return;
    const share = Math.min(1, (Number(this.#world.timeNs) / 1e9 - this.#startS) / SHIFT_SLIDE_S);
    if (share <= 0) return;
    const stepM = share * this.#distanceM - this.#slidM;
    this.#world.slideButtons(stepM * Math.cos(this.#angleRad), stepM * Math.sin(this.#angleRad));
    this.#slidM = share * this.#distanceM;
  }
}
