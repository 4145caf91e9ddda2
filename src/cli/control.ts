/**
 * `premotor status`, `arm`, `disarm`, `go`, `halt`, `clear` and `maintenance`: ask the service of this machine over its control socket. Whoever
 * may open the socket may ask; these commands know nothing that the service does not say.
 */
import type { Command } from 'commander';
import { ask, findSocket } from '../service/control-client.js';
import type { ControlRequest, ServiceStatus } from '../service/control-protocol.js';
import { TASK_NAMES } from '../sim/tasks/task.js';
import { type CliContext, formatTable, printResult, UsageError } from './context.js';
import { SEED_MAX, whole } from './numbers.js';

interface SocketOptions {
  readonly socket?: string;
  readonly json: boolean;
}

interface StatusOptions extends SocketOptions {
  readonly watch: boolean;
}

interface GoOptions extends SocketOptions {
  readonly task?: string;
  readonly seed?: number;
  readonly instruction?: string;
}

const WATCH_PERIOD_MS = 1000;

function yesNo(value: boolean): string {
  return value ? 'yes' : 'no';
}

/** A status for people. */
export function statusText(status: ServiceStatus): string {
  const { robot, telemetry, policy, configuration, episodes, clock } = status;
  const rows: [string, string][] = [
    ['state', `${status.state} since ${status.since}`],
    ...status.reasons.map(({ code, message }): [string, string] => ['', `${code}: ${message}`]),
    ...status.remarks.map(({ code, message }): [string, string] => ['remark', `${code}: ${message}`]),
    ['armed', `${yesNo(status.armed)}, ${status.atRest ? 'at rest' : 'moving'}`],
    ['autonomy', status.autonomy],
    ['robot', `stream ${robot.stream}, link ${robot.link}, bridge ${robot.bridge}${robot.faultCode === '' ? '' : `, latched ${robot.faultCode}`}`],
    [
      'policy',
      `${policy.loaded ? 'loaded' : 'not loaded'}, ${policy.checkpoint}, ${policy.precision}${policy.plan === null ? '' : `, plan ${policy.plan}`}`,
    ],
    ['telemetry', telemetry.enabled ? (telemetry.connected ? 'connected' : 'not connected') : 'off'],
    ['episodes', `${episodes.ended} ended, ${episodes.succeeded} done${episodes.last === null ? '' : `, the last ${episodes.last}`}`],
    ['cycles', String(status.cycles)],
    ...(clock.steps === 0 ? [] : [['clock', `${clock.steps} steps, the last by ${clock.lastStepMs} ms`] as [string, string]]),
    ['configuration', `${configuration.file}, sha256 ${configuration.hash.slice(0, 12)}`],
    ['version', status.version],
  ];
  return `${formatTable(['', ''], rows, ['left', 'left']).trimStart()}\n`;
}

async function request(wish: ControlRequest, { socket, json }: SocketOptions, context: CliContext): Promise<void> {
  const status = await ask(findSocket(socket), wish);
  if (status) printResult(context, json, status, () => statusText(status));
}

/** Prints the status, with `watch` again and again until interrupted. Errors: those of ask. */
export async function runStatus({ watch, ...options }: StatusOptions, context: CliContext): Promise<void> {
  await request({ do: 'status' }, options, context);
  if (!watch || context.signal.aborted) return;
  await new Promise<void>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const again = (): void => {
      request({ do: 'status' }, options, context).then(() => {
        if (!context.signal.aborted) timer = setTimeout(again, WATCH_PERIOD_MS);
      }, reject);
    };
    timer = setTimeout(again, WATCH_PERIOD_MS);
    context.signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

const access = `
The service listens at a socket that root and the group premotor may open (--socket names another one). Nothing of this comes over a network.`;

function withSocket(command: Command): Command {
  return command
    .option('--socket <path>', "the service's control socket")
    .option('--json', 'print the status as JSON', false)
    .addHelpText('after', access);
}

/** Adds the commands to the program. */
export function registerControl(program: Command, context: CliContext): void {
  withSocket(program.command('status').description('what the service of this machine does, and why it does no more'))
    .option('--watch', 'again every second, until interrupted', false)
    .action((options: StatusOptions) => runStatus(options, context));
  const simple = (name: string, wish: ControlRequest, description: string): void => {
    withSocket(program.command(name).description(description)).action((options: SocketOptions) => request(wish, options, context));
  };
  simple('arm', { do: 'arm' }, 'let the service give power to its robot, which holds');
  simple('disarm', { do: 'disarm' }, 'take the power of a robot that holds');
  simple('halt', { do: 'stop' }, "end the service's episode with a controlled stop; the service goes on");
  simple('clear', { do: 'clear' }, 'acknowledge a fault or a crash loop; takes the power away');
  withSocket(program.command('go').description('begin an episode on a robot that holds'))
    .option('--task <name>', `another task than the configured one; simulated: ${TASK_NAMES.join(', ')}`)
    .option('--seed <n>', 'seed of the scene and of the noise', whole(0, SEED_MAX))
    .option('--instruction <text>', 'what the policy is told')
    .action(({ task, seed, instruction, ...options }: GoOptions) => {
      const wish = {
        ...(task === undefined ? {} : { task }),
        ...(seed === undefined ? {} : { seed }),
        ...(instruction === undefined ? {} : { instruction }),
      };
      return request({ do: 'run', ...wish }, options, context);
    });
  withSocket(program.command('maintenance').description('lock a disarmed robot for an update, or unlock it'))
    .argument('<on|off>', 'whether it is locked', (text) => text)
    .option('--reason <text>', 'what for')
    .action((text: string, { reason, ...options }: SocketOptions & { reason?: string }) => {
      if (text !== 'on' && text !== 'off') throw new UsageError(`Expected on or off, found ${text}.`, { expected: 'on or off', found: text });
      return request({ do: 'maintenance', on: text === 'on', ...(reason === undefined ? {} : { reason }) }, options, context);
    });
}
