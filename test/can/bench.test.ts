/** bench/can_sessions.cpp runs tiny, so that it cannot rot: it fails unless all fourteen drives come up and follow. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const programs = process.env['PREMOTOR_NATIVE_TESTS'] ?? join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'build', 'tests', 'bin');
const program = join(programs, 'can_sessions');

t.test('the bench of the drive sessions', (t) => {
  if (!existsSync(program)) throw new Error(`bench/can_sessions.cpp is not built: expected ${program}; run npm test, which builds it`);
  const { status, stdout } = spawnSync(program, ['--tiny'], { encoding: 'utf8' });
  t.equal(status, 0, stdout);
  t.match(stdout, /14 Damiao drives +p50 +[\d.]+ +p99/);
  t.end();
});
