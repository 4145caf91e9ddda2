/**
 * Recordings that are cut, changed, put together from pieces or made up: whatever a file says, its readers end with what could be read or a
 * PremotorError, and give back the memory. More than 300 000 seeded files go through what `premotor record`, `premotor replay` and cameras that
 * play a recording read with.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';

const FILES_MIN = 300_000;
const HEAP_GROWTH_MAX = 32 * 2 ** 20;
const script = fileURLToPath(new URL('./fuzz-readers.ts', import.meta.url));

t.test('spoilt files', { timeout: 280_000 }, async (t) => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--import=tsx', '--expose-gc', '--max-old-space-size=512', script]);
  const { seed, files, exports, outcomes, grownBytes, failure } = JSON.parse(stdout);
  t.comment(`seed ${seed}: ${JSON.stringify(outcomes)}, ${exports} exported, memory grew by ${grownBytes} bytes`);
  t.equal(failure, undefined);
  t.ok(files >= FILES_MIN);
  t.ok(grownBytes < HEAP_GROWTH_MAX, `memory grew by ${grownBytes} bytes`);
  for (const outcome of ['read', 'MCAP_DAMAGED', 'MCAP_UNSUPPORTED', 'MCAP_FOREIGN', 'REPLAY_DAMAGED']) t.ok(outcomes[outcome] > 100, outcome);
});
