/**
 * `npm start`: sets up whatever is missing, then runs the demonstration, `premotor demo`, with the arguments given after `--`.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ensureAddon, ensureDist, ensurePackages, ensureTools, root, runMain } from './steps.mjs';

runMain(() => {
  ensureTools({ mayInstall: true });
  ensurePackages();
  ensureAddon();
  ensureDist();
  const child = spawn(process.execPath, [join(root, 'bin', 'premotor.js'), 'demo', ...process.argv.slice(2)], { stdio: 'inherit' });
  // Ctrl-C reaches the whole group: this process only waits for the child to end in its own time.
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => (signal === 'SIGTERM' ? child.kill(signal) : undefined));
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? (signal === 'SIGINT' ? 130 : 1);
  });
});
