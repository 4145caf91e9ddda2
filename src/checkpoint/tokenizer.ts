/**
 * A small Unigram tokenizer in the released folder's form: whole words of the given texts, every printable ASCII character, and the special tokens
 * pad 0, eos 1, unk 2. Owned by the checkpoint writer; the runtime reads any tokenizer.json and knows nothing of this one.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const SPACE_MARK = '\u2581';
const special = ['<pad>', '</s>', '<unk>'] as const;
/** Log probabilities: a known word always beats its spelling, and any spelling beats an unknown token. */
const WORD_SCORE = -2;
const CHARACTER_SCORE = -8;

type Vocabulary = readonly (readonly [string, number])[];

/** The vocabulary in id order. */
export function buildVocabulary(texts: readonly string[]): Vocabulary {
  const characters = new Set<string>([SPACE_MARK]);
  for (let code = 0x21; code < 0x7f; code++) characters.add(String.fromCharCode(code));
  const words = new Set<string>();
  for (const text of texts) {
    for (const word of text.normalize('NFC').split(/\s+/u)) {
      for (const character of word) characters.add(character);
      // Punctuation after a word is a token of its own, so that "cube" and "cube." share the word.
      const bare = word.replace(/[.,;:!?]+$/u, '');
      if (bare !== '') words.add(SPACE_MARK + bare);
    }
  }
  const entries = new Map<string, number>(special.map((token) => [token, 0]));
  for (const character of characters) entries.set(character, CHARACTER_SCORE);
  for (const word of words) if (!entries.has(word)) entries.set(word, WORD_SCORE);
  return [...entries];
}

/** tokenizer.json: split at white space, mark word starts, Unigram, then the end token. */
export function tokenizerJson(vocabulary: Vocabulary): Record<string, unknown> {
  const metaspace = { type: 'Metaspace', replacement: SPACE_MARK, prepend_scheme: 'always', split: true };
  const sequence = (id: string) => ({ Sequence: { id, type_id: 0 } });
  const end = { SpecialToken: { id: '</s>', type_id: 0 } };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
    normalizer: null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'WhitespaceSplit' }, metaspace] },
    post_processor: {
      type: 'TemplateProcessing',
      single: [sequence('A'), end],
      pair: [sequence('A'), end, sequence('B'), end],
      special_tokens: { '</s>': { id: '</s>', ids: [1], tokens: ['</s>'] } },
    },
    decoder: metaspace,
    model: { type: 'Unigram', unk_id: 2, vocab: vocabulary, byte_fallback: false },
  };
}

/** Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json. */
export async function writeTokenizer(folder: string, vocabulary: Vocabulary): Promise<void> {
  const tokens = { eos_token: '</s>', pad_token: '<pad>', unk_token: '<unk>' };
  const files: Record<string, unknown> = {
    'tokenizer.json': tokenizerJson(vocabulary),
    'tokenizer_config.json': { ...tokens, extra_ids: 0, model_max_length: 512, tokenizer_class: 'T5Tokenizer' },
    'special_tokens_map.json': tokens,
  };
  await mkdir(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), `${JSON.stringify(content, null, 2)}\n`);
}
