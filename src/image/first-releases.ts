/**
 * A new robot's configuration and model as releases that an update can go back from: with a manifest each, and noted as found good, because whoever
 * built the image vouches for them. Owned by the image builder.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { changeRecord, type ReleaseKind } from '../update/records.js';
import { KEPT_MANIFEST, manifestOf, manifestText } from '../update/release-file.js';
import { Releases } from '../update/releases.js';
import type { Seed } from './seed.js';

/** In the tree of makeSeed. Errors: UPDATE_CONTENT for files that no release could hold. */
export async function noteReleases(seedFolder: string, { configurationRelease, modelRelease }: Seed): Promise<void> {
  const stateDir = join(seedFolder, 'premotor');
  const versions: readonly (readonly [ReleaseKind, string | undefined])[] = [
    ['config', configurationRelease],
    ['model', modelRelease],
  ];
  for (const [kind, version] of versions) {
    if (version === undefined) continue;
    const folder = new Releases({ stateDir }, kind).path(version);
    await writeFile(join(folder, KEPT_MANIFEST), manifestText(await manifestOf(kind, version, folder)));
    await changeRecord(join(stateDir, 'update'), (record) => void (record[kind].committed = version));
  }
}
