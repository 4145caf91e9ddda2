/**
 * RAUC as this system's installer: what it says about slots and bundles, installing with progress, marking slots. The only file that knows RAUC's
 * words. Owned by the update commands; it decides nothing.
 */
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { signatureError } from './authority.js';
import type { Places } from './places.js';
import { lastLine, runTool, type ToolOptions, type ToolResult, toolFailed } from './tools.js';

const INSTALL_TIMEOUT_MS = 3_600_000;

const slotSchema = z.object({
  class: z.string(),
  device: z.string(),
  bootname: z.string().nullable(),
  state: z.string(),
  boot_status: z.string().nullable(),
  slot_status: z.object({ bundle: z.object({ version: z.string().nullish() }).optional() }).optional(),
});

const statusSchema = z.object({
  compatible: z.string(),
  booted: z.string().nullable(),
  boot_primary: z.string().nullable(),
  slots: z.array(z.record(z.string(), slotSchema)),
});

export interface Slot {
  readonly name: string;
  readonly bootname: string;
  readonly device: string;
  readonly isBooted: boolean;
  readonly isGood: boolean;
  /** Of the bundle that was installed; a slot that came with the disk image has none. */
  readonly version?: string;
}

export interface RaucStatus {
  readonly compatible: string;
  /** Name of the slot that starts next. */
  readonly primary: string | undefined;
  readonly slots: readonly Slot[];
}

/** Errors: UPDATE_NO_RAUC. */
export async function raucStatus(places: Places): Promise<RaucStatus> {
  const result = await rauc(places, ['status', '--detailed', '--output-format=json']);
  const found = result.code === 0 ? statusSchema.safeParse(json(result.out)) : undefined;
  if (found?.success !== true) throw noRauc(places, lastLine(result) || 'no status');
  const slots = found.data.slots.flatMap((entry) =>
    Object.entries(entry).map(([name, { bootname, device, state, boot_status, slot_status }]): Slot => {
      const version = slot_status?.bundle?.version ?? undefined;
      const is = { isBooted: state === 'booted', isGood: boot_status === 'good' };
      return { name, bootname: bootname ?? '', device, ...is, ...(version === undefined ? {} : { version }) };
    }),
  );
  return { compatible: found.data.compatible, primary: found.data.boot_primary ?? undefined, slots };
}

const bundleSchema = z.object({
  compatible: z.string(),
  version: z.string().nullish(),
  description: z.string().nullish(),
  images: z.array(z.record(z.string(), z.object({ filename: z.string(), size: z.number(), checksum: z.string() }))),
});

export interface BundleInfo {
  readonly compatible: string;
  readonly version: string;
  readonly description: string;
  readonly images: readonly { readonly slotClass: string; readonly bytes: number; readonly sha256: string }[];
}

/** What a bundle says about itself, after its signature was verified. Errors: UPDATE_SIGNATURE, UPDATE_FORMAT, UPDATE_NO_RAUC. */
export async function bundleInfo(places: Pick<Places, 'keyring'>, file: string): Promise<BundleInfo> {
  const result = await runTool('rauc', [`--keyring=${places.keyring}`, 'info', '--output-format=json', file]);
  if (result.code !== 0) throw bundleError(file, places.keyring, lastLine(result));
  const found = bundleSchema.safeParse(json(result.out));
  if (!found.success) throw formatError(file, lastLine(result));
  const images = found.data.images.flatMap((entry) =>
    Object.entries(entry).map(([slotClass, { size, checksum }]) => ({ slotClass, bytes: size, sha256: checksum })),
  );
  const { compatible, version, description } = found.data;
  return { compatible, version: version ?? '', description: description ?? '', images };
}

function bundleError(file: string, keyring: string, said: string): PremotorError {
  const isOther = /bundle format|squashfs|no such file|could not open|failed to open/i.test(said);
  if (!isOther && /signature|certificate|keyring|verif|CMS|untrusted|ASN/i.test(said)) return signatureError(file, keyring, said);
  return formatError(file, said);
}

export function formatError(file: string, found: string): PremotorError {
  const expected = 'a file that premotor update build or pack made';
  const message = `${file} is no update: expected ${expected}, found ${found}. Nothing was written. Copy it again, or build it again.`;
  return new PremotorError('UPDATE_FORMAT', message, { file, expected, found });
}

/** Writes a bundle to the slot that is not running and makes it the next to start. Errors: UPDATE_DAMAGED, UPDATE_INSTALL, ... */
export async function raucInstall(places: Places, file: string, onPercent: (percent: number, what: string) => void): Promise<void> {
  const onLine = (line: string): void => {
    const match = /^\s*(\d{1,3})% (.+)$/.exec(line);
    if (match !== null) onPercent(Number(match[1]), match[2] ?? '');
  };
  // RAUC's service goes on without its client: an interrupt of this command must not look like its end.
  const result = await rauc(places, ['install', '--progress', file], { timeout_ms: INSTALL_TIMEOUT_MS, onLine, detached: true });
  if (result.code === 0) return;
  // Without RAUC's verdict nobody knows what became of it.
  if (!/Installing .* failed/.test(`${result.out}${result.err}`)) throw toolFailed('rauc', lastLine(result));
  const said = /LastError: (.+)/.exec(`${result.out}\n${result.err}`)?.[1] ?? lastLine(result);
  throw installError(places, file, said);
}

/** RAUC reports in words only; what they mean is decided here. */
export function installError(places: Pick<Places, 'keyring'>, file: string, said: string): PremotorError {
  if (/checksum|digest|dm-verity|verity|Input\/output error|corrupt|hash mismatch|invalid squashfs/i.test(said) && !/control/.test(said)) {
    const expected = 'the content that was signed';
    const message = `${file} was changed after it was signed, or is damaged: expected ${expected}, found "${said}". The running system is untouched.`;
    return new PremotorError('UPDATE_DAMAGED', message, { file, expected, found: said });
  }
  if (/signature|certificate|untrusted/i.test(said)) return signatureError(file, places.keyring, said);
  const expected = 'RAUC to install it';
  const message = `The system could not be installed: expected ${expected}, found "${said}". What runs is untouched; journalctl -u rauc says more.`;
  return new PremotorError('UPDATE_INSTALL', message, { file, expected, found: said });
}

/** Errors: UPDATE_INSTALL. */
export async function mark(places: Places, how: 'mark-good' | 'mark-bad' | 'mark-active', slot: string): Promise<void> {
  const result = await rauc(places, ['status', how, slot]);
  if (result.code !== 0) throw installError(places, slot, `${how} ${slot}: ${lastLine(result)}`);
}

function rauc({ raucConfig }: Places, args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  return runTool('rauc', [`--conf=${raucConfig}`, ...args], options);
}

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function noRauc({ raucConfig }: Places, found: string): PremotorError {
  const expected = `RAUC with ${raucConfig}`;
  const message =
    `This system cannot be updated as a whole: expected ${expected}, found ${found}. Only images that premotor image build made ` +
    `can (docs/UPDATE.md).`;
  return new PremotorError('UPDATE_NO_RAUC', message, { file: raucConfig, expected, found });
}
