/** The package's version, for commands that print or record it. Reads package.json; owned by the command line. */
import { readFileSync } from 'node:fs';

export function version(): string {
  const parsed = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string };
  return parsed.version;
}
