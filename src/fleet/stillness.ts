/**
 * Whether a robot is disarmed and still, by one question to its service's control socket. Owned by whoever wants to fetch something large beside it;
 * it
 * asks and changes nothing, and the installer asks again.
 */
import { connect } from 'node:net';
import { z } from 'zod';
import { running } from '../runtime/registry.js';
import type { Stillness } from './follow.js';

const ANSWER_MS_MAX = 5000;
const ANSWER_CHARACTERS_MAX = 2 ** 20;
const answerSchema = z.object({ ok: z.literal(true), status: z.object({ armed: z.boolean(), atRest: z.boolean() }) });

/** Never rejects. Nobody at the socket while something of premotor runs is no answer: a stream process outlives its service and holds motors. */
export async function stillnessOf(socketFile: string, runs: () => boolean = () => running().length > 0): Promise<Stillness> {
  try {
    const { status } = answerSchema.parse(JSON.parse(await ask(socketFile)));
    return status.armed || !status.atRest ? 'busy' : 'still';
  } catch (error) {
    const isNobody = ['ENOENT', 'ECONNREFUSED'].includes((error as NodeJS.ErrnoException).code ?? '');
    return isNobody && !runs() ? 'no service' : 'no answer';
  }
}

function ask(file: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(file);
    let heard = '';
    const timer = setTimeout(() => socket.destroy(new Error('no answer')), ANSWER_MS_MAX);
    socket.setEncoding('utf8');
    socket.on('connect', () => socket.write('{"do":"status"}\n'));
    socket.on('data', (text: string) => {
      heard += text;
      const end = heard.indexOf('\n');
      if (end >= 0) resolve(heard.slice(0, end));
      if (end >= 0 || heard.length > ANSWER_CHARACTERS_MAX) socket.destroy();
    });
    socket.on('error', reject);
    socket.on('close', () => {
      clearTimeout(timer);
      reject(new Error('the connection ended without an answer'));
    });
  });
}
