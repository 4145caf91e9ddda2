/**
 * What the package's native code asks of the system it is installed on: the newest versioned symbols of the C and C++ libraries, and the libraries
 * by name. The dependencies of the package come from here, so that a system that is too old refuses it instead of failing at run time.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { SetupError } from '../../setup/steps.mjs';

/** libstdc++'s symbol versions, and the GCC whose library first had them. */
const GLIBCXX = { '3.4.25': '8', '3.4.26': '9', '3.4.27': '9.2', '3.4.28': '9.3', '3.4.29': '11', '3.4.30': '12', '3.4.31': '13', '3.4.32': '13.2' };

/** Libraries that Debian's libc6, libstdc++6 and libgcc-s1 hold; what else is needed must be in the package. */
const SYSTEM = /^(lib(c|m|dl|rt|pthread|util|resolv)\.so\.\d+|ld-linux[\w-]*\.so\.\d+|libstdc\+\+\.so\.6|libgcc_s\.so\.1|libatomic\.so\.1)$/;

export function isElf(path) {
  const file = openSync(path, 'r');
  try {
    const head = Buffer.alloc(4);
    return readSync(file, head, 0, 4, 0) === 4 && head.equals(Buffer.from([0x7f, 0x45, 0x4c, 0x46]));
  } finally {
    closeSync(file);
  }
}

const newest = (versions) => [...versions].sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);

/** The needs in readelf's text (`--dynamic --version-info --file-header`) of any number of files. */
export function needsOf(text) {
  const versionsOf = (pattern) => new Set([...text.matchAll(pattern)].map((match) => match[1]));
  return {
    machines: [...versionsOf(/^\s*Machine:\s+(.*)$/gm)].sort(),
    libraries: [...versionsOf(/\(NEEDED\)\s+Shared library: \[([^\]]+)\]/g)].sort(),
    glibc: newest(versionsOf(/Name: GLIBC_(\d+(?:\.\d+)+)/g)),
    glibcxx: newest(versionsOf(/Name: GLIBCXX_(\d+(?:\.\d+)+)/g)),
  };
}

/** Reads `files` with binutils' readelf, which reads any processor's. */
export function readNeeds(files) {
  const args = ['--wide', '--file-header', '--dynamic', '--version-info', ...files];
  const result = spawnSync('readelf', args, { encoding: 'utf8', maxBuffer: 1 << 28, env: { ...process.env, LC_ALL: 'C' } });
  if (result.status !== 0) throw new SetupError(`readelf failed: ${result.error?.message ?? result.stderr.trim()}; Debian package: binutils`);
  return needsOf(result.stdout);
}

/** Debian dependencies for these needs. `shipped` are file names in the package. An unknown library or library version is an error. */
export function dependenciesOf(needs, shipped) {
  const strangers = needs.libraries.filter((name) => !SYSTEM.test(name) && !shipped.has(name));
  if (strangers.length > 0)
    throw new SetupError(
      `the package's programs need libraries that are neither in it nor in libc6, libstdc++6 or libgcc-s1: ${strangers.join(', ')}`,
    );
  if (needs.glibc === undefined) throw new SetupError('the programs name no version of the C library: expected GLIBC_x.y in readelf --version-info');
  const gcc = needs.glibcxx === undefined ? '8' : (GLIBCXX[needs.glibcxx] ?? (/^3\.4\.(1?\d|2[0-4])$/.test(needs.glibcxx) ? '8' : undefined));
  if (gcc === undefined)
    throw new SetupError(`GLIBCXX_${needs.glibcxx} is of a libstdc++ that deploy/deb/elf.mjs does not know: expected one of its table`);
  return [`libc6 (>= ${needs.glibc})`, 'libgcc-s1', `libstdc++6 (>= ${gcc})`];
}
