/**
 * What `premotor doctor --config FILE` looks at: whether what a configuration names is on this machine. `missing` means that the robot cannot start.
 * Owned by doctor.ts; it opens no device, connects to nothing and writes nothing, and what is absent or odd is a finding, never an error.
 */
import { dirname, join } from 'node:path';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import { checkJob, jobNeeds } from '../runtime/job-needs.js';
import { journalDir } from '../runtime/resume.js';
import { sharedMemoryOf, streamConfiguration } from '../runtime/stream-configuration.js';
import { brokerAddress } from '../telemetry/broker-address.js';
import { type Finding, type Level, probeLockedMemory, probeRealtime, type SystemFiles } from './probes.js';

/** ARPHRD_CAN, IFF_UP, and what an interface carries at once with CAN FD. */
const CAN_LINK_TYPE = '280';
const IFF_UP = 1;
const FD_MTU = 72;

/** Less is too little for anything: an episode's record, a journal. */
const FREE_BYTES_MIN = 64 * 2 ** 20;
/** A journal's bound (docs/RECOVERY.md), and the episodes that are kept. */
const JOURNALS_MIB = 4 * 256;

/** What a checkpoint folder has for the engine, or for an exported policy. */
const ENGINE_PARTS = ['transformer', 'vae', 'tokenizer'];
const ONNX_PART = 'model.onnx';

const finding = (name: string, level: Level, found: string, advice?: string): Finding => ({
  name,
  level,
  found,
  ...(advice === undefined ? {} : { advice }),
});

/** Everything that a checked configuration needs. */
export async function examineRobot(config: RobotConfig, files: SystemFiles, streamProgram: () => string): Promise<Finding[]> {
  return [
    await probeJob(config),
    ...probePolicy(config, files),
    ...(config.robot.type === 'can' ? probeBusRobot(config, files, streamProgram) : []),
    ...Object.entries(config.cameras.sources).map(([camera, source]) => probeSource(camera, source, files)),
    ...probeFolders(config, files),
    ...probeSecrets(config, files),
    ...probeBroker(config),
  ];
}

async function probeJob(config: RobotConfig): Promise<Finding> {
  try {
    const needs = await jobNeeds(config);
    checkJob(config, needs);
    return finding('job', 'ok', `${needs.channels} action channels, cameras ${needs.cameras.join(', ')}`);
  } catch (error) {
    return finding('job', 'missing', ...wordsOf(error));
  }
}

/** An error's code with its first sentence, and the rest as advice. */
function wordsOf(error: unknown): [found: string, advice: string] {
  if (!(error instanceof PremotorError)) throw error;
  const [first = '', ...rest] = error.message.split('. ');
  return [`${error.code}: ${first}`, rest.join('. ') || `docs/ERRORS.md explains ${error.code}.`];
}

function probePolicy({ policy }: RobotConfig, files: SystemFiles): Finding[] {
  const { backend, checkpoint_dir: folder = '', plan, url = '', token_file } = policy;
  const found: Finding[] = [];
  if (backend === 'remote') found.push(finding('policy server', 'ok', `${url}, connected to when the robot starts`));
  else {
    const lacking = (backend === 'onnx' ? [ONNX_PART] : ENGINE_PARTS).filter((part) => !files.exists(join(folder, part)));
    if (lacking.length === 0) found.push(finding('checkpoint', 'ok', folder));
    else
      found.push(finding('checkpoint', 'missing', `no ${lacking.join(', ')} in ${folder}`, 'Correct policy.checkpoint_dir, or install the model.'));
  }
  if (plan !== undefined) found.push(fileFinding('plan', plan, 'Build it with premotor build, or leave policy.plan out.', files));
  if (token_file !== undefined) found.push(fileFinding('policy token', token_file, 'Correct policy.token_file.', files));
  return found;
}

function fileFinding(name: string, path: string, advice: string, files: SystemFiles): Finding {
  if (files.canRead(path)) return finding(name, 'ok', path);
  return finding(name, 'missing', files.exists(path) ? `${path} cannot be read by this user` : `no ${path}`, advice);
}

function probeBusRobot(config: RobotConfig, files: SystemFiles, streamProgram: () => string): Finding[] {
  const { robot } = config;
  return [
    probeBus(robot.bus ?? '', files),
    probeProgram(files, streamProgram),
    probeStream(config),
    folderFinding('shared memory', dirname(sharedMemoryOf(robot)), files),
    ...(robot.real_time?.priority === 0 ? [] : [probeRealtime(files)]),
    ...(robot.real_time?.lock === false ? [] : [probeLockedMemory(files)]),
  ];
}

export function probeBus(bus: string, files: SystemFiles): Finding {
  const [kind, ...rest] = bus.split(':');
  const where = rest.join(':');
  if (kind === 'cannelloni') return finding('bus', 'ok', `${bus}, UDP: opened when the robot starts`);
  if (kind === 'slcan') return fileFinding('bus', where, 'Plug in the adapter, or correct robot.bus; the user needs the group dialout.', files);
  const folder = `/sys/class/net/${where}`;
  if (!files.exists(folder)) {
    const made = where.startsWith('vcan') ? `ip link add dev ${where} type vcan` : 'Plug in the adapter and load its driver';
    return finding('bus', 'missing', `no interface ${where}`, `${made}, or correct robot.bus.`);
  }
  if (files.text(`${folder}/type`) !== CAN_LINK_TYPE) return finding('bus', 'missing', `${where} is no CAN interface`, 'Correct robot.bus.');
  const mtu = Number(files.text(`${folder}/mtu`) ?? Number.NaN);
  const isUp = (Number(files.text(`${folder}/flags`) ?? 0) & IFF_UP) !== 0;
  if (!isUp) return finding('bus', 'missing', `${where} is down`, `systemctl start can@${where}, or ip link set ${where} up with its bit rates.`);
  if (kind === 'socketcan-fd' && mtu < FD_MTU) {
    return finding('bus', 'missing', `${where} is up without FD`, `ip link set ${where} down, then up with fd on; or robot.bus socketcan:${where}.`);
  }
  return finding('bus', 'ok', `${where} is up, ${mtu >= FD_MTU ? 'FD' : 'classic'}`);
}

