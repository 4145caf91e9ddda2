/** Reading robot configurations: defaults and paths of a valid file, every problem of an invalid one with its place, and the files in robots/. */
import { readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ConfigError, type ConfigProblem, type LoadedConfig, parseRobotConfig, readRobotConfig, showProblem } from '../../src/config/reader.js';
import { VOCABULARY } from '../../src/runtime/rig.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const minimal = 'robot:\n  type: sim\npolicy:\n  checkpoint_dir: ckpt\n';
const read = (text: string): LoadedConfig => parseRobotConfig(text, '/robots/arm.yaml', VOCABULARY);

function problemsOf(text: string): readonly ConfigProblem[] {
  try {
    read(text);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}
/** Problems as "line:column key: expected | found". */
const shown = (text: string): string[] =>
  problemsOf(text).map(({ line, column, key, expected, found }) => `${line}:${column} ${key}: ${expected} | ${found}`);

t.test('the shortest file: defaults are filled in and listed, paths start from the file', async (t) => {
  const { config, defaults, file } = read(minimal);
  t.equal(file, '/robots/arm.yaml');
  t.same(config, {
    robot: { type: 'sim', pace: 'virtual' },
    autonomy: 'local-arm',
    task: { name: 'touch', seed: 0 },
    policy: {
      checkpoint_dir: '/robots/ckpt',
      backend: 'engine',
      reply_timeout_s: 60,
      precision: 'f32',
      allow_uncertified: false,
      device: 'auto',
      isolate: true,
      recover: true,
    },
    cameras: { frame_rate_hz: 12.5, frame_age_max_ms: 100, dark_below: 4, frozen_after_rad: 0.1, frame_skew_max_ms: 50, sources: {} },
    control: {
      mode: 'sync',
      budget: 'fixed',
      uncertified: false,
      action_rate_hz: 25,
      action_outside_max_rad: 1,
      action_jump_max_rad: 1.2,
      start_pose: {},
      stop_category: 1,
      hold_ms: 200,
      limits: {},
    },
    recording: {
      animation: true,
      replay: true,
      out_dir: '/robots/premotor-out',
      picture_rate_hz: 12.5,
      recorder: { mode: 'window', window_s: 60, disk_max_mib: 512, jpeg_quality: 85, imagined: true },
    },
    telemetry: {
      enabled: true,
      embedded_port: 0,
      mqtt_version: '3.1.1',
      group_id: 'premotor',
      rate_max_hz: 10,
      keepalive_s: 15,
      queue_max_mib: 64,
      replay_rate_hz: 50,
    },
    dashboard: { enabled: true, host: '127.0.0.1', port: 0, viewer_rate_hz: 5 },
    service: {
      run: 'none',
      pause_s: 5,
      require_telemetry: false,
      check_period_s: 0.5,
      retry_s: 2,
      status_period_s: 60,
      progress_timeout_s: 30,
      starts_max: 5,
      starts_window_s: 600,
      memory_free_min_mib: 64,
      disk_free_min_mib: 64,
    },
  });
  t.ok(defaults.includes('control.hold_ms') && defaults.includes('policy.threads'));
  t.notOk(defaults.includes('robot.type') || defaults.includes('policy.checkpoint_dir'));
});

const everything = `
robot: {type: sim, pace: real}
task: {name: push, seed: 4294967295, instruction: shove it}
policy:
  checkpoint_dir: /models/a
  backend: remote
  url: ws://127.0.0.1:1
  token_file: a.token
  reply_timeout_s: 5
  job: {frame_chunk_size: 2}
  plan: ../plans/a.plan
  precision: int8
  kv_cache: int8
  allow_uncertified: true
  device: cpu
  threads: 2
  isolate: false
  recover: false
  video_steps: 3
  action_steps: 4
  seed: 9
cameras: {frame_rate_hz: 25, frame_age_max_ms: 40.5, dark_below: 0, frozen_after_rad: 0, frame_skew_max_ms: 1,
  sources: {a: {type: file, path: p.png}, b: {type: v4l2, device: /dev/video0}}}
control:
  mode: sync
  thinking_ms: 100
  budget: ladder
  uncertified: true
  action_rate_hz: 50
  chunks_max: 3
  action_outside_max_rad: 0.5
  action_jump_max_rad: 0.4
  start_pose: {wrist: {position_rad: 0.5}}
  stop_category: 2
  hold_ms: 0
  limits:
    yaw: {lower_rad: -1, upper_rad: 1, velocity_max_rad_per_s: 2, acceleration_max_rad_per_s2: 20, jerk_max_rad_per_s3: 300}
    elbow: {velocity_max_rad_per_s: 1}
recording:
  {animation: false, replay: false, out_dir: ../out, journal_dir: ../j, picture_rate_hz: 5,
  recorder: {mode: full, dir: f, window_s: 9, disk_max_mib: 1, jpeg_quality: 50, imagined: false}}
telemetry:
  enabled: false
  broker_url: mqtts://b:1
  embedded_port: 1
  mqtt_version: "5"
  group_id: g
  node_id: n
  primary_host_id: h
  rate_max_hz: 1
  keepalive_s: 2
  username: u
  password_file: a/p
  ca_file: a/ca
  cert_file: a/c
  key_file: a/k
  queue_dir: q
  queue_max_mib: 1
  replay_rate_hz: 2
  prometheus_port: 3
dashboard: {enabled: false, host: 0.0.0.0, port: 4, token_file: t, viewer_rate_hz: 2}
autonomy: arm-on-boot
service:
  run: loop
  pause_s: 0
  episodes_max: 3
  require_telemetry: true
  control_socket: c.sock
  state_dir: /state
  check_period_s: 1
  retry_s: 1
  status_period_s: 1
  progress_timeout_s: 1
  starts_max: 1
  starts_window_s: 1
  memory_free_min_mib: 0
  disk_free_min_mib: 0
`;

t.test('everything given', async (t) => {
  const { config, defaults } = read(everything);
  t.same(defaults, []);
  t.match(config, {
    task: { name: 'push', seed: 4294967295, instruction: 'shove it' },
    policy: {
      checkpoint_dir: '/models/a',
      plan: '/plans/a.plan',
      token_file: '/robots/a.token',
      job: { frame_chunk_size: 2 },
      threads: 2,
      isolate: false,
      video_steps: 3,
      action_steps: 4,
      seed: 9,
    },
    control: { chunks_max: 3, hold_ms: 0, limits: { yaw: { lower_rad: -1 }, elbow: { velocity_max_rad_per_s: 1 } } },
    recording: { animation: false, replay: false, out_dir: '/out', journal_dir: '/j', recorder: { dir: '/robots/f' } },
    cameras: { sources: { a: { path: '/robots/p.png' }, b: { device: '/dev/video0' } } },
    telemetry: { ca_file: '/robots/a/ca', cert_file: '/robots/a/c', key_file: '/robots/a/k', password_file: '/robots/a/p', queue_dir: '/robots/q' },
    dashboard: { token_file: '/robots/t' },
    autonomy: 'arm-on-boot',
    service: { control_socket: '/robots/c.sock', state_dir: '/state', run: 'loop' },
  });
  t.match(read(`${minimal}  job: my/job.json\n`).config.policy.job, '/robots/my/job.json');
});

t.test('a section whose keys are all commented out counts as left out', async (t) => {
  t.same(read(`${minimal}cameras:\n  # frame_rate_hz: 5\ncontrol:\n  limits:\n`).config.cameras.frame_rate_hz, 12.5);
  t.match(shown('robot:\n  type: sim\npolicy:\n'), [/^3:1 policy: a section with checkpoint_dir, .* \| nothing$/]);
});

t.test('each backend has the keys that it needs', async (t) => {
  const remote = 'robot: {type: sim}\npolicy:\n  backend: remote\n';
  t.same(shown('robot: {type: sim}\npolicy:\n  device: cpu\n'), ['2:1 policy.checkpoint_dir: the path of a folder | nothing']);
  t.same(shown(`${remote}  checkpoint_dir: c\n`), ['2:1 policy.url: ws://HOST:PORT or wss://HOST:PORT, because the backend is remote | nothing']);
  t.same(shown(`${remote}  url: ws://h:1\n`), ['2:1 policy.job: a job, because there is no checkpoint_dir to have one | nothing']);
  t.same(shown(`${remote}  url: ws://h:1\n  job: j.json\ncontrol: {mode: rtc}\n`), [
    '6:11 control.mode: "sync", the only mode that a policy server has requests for | "rtc"',
  ]);
  for (const url of ['http://h:1', 'ws://h', 'ws://:1', 'ws://me:secret@h:1', 'ws://h:1/a b', 'ws://h:1#x', 'h:1', ''])
    t.match(shown(`${remote}  job: j.json\n  url: "${url}"\n`), [/^5:3 policy\.url: ws:\/\/HOST:PORT/], url);
  for (const url of ['ws://127.0.0.1:29536', 'wss://robots.example:443/policy', 'ws://[::1]:1']) {
    const { policy } = read(`${remote}  job: j.json\n  url: "${url}"\n`).config;
    t.match(policy, { backend: 'remote', url, job: '/robots/j.json', checkpoint_dir: undefined });
  }
});

t.test('unknown keys, at every depth, with the name that was probably meant', async (t) => {
  t.same(shown(`${minimal}contrl:\n  hold_ms: 1\n`), [
    '5:1 contrl: one of robot, autonomy, task, policy, cameras, control, recording, telemetry, dashboard, service' +
      ' | an unknown key: did you mean control?',
  ]);
  const keys =
    'mode, thinking_ms, budget, uncertified, action_rate_hz, chunks_max, action_outside_max_rad, action_jump_max_rad, start_pose, ' +
    'stop_category, hold_ms, limits';
  t.same(shown(`${minimal}control:\n  action_rate: 25\n  actionRateHz: 25\n`), [
    `6:3 control.action_rate: one of ${keys} | an unknown key: did you mean action_rate_hz?`,
    `7:3 control.actionRateHz: one of ${keys} | an unknown key: did you mean action_rate_hz?`,
  ]);
  t.same(shown(`${minimal}  nonsense: 1\n`).length, 1);
  t.notMatch(shown(`${minimal}  nonsense: 1\n`)[0], /did you mean/);
  t.match(shown(`${minimal}control: {limits: {yaw: {upper: 1}}}\n`), [
    /^5:26 control\.limits\.yaw\.upper: one of lower_rad, upper_rad, .*did you mean upper_rad\?$/,
  ]);
});

t.test('a start pose is one of the robot', async (t) => {
  t.match(shown(`${minimal}control: {start_pose: {yaw: {position_rad: 1.7}}}\n`), [/control\.start_pose\.yaw\.position_rad: -1\.6 \.\. 1\.6, /]);
  t.match(shown(`${minimal}control: {start_pose: {jaw: {position_rad: 0}}}\n`), [/control\.start_pose\.jaw: one of yaw, .*jaw/]);
});

t.test('wrong types and ranges, every problem at once, in the order of the file', async (t) => {
  const text = `robot:
  type: cam
task:
  seed: -1
policy:
  checkpoint_dir: 7
  threads: two
  precision: fp8
  kv_cache: int4
cameras:
  frame_rate_hz: 0
control:
  chunks_max: 1.5
  hold_ms: .inf
`;
  t.same(shown(text), [
    '2:3 robot.type: "sim" or "can" | "cam"',
    '4:3 task.seed: a whole number of 0 .. 4294967295 | -1',
    '6:3 policy.checkpoint_dir: the path of a folder | 7',
    '7:3 policy.threads: a whole number of 1 .. 1024 | "two"',
    '8:3 policy.precision: "f32" or "bf16" or "int8" or "int4" | "fp8"',
    '9:3 policy.kv_cache: "f32" or "bf16" or "int8" | "int4"',
    '11:3 cameras.frame_rate_hz: a number above 0 and up to 1000 | 0',
    '13:3 control.chunks_max: a whole number of 1 .. 10000 | 1.5',
    '14:3 control.hold_ms: a number of 0 .. 60000 | Infinity',
  ]);
  const [problem] = problemsOf(text);
  t.equal(showProblem(problem as ConfigProblem), '/robots/arm.yaml:2:3: robot.type: expected "sim" or "can", found "cam"');
});

t.test('names that only the robot knows: tasks and joints, and limits no wider than its own', async (t) => {
  t.same(shown(`${minimal}task: {name: tuch}\n`), ['5:8 task.name: one of touch, press-n, push, sequence | "tuch": did you mean touch?']);
  const limits = (text: string): string[] => shown(`${minimal}control: {limits: {${text}}}\n`);
  t.match(limits('elbw: {}'), [/control\.limits\.elbw: one of yaw, shoulder, elbow, wrist \| "elbw": did you mean elbow\?/]);
  t.match(limits('yaw: {upper_rad: 1.7}'), [/yaw\.upper_rad: -1\.6 \.\. 1\.6, within the robot's own limits \| 1\.7/]);
  t.match(limits('yaw: {velocity_max_rad_per_s: 5}'), [/0 \.\. 4, within/]);
  t.match(limits('yaw: {lower_rad: 1, upper_rad: 0}'), [/upper_rad: more than lower_rad \(1\) \| 0/]);
  t.match(limits('yaw: 3'), [/control\.limits\.yaw: a section with lower_rad/]);
  t.same(limits('yaw: {upper_rad: 1.6}'), []);
});

/** The shortest robot on a bus; `robot` and `rest` go into its sections. */
function canText({
  robot = '',
  joints = 'a: &j {lower_rad: -1, upper_rad: 1, velocity_max_rad_per_s: 1, acceleration_max_rad_per_s2: 10, ' +
    'jerk_max_rad_per_s3: 100, torque_max_nm: 5}, b: *j',
  task = 'instruction: shove it',
  control = 'chunks_max: 3',
  rest = '',
} = {}): string {
  return (
    `robot: {type: can, bus: "socketcan-fd:can0"${robot}, joints: {${joints}}}\ntask: {${task}}\n` +
    `policy: {checkpoint_dir: ckpt}\ncontrol: {${control}}\n${rest}`
  );
}
const simJoint = (low: number, high: number): string =>
  `{lower_rad: ${low}, upper_rad: ${high}, velocity_max_rad_per_s: 1, acceleration_max_rad_per_s2: 10, jerk_max_rad_per_s3: 100, torque_max_nm: 5}`;
const simJoints = `yaw: ${simJoint(-1.6, 1.6)}, shoulder: ${simJoint(-1.8, 1.8)}, elbow: ${simJoint(-0.2, 2.8)}, wrist: ${simJoint(-2.5, 2.5)}`;

t.test('a robot on a bus: its joints, the pace of the clock, a task that nobody judges', async (t) => {
  const { config, defaults } = read(canText({ robot: ', shared_memory: shm, bus_log: /x/bus.log' }));
  t.match(config, {
    robot: { type: 'can', pace: 'real', bus: 'socketcan-fd:can0', shared_memory: '/robots/shm', bus_log: '/x/bus.log' },
    task: { name: 'instruction' },
  });
  t.same(Object.keys(config.robot.joints ?? {}), ['a', 'b'], 'in the order of the file');
  t.ok(defaults.includes('robot.world') && !defaults.includes('robot.pace'));
  t.equal(read(canText({ task: 'name: anything, instruction: x' })).config.task.name, 'anything');
  const box = 'arm: {urdf: a.urdf, base_link: x, tip_link: y, first_joint: a, lower_m: [0, 0, 0], upper_m: [1, 1, 1]}';
  t.equal(read(canText({ robot: `, workspaces: {${box}}` })).config.robot.workspaces?.['arm']?.urdf, '/robots/a.urdf');
  const simulated = canText({ robot: ', world: sim', joints: simJoints, task: 'name: push', control: '' });
  t.match(read(simulated).config, { robot: { world: 'sim', pace: 'real' }, task: { name: 'push' } });
  for (const bus of ['slcan:/dev/ttyACM0', 'socketcan:vcan0', 'cannelloni:20000:192.0.2.1:20001']) {
    t.same(shown(canText().replace('socketcan-fd:can0', bus)), [], bus);
  }
});

t.test('what a robot on a bus must have, and what it cannot', async (t) => {
  t.match(shown('robot: {type: can}\npolicy: {checkpoint_dir: c}\n'), [
    /^1:\d+ robot\.bus: the bus of the bridge, such as socketcan-fd:can0 \| nothing$/,
    /^1:\d+ robot\.joints: 1 to 14 joints by name, .* \| none$/,
    /^1:\d+ task\.instruction: a text: .* \| nothing$/,
    /^1:\d+ control\.chunks_max: .*nothing else ends the episode \| nothing$/,
  ]);
  const first = (options: Parameters<typeof canText>[0]): string => shown(canText(options))[0] ?? '';
  t.match(first({ robot: ', pace: virtual' }), /robot\.pace: "real": a robot on a bus has no other \| "virtual"/);
  t.match(first({ control: 'chunks_max: 3, thinking_ms: 5' }), /control\.thinking_ms: nothing: .* \| 5/);
  t.match(first({ joints: `"7": ${simJoint(-1, 1)}` }), /robot\.joints\.7: a name of letters, .* \| "7"/);
  t.match(first({ joints: `a: ${simJoint(1, -1)}` }), /robot\.joints\.a\.upper_rad: more than lower_rad \(1\) \| -1/);
  t.match(first({ joints: 'a: {lower_rad: 1}' }), /robot\.joints\.a\.upper_rad: an angle in radians \| nothing/);
  const many = Array.from({ length: 15 }, (_, index) => `j${index}: ${simJoint(-1, 1)}`).join(', ');
  t.match(first({ joints: many }), /robot\.joints: 1 to 14 joints by name, .* \| 15/);
  t.match(
    first({ control: 'chunks_max: 3, limits: {a: {upper_rad: 2}}' }),
    /control\.limits\.a\.upper_rad: -1 \.\. 1, within the robot's own limits \| 2/,
  );
  t.match(first({ control: 'chunks_max: 3, start_pose: {yaw: {position_rad: 0}}' }), /start_pose\.yaw: one of a, b/);
  const box = 'arm: {urdf: a.urdf, base_link: x, tip_link: y, first_joint: c, lower_m: [0, 0, 1], upper_m: [1, 1, 1]}';
  t.match(shown(canText({ robot: `, workspaces: {${box}}` })), [
    /arm\.first_joint: one of a, b \| "c"/,
    /arm\.upper_m: more than lower_m \(0, 0, 1\)/,
  ]);
  for (const bus of ['can0', 'socketcan-fd:', 'cannelloni:1:2', 'virtual']) {
    t.match(shown(canText().replace('socketcan-fd:can0', bus)), [/robot\.bus: socketcan-fd:can0, socketcan:can0, .* \| /], bus);
  }
  t.match(shown(`${minimal.replace('sim', 'sim\n  bus: "socketcan:can0"')}`), [/robot\.bus: nothing: only a robot of type can has it/]);
});

t.test('hardware in the loop has the joints of the simulated arm, and a task that it judges', async (t) => {
  const first = (joints: string, task = ''): string => shown(canText({ robot: ', world: sim', joints, task, control: '' }))[0] ?? '';
  t.match(first(`a: ${simJoint(-1, 1)}`), /robot\.joints: yaw, shoulder, elbow, wrist, the joints of the simulated arm \| a$/);
  t.match(first(simJoints.replace('-1.8', '-1.9')), /robot\.joints\.shoulder\.lower_rad: -1\.8 \.\. 1\.8, within the simulated arm's range \| -1\.9/);
  t.match(first(simJoints, 'name: anything'), /task\.name: one of touch, /);
  t.same(first(simJoints), '');
});

t.test('what is no configuration at all', async (t) => {
  t.match(shown(''), [/^1:1 : a section with robot, .* \| nothing$/]);
  t.match(shown('- 1\n'), [/a list of 1/]);
  t.match(shown('robot: [\n'), [/YAML/]);
  t.match(shown('robot: {type: sim}\nrobot: {type: sim}\n'), [/^2:1 : YAML \| .*unique/]);
  t.match(shown('robot: &a {type: *b}\n'), [/YAML/]);
  t.match(shown(`a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [${'*a,'.repeat(9)}]\nc: &c [${'*b,'.repeat(9)}]\nd: [${'*c,'.repeat(9)}]\n`), [/YAML \| .*alias/]);
  t.match(shown(`# ${'x'.repeat(1 << 20)}`), [/at most 1048576 characters/]);
});

t.test('the error names the file and shows the first problems', async (t) => {
  const file = join(t.testdir(), 'arm.yaml');
  writeFileSync(file, `${minimal}a: 1\nb: 1\nc: 1\nd: 1\ne: 1\nf: 1\n`);
  await t.rejects(readRobotConfig(file, VOCABULARY), {
    code: 'CONFIG_INVALID',
    file,
    field: 'a',
    message: /arm\.yaml:5:1: a: expected .*; and 1 more\. Correct the file; docs\/CONFIG\.md/,
  });
  await t.rejects(readRobotConfig(join(t.testdir(), 'none.yaml'), VOCABULARY), { code: 'CONFIG_MISSING', expected: 'a YAML file' });
  await t.rejects(readRobotConfig(t.testdir(), VOCABULARY), { code: 'CONFIG_MISSING', found: 'a folder' });
});

t.test('every file in robots/ is valid', async (t) => {
  // robots/urdf holds arms' kinematics, which test/kinematics reads.
  const files = readdirSync(join(root, 'robots')).filter((name) => name !== 'urdf');
  t.ok(files.length > 0);
  for (const file of files) {
    t.match(file, /\.yaml$/);
    const { config } = await readRobotConfig(join(root, 'robots', file), VOCABULARY);
    t.equal(config.robot.type, /can|hil/.test(file) ? 'can' : 'sim', file);
  }
});
