/** The status page for tests, which run its server from the sources: compiles the page's modules into a folder, as `npm run build` does into dist. */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

export const pageSources = fileURLToPath(new URL('../../src/dashboard/page', import.meta.url));

/** Types are checked by `npm run lint`; this only takes them away. */
export function compilePage(dir: string): string {
  mkdirSync(dir, { recursive: true });
  for (const name of readdirSync(pageSources)) {
    const file = join(pageSources, name);
    if (!name.endsWith('.ts')) {
      copyFileSync(file, join(dir, name));
      continue;
    }
    const options = { compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 } };
    writeFileSync(join(dir, name.replace(/\.ts$/, '.js')), ts.transpileModule(readFileSync(file, 'utf8'), options).outputText);
  }
  return dir;
}