function probeProgram(files: SystemFiles, streamProgram: () => string): Finding {
  try {
    const path = streamProgram();
    if (files.canRead(path)) return finding('stream process', 'ok', path);
    return finding('stream process', 'missing', `no ${path}`, 'Run "npm run build:native", or install the package again.');
  } catch (error) {
    return finding('stream process', 'missing', ...wordsOf(error));
  }
}

/** URDF files are read here, because a workspace that cannot be built must not be found out by a robot that does not start. */
function probeStream(config: RobotConfig): Finding {
  try {
    const { joints, workspaces = [] } = streamConfiguration(config);
    return finding('joints', 'ok', `${joints.length}, ${workspaces.length === 0 ? 'no workspace' : `${workspaces.length} with a workspace`}`);
  } catch (error) {
    return finding('joints', 'missing', ...wordsOf(error));
  }
}

function probeSource(camera: string, { type, device, path }: RobotConfig['cameras']['sources'][string], files: SystemFiles): Finding {
  const name = `camera ${camera}`;
  if (type === 'v4l2') return fileFinding(name, device ?? '', 'Plug it in, or correct its device; the user needs the group video.', files);
  if (type === 'file' || type === 'mcap') return fileFinding(name, path ?? '', 'Correct its path.', files);
  return finding(name, 'ok', type === 'sim' ? 'simulated' : 'pictures are sent to this machine');
}

/** The nearest folder that is there: what is below it is made. */
function existing(path: string, files: SystemFiles): string {
  return files.exists(path) || dirname(path) === path ? path : existing(dirname(path), files);
}

function folderFinding(name: string, path: string, files: SystemFiles): Finding {
  const there = existing(path, files);
  if (files.canWrite(there) && files.isFolder(there)) return finding(name, 'ok', path);
  const advice = 'Make it and give it to the user that runs premotor, or configure another.';
  return finding(name, 'missing', `${path} cannot be written (${there})`, advice);
}

function probeFolders(config: RobotConfig, files: SystemFiles): Finding[] {
  const { recording, telemetry } = config;
  const folders: [string, string][] = [['output folder', recording.out_dir]];
  if (config.policy.recover) folders.push(['journal', journalDir(config)]);
  if (recording.recorder.mode !== 'off') folders.push(['flight recorder', recording.recorder.dir ?? join(recording.out_dir, 'flight')]);
  if (telemetry.enabled) folders.push(['telemetry queue', telemetry.queue_dir ?? join(recording.out_dir, 'telemetry')]);
  return [...folders.map(([name, path]) => folderFinding(name, path, files)), probeDisk(config, files)];
}

function probeDisk({ recording, telemetry, policy }: RobotConfig, files: SystemFiles): Finding {
  const there = existing(recording.out_dir, files);
  const free = files.freeBytes(there);
  if (free === undefined) return finding('disk', 'warn', `free space of ${there} unknown`, 'Look at it with df.');
  const wanted_mib =
    (recording.recorder.mode === 'off' ? 0 : recording.recorder.disk_max_mib) +
    (telemetry.enabled ? telemetry.queue_max_mib : 0) +
    (policy.recover ? JOURNALS_MIB : 0);
  const text = `${(free / 2 ** 20).toFixed(0)} MiB free, up to ${wanted_mib} MiB are used`;
  if (free < FREE_BYTES_MIN) return finding('disk', 'missing', text, `Make room in ${there}.`);
  if (free >= wanted_mib * 2 ** 20) return finding('disk', 'ok', text);
  return finding('disk', 'warn', text, `Make room in ${there}, or lower recording.recorder.disk_max_mib and telemetry.queue_max_mib.`);
}

/** Whether a broker of this kind would be spoken to; whether its files are there is told of each. */
function probeBroker({ telemetry }: RobotConfig): Finding[] {
  const { enabled, broker_url: url } = telemetry;
  if (!enabled || url === undefined) return [];
  try {
    brokerAddress(url, telemetry);
    return [finding('broker', 'ok', url)];
  } catch (error) {
    if (error instanceof PremotorError && error.code === 'TELEMETRY_FILE') return [];
    return [finding('broker', 'missing', ...wordsOf(error))];
  }
}

function probeSecrets({ telemetry, dashboard }: RobotConfig, files: SystemFiles): Finding[] {
  const found: Finding[] = [];
  const add = (key: string, path: string | undefined, level: Level): void => {
    if (path === undefined) return;
    const one = fileFinding(key, path, `Correct ${key}, or put the file there.`, files);
    found.push(one.level === 'ok' ? one : { ...one, level });
  };
  // A new robot's certificate comes from its authority: the service starts without, and takes it when it is there.
  for (const key of ['password_file', 'ca_file', 'cert_file', 'key_file'] as const)
    if (telemetry.enabled) add(`telemetry.${key}`, telemetry[key], 'warn');
  if (dashboard.enabled) add('dashboard.token_file', dashboard.token_file, 'missing');
  return found;
}
