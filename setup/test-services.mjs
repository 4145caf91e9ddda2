/**
 * Programs that tests use as users do: a real MQTT broker, its command-line client, the Protocol Buffers compiler and a browser. As root on a Debian
 * system they are installed; elsewhere the tests that need them skip loudly.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { say } from './steps.mjs';

const services = [
  { program: 'mosquitto', debian: 'mosquitto' },
  { program: 'mosquitto_sub', debian: 'mosquitto-clients' },
  { program: 'protoc', debian: 'protobuf-compiler' },
  { program: 'chromium', debian: 'chromium' },
];

/** Without a network the tests that need them are skipped, not waited for. */
const install_timeout_ms = 300_000;

const isThere = (program) =>
  [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'].some((dir) => existsSync(join(dir, program)));

export function ensureTestServices() {
  const missing = () => services.filter(({ program }) => !isThere(program)).map(({ debian }) => debian);
  const wanted = missing();
  if (wanted.length === 0) return;
  if (process.getuid?.() === 0 && spawnSync('apt-get', ['--version']).status === 0) {
    say(`installing what tests use: ${wanted.join(' ')}`);
    const options = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, stdio: ['ignore', 2, 2], timeout: install_timeout_ms };
    spawnSync('apt-get', ['update', '-qq'], options);
    spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...wanted], options);
  }
  const left = missing();
  if (left.length > 0) say(`SKIPPING what needs ${left.join(', ')}: install these Debian packages to test everything`);
}
