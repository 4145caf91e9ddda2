/**
 * A small seeded generator (sfc32, seeded through splitmix32) for scenes: the same seed gives the same scene on every machine. Never used for the
 * engine's noise, which has a generator of its own.
 */
export class Random {
  readonly #state: Uint32Array;

  /** @param seed an integer of 0 .. 2^32 - 1 */
  constructor(seed: number) {
    let mixed = seed >>> 0;
    this.#state = Uint32Array.from({ length: 4 }, () => {
      mixed = (mixed + 0x9e3779b9) >>> 0;
      let word = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
      word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
      return (word ^ (word >>> 15)) >>> 0;
    });
    // The first outputs still resemble the seed words.
    for (let round = 0; round < 12; round++) this.#next();
  }

  #next(): number {
    const s = this.#state;
    const [a, b, c, counter] = [s[0] ?? 0, s[1] ?? 0, s[2] ?? 0, s[3] ?? 0];
    const sum = (a + b + counter) >>> 0;
    s[0] = b ^ (b >>> 9);
    s[1] = c + (c << 3);
    s[2] = ((c << 21) | (c >>> 11)) + sum;
    s[3] = counter + 1;
    return sum;
  }

  /** Uniform in [low, high). */
  uniform(low: number, high: number): number {
    return low + (this.#next() / 2 ** 32) * (high - low);
  }

  /** Normal with mean 0, by the polar method. */
  normal(deviation: number): number {
    for (;;) {
      const [u, v] = [this.uniform(-1, 1), this.uniform(-1, 1)];
      const square = u * u + v * v;
      if (square > 0 && square < 1) return deviation * u * Math.sqrt((-2 * Math.log(square)) / square);
    }
  }

  /** Uniform integer in 0 .. count - 1. */
  integer(count: number): number {
    return Math.floor((this.#next() / 2 ** 32) * count);
  }
}
