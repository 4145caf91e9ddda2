/**
 * `premotor firmware` against the firmware bridge as a process, over a real bus of any machine (cannelloni on the loopback): what runs, an update,
 * the refusals, a firmware that hangs, and a boot loader that has nothing to start.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { CanBus } from '../../src/can/bus.js';
import { runCli } from '../../src/cli/main.js';
import { loadNative } from '../../src/native.js';
import { encodeShort } from '../../src/robot/bridge-frames.js';
import { FirmwareClient } from '../../src/robot/firmware-client.js';
import { packFirmware, parseFirmware, type Slot } from '../../src/robot/firmware-image.js';
import { fakeContext } from '../cli/fakes.js';
import { arm, ask, hello, nativeFrame } from '../support/bridge-host.js';
import { loopAddresses } from '../support/can-loop.js';

const program = process.env['PREMOTOR_BRIDGE'] ?? join(import.meta.dirname ?? '.', '..', '..', 'build', 'Release', 'premotor-bridge');
const native = loadNative();
t.setTimeout(300_000);

interface Bridge {
  readonly address: string;
  readonly flash: string;
  readonly child: ChildProcess;
}

async function startBridge(t: Test, flash?: string): Promise<Bridge> {
  const folder = flash === undefined ? t.testdir() : t.testdirName;
  const file = flash ?? join(folder, 'bridge.flash');
  const [bus, address] = await loopAddresses();
  const config = join(folder, 'bridge.json');
  writeFileSync(config, JSON.stringify({ bus, flash: file, positionRad: [0.1] }));
  const child = spawn(program, [config], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  for await (const line of createInterface({ input: child.stdout })) if (line.includes('"ready"')) break;
  child.stdout.resume();
  return { address, flash: file, child };
}

async function run(argv: readonly string[]): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  const { out, err, context } = fakeContext({ loadNative: () => native });
  const code = await runCli(['firmware', ...argv], context);
  return { code, out: out.text, err: err.text };
}

/** A file with an image for each slot; the text begins both bodies. */
function firmwareFile(t: Test, versionWord: number, text = 'a firmware', board = 'HOST'): string {
  const body = new Uint8Array(3000);
  body.set(Buffer.from(text));
  const images = ([0, 1] as const).map((slot: Slot) => packFirmware({ body, board, versionWord, slot }));
  const file = join(t.testdirName, `${text}-${versionWord}.pmfw`);
  writeFileSync(file, Buffer.concat(images));
  return file;
}

const infoOf = async (address: string): Promise<Record<string, unknown>> =>
  (JSON.parse((await run(['info', address, '--json'])).out) as { firmware: Record<string, unknown> }).firmware;

t.test('an update, the next one, and what is refused', async (t) => {
  const { address } = await startBridge(t);
  t.match(await infoOf(address), { version: '0.0.1', slot: 0, isTrial: false, board: 'HOST', targetSlot: 1, otherVersion: 'none' });
  const first = await run(['update', address, firmwareFile(t, 0x01000000), '--fd']);
  t.equal(first.code, 0, first.err);
  t.match(first.out, /^0\.0\.1 -> 1\.0\.0\n/);
  t.match(await infoOf(address), { version: '1.0.0', slot: 1, isTrial: false, targetSlot: 0, otherVersion: '0.0.1' });
  const second = await run(['update', address, firmwareFile(t, 0x01000001)]);
  t.equal(second.code, 0, second.err);
  t.match(await infoOf(address), { version: '1.0.1', slot: 0 });
  const older = firmwareFile(t, 0x01000000);
  t.match((await run(['update', address, older])).err, /error FIRMWARE_OLDER: .*--force/s);
  t.match(await run(['update', address, older, '--force']), { code: 0 });
  t.match((await run(['update', address, firmwareFile(t, 0x02000000, 'foreign', 'S2G4')])).err, /error FIRMWARE_BOARD: .*board HOST, slot A/s);
  t.match((await run(['update', address, join(t.testdirName, 'none.pmfw')])).err, /error FIRMWARE_IMAGE/);
  t.match(await infoOf(address), { version: '1.0.0', slot: 1, isTrial: false, failedSlot: undefined });
});

