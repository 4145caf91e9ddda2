/**
 * The `premotor` command: builds the command tree, turns interrupts into an AbortSignal, and errors into one form and one exit code. Run by
 * bin/premotor.js through runCli; commands live in files of their own, and none of them ends the process.
 */
import { Command, CommanderError } from 'commander';
import { PremotorError } from '../errors.js';
import { loadNative } from '../native.js';
import { version } from '../version.js';
import { registerBuild } from './build.js';
import { registerCamera } from './camera.js';
import { registerCan } from './can.js';
import { registerConfig } from './config.js';
import {
  type CliContext,
  CommandExit,
  EXIT_FAILURE,
  EXIT_INTERRUPTED,
  EXIT_OK,
  EXIT_USAGE,
  FoundProblems,
  printError,
  UsageError,
} from './context.js';
import { registerControl } from './control.js';
import { registerDemo } from './demo.js';
import { registerDoctor } from './doctor.js';
import { registerEval } from './eval.js';
import { registerFirmware } from './firmware.js';
import { registerFleet } from './fleet.js';
import { registerIdentity } from './identity.js';
import { registerImage } from './image.js';
import { registerInfer } from './infer.js';
import { registerInspect } from './inspect.js';
import { registerPlan } from './plan.js';
import { registerPlanCycle } from './plan-cycle.js';
import { registerPrompt } from './prompt.js';
import { registerRecord } from './record.js';
import { registerReplay } from './replay.js';
import { registerRun } from './run.js';
import { registerSelftest } from './selftest.js';
import { registerServe } from './serve.js';
import { registerService } from './service.js';
import { registerSim } from './sim.js';
import { registerStop } from './stop.js';
import { registerUpdate } from './update.js';
import { registerUpdateFollow } from './update-follow.js';

/** Commands that end in order when they are interrupted, through the context's signal. */
const LISTENING: readonly string[] = [
  'infer',
  'inspect',
  'run',
  'replay',
  'record',
  'demo',
  'eval',
  'build',
  'plan',
  'plan-cycle',
  'can',
  'serve',
  'service',
  'status',
  'firmware',
  'fleet',
  'selftest',
  'update',
  ...['infer', 'inspect', 'run', 'replay', 'record', 'demo', 'eval', 'build', 'plan', 'plan-cycle', 'can', 'serve'],
  'image',
];

const STOP_SIGNALS = ['SIGINT', 'SIGTERM'] as const;

const examples = `
Examples:
  premotor doctor                                  what this machine can do
  premotor inspect checkpoint/ --job job.json      what a checkpoint holds, needs and costs
  premotor infer --checkpoint checkpoint/ --job job.json --image cam_high=a.png --prompt "pick up the cube"
  premotor prompt --checkpoint checkpoint/ --prompt "pick up the cube"
  premotor run robots/sim-tabletop.yaml            one episode on the robot of a configuration
  premotor replay premotor-out/episode.replay      the same episode again, compared bit by bit
  premotor record info FILE.mcap                   what is in a recording of the flight recorder
  premotor config check robots/sim-tabletop.yaml   what a configuration means, or what is wrong with it
  premotor build checkpoint/ -o checkpoint.plan    weights packed ahead: opens at once
  premotor plan-cycle checkpoint/                  whether this machine keeps up with a robot
  premotor demo                                    a simulated robot, closed loop
  premotor can dump socketcan:can0                 what a CAN bus carries
  premotor firmware info socketcan:can0            what runs on the firmware bridge
  premotor serve checkpoint/                       serve a checkpoint to websocket clients
  premotor camera show /dev/video0                 what a camera sees
  premotor image build --help                      a disk image for a robot, and how to write it to a disk
  premotor stop                                    bring whatever moves to rest
  premotor service robots/sim-tabletop.yaml        the same robot as a service: headless, many episodes
  premotor status                                  what the service does, and why it does no more
  premotor selftest my-robot.yaml                  whether this machine computes what it should
  premotor update status                           what system, model and configuration run, and how updates ended

Results go to standard output, progress and errors to standard error.
Exit codes: 0 done, 1 failed, 2 wrong command line, 3 the task of an episode was not done, 130 interrupted.`;

