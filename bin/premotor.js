#!/usr/bin/env node
/**
 * The `premotor` command: hands over to dist/cli/main.js, and says what to do when premotor is not built.
 */
import { existsSync } from 'node:fs';

const main = new URL('../dist/cli/main.js', import.meta.url);
if (existsSync(main)) {
  const { runCli } = await import(main.href);
  const code = await runCli(process.argv.slice(2));
  // A command may have set a code of its own.
  if (code !== 0) process.exitCode = code;
} else {
  process.stderr.write('premotor: not built: expected dist/cli/main.js, found none. Run "npm run build" in premotor\'s folder.\n');
  process.exitCode = 1;
}
