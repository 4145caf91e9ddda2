/**
 * A program that runs passes on request, one line each, and answers with a line of JSON: the engine (bench/passes.cpp --serve), PyTorch
 * (serve.py) or ONNX Runtime (onnx-worker.ts). It stays warm between its turns and idle while another has its own.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const START_TIMEOUT_MS = 300_000;
const ANSWER_TIMEOUT_MS = 600_000;

export interface Answer {
  readonly ms: number;
  readonly gflop?: number;
}

export class Worker {
  readonly name: string;
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: string[] = [];
  #errors = '';
  #wake: () => void = () => undefined;
  #hasEnded = false;

  private constructor(name: string, command: string, args: readonly string[]) {
    this.name = name;
    this.#process = spawn(command, args);
    createInterface({ input: this.#process.stdout }).on('line', (line) => {
      this.#lines.push(line);
      this.#wake();
    });
    this.#process.stderr.on('data', (text) => {
      this.#errors = (this.#errors + String(text)).slice(-2000);
    });
    // A program that is gone is found out at the next answer.
    this.#process.stdin.on('error', () => undefined);
    for (const event of ['error', 'close'] as const) {
      this.#process.on(event, () => {
        this.#hasEnded = true;
        this.#wake();
      });
    }
  }

  static async start(name: string, command: string, args: readonly string[]): Promise<Worker> {
    const worker = new Worker(name, command, args);
    try {
      await worker.#answer(START_TIMEOUT_MS);
    } catch (error) {
      worker.close();
      throw error;
    }
    return worker;
  }

  /** Runs one pass; `file` takes its result as float32. */
  async run(request: string, file?: string): Promise<Answer> {
    this.#process.stdin.write(`${request}${file === undefined ? '' : ` ${file}`}\n`);
    return (await this.#answer(ANSWER_TIMEOUT_MS)) as Answer;
  }

  close(): void {
    this.#process.stdin.end();
    this.#process.kill('SIGKILL');
  }

  async #answer(timeoutMs: number): Promise<unknown> {
    const deadline = performance.now() + timeoutMs;
    while (this.#lines.length === 0) {
      const leftMs = deadline - performance.now();
      if (this.#hasEnded || leftMs <= 0) {
        throw new Error(`${this.name} ${this.#hasEnded ? 'ended' : `did not answer within ${timeoutMs / 1000} s`}: ${this.#errors.trim()}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return JSON.parse(this.#lines.shift() as string);
  }
}
