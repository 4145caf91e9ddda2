/**
 * `npm start`: sets up whatever is missing, then runs the demonstration, `premotor demo`, with the arguments given after `--`.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ensureAddon, ensureDist, ensurePackages, ensureTools, root, runMain } from './steps.mjs';

await runMain(() => {
  ensureTools({ mayInstall: true });
  ensurePackages();
  ensureAddon();
  ensureDist();
  const child = spawn(process.execPath, [join(root, 'bin', 'premotor.js'), 'demo', ...process.argv.slice(2)], { stdio: 'inherit' });
  // Ctrl-C reaches the child too (one terminal, one process group): this process only waits for it to end in its own time.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  return new Promise((resolve) => child.on('exit', (code) => resolve(code ?? 1)));
});
