/**
 * `premotor identity`: a robot's key and certificate: made at the first start, shown to whoever signs it, installed when it comes back. Owned by the
 * command line; the private key is never printed.
 */
import type { Command } from 'commander';
import { createIdentity, filesIn, IDENTITY_DIR, type IdentityView, installCertificate, isKeyPrivate, showIdentity } from '../identity/identity.js';
import { machineName } from '../telemetry/broker-address.js';
import { type CliContext, CommandExit, EXIT_NOT_DONE, printResult } from './context.js';

interface DirOptions {
  readonly dir: string;
  readonly json: boolean;
}

const day = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

const NEXT: Readonly<Record<IdentityView['state'], string>> = {
  none: 'premotor identity create makes a key and a request.',
  'key alone': 'premotor identity create --if-missing adds the request.',
  requested: 'Have robot.csr signed by the authority of the fleet, then premotor identity install-cert FILE --ca FILE.',
  ready: '',
  expiring: 'Have robot.csr signed again, then premotor identity install-cert FILE --ca FILE.',
  expired: 'Have robot.csr signed again, then premotor identity install-cert FILE --ca FILE.',
  wrong: 'Have robot.csr signed, then premotor identity install-cert FILE --ca FILE.',
};

export function describeIdentity({ state, dir, name, keyFingerprint, certificate, why }: IdentityView): string {
  const lines = [
    `identity     ${state}${why === undefined ? '' : `: ${why}`}`,
    `folder       ${dir}`,
    ...(name === undefined ? [] : [`name         ${name}`]),
    ...(keyFingerprint === undefined ? [] : [`public key   sha256 ${keyFingerprint}`]),
    ...(certificate === undefined
      ? []
      : [
          `certificate  by ${certificate.issuer}, ${day(certificate.fromMs)} to ${day(certificate.untilMs)} (${certificate.daysLeft} days left)`,
          `             sha256 ${certificate.fingerprint}`,
        ]),
    NEXT[state],
  ];
  return lines.filter((line) => line !== '').join('\n');
}

export async function runCreate(options: DirOptions & { readonly name?: string; readonly ifMissing: boolean }, context: CliContext): Promise<void> {
  const { dir, name = machineName(), ifMissing, json } = options;
  const isMade = await createIdentity({ dir, name, ifMissing });
  const view = await showIdentity(dir);
  printResult(
    context,
    json,
    { made: isMade, ...view, request: filesIn(dir).request },
    () => `${isMade ? 'Made.' : 'There is one already.'}\n${describeIdentity(view)}`,
  );
}

export async function runShow(options: DirOptions & { readonly check: boolean }, context: CliContext): Promise<void> {
  const view = await showIdentity(options.dir);
  const isOpen = view.state !== 'none' && !(await isKeyPrivate(options.dir));
  if (isOpen) context.err.write(`warning: ${filesIn(options.dir).key} can be read by others: chmod 600 it.\n`);
  printResult(context, options.json, { ...view, isKeyPrivate: !isOpen }, () => describeIdentity(view));
  if (options.check && (view.state !== 'ready' || isOpen)) throw new CommandExit(EXIT_NOT_DONE);
}

export async function runInstall(file: string, options: DirOptions & { readonly ca: string }, context: CliContext): Promise<void> {
  const facts = await installCertificate({ dir: options.dir, certificate: file, authority: options.ca });
  const files = filesIn(options.dir);
  const telemetry = { node_id: facts.name, ca_file: files.authority, cert_file: files.certificate, key_file: files.key };
  printResult(context, options.json, { ...facts, telemetry }, () =>
    [
      `Installed: ${facts.name}, by ${facts.issuer}, until ${day(facts.untilMs)} (${facts.daysLeft} days).`,
      'In the configuration of this robot:',
      'telemetry:',
      ...Object.entries(telemetry).map(([key, value]) => `  ${key}: ${value}`),
    ].join('\n'),
  );
}

const help = `
States: none; key alone (a power cut: create --if-missing mends it); requested; ready; expiring (30 days or less); expired; wrong.
The private key is made here and never leaves. docs/FLEET.md has the authority's side.

Exit codes: 0 done; 1 an error; 3 show --check: not ready, or the key can be read by others.`;

/** Adds `premotor identity` to the program. */
export function registerIdentity(program: Command, context: CliContext): void {
  const identity = program.command('identity').description("this robot's key and certificate").addHelpText('after', help);
  const common = (command: Command): Command =>
    command.option('--dir <dir>', 'the folder of the identity', IDENTITY_DIR).option('--json', 'print one JSON document', false);
  common(identity.command('create'))
    .description('make a private key and the request that the authority signs')
    .option('--name <name>', "this robot, as its telemetry's node_id (default: the machine's name)")
    .option('--if-missing', 'keep what is there, and add what is missing', false)
    .action((options: Parameters<typeof runCreate>[0]) => runCreate(options, context));
  common(identity.command('show'))
    .description('what is there, and what is missing')
    .option('--check', 'exit code 3 unless it is ready', false)
    .action((options: Parameters<typeof runShow>[0]) => runShow(options, context));
  common(identity.command('install-cert'))
    .description("take the certificate that the authority signed, if it is this robot's")
    .argument('<file>', 'the certificate (PEM), and behind it those between it and the authority')
    .requiredOption('--ca <file>', "the authority's certificate (PEM)")
    .action((file: string, options: DirOptions & { ca: string }) => runInstall(file, options, context));
}
