/**
 * Evaluations that a command keeps in a folder, so that an interrupted one goes on where it stopped, and how its files are written: whole or not at
 * all. Shared by `premotor eval report` and `premotor eval certify`; it runs nothing.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PremotorError } from '../errors.js';
import type { Configuration, Subject } from '../evaluation/configuration.js';
import { type Evaluation, jobHash } from '../evaluation/evaluation.js';
import type { TaskName } from '../sim/tasks/task.js';

/** Errors: FILE_WRITE. */
export async function writeText(path: string, content: string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.part`, content);
    await rename(`${path}.part`, path);
  } catch (cause) {
    const message = `${path} cannot be written: ${(cause as Error).message}. Check the disk and the folder's rights.`;
    throw new PremotorError('FILE_WRITE', message, { file: path, cause });
  }
}

/** A kept evaluation that a new run would repeat; undefined when there is none. */
export async function keptEvaluation(
  path: string,
  { configuration, tasks }: { readonly configuration: Configuration; readonly tasks: readonly TaskName[] },
  subject: Subject,
  hash: string,
  { seed: firstSeed, episodes: count }: { readonly seed: number; readonly episodes: number },
): Promise<Evaluation | undefined> {
  try {
    const found = JSON.parse(await readFile(path, 'utf8')) as Evaluation;
    const isSame =
      found.checkpoint.hash === hash &&
      found.job.hash === jobHash(subject.job) &&
      JSON.stringify(found.configuration) === JSON.stringify(configuration) &&
      tasks.every((task) => {
        const seeds = found.episodes.filter((episode) => episode.task === task).map(({ seed }) => seed);
        return seeds.length === count && seeds.every((seed, index) => seed === firstSeed + index);
      });
    return isSame ? found : undefined;
  } catch {
    return undefined; // absent or cut off: it is made again
  }
}
