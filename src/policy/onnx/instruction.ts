/**
 * From an instruction to the word numbers that an exported policy reads, as its job lists them. Pure; an instruction that the policy was not made for
 * is refused, not guessed.
 */
import { PremotorError } from '../../errors.js';
import type { InstructionInput } from './job.js';

/** Lower case words; punctuation is no part of them. */
export function wordsOf(prompt: string): string[] {
  return prompt.toLowerCase().match(/[\p{L}\p{N}'-]+/gu) ?? [];
}

/** The numbers of the words, padded to the input's length. Errors: ONNX_INSTRUCTION. */
export function instructionTokens(prompt: string, { words, length, padding, unknown }: InstructionInput): number[] {
  const spoken = wordsOf(prompt);
  if (spoken.length > length) throw refused(prompt, `at most ${length} words`, `${spoken.length}`);
  const known = new Map(Object.entries(words).map(([word, number]) => [word.toLowerCase(), number]));
  const numbers = spoken.map((word) => {
    const number = known.get(word) ?? unknown;
    if (number === undefined) throw refused(prompt, `words of ${[...known.keys()].slice(0, 20).join(', ')}`, `"${word}"`);
    return number;
  });
  return [...numbers, ...new Array<number>(length - numbers.length).fill(padding)];
}

function refused(prompt: string, expected: string, found: string): PremotorError {
  const message = `The exported policy cannot be told ${JSON.stringify(prompt)}: expected ${expected}, found ${found}. Say it in its words.`;
  return new PremotorError('ONNX_INSTRUCTION', message, { field: 'prompt', expected, found });
}
