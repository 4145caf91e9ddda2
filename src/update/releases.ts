/**
 * The releases of a model or a configuration on the data partition: one folder each, and a link `current` that is moved in one step, so that at any
 * moment the old or the new one is there, whole. Owned by the release installation; it judges no content and asks no service.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Disk, linkTarget, realDisk, replaceLink } from './disk.js';
import type { Places } from './places.js';
import type { ReleaseKind } from './records.js';
import { KEPT_MANIFEST, parseManifest, type ReleaseManifest } from './release-file.js';
import { compareVersions, isVersion } from './versions.js';

const FOLDERS: Readonly<Record<ReleaseKind, string>> = { model: 'models', config: 'config' };
const CURRENT = 'current';
const RELEASES = 'releases';
/** Names that are no versions: what is being unpacked, and what is being removed. */
const INCOMING = '.incoming';
const REMOVED = '.removed';

export class Releases {
  readonly folder: string;
  readonly #disk: Disk;

  constructor({ stateDir }: Pick<Places, 'stateDir'>, kind: ReleaseKind, disk: Disk = realDisk) {
    this.folder = join(stateDir, FOLDERS[kind]);
    this.#disk = disk;
  }

  /** Where a release is, whether it is there or not. */
  path(version: string): string {
    return join(this.folder, RELEASES, version);
  }

  async current(): Promise<string | undefined> {
    const target = await linkTarget(join(this.folder, CURRENT));
    const version = target === undefined ? undefined : /^releases\/([^/]+)$/.exec(target)?.[1];
    return version !== undefined && isVersion(version) ? version : undefined;
  }

  /** Every whole release, oldest version first. */
  async versions(): Promise<string[]> {
    const names = await readdir(join(this.folder, RELEASES)).catch(() => []);
    return names.filter(isVersion).sort(compareVersions);
  }

  async has(version: string): Promise<boolean> {
    return (await stat(join(this.path(version), KEPT_MANIFEST)).catch(() => undefined)) !== undefined;
  }

  /** What a release should consist of. Errors: UPDATE_FORMAT. */
  async manifest(version: string): Promise<ReleaseManifest> {
    const file = join(this.path(version), KEPT_MANIFEST);
    return parseManifest(await readFile(file), file);
  }

  /** An empty folder to unpack into. What an earlier attempt left is removed. */
  async incoming(): Promise<string> {
    const folder = join(this.folder, RELEASES, INCOMING);
    await this.#disk.folder(join(this.folder, RELEASES));
    await this.#disk.remove(folder);
    await this.#disk.remove(join(this.folder, RELEASES, REMOVED));
    await this.#disk.folder(folder);
    // The first time, the folders above are new, too.
    for (const above of [join(this.folder, RELEASES), this.folder, dirname(this.folder)]) await this.#disk.sync(above);
    return folder;
  }

  /** What is not wanted after all goes. */
  async discard(): Promise<void> {
    await this.#disk.remove(join(this.folder, RELEASES, INCOMING));
  }

  /** Gives what was unpacked its name. It must be durable already. */
  async adopt(version: string): Promise<void> {
    const releases = join(this.folder, RELEASES);
    // Replaced is only what is not current: its caller has checked. Half a folder under a version's name must never be.
    if ((await stat(this.path(version)).catch(() => undefined)) !== undefined) await this.#disk.rename(this.path(version), join(releases, REMOVED));
    await this.#disk.rename(join(releases, INCOMING), this.path(version));
    await this.#disk.sync(releases);
    await this.#disk.sync(this.folder);
    await this.#disk.remove(join(releases, REMOVED));
  }

  /** The one step that changes what is used. Without a version there is no `current` any more: only a first release is taken back so. */
  async point(version: string | undefined): Promise<void> {
    const link = join(this.folder, CURRENT);
    if (version !== undefined) return replaceLink(this.#disk, join(RELEASES, version), link);
    await this.#disk.remove(link);
    await this.#disk.sync(this.folder);
  }

  /** Removes the oldest releases beyond `keep`; those that are needed stay whatever their age. Returns what went. */
  async prune(keep: number, needed: readonly (string | undefined)[]): Promise<string[]> {
    const all = await this.versions();
    const spare = all.filter((version) => !needed.includes(version));
    const surplus = Math.max(0, all.length - keep);
    const gone = spare.slice(0, surplus);
    for (const version of gone) {
      await this.#disk.rename(this.path(version), join(this.folder, RELEASES, REMOVED));
      await this.#disk.remove(join(this.folder, RELEASES, REMOVED));
    }
    if (gone.length > 0) await this.#disk.sync(join(this.folder, RELEASES));
    return gone;
  }
}
