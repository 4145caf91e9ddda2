/**
 * PremotorError: the one error type that leaves premotor's public functions. It carries a stable `code` (table: docs/ERRORS.md) and says what was
 * expected, what was found and what to do. Owned by everyone who reports an operating error; never used for bugs.
 */
export interface PremotorErrorDetails {
  /** The field of the job, the options or the arguments that is wrong: `norm_stat.q01`, `obs[2]`. */
  readonly field?: string;
  readonly file?: string;
  readonly tensor?: string;
  readonly expected?: string;
  readonly found?: string;
  readonly cause?: unknown;
}

export class PremotorError extends Error {
  readonly code: string;
  readonly field: string | undefined;
  readonly file: string | undefined;
  readonly tensor: string | undefined;
  readonly expected: string | undefined;
  readonly found: string | undefined;

  constructor(code: string, message: string, details: PremotorErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'PremotorError';
    this.code = code;
    this.field = details.field;
    this.file = details.file;
    this.tensor = details.tensor;
    this.expected = details.expected;
    this.found = details.found;
  }
}
