/**
 * The policies that connections borrow: loaded ahead, one for each connection that may be served at a time. One whose engine died is replaced before
 * it is lent again. Owned by the server.
 */
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { Policy } from '../policy/contract.js';

export interface PoolOptions {
  readonly load: () => Promise<Policy>;
  readonly size: number;
  /** One more of them is loaded. */
  readonly onLoaded?: (loaded: number) => void;
}

/** A policy, or why it could not be loaded again. */
type Slot = Policy | PremotorError;

export class PolicyPool {
  readonly #options: PoolOptions;
  readonly #free: Slot[] = [];
  readonly #waiting: ((slot: Slot) => void)[] = [];
  readonly #all = new Set<Policy>();
  readonly #loading = new Set<Promise<void>>();
  #closed = false;

  private constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Errors: those of loading; then none stays open. */
  static async open(options: PoolOptions): Promise<PolicyPool> {
    const pool = new PolicyPool(options);
    try {
      for (let loaded = 1; loaded <= options.size; loaded++) {
        const policy = await options.load();
        pool.#all.add(policy);
        pool.#free.push(policy);
        options.onLoaded?.(loaded);
      }
    } catch (error) {
      await pool.close();
      throw error;
    }
    return pool;
  }

  /** Any of them, for what all have in common. */
  get example(): Policy | undefined {
    return this.#all.values().next().value;
  }

  /** Waits for a free policy; one that could not be loaded again is tried anew. Errors: those of loading, CLOSED. */
  async acquire(): Promise<Policy> {
    if (this.#closed) throw closedPool();
    const slot = this.#free.shift() ?? (await new Promise<Slot>((resolve) => this.#waiting.push(resolve)));
    if (!(slot instanceof PremotorError)) return slot;
    if (this.#closed) throw slot;
    try {
      const policy = await this.#options.load();
      this.#all.add(policy);
      return policy;
    } catch (error) {
      this.#give(toPremotorError(error));
      throw error;
    }
  }

  /** Takes a policy back; one that is broken is replaced. */
  release(policy: Policy, isBroken: boolean): void {
    if (this.#closed) return;
    if (!isBroken) {
      this.#give(policy);
      return;
    }
    this.#all.delete(policy);
    const loading = this.#replace(policy).finally(() => this.#loading.delete(loading));
    this.#loading.add(loading);
  }

  async #replace(broken: Policy): Promise<void> {
    try {
      await broken.close();
      const policy = await this.#options.load();
      if (this.#closed) await policy.close();
      else {
        this.#all.add(policy);
        this.#give(policy);
      }
    } catch (error) {
      this.#give(toPremotorError(error));
    }
  }

  #give(slot: Slot): void {
    const next = this.#waiting.shift();
    if (next) next(slot);
    else this.#free.push(slot);
  }

  /** Lends no more, and answers whoever waits. */
  refuse(): void {
    this.#closed = true;
    for (const resolve of this.#waiting.splice(0)) resolve(closedPool());
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.refuse();
    await Promise.all([...this.#all].map((policy) => policy.close()));
    await Promise.all(this.#loading);
    this.#all.clear();
    this.#free.length = 0;
  }
}

function closedPool(): PremotorError {
  return new PremotorError('CLOSED', 'The server is stopping: expected an open one, found a stopping one. Connect to it when it runs again.', {
    expected: 'an open server',
    found: 'a stopping one',
  });
}
