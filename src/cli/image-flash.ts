/**
 * `premotor image flash`: asks, writes an image to a disk, and reads it back. Owned by the command line; src/image/flash.ts does the work and
 * src/image/devices.ts the refusing.
 */
import { resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import type { Disk, SystemView } from '../image/devices.js';
import { type DeviceIo, type FlashState, flash, realDevices } from '../image/flash.js';
import { type CliContext, formatBytes, printResult, UsageError } from './context.js';
import { SystemFiles } from './probes.js';
import { ProgressBar } from './progress.js';

export interface FlashOptions {
  readonly yesIMean?: string;
  readonly json: boolean;
}

/** What tests replace. */
export interface FlashParts {
  readonly view: SystemView;
  readonly io: DeviceIo;
  readonly ask: (question: string) => Promise<string>;
}

const stateTexts: Readonly<Record<FlashState, string>> = {
  checking: 'checking the disk',
  confirming: 'waiting for its name',
  writing: 'writing',
  syncing: 'waiting for the disk',
  verifying: 'reading back',
  done: 'done',
};

async function askTerminal(question: string): Promise<string> {
  if (process.stdin.isTTY !== true)
    throw new UsageError('Expected a terminal to ask for the device name again, found none: add --yes-i-mean DEVICE to a script.');
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await terminal.question(question)).trim();
  } finally {
    terminal.close();
  }
}

const systemParts = (): FlashParts => ({ view: new SystemFiles(), io: realDevices, ask: askTerminal });

const question = ({ path, sizeBytes, model, isRemovable }: Disk): string =>
  `Everything on ${path} (${model}, ${formatBytes(sizeBytes)}${isRemovable ? ', removable' : ''}) will be lost. Type its name again to go on: `;

/** Runs the command. Errors: USAGE, IMAGE_INPUT_INVALID, FLASH_*, ABORTED. */
export async function runFlash(
  image: string,
  device: string,
  options: FlashOptions,
  context: CliContext,
  parts: FlashParts = systemParts(),
): Promise<void> {
  const bar = new ProgressBar(context.err, { show: (value) => (value > 1 ? formatBytes(value) : String(value)) });
  const started = performance.now();
  try {
    const flashed = await flash({
      image: resolve(image),
      device,
      view: parts.view,
      io: parts.io,
      confirm: async (disk) => {
        bar.clear();
        return options.yesIMean ?? (await parts.ask(question(disk)));
      },
      signal: context.signal,
      onProgress: (state, done, total) => bar.update(stateTexts[state], done, total),
    });
    bar.clear();
    const seconds = (performance.now() - started) / 1000;
    printResult(context, options.json, { ...flashed, seconds }, () =>
      [
        `${device}: ${formatBytes(flashed.bytes)} written and read back in ${seconds.toFixed(1)} s, sha256 ${flashed.sha256}`,
        ...(flashed.isTableSeen
          ? []
          : ['This machine does not see its partitions yet: take the disk out and put it in again before you look at them.']),
        'The data partition takes the rest of the disk at the first start.',
      ].join('\n'),
    );
  } finally {
    bar.clear();
  }
}

const examples = `
Examples:
  premotor image flash arm.img /dev/sdb
  premotor image flash arm.img /dev/mmcblk0 --yes-i-mean /dev/mmcblk0 --json

Refused without a way around: disks that this machine runs from, disks with anything mounted, partitions, files, disks that are too small. The table
of partitions is written last, so a disk whose writing was interrupted starts nothing.`;

/** Adds `premotor image flash` to its group. */
export function registerImageFlash(image: Command, context: CliContext): void {
  image
    .command('flash')
    .description('write an image to a disk and read it back')
    .argument('<image>', 'what premotor image build wrote')
    .argument('<device>', 'a whole disk, such as /dev/sdb')
    .option('--yes-i-mean <device>', 'the device again, instead of being asked')
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((file: string, device: string, options: FlashOptions) => runFlash(file, device, options, context));
}
