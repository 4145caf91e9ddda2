/**
 * The status on the console of a robot that nobody logs in to: host, slot, data partition, and what the service says of itself, one line whenever any
 * of it changes. Owned by premotor-console.service; it only asks for the status, and a service that does not answer is a line too.
 */
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { hostname } from 'node:os';

const socketPath = process.env.PREMOTOR_CONTROL_SOCKET ?? '/run/premotor/control.sock';
const ask_interval_ms = 2000;
const answer_timeout_ms = 1500;
const answer_bytes_max = 1 << 20;

const textOf = (path) => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return 'unknown';
  }
};
const slot = /rauc\.slot=(\w+)/.exec(textOf('/proc/cmdline'))?.[1] ?? 'none';
const data = textOf('/run/premotor-image/data');

/** Resolves to the status in words, whatever happens. */
function ask() {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    let answer = '';
    const end = (words) => {
      socket.destroy();
      resolve(words);
    };
    socket.setTimeout(answer_timeout_ms, () => end('the service does not answer'));
    const absent = ['ENOENT', 'ECONNREFUSED'];
    socket.on('error', ({ code }) => end(absent.includes(code) ? 'the service does not run' : `no status: ${code}`));
    socket.on('end', () => end('the service does not answer'));
    socket.on('connect', () => socket.write('{"do":"status"}\n'));
    socket.on('data', (chunk) => {
      answer += chunk.toString('utf8');
      if (answer.length > answer_bytes_max) return end('the status is too long');
      if (answer.includes('\n')) end(inWords(answer.split('\n')[0]));
    });
  });
}

function inWords(line) {
  try {
    const { status } = JSON.parse(line);
    // Control characters of a message would otherwise command the terminal.
    const reasons = (status.reasons ?? []).map(({ code, message }) => `${code}: ${message}`.replace(/[^\x20-\x7e]/g, '?'));
    return [`${status.state}${status.armed ? ', armed' : ''}, version ${status.version}`, ...reasons].join('\n    ');
  } catch {
    return 'the status cannot be read';
  }
}

let shown = '';
async function show() {
  const words = await ask();
  const line = `premotor: ${hostname()} slot ${slot} data ${data}: ${words}`;
  if (line !== shown) process.stdout.write(`${line}\n`);
  shown = line;
}

await show();
setInterval(() => void show(), ask_interval_ms);
