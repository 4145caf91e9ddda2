/**
 * One question and one answer, a line each, over a Unix socket: how everything asks the service. Owned by whoever asks, who knows what lines mean and
 * turns errors into words.
 */
import { createConnection } from 'node:net';

const ANSWER_CHARACTERS_MAX = 1 << 20;

/**
 * The first line that comes back, without its end. Rejects with the socket's own error (`code` ENOENT, ECONNREFUSED, EACCES ...), or one without a
 * code whose message says what came instead of an answer.
 */
export function exchangeLine(path: string, line: string, answer_ms_max: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    let heard = '';
    const timer = setTimeout(() => socket.destroy(new Error(`nothing within ${answer_ms_max / 1000} s`)), answer_ms_max);
    socket.setEncoding('utf8');
    socket.on('connect', () => socket.write(`${line}\n`));
    socket.on('data', (text: string) => {
      heard += text;
      const at = heard.indexOf('\n');
      if (at >= 0) {
        resolve(heard.slice(0, at));
        socket.destroy();
      } else if (heard.length > ANSWER_CHARACTERS_MAX) socket.destroy(new Error('an answer without an end'));
    });
    socket.on('error', reject);
    socket.on('close', () => {
      clearTimeout(timer);
      reject(new Error('the end of the connection'));
    });
  });
}
