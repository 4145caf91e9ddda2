/**
 * From a folder to a .deb that depends on nothing but the folder's paths, bytes and executable bits: owners are root, times are the given second,
 * modes are 0755 or 0644, members are sorted, and dpkg-deb compresses. Owned by build.mjs; it decides no content.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, lstatSync, lutimesSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SetupError } from '../../setup/steps.mjs';
import { filesOf } from './contents.mjs';

const archive_timeout_ms = 900_000;

/** Every folder above `files`, the root ('') too. */
function foldersOf(files) {
  const folders = new Set(['']);
  for (const file of files) for (let folder = dirname(file); folder !== '.'; folder = dirname(folder)) folders.add(folder);
  return [...folders].sort();
}

/** md5sums as dpkg reads it: links are not listed. */
function md5sums(root, files) {
  const lines = files
    .filter((file) => !lstatSync(join(root, file)).isSymbolicLink())
    .map(
      (file) =>
        `${createHash('md5')
          .update(readFileSync(join(root, file)))
          .digest('hex')}  ${file}\n`,
    );
  return lines.join('');
}

/** Modes and times that do not depend on who made the folder and when. */
function normalise(root, epoch_s) {
  const files = filesOf(root);
  for (const path of [...files, ...foldersOf(files)]) {
    const full = join(root, path);
    const stat = lstatSync(full);
    if (!stat.isSymbolicLink()) chmodSync(full, stat.isDirectory() || (stat.mode & 0o100) !== 0 ? 0o755 : 0o644);
    lutimesSync(full, epoch_s, epoch_s);
  }
}

/**
 * Packs `root` into `output`. `control` is the text of the control file without Installed-Size; `scripts` are maintainer scripts and `conffiles`
 * paths from /. Returns the installed size in KiB. Changes modes and times inside `root`.
 */
export function packDeb({ root, control, scripts, conffiles, epoch_s, output, compression }) {
  rmSync(join(root, 'DEBIAN'), { recursive: true, force: true });
  const files = filesOf(root);
  const sum = files.reduce((total, file) => total + Math.ceil(lstatSync(join(root, file)).size / 1024), 0);
  const installed_KiB = sum + foldersOf(files).length;
  mkdirSync(join(root, 'DEBIAN'));
  writeFileSync(join(root, 'DEBIAN', 'control'), `${control}Installed-Size: ${installed_KiB}\n`);
  writeFileSync(join(root, 'DEBIAN', 'md5sums'), md5sums(root, files));
  if (conffiles.length > 0) writeFileSync(join(root, 'DEBIAN', 'conffiles'), `${conffiles.join('\n')}\n`);
  for (const [name, text] of Object.entries(scripts)) writeFileSync(join(root, 'DEBIAN', name), text, { mode: 0o755 });
  normalise(root, epoch_s);
  mkdirSync(dirname(output), { recursive: true });
  const args = ['--root-owner-group', ...(compression === 'fast' ? ['-Zgzip', '-z1'] : ['-Zxz', '-z6']), '--build', root, output];
  const env = { ...process.env, SOURCE_DATE_EPOCH: String(epoch_s), LC_ALL: 'C' };
  const result = spawnSync('dpkg-deb', args, { encoding: 'utf8', env, timeout: archive_timeout_ms });
  if (result.status !== 0) throw new SetupError(`dpkg-deb failed: ${result.error?.message ?? result.stderr.trim()}; Debian package: dpkg`);
  return installed_KiB;
}
