/**
 * Runs the memory bench of the text encoder on a small encoder, so that it cannot rot. Its limit is less than half of the weights: an encoder that
 * does not give pages back fails it.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const folder = dirname(fileURLToPath(import.meta.url));
const programs = process.env['PREMOTOR_NATIVE_TESTS'] ?? join(folder, '..', '..', 'build', 'tests', 'bin');
const program = join(programs, 'text_encoder_memory');

t.test('resident memory stays below the weights', async (t) => {
  if (!existsSync(program)) throw new Error(`bench/text_encoder_memory.cpp is not built: expected ${program}; run npm test, which builds it`);
  const figures = execFileSync(program, ['--tiny', '--tokens', '16'], { encoding: 'utf8' });
  const [, file = 'NaN', peak = 'NaN'] = /file (\d+) MiB; peak resident \(VmHWM\) (-?\d+) MiB/.exec(figures) ?? [];
  t.comment(figures);
  t.ok(Number(file) > 128, 'the weights are large enough to tell');
  t.ok(Number(peak) <= 64, `peak of ${peak} MiB`);
  t.match(figures, 'finite and reproducible');
  t.throws(() => execFileSync(program, ['--tiny', '--limit-MiB', '1'], { stdio: 'ignore' }), 'its limit can fail');
});
