/**
 * Asks the running service over its control socket whether the robot is disarmed: exit code 0 yes, 1 no or no answer, with what to do. Run by the
 * package's prerm before files change; it only asks.
 */
import { connect } from 'node:net';
import { pathToFileURL } from 'node:url';

const answer_timeout_ms = 3000;
const answer_bytes_max = 1 << 20;

/** What stands against changing files, in words; undefined when the robot is disarmed and nothing does. `text` is the socket's answer line. */
export function objection(text) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    return `its answer is no JSON: ${JSON.stringify(text.slice(0, 80))}`;
  }
  const armed = answer?.ok === true ? answer.status?.armed : undefined;
  if (armed === false) return undefined;
  return armed === true ? 'the robot is armed' : `it did not say whether the robot is armed: ${text.trim().slice(0, 200)}`;
}

/** One question, one line of answer. Rejects when the socket is not there, or says nothing in time. */
export function ask(path) {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const deadline = setTimeout(() => socket.destroy(new Error(`no answer in ${answer_timeout_ms} ms`)), answer_timeout_ms);
    let text = '';
    socket.setEncoding('utf8');
    socket.on('connect', () => socket.write('{"do":"status"}\n'));
    socket.on('data', (part) => {
      text += part;
      if (text.includes('\n') || text.length > answer_bytes_max) socket.end();
    });
    socket.on('error', reject);
    socket.on('close', () => {
      clearTimeout(deadline);
      resolve(text.split('\n', 1)[0] ?? '');
    });
  });
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const path = process.argv[2] ?? '/run/premotor/control.sock';
  const reason = await ask(path).then(objection, (error) => `the service runs, but cannot be asked (${error.message})`);
  if (reason !== undefined) {
    process.stderr.write(`premotor: ${reason}. Disarm it (premotor disarm) or stop the service (systemctl stop premotor), then do this again.\n`);
    process.exitCode = 1;
  }
}