/** The whole command tree. Its actions reject; nothing in it exits the process. */
export function buildProgram(context: CliContext): Command {
  const program = new Command('premotor')
    .description("Edge runtime for causal video-action world models: runs LingBot-VA checkpoints on a robot's own computer.")
    .version(version(), '-V, --version', 'print the version')
    .addHelpText('after', examples)
    .showSuggestionAfterError(true)
    // Commands have a --version of their own: what an update is called.
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void context.out.write(text),
      writeErr: (text) => void context.err.write(text),
      // A wrong command line becomes a UsageError, printed once by runCli.
      outputError: () => undefined,
    });
  registerInfer(program, context);
  registerInspect(program, context);
  registerDoctor(program, context);
  registerPrompt(program);
  registerRun(program, context);
  registerReplay(program, context);
  registerRecord(program, context);
  registerConfig(program, context);
  registerDemo(program, context);
  registerSim(program, context);
  registerEval(program, context);
  registerBuild(program, context);
  registerPlan(program, context);
  registerPlanCycle(program, context);
  registerCan(program, context);
  registerFirmware(program, context);
  registerServe(program, context);
  registerCamera(program, context);
  registerImage(program, context);
  registerStop(program, context);
  registerService(program, context);
  registerControl(program, context);
  registerFleet(program, context);
  registerIdentity(program, context);
  registerSelftest(program, context);
  registerUpdate(program, context);
  registerUpdateFollow(program, context);
  return program;
}

const processContext = (signal: AbortSignal): CliContext => ({
  out: process.stdout,
  err: process.stderr,
  loadPolicy: async (options) => (await import('../policy/load.js')).loadPolicy(options),
  loadNative,
  signal,
});

/** A reader that has gone (`premotor ... | head`) ends no command, least of all one that moves a robot: what is written for it is dropped. */
let outlives = false;
function outliveReaders(): void {
  if (outlives) return;
  outlives = true;
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }
}

/** Runs one command line (without node and script) and returns its exit code. `parts` replaces outside parts in tests. */
export async function runCli(argv: readonly string[], parts: Partial<CliContext> = {}): Promise<number> {
  outliveReaders();
  const interrupt = new AbortController();
  let interrupts = 0;
  const onInterrupt = (): void => {
    // A second interrupt means now: the engine may be inside a pass that takes seconds.
    if (++interrupts > 1) process.exit(EXIT_INTERRUPTED);
    interrupt.abort(new PremotorError('ABORTED', 'Interrupted.'));
  };
  const context: CliContext = { ...processContext(interrupt.signal), ...parts };
  // The other commands have nothing to undo: an interrupt ends them as it ends any process, or they listen themselves.
  const listens = parts.signal === undefined && LISTENING.includes(argv[0] ?? '');
  // SIGTERM is how systemd and `premotor stop` ask.
  if (listens) for (const signal of STOP_SIGNALS) process.on(signal, onInterrupt);
  try {
    await buildProgram(context).parseAsync([...argv], { from: 'user' });
    return EXIT_OK;
  } catch (error) {
    return failed(error, context, argv);
  } finally {
    if (listens) for (const signal of STOP_SIGNALS) process.off(signal, onInterrupt);
  }
}

function failed(error: unknown, context: CliContext, argv: readonly string[]): number {
  const end = argv.indexOf('--');
  const json = (end < 0 ? argv : argv.slice(0, end)).includes('--json');
  if (error instanceof FoundProblems) return EXIT_FAILURE;
  if (error instanceof CommandExit) return error.exitCode;
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT_OK;
    // premotor alone prints its help, which is not an error in a text's sense but no command either.
    if (error.code === 'commander.help') return EXIT_USAGE;
    printError(new UsageError(`${error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ')}.`.replace(/([.!?)])\.$/, '$1')), context, json);
    return EXIT_USAGE;
  }
  printError(error, context, json);
  if (error instanceof UsageError) return EXIT_USAGE;
  return error instanceof PremotorError && error.code === 'ABORTED' && context.signal.aborted ? EXIT_INTERRUPTED : EXIT_FAILURE;
}
