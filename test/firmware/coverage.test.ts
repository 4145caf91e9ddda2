/**
 * The firmware is covered in every line and branch by its host tests (coverage.mjs says what is missing). Skipped, with a reason, where gcov is not
 * installed.
 */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const script = join(dirname(fileURLToPath(import.meta.url)), 'coverage.mjs');
// A compiler does the work: minutes on a busy machine.
t.setTimeout(600_000);

const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8' });
for (const line of `${stdout}${stderr}`.trim().split('\n')) t.comment(line);
if (stdout.startsWith('SKIPPED')) t.pass('coverage', { skip: stdout.trim() });
else t.equal(status, 0, 'firmware-bridge: 100 % of lines and branches');
