/**
 * Runs every native test program as a subtest: test/cpp/*_test.cpp, and test/cuda/*_test.cpp, which run the GPU's kernels on the host. A source
 * without a program is a failure, not a skip: `npm test` builds them.
 */
import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const folder = dirname(fileURLToPath(import.meta.url));
const programs = process.env['PREMOTOR_NATIVE_TESTS'] ?? join(folder, '..', 'build', 'tests', 'bin');
const sourcesIn = (name: string): string[] => readdirSync(join(folder, name)).filter((file) => file.endsWith('_test.cpp'));
// The machine that kernels run on is tested twice: cuda/CMakeLists.txt.
const sources = [...sourcesIn('cpp'), ...sourcesIn('cuda'), 'cuda_machine_ucontext_test.cpp'];

// A sanitizer run preloads its library for node and looks for no leaks there, because node's own allocations at exit are not ours. These programs are
// built with it and are ours alone: they run without the preload and with leak detection.
const { LD_PRELOAD: preloaded, ...plain } = process.env;
const sanitized = preloaded !== undefined && plain['ASAN_OPTIONS'] !== undefined ? { ASAN_OPTIONS: 'detect_leaks=1:abort_on_error=0' } : {};
const env = { ...plain, ...sanitized, PREMOTOR_GOLDENS: process.env['PREMOTOR_GOLDENS'] ?? join(folder, 'goldens') };

t.ok(sources.length > 0, 'there are native tests');
for (const source of sources.sort()) {
  const program = join(programs, basename(source, '.cpp'));
  if (!existsSync(program)) {
    t.fail(`${source} is not built: expected ${program}; run npm test, which builds it`);
    continue;
  }
  t.spawn(program, [], { cwd: join(folder, '..'), env }, source);
}
