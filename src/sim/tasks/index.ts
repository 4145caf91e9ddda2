/**
 * The list of tasks. A new task is one file and one line here.
 */
import { PremotorError } from '../../errors.js';
import { pressN } from './press-n.js';
import { push } from './push.js';
import { sequence } from './sequence.js';
import { TASK_NAMES, type Task, type TaskName } from './task.js';
import { touch } from './touch.js';

export const TASKS: Readonly<Record<TaskName, Task>> = { touch, 'press-n': pressN, push, sequence };

/** Errors: SIM_TASK. */
export function taskNamed(name: string): Task {
  const task = TASKS[name as TaskName] as Task | undefined;
  if (task) return task;
  const expected = TASK_NAMES.join(', ');
  throw new PremotorError('SIM_TASK', `There is no task ${name}: expected ${expected}. Correct the name.`, { field: 'task', expected, found: name });
}
