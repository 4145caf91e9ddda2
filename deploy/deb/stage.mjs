/**
 * Lays the package out as a folder: the app under usr/lib/premotor, units, rules, folders and documents at their places. It copies and writes;
 * what goes in is decided in contents.mjs. Owned by build.mjs.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { SetupError } from '../../setup/steps.mjs';
import { filesOf } from './contents.mjs';
import { isElf } from './elf.mjs';

export const APP = 'usr/lib/premotor';
const NATIVE = ['premotor.node', 'premotor-stream', 'premotor-bridge'];
const UNITS = /\.(service|timer|path|target|socket|mount)$/;

/** Programs that the robot runs as scripts: folder of the tree -> folder of the package. Other parts of deploy/ are for whoever builds. */
const SCRIPT_FOLDERS = { 'deploy/lib': `${APP}/deploy`, 'deploy/update': `${APP}/update`, 'deploy/jetson': `${APP}/jetson` };

/** Files of deploy/deb/files -> where they are installed. Those in /etc are conffiles: dpkg keeps what an operator changed. */
const PLACES = [
  { from: 'premotor', to: 'usr/bin/premotor', executable: true },
  { from: 'sysusers.conf', to: 'usr/lib/sysusers.d/premotor.conf' },
  { from: 'tmpfiles.conf', to: 'usr/lib/tmpfiles.d/premotor.conf' },
  { from: 'modules-load.conf', to: 'usr/lib/modules-load.d/premotor.conf' },
  { from: 'udev.rules', to: 'usr/lib/udev/rules.d/72-premotor.rules' },
  { from: 'limits.conf', to: 'etc/security/limits.d/premotor.conf' },
  { from: 'can-README', to: 'etc/premotor/can/README' },
  { from: 'sim-bridge.json', to: 'etc/premotor/sim-bridge.json' },
  { from: 'lintian-overrides', to: 'usr/share/lintian/overrides/premotor' },
];

function put(from, to, executable) {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  chmodSync(to, executable ? 0o755 : 0o644);
}

/** gzip without a name or a time in it; the header's operating system is one byte that depends on the machine, so it is set. */
function gzip(text) {
  const bytes = gzipSync(text, { level: 9 });
  bytes[9] = 3;
  return bytes;
}

/** The app: files of the tree, the addon and its programs, and what fetch.mjs brought. `version` replaces package.json's. */
function stageApp({ root, stage, files, native, version }) {
  for (const file of files) put(join(root, file), join(stage, APP, file), false);
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { name, description, license, type, engines, exports, bin } = manifest;
  const kept = { name, version, description, license, type, engines, exports, bin };
  writeFileSync(join(stage, APP, 'package.json'), `${JSON.stringify(kept, null, 2)}\n`);
  for (const file of NATIVE) {
    if (!existsSync(join(native, file)))
      throw new SetupError(`${native} has no ${file}: expected ${NATIVE.join(', ')}; build them or name another folder with --native`);
    put(join(native, file), join(stage, APP, 'build', 'Release', file), file !== 'premotor.node');
  }
}

function stageUnits(root, stage) {
  const folder = join(root, 'deploy', 'systemd');
  const units = readdirSync(folder).filter((name) => UNITS.test(name));
  for (const name of units) put(join(folder, name), join(stage, 'usr/lib/systemd/system', name), false);
  return units.sort();
}

function stageScripts(root, stage) {
  for (const [from, to] of Object.entries(SCRIPT_FOLDERS)) {
    if (!existsSync(join(root, from))) continue;
    for (const file of filesOf(join(root, from))) {
      const isProgram = (statSync(join(root, from, file)).mode & 0o100) !== 0;
      put(join(root, from, file), join(stage, to, file), isProgram);
    }
  }
}

