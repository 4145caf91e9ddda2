/**
 * What a robot configuration says of the long-running service: when it may arm by itself, what it does once it holds, and how often what may fail
 * before it waits for a person. Pure data; src/service reads it.
 */
import { z } from 'zod';
import { among, note, positive, text, whole, wholeWords } from './notes.js';

export const AUTONOMY = ['local-arm', 'arm-on-boot'] as const;
export const RUN_MODES = ['none', 'once', 'loop'] as const;

export const autonomy = note(
  z.enum(AUTONOMY).default('local-arm'),
  among(AUTONOMY),
  '`premotor service`: a person at the robot arms it, or it arms itself once after each start when all checks pass (docs/SERVICE.md)',
);

const seconds = (fallback: number, most: number, meaning: string): z.ZodDefault<z.ZodNumber> =>
  note(positive.max(most).default(fallback), `a number above 0 and up to ${most}`, meaning);
const mebibytes = (fallback: number, meaning: string): z.ZodDefault<z.ZodNumber> =>
  note(z.number().min(0).max(1_048_576).default(fallback), 'a number of 0 .. 1048576', meaning);

export const service = z.strictObject({
  run: note(
    z.enum(RUN_MODES).default('none'),
    among(RUN_MODES),
    'what it does by itself once it holds: nothing until `premotor go`, one episode, or one after another',
  ),
  pause_s: note(z.number().min(0).max(86_400).default(5), 'a number of 0 .. 86400', 'between two episodes of `run: loop`'),
  episodes_max: note(whole(1, 1_000_000).optional(), wholeWords(1, 1_000_000), '`run: loop` ends after so many and goes on holding', 'no end'),
  require_telemetry: note(z.boolean().default(false), 'true or false', 'do not arm while the broker cannot be reached; otherwise that is a remark'),
  control_socket: note(
    text.optional(),
    'the path of a socket',
    'where `premotor status`, `arm` and the others find it',
    '`control.sock` in the runtime folder',
  ),
  state_dir: note(
    text.optional(),
    'the path of a folder',
    'remembers starts that ended badly',
    '`service` in `$STATE_DIRECTORY`, else in `recording.out_dir`',
  ),
  check_period_s: seconds(0.5, 10, 'how often it looks at the robot and at its checks'),
  retry_s: seconds(2, 600, 'between two tries to open the robot or the policy; doubled up to 30 times this'),
  status_period_s: seconds(60, 86_400, 'how often the log repeats the state'),
  progress_timeout_s: seconds(
    30,
    3600,
    'an episode that gets nowhere for so long is no sign of life any more: systemd is told nothing and restarts the service',
  ),
  starts_max: note(
    whole(1, 100).default(5),
    wholeWords(1, 100),
    'after more unexpected ends of service or engine within `starts_window_s` it waits with CRASH_LOOP until `premotor clear`',
  ),
  starts_window_s: seconds(600, 86_400, 'the time in which they are counted'),
  memory_free_min_mib: mebibytes(64, 'with less free memory it does not arm'),
  disk_free_min_mib: mebibytes(64, 'the same for the disks of recordings and of the queue'),
});
