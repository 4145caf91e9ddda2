/**
 * From a cleaned prompt to token ids, as the checkpoint's tokenizer/tokenizer.json says. Owned by embeddings.ts. It never cleans text and never
 * trusts the files: whatever is wrong with them becomes TEXT_TOKENIZER.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { PremotorError } from '../errors.js';

/** Rows of text that the model attends to; shorter prompts are padded, longer ones are cut. */
export const TEXT_TOKENS_MAX = 512;
const PAD_ID = 0;

/** Token ids as the reference's tokenizer returns them: padded to 512, with a mask of the real ones. */
export interface PaddedTokens {
  readonly ids: Int32Array; // [512]
  readonly mask: Uint8Array; // [512], 1 for a real token
}

/** Pads real token ids to the fixed length of the traces. */
export function padTokens(ids: ArrayLike<number>): PaddedTokens {
  const padded = new Int32Array(TEXT_TOKENS_MAX).fill(PAD_ID);
  padded.set(ids);
  return { ids: padded, mask: new Uint8Array(TEXT_TOKENS_MAX).fill(1, 0, ids.length) };
}

function tokenizerError(file: string, expected: string, found: string, cause?: unknown): PremotorError {
  const message = `The tokenizer file ${file} cannot be used: expected ${expected}, found ${found}. Copy the checkpoint's tokenizer folder again.`;
  return new PremotorError('TEXT_TOKENIZER', message, { file, expected, found, ...(cause === undefined ? {} : { cause }) });
}

async function readJsonObject(file: string): Promise<Record<string, unknown>> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    throw tokenizerError(file, 'a readable JSON file', (cause as Error).message, cause);
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw tokenizerError(file, 'a JSON object', typeof parsed);
  return parsed as Record<string, unknown>;
}

export class TextTokenizer {
  readonly #tokenizer: Tokenizer;
  readonly #file: string;
  /** The ids that end every sequence: </s>. They survive a cut. */
  readonly #ending: readonly number[];

  private constructor(tokenizer: Tokenizer, file: string, ending: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#file = file;
    this.#ending = ending;
  }

  /** Reads `folder`/tokenizer.json and tokenizer_config.json. Errors: TEXT_TOKENIZER. */
  static async open(folder: string): Promise<TextTokenizer> {
    const file = join(folder, 'tokenizer.json');
    const [definition, config] = await Promise.all([readJsonObject(file), readJsonObject(join(folder, 'tokenizer_config.json'))]);
    let tokenizer: Tokenizer;
    let ending: number[];
    try {
      tokenizer = new Tokenizer(definition, config);
      ending = tokenizer.encode('').ids;
    } catch (cause) {
      throw tokenizerError(file, 'a tokenizer definition', (cause as Error).message, cause);
    }
    if (ending.length === 0) throw tokenizerError(file, 'a post-processor that closes a sequence with </s>', 'none');
    return new TextTokenizer(tokenizer, file, ending);
  }

  /** Token ids of a cleaned prompt, 1 to 512 of them, the closing </s> always kept. Errors: TEXT_TOKENIZER (ids that are no ids). */
  encode(cleaned: string): Int32Array {
    let ids: readonly number[];
    try {
      ids = this.#tokenizer.encode(cleaned).ids;
    } catch (cause) {
      throw tokenizerError(this.#file, 'a tokenizer that encodes the prompt', (cause as Error).message, cause);
    }
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id > 0x7fffffff);
    if (wrong !== undefined || ids.length === 0) throw tokenizerError(this.#file, 'token ids', ids.length === 0 ? 'none' : String(wrong));
    if (ids.length <= TEXT_TOKENS_MAX) return Int32Array.from(ids);
    return Int32Array.from([...ids.slice(0, TEXT_TOKENS_MAX - this.#ending.length), ...this.#ending]);
  }
}
