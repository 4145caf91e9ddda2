/**
 * The sections of a robot configuration that say who watches a robot: telemetry, flight recorder, status page; and where pictures come from. Pure
 * data; it opens nothing.
 */
import { z } from 'zod';
import { among, note, positive, text, whole, wholeWords } from './notes.js';

const onOff = (value: boolean, meaning: string): z.ZodDefault<z.ZodBoolean> => note(z.boolean().default(value), 'true or false', meaning);
const port = (fallback: number, meaning: string): z.ZodDefault<z.ZodInt> =>
  note(whole(0, 65_535).default(fallback), `${wholeWords(0, 65_535)}; 0: any that is free`, meaning);
const file = (meaning: string): z.ZodOptional<z.ZodString> => note(text.optional(), 'the path of a file', meaning, 'none');
/** Sparkplug ids are parts of a topic. */
const topicPart = z.string().regex(/^[^/+#\s]{1,128}$/);
const topicWords = '1 to 128 characters without / + # and spaces';

export const telemetry = z.strictObject({
  enabled: onOff(true, 'report to an MQTT broker as a Sparkplug B edge node (docs/TELEMETRY.md)'),
  broker_url: note(text.optional(), 'mqtt://HOST:PORT or mqtts://HOST:PORT', 'the broker', 'one is embedded, on this machine alone'),
  embedded_port: port(0, 'port of the embedded broker'),
  mqtt_version: note(z.enum(['3.1.1', '5']).default('3.1.1'), among(['3.1.1', '5']), 'version of MQTT; the embedded broker speaks 3.1.1'),
  group_id: note(topicPart.default('premotor'), topicWords, 'Sparkplug group'),
  node_id: note(topicPart.optional(), topicWords, 'Sparkplug edge node: this robot', "the machine's name"),
  primary_host_id: note(
    topicPart.optional(),
    topicWords,
    'the host application that must be online; while it is not, samples are kept on disk',
    'none: the broker is enough',
  ),
  rate_max_hz: note(positive.max(10).default(10), 'a number above 0 and up to 10', 'messages of changed values per second'),
  keepalive_s: note(whole(1, 3600).default(15), wholeWords(1, 3600), 'the broker reports this robot dead after one and a half of it'),
  username: note(text.optional(), 'a text', 'for brokers that ask for one', 'none'),
  password_file: file('holds the password'),
  ca_file: file("certificates (PEM) that sign the broker's"),
  cert_file: file("this robot's certificate (PEM)"),
  key_file: file("this robot's private key (PEM)"),
  queue_dir: note(text.optional(), 'the path of a folder', 'where samples wait for the broker', '`telemetry` in `recording.out_dir`'),
  queue_max_mib: note(
    positive.max(65_536).default(64),
    'a number above 0 and up to 65536',
    'the queue holds no more: the oldest samples go, and are counted',
  ),
  replay_rate_hz: note(positive.max(1000).default(50), 'a number above 0 and up to 1000', 'kept messages sent per second once the broker is back'),
  prometheus_port: note(
    whole(0, 65_535).optional(),
    `${wholeWords(0, 65_535)}; 0: any that is free`,
    'serves the same values on this machine for Prometheus, at /metrics',
    'not served',
  ),
});

export const recorder = z
  .strictObject({
    mode: note(
      z.enum(['off', 'window', 'full']).default('window'),
      among(['off', 'window', 'full']),
      'flight recorder: `window` keeps the last `window_s` and saves them at a fault, `full` keeps the whole episode (docs/RECORDING.md)',
    ),
    dir: note(text.optional(), 'the path of a folder', 'where its MCAP files are', '`flight` in `recording.out_dir`'),
    window_s: note(positive.max(3600).default(60), 'a number above 0 and up to 3600', 'seconds before a fault that are saved'),
    disk_max_mib: note(positive.max(1_048_576).default(512), 'a number above 0 and up to 1048576', 'all its files together; the oldest go first'),
    jpeg_quality: note(whole(1, 100).default(85), wholeWords(1, 100), 'of the recorded pictures'),
    imagined: onOff(true, 'record what the policy imagined as pictures, decoded after the episode'),
  })
  .prefault({});

export const dashboard = z.strictObject({
  enabled: onOff(true, 'serve the status page (docs/DASHBOARD.md)'),
  host: note(text.default('127.0.0.1'), 'an address of this machine', 'where it listens; any other than loopback needs `token_file`'),
  port: port(0, 'its port'),
  token_file: file('holds the token that viewers must give, 16 characters or more'),
  viewer_rate_hz: note(positive.max(30).default(5), 'a number above 0 and up to 30', 'pictures per second for each viewer'),
});

/** Where the pictures of one camera come from. */
export const cameraSource = z.strictObject({
  type: note(
    z.enum(['sim', 'v4l2', 'file', 'websocket', 'mcap']),
    among(['sim', 'v4l2', 'file', 'websocket', 'mcap']),
    'a camera of the simulation, of Linux, files in a loop, pictures sent by another program, a recording',
  ),
  device: note(text.optional(), 'such as /dev/video0', '`v4l2`: the device', 'required for `v4l2`'),
  path: note(
    text.optional(),
    'the path of a picture, of a folder of pictures, of a video or of an MCAP file',
    '`file` and `mcap`',
    'required for them',
  ),
  topic: note(text.optional(), 'a text', '`mcap`: the topic of the pictures', "the camera's own"),
  port: port(0, '`websocket`: where pictures are taken on this machine'),
  width: note(whole(1, 16_384).optional(), wholeWords(1, 16_384), 'pixels', "the source's own; required for `websocket`"),
  height: note(whole(1, 16_384).optional(), wholeWords(1, 16_384), 'pixels', "the source's own; required for `websocket`"),
  loop: onOff(true, '`file` and `mcap`: after the last picture comes the first again; else the last one gets too old'),
  frame_rate_hz: note(positive.max(1000).optional(), 'a number above 0 and up to 1000', 'pictures per second', '`cameras.frame_rate_hz`'),
  format: note(z.enum(['mjpeg', 'yuyv']).optional(), among(['mjpeg', 'yuyv']), '`v4l2`: what the camera sends', 'mjpeg where it can, else yuyv'),
});
