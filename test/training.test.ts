/**
 * Runs the unit tests of training/, which is development-only Python, where a Python with its packages is found: $PREMOTOR_PYTHON, else python3.
 * Elsewhere it says what is missing; nothing that is shipped needs Python.
 */
import { spawn, spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const TESTS_TIMEOUT_MS = 240_000;
const PROBE_TIMEOUT_MS = 60_000;
const PACKAGES = ['torch', 'safetensors', 'tokenizers', 'transformers', 'pyarrow', 'PIL', 'matplotlib'];

const training = join(dirname(fileURLToPath(import.meta.url)), '..', 'training');
const python = process.env['PREMOTOR_PYTHON'] ?? 'python3';
// Trainings may run beside the tests, and these models are too small for threads.
const env = { ...process.env, OMP_NUM_THREADS: '1', PYTHONPATH: training };

/** What the Python lacks, or false. Finding a package does not import it, which would take seconds. */
function skipReason(): string | false {
  const script = `import importlib.util as u, sys; print(*(n for n in sys.argv[1:] if u.find_spec(n) is None))`;
  const probe = spawnSync(python, ['-c', script, ...PACKAGES], { encoding: 'utf8', timeout: PROBE_TIMEOUT_MS });
  const remedy = 'Install training/requirements.txt into a virtual environment and set PREMOTOR_PYTHON to its python.';
  if (probe.status !== 0) return `TRAINING IS NOT TESTED: ${python} does not run (${probe.error?.message ?? probe.stderr.trim()}). ${remedy}`;
  const missing = probe.stdout.trim();
  return missing === '' ? false : `TRAINING IS NOT TESTED: ${python} lacks ${missing}. ${remedy}`;
}

interface Result {
  readonly code: number | null;
  readonly output: string;
}

async function runTests(): Promise<Result> {
  const child = spawn(python, ['-m', 'unittest', 'discover', '-s', join(training, 'tests')], { env, timeout: TESTS_TIMEOUT_MS });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve));
  return { code, output };
}

t.test('the unit tests of training/', { skip: skipReason(), timeout: TESTS_TIMEOUT_MS }, async (t) => {
  const { code, output } = await runTests();
  t.comment(/^Ran .*$/m.exec(output)?.[0] ?? 'no tests were run');
  t.equal(code, 0, `${python} -m unittest`);
  if (code !== 0) t.fail(output.slice(-8000));
  t.match(output, /^Ran \d{2,} tests/m);
});
