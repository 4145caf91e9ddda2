/**
 * The whole way from an instruction to embeddings, with the real addon, against every golden case.
 */
import { join } from 'node:path';
import t from 'tap';
import { loadNative } from '../../src/native.js';
import { embedPrompt } from '../../src/text/embeddings.js';
import { textMode } from '../../src/text/prompt-cache.js';
import { cases, goldens, resetCalls, traceBytes } from './goldens.js';

/** A float tensor of a trace, [1, 512, d]: float32, or bfloat16 when it has half the bytes. */
function floats(bytes: Buffer, isBf16: boolean): Float32Array {
  const values = new Float32Array(bytes.length / (isBf16 ? 2 : 4));
  const bits = new Uint32Array(values.buffer);
  for (let i = 0; i < values.length; i++) bits[i] = isBf16 ? bytes.readUInt16LE(2 * i) << 16 : bytes.readUInt32LE(4 * i);
  return values;
}

function relativeRms(found: Float32Array, expected: Float32Array): number {
  const squares = (value: (i: number) => number): number => found.reduce((sum, _, i) => sum + value(i) ** 2, 0);
  return Math.sqrt(squares((i) => (found[i] ?? 0) - (expected[i] ?? 0)) / squares((i) => expected[i] ?? 0));
}

for (const name of cases) {
  t.test(name, async (t) => {
    const isBf16 = name === 'bf16';
    // float32: 3e-7 is found; bfloat16: see test/cpp/text_encoder_test.cpp.
    const limit = isBf16 ? 8e-3 : 1e-5;
    const mode = isBf16 ? textMode('bf16', 'bfloat16') : textMode('f32', 'float32');
    const checkpoint = join(goldens, name, 'checkpoint');
    for (const call of resetCalls(name)) {
      const prompts = call.cleaned_prompt_neg === undefined ? { pos: call.prompt } : { pos: call.prompt, neg: '' };
      for (const [row, prompt] of Object.entries(prompts)) {
        const found = await embedPrompt({ checkpoint, prompt, mode, threads: 2, cacheDir: false, native: loadNative });
        const expected = floats(traceBytes(name, `${call.prefix}.prompt_embeds_${row}`), isBf16);
        t.equal(expected.length / 512, found.rows.length / found.count, 'width');
        t.ok(
          expected.subarray(found.rows.length).every((value) => value === 0),
          'no row is missing',
        );
        const error = relativeRms(found.rows, expected);
        t.ok(error <= limit, `${call.prefix} ${row}: rel RMS ${error.toExponential(1)}, limit ${limit}`);
      }
    }
  });
}
