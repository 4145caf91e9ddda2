/**
 * `premotor firmware`: what runs on the firmware bridge, and replacing it over the robot's bus. Owned by the command line. It arms nothing and
 * leaves a bus alone that a stream process drives.
 */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { PremotorError } from '../errors.js';
import { FirmwareClient, type FirmwareIdentity } from '../robot/firmware-client.js';
import { type FirmwareImage, parseFirmware, slotName } from '../robot/firmware-image.js';
import { running } from '../runtime/registry.js';
import { type CliContext, formatBytes, formatTable, printResult } from './context.js';
import { ProgressBar } from './progress.js';

export interface FirmwareOptions {
  readonly json: boolean;
}

export interface FirmwareUpdateOptions extends FirmwareOptions {
  readonly force: boolean;
  readonly fd: boolean;
}

/** The device or interface of an address: `can0` of `socketcan-fd:can0`. */
const deviceOf = (address: string): string => /^(?:socketcan|socketcan-fd|slcan):(.+)$/.exec(address)?.[1] ?? address;

/** Two hosts on one bus would answer each other's frames. Errors: FIRMWARE_BUS_BUSY. */
function ensureFree(address: string): void {
  const owner = running().find(({ kind, about }) => kind === 'stream' && deviceOf(about) === deviceOf(address));
  if (owner === undefined) return;
  const found = `stream process ${owner.pid}`;
  const message = `${address} is driven by ${found}. Stop it first: premotor stop.`;
  throw new PremotorError('FIRMWARE_BUS_BUSY', message, { expected: 'a bus that no stream process drives', found });
}

async function withClient<T>(address: string, context: CliContext, use: (client: FirmwareClient) => Promise<T>): Promise<T> {
  ensureFree(address);
  const client = FirmwareClient.open(address, context.loadNative(), context.signal);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

function stateOf({ slot, isTrial, tries, targetSlot }: FirmwareIdentity): string {
  if (targetSlot > 1) return 'started without a boot loader: cannot be updated';
  if (slot > 1) return 'no firmware: the boot loader waits for one';
  return isTrial ? `on trial, start ${tries} of 3` : 'confirmed';
}

function describe(identity: FirmwareIdentity): string {
  const { version, source, slot, board, slotBytes, otherVersion, targetSlot, failedSlot } = identity;
  const rows = [
    ['version', version === 'none' ? version : `${version} (${source})`],
    ['board', board],
    ['runs in', targetSlot > 1 ? '-' : slotName(slot)],
    ['state', stateOf(identity)],
  ];
  if (targetSlot <= 1) rows.push(['next update', `slot ${slotName(targetSlot)}, ${formatBytes(slotBytes)} at most; there: ${otherVersion}`]);
  if (failedSlot !== undefined) rows.push(['given up', `slot ${slotName(failedSlot)}: its firmware did not confirm itself`]);
  return `${formatTable(['bridge', ''], rows)}\n`;
}

/** Errors: FIRMWARE_NO_REPLY, FIRMWARE_BUS_BUSY, and those of the bus. */
export async function runFirmwareInfo(address: string, { json }: FirmwareOptions, context: CliContext): Promise<void> {
  const identity = await withClient(address, context, (client) => client.identity());
  printResult(context, json, { firmware: identity }, () => describe(identity));
}

/** Errors: FIRMWARE_*, and those of the bus. */
export async function runFirmwareConfirm(address: string, { json }: FirmwareOptions, context: CliContext): Promise<void> {
  const identity = await withClient(address, context, async (client) => {
    await client.confirm();
    return await client.identity();
  });
  printResult(context, json, { firmware: identity }, () => describe(identity));
}

async function readImages(file: string): Promise<FirmwareImage[]> {
  const bytes = await readFile(file).catch((cause: unknown) => {
    const found = (cause as Error).message;
    throw new PremotorError('FIRMWARE_IMAGE', `${file} cannot be read (${found}). Name a file made by npm run build:firmware.`, {
      file,
      found,
      cause,
    });
  });
  return parseFirmware(file, bytes);
}

/** Errors: FIRMWARE_*, and those of the bus. */
export async function runFirmwareUpdate(address: string, file: string, options: FirmwareUpdateOptions, context: CliContext): Promise<void> {
  const images = await readImages(file);
  const bar = new ProgressBar(context.err);
  try {
    const { before, after } = await withClient(address, context, async (client) => {
      const old = await client.identity();
      const { force, fd } = options;
      return {
        before: old,
        after: await client.update(images, { force, fd, onProgress: (stage, done, total) => bar.update(stage, Math.round(done), total) }),
      };
    });
    bar.clear();
    printResult(context, options.json, { before, firmware: after }, () => `${before.version} -> ${after.version}\n\n${describe(after)}`);
  } finally {
    bar.clear();
  }
}

const examples = `
Examples:
  premotor firmware info socketcan:can0
  premotor firmware update socketcan:can0 build/firmware/stm32g4/stm32g4.pmfw
  premotor firmware update slcan:/dev/ttyACM0 older.pmfw --force

The robot must be disarmed, and it cannot be armed meanwhile. The new firmware goes to the slot that does not run; it is confirmed once it
has answered.
One that does not answer is started three times, then the old one is back by itself. docs/FIRMWARE.md has states, errors and the lamp's patterns.`;

const addressHelp = 'bus: socketcan:can0, socketcan-fd:can0, slcan:/dev/ttyACM0, cannelloni:20000:192.0.2.1:20001';

/** Adds `premotor firmware` and its subcommands to the program. */
export function registerFirmware(program: Command, context: CliContext): void {
  const firmware = program.command('firmware').description('the firmware bridge: what runs there, update it').addHelpText('after', examples);
  firmware
    .command('info')
    .description('version, slot and state of what runs')
    .argument('<address>', addressHelp)
    .option('--json', 'print the result as JSON', false)
    .action((address: string, options: FirmwareOptions) => runFirmwareInfo(address, options, context));
  firmware
    .command('update')
    .description('replace the firmware by that of a file')
    .argument('<address>', addressHelp)
    .argument('<file>', 'firmware file: build/firmware/BOARD/BOARD.pmfw')
    .option('--force', 'an older version is meant', false)
    .option('--fd', 'send CAN FD frames: bus and bridge must carry them', false)
    .option('--json', 'print the result as JSON', false)
    .action((address: string, file: string, options: FirmwareUpdateOptions) => runFirmwareUpdate(address, file, options, context));
  firmware
    .command('confirm')
    .description('end the trial of a firmware that is good')
    .argument('<address>', addressHelp)
    .option('--json', 'print the result as JSON', false)
    .action((address: string, options: FirmwareOptions) => runFirmwareConfirm(address, options, context));
}