/** debian/copyright in its machine-readable form: one paragraph for the program, one for each package and for Node. */
function copyrightOf(stage, packages) {
  const paragraphs = ['Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: premotor'];
  paragraphs.push('Files: *\nCopyright: 2026 the premotor authors\nLicense: Apache-2.0');
  paragraphs.push(
    'Files: usr/lib/premotor/node/*\nCopyright: the Node.js contributors and others\nLicense: Node\n The text is in usr/lib/premotor/node/LICENSE.',
  );
  for (const folder of packages) {
    const manifest = JSON.parse(readFileSync(join(stage, APP, folder, 'package.json'), 'utf8'));
    const author = typeof manifest.author === 'string' ? manifest.author : (manifest.author?.name ?? `the authors of ${manifest.name}`);
    const license = String(manifest.license ?? manifest.licenses?.[0]?.type ?? 'see-package').replace(/[()]/g, '');
    paragraphs.push(`Files: ${APP}/${folder}/*\nCopyright: ${author.replace(/\s+/g, ' ')}\nLicense: ${license}`);
  }
  paragraphs.push(
    'License: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.',
    'License: MIT\n The text that belongs to a package is in its folder.',
  );
  return `${paragraphs.join('\n\n')}\n`;
}

function stageDocuments({ root, stage, version, epoch_s, packages }) {
  const docs = join(stage, 'usr/share/doc/premotor');
  mkdirSync(docs, { recursive: true });
  writeFileSync(join(docs, 'copyright'), copyrightOf(stage, packages));
  const date = new Date(epoch_s * 1000).toUTCString().replace('GMT', '+0000');
  const entry = `premotor (${version}) stable; urgency=medium\n\n  * See NEWS.md.gz.\n\n -- premotor maintainers <premotor@example.org>  ${date}\n`;
  writeFileSync(join(docs, 'changelog.gz'), gzip(entry));
  writeFileSync(join(docs, 'NEWS.md.gz'), gzip(readFileSync(join(root, 'CHANGELOG.md'))));
  symlinkSync('../../../lib/premotor/docs', join(docs, 'docs'));
  const man = readFileSync(join(root, 'deploy/deb/files/premotor.1'), 'utf8');
  const day = new Date(epoch_s * 1000).toISOString().slice(0, 10);
  mkdirSync(join(stage, 'usr/share/man/man1'), { recursive: true });
  writeFileSync(join(stage, 'usr/share/man/man1/premotor.1.gz'), gzip(man.replace('@DATE@', day).replace('@VERSION@', version)));
}

/** Removes symbols that nothing at run time reads, from every program and library of the app. Returns the paths of all of them. */
export function stripNative(stage, strip) {
  const files = filesOf(join(stage, APP)).map((file) => join(stage, APP, file));
  const native = files.filter((file) => /(\.(node|so(\.[\d.]+)?)|\/[^./]+)$/.test(file) && isElf(file));
  for (const file of native) {
    // npm's archives have libraries that are executable files; a library is none.
    chmodSync(file, /\.(node|so(\.[\d.]+)?)$/.test(basename(file)) ? 0o644 : 0o755);
    const result = spawnSync(strip, ['--strip-unneeded', '--remove-section=.comment', '--enable-deterministic-archives', file], { encoding: 'utf8' });
    if (result.status !== 0) throw new SetupError(`${strip} ${basename(file)} failed: ${result.error?.message ?? result.stderr.trim()}`);
  }
  return native;
}

/** Everything but native code of others, into `stage`. Returns the units and the conffiles. */
export function stageTree({ root, stage, files, packages, native, version, epoch_s }) {
  stageApp({ root, stage, files, native, version });
  for (const { from, to, executable = false } of PLACES) put(join(root, 'deploy/deb/files', from), join(stage, to), executable);
  stageScripts(root, stage);
  const units = stageUnits(root, stage);
  stageDocuments({ root, stage, version, epoch_s, packages });
  return { units, conffiles: PLACES.filter(({ to }) => to.startsWith('etc/')).map(({ to }) => `/${to}`) };
}