t.test('a firmware that hangs falls back by itself', async (t) => {
  const { address } = await startBridge(t);
  const { code, err } = await run(['update', address, firmwareFile(t, 0x01000000, 'HANG')]);
  t.equal(code, 1);
  t.match(err, /error FIRMWARE_FELL_BACK: .*1\.0\.0 in slot B.*0\.0\.1 in slot A/s);
  t.match(await infoOf(address), { version: '0.0.1', slot: 0, failedSlot: 1, isTrial: false });
  t.match((await run(['info', address])).out, /given up +slot B/);
});

t.test('what arrives damaged is refused', async (t) => {
  const { address } = await startBridge(t);
  const client = FirmwareClient.open(address, native, new AbortController().signal);
  t.teardown(() => client.close());
  const images = parseFirmware('made', packFirmware({ body: new Uint8Array(800), board: 'HOST', versionWord: 0x01000000, slot: 1 }));
  const [image] = images;
  if (image === undefined) throw new Error('no image');
  await t.rejects(client.update([{ ...image, checksum: image.checksum ^ 1 }]), { code: 'FIRMWARE_CHECKSUM' });
  await t.rejects(client.update([{ ...image, versionWord: 0x01000001 }]), { code: 'FIRMWARE_IMAGE' });
  const aborted = new AbortController();
  aborted.abort();
  const [, free] = await loopAddresses();
  const other = FirmwareClient.open(free, native, aborted.signal);
  t.teardown(() => other.close());
  await t.rejects(other.identity(), { code: 'ABORTED' });
  t.match(await client.identity(), { version: '0.0.1', slot: 0 });
});

t.test('refused while armed; and arming is refused meanwhile', async (t) => {
  const { address } = await startBridge(t);
  const file = firmwareFile(t, 0x01000000);
  const limits = [-20_000_000, 20_000_000, 3000, 20_000, 400_000, 8000];
  const host = CanBus.open(address, native);
  await hello(host, 1);
  await ask(host, encodeShort('update', { operation: 1, value: 3512 }), 'update_status');
  await ask(host, encodeShort('update', { operation: 4, value: 0x54534f48 }), 'update_status');
  await ask(host, encodeShort('update', { operation: 2, value: 0x01000000 }), 'update_status');
  t.match(await ask(host, encodeShort('update', { operation: 5 }), 'update_status'), { result: 0 });
  t.equal(await arm(host, 1, limits), 10, 'arming while an update is on its way');
  t.match(await ask(host, encodeShort('update', { operation: 9 }), 'update_status'), { result: 0 });
  let armed = -1;
  for (let tries = 0; tries < 10 && armed !== 0; tries++) armed = await arm(host, 1, limits);
  t.equal(armed, 0, 'armed');
  host.close();
  // The bridge disarms itself a second later, without a first setpoint: latched, which is refused as well.
  t.match((await run(['update', address, file])).err, /error FIRMWARE_ARMED/);
  const again = CanBus.open(address, native);
  again.send(nativeFrame(encodeShort('silence', {})));
  again.receive();
  again.close();
  t.match(await run(['update', address, file]), { code: 0 });
});

t.test('both slots damaged: the boot loader waits, and is filled', async (t) => {
  const first = await startBridge(t);
  first.child.kill('SIGKILL');
  t.ok(existsSync(first.flash));
  const file = openSync(first.flash, 'r+');
  writeSync(file, Buffer.from([0]), 0, 1, 0);
  closeSync(file);
  const { address } = await startBridge(t, first.flash);
  t.match(await infoOf(address), { version: 'none', slot: 255, targetSlot: 0 });
  t.match(await run(['update', address, firmwareFile(t, 0x01000000)]), { code: 0 });
  t.match(await infoOf(address), { version: '1.0.0', slot: 0, isTrial: false });
});

t.test('nobody answers', async (t) => {
  const [, address] = await loopAddresses();
  t.match((await run(['info', address])).err, /error FIRMWARE_NO_REPLY/);
});
