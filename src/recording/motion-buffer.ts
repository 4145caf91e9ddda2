/**
 * Where motion samples wait between the step in which they arrive and the moment they are written: memory that is taken once, so that a step costs a
 * copy of a few numbers. Owned by the recorder. When the writer is too late for all of it, samples are dropped and counted, never waited for.
 */
import type { MotionSample } from '../tap/observer.js';

/** Samples per block, about a quarter of a second; a writer takes one block at a time. */
const BLOCK_SAMPLES = 256;
const BLOCKS = 64;

interface Block {
  readonly timesNs: BigInt64Array;
  /** [samples, 3, joints]: setpoint, position, velocity. */
  readonly values: Float64Array;
  count: number;
}

/** What a message of one sample looks like; the bytes are reused for the next. */
export type WriteSample = (timeNs: bigint, message: Uint8Array, values: Float64Array) => void;

export class MotionBuffer {
  readonly #joints: number;
  readonly #free: Block[];
  readonly #full: Block[] = [];
  #filling: Block | undefined;
  #dropped = 0;
  readonly #message: Uint8Array;
  readonly #view: DataView;
  /** Where the three lists stand in the message. */
  readonly #places: readonly number[];

  constructor(joints: number) {
    this.#joints = joints;
    const make = (): Block => ({ timesNs: new BigInt64Array(BLOCK_SAMPLES), values: new Float64Array(BLOCK_SAMPLES * 3 * joints), count: 0 });
    this.#free = Array.from({ length: BLOCKS }, make);
    const { message, places } = template(joints);
    this.#message = message;
    this.#view = new DataView(message.buffer);
    this.#places = places;
  }

  /** Samples that came while every block was full. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Copies a sample. True: a block is full and wants to be written. */
  push({ timeNs, setpointRad, positionsRad, velocitiesRadPerS }: MotionSample): boolean {
    this.#filling ??= this.#free.pop();
    const block = this.#filling;
    if (block === undefined) {
      this.#dropped++;
      return false;
    }
    const joints = this.#joints;
    let at = block.count * 3 * joints;
    for (const values of [setpointRad, positionsRad, velocitiesRadPerS]) {
      for (let joint = 0; joint < joints; joint++) block.values[at++] = values[joint] ?? Number.NaN;
    }
    block.timesNs[block.count++] = timeNs;
    if (block.count < BLOCK_SAMPLES) return false;
    this.#full.push(block);
    this.#filling = undefined;
    return true;
  }

  /** Writes one full block. False: there was none. */
  drainBlock(write: WriteSample): boolean {
    const block = this.#full.shift();
    if (block === undefined) return false;
    this.#drain(block, write);
    return true;
  }

  /** Writes everything. */
  drain(write: WriteSample): void {
    while (this.drainBlock(write));
    const block = this.#filling;
    this.#filling = undefined;
    if (block) this.#drain(block, write);
  }

  #drain(block: Block, write: WriteSample): void {
    const size = 3 * this.#joints;
    for (let sample = 0; sample < block.count; sample++) {
      const values = block.values.subarray(sample * size, (sample + 1) * size);
      const timeNs = block.timesNs[sample] ?? 0n;
      this.#view.setBigUint64(1, timeNs, true);
      for (let list = 0; list < 3; list++) {
        const place = this.#places[list] ?? 0;
        for (let joint = 0; joint < this.#joints; joint++) this.#view.setFloat64(place + 8 * joint, values[list * this.#joints + joint] ?? 0, true);
      }
      write(timeNs, this.#message, values);
    }
    block.count = 0;
    this.#free.push(block);
  }
}

/** premotor.Motion (schemas.ts) with every value 0: all its parts have a fixed size, so only the values are filled in. */
function template(joints: number): { readonly message: Uint8Array; readonly places: readonly number[] } {
  const bytes: number[] = [(1 << 3) | 1, 0, 0, 0, 0, 0, 0, 0, 0];
  const places: number[] = [];
  for (const field of [2, 3, 4]) {
    bytes.push((field << 3) | 2);
    let length = 8 * joints;
    for (; length > 0x7f; length >>>= 7) bytes.push((length & 0x7f) | 0x80);
    bytes.push(length);
    places.push(bytes.length);
    for (let byte = 0; byte < 8 * joints; byte++) bytes.push(0);
  }
  return { message: Uint8Array.from(bytes), places };
}
