/**
 * The half of `premotor update` that runs on the fleet's own machine: an authority and its signers, signed bundles of systems. Owned by the command
 * line; nothing of it runs on a robot.
 */
import { dirname, join } from 'node:path';
import { type Command, Option } from 'commander';
import { CA_CERTIFICATE, CA_DAYS, createAuthority, createSigner, type KeyPair, SIGNER_DAYS } from '../update/authority.js';
import { ARCHITECTURES, type Architecture, BUNDLE_FORMATS, buildBundle, resignBundle } from '../update/bundle.js';
import type { BundleInfo } from '../update/rauc.js';
import { type CliContext, formatBytes, printResult } from './context.js';
import { whole } from './numbers.js';

const DAYS_MAX = 36_500;

export interface SignerOptions {
  readonly cert: string;
  readonly key?: string;
  readonly keyring?: string;
}

/** A signer's options; key and authority lie beside the certificate unless said otherwise. */
export function withSigner(command: Command): Command {
  return command
    .requiredOption('--cert <file>', "the signer's certificate, made by premotor update ca signer")
    .option('--key <file>', "the signer's key (default: beside the certificate, ending .key)")
    .option('--keyring <file>', `the authority's certificate (default: ${CA_CERTIFICATE} beside the certificate)`);
}

export const signerOf = ({ cert, key }: SignerOptions): KeyPair => ({ certificate: cert, key: key ?? cert.replace(/(\.pem)?$/, '.key') });
const keyringOf = ({ cert, keyring }: SignerOptions): string => keyring ?? join(dirname(cert), CA_CERTIFICATE);

interface BuildOptions extends SignerOptions {
  readonly rootfs: string;
  readonly version: string;
  readonly arch: Architecture;
  readonly output?: string;
  readonly format: (typeof BUNDLE_FORMATS)[number];
  readonly description?: string;
  readonly json: boolean;
}

interface SignOptions extends SignerOptions {
  readonly output: string;
  readonly json: boolean;
}

function bundleText(file: string, { compatible, version, images }: BundleInfo): string {
  const lines = [`bundle      ${file}`, `compatible  ${compatible}`, `version     ${version}`];
  return [...lines, ...images.map(({ slotClass, bytes, sha256 }) => `image       ${slotClass}, ${formatBytes(bytes)}, sha256 ${sha256}`)].join('\n');
}

async function runBuild(options: BuildOptions, context: CliContext): Promise<void> {
  const { rootfs, version, arch: architecture, format, description, json } = options;
  const out = options.output ?? `premotor-${architecture}-${version}.raucb`;
  const described = description === undefined ? {} : { description };
  if (context.err.isTTY === true) context.err.write('packing and signing ...');
  const wants = { rootfs, version, architecture, out, signer: signerOf(options), keyring: keyringOf(options), format, ...described };
  const info = await buildBundle(wants).finally(() => (context.err.isTTY === true ? context.err.write('\r\u001b[K') : undefined));
  printResult(context, json, { file: out, ...info }, () => bundleText(out, info));
}

async function runSign(file: string, options: SignOptions, context: CliContext): Promise<void> {
  const info = await resignBundle(file, options.output, signerOf(options), keyringOf(options));
  printResult(context, options.json, { file: options.output, ...info }, () => bundleText(options.output, info));
}

function registerCa(update: Command, context: CliContext): void {
  const told = (pair: KeyPair, json: boolean): void =>
    printResult(context, json, pair, () => `certificate  ${pair.certificate}\nkey          ${pair.key} (keep it off the robots)`);
  const ca = update.command('ca').description("the fleet's authority for updates, and its signers");
  ca.command('create')
    .description('make an authority: its certificate goes on every robot, its key into a safe')
    .argument('<dir>', 'folder for key and certificate')
    .option('--name <text>', 'name in the certificate', 'fleet')
    .option('--days <n>', 'validity', whole(1, DAYS_MAX), CA_DAYS)
    .option('--json', 'print the result as JSON', false)
    .action(async (folder: string, { name, days, json }: { name: string; days: number; json: boolean }) =>
      told(await createAuthority(folder, name, days), json),
    );
  ca.command('signer')
    .description('certify a signer of updates')
    .argument('<dir>', "the authority's folder")
    .argument('<name>', 'name of the signer and of its files')
    .option('--days <n>', 'validity', whole(1, DAYS_MAX), SIGNER_DAYS)
    .option('--json', 'print the result as JSON', false)
    .action(async (folder: string, name: string, { days, json }: { days: number; json: boolean }) =>
      told(await createSigner(folder, name, days), json),
    );
}

/** Adds `ca`, `build` and `sign` to `premotor update`. */
export function registerMake(update: Command, context: CliContext): void {
  registerCa(update, context);
  withSigner(update.command('build').description('make the signed bundle of a system'))
    .requiredOption('--rootfs <file>', 'root file system, a squashfs image (premotor image build makes one)')
    .requiredOption('--version <v>', 'MAJOR.MINOR.PATCH or MAJOR.MINOR.PATCH-PRE; robots install no older one')
    .addOption(new Option('--arch <name>', 'architecture of the robots').choices([...ARCHITECTURES]).makeOptionMandatory())
    .option('-o, --output <file>', 'the bundle (default: premotor-ARCH-VERSION.raucb)')
    .option('--description <text>', 'one line for people')
    .addOption(
      new Option('--format <name>', "RAUC's format; plain only for machines without dm-verity").choices([...BUNDLE_FORMATS]).default('verity'),
    )
    .option('--json', 'print the result as JSON', false)
    .action((options: BuildOptions) => runBuild(options, context));
  withSigner(update.command('sign').description('sign a bundle again, such as with a signer that is valid for longer'))
    .argument('<file>', 'a bundle that is signed for this fleet')
    .requiredOption('-o, --output <file>', 'the new bundle')
    .option('--json', 'print the result as JSON', false)
    .action((file: string, options: SignOptions) => runSign(file, options, context));
}
