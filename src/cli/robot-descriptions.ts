/**
 * Robot descriptions (URDF) that a configuration names, looked at before a robot is started with it. Owned by the command line.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import type { ConfigProblem, LoadedConfig } from '../config/reader.js';
import { parseUrdf } from '../kinematics/urdf.js';

/**
 * What is wrong with descriptions beside the configuration, or that should be there: with its files in `folder` if that is not where it will be.
 * Others may be on the robot alone, where the doctor looks for them.
 */
export function descriptionProblems(loaded: LoadedConfig, folder = dirname(resolve(loaded.file))): ConfigProblem[] {
  const beside = dirname(resolve(loaded.file));
  return Object.entries(loaded.config.robot.workspaces ?? {}).flatMap(([name, { urdf, base_link: base, tip_link: tip }]) => {
    const at = `robot.workspaces.${name}.urdf`;
    const path = relative(beside, urdf);
    const isElsewhere = path.startsWith('..');
    const file = isElsewhere ? urdf : join(folder, path);
    if (!existsSync(file)) return isElsewhere ? [] : [loaded.problemAt(at, 'a URDF file', `no file ${file}`)];
    try {
      parseUrdf(readFileSync(file, 'utf8'), { base, tip, file });
      return [];
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      return [loaded.problemAt(at, 'a usable URDF file', error.message)];
    }
  });
}
