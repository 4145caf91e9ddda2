/**
 * Whether a robot is disarmed and still, by one question to its service's control socket. Owned by whoever wants to fetch something large beside it;
 * it asks and changes nothing, and the installer asks again.
 */
import { z } from 'zod';
import { exchangeLine } from '../exchange-line.js';
import { running } from '../runtime/registry.js';
import type { Stillness } from './follow.js';

const ANSWER_MS_MAX = 5000;
const answerSchema = z.object({ ok: z.literal(true), status: z.object({ armed: z.boolean(), atRest: z.boolean() }) });

/** Never rejects. Nobody at the socket while something of premotor runs is no answer: a stream process outlives its service and holds motors. */
export async function stillnessOf(socketFile: string, runs: () => boolean = () => running().length > 0): Promise<Stillness> {
  try {
    const { status } = answerSchema.parse(JSON.parse(await exchangeLine(socketFile, '{"do":"status"}', ANSWER_MS_MAX)));
    return status.armed || !status.atRest ? 'busy' : 'still';
  } catch (error) {
    const isNobody = ['ENOENT', 'ECONNREFUSED'].includes((error as NodeJS.ErrnoException).code ?? '');
    return isNobody && !runs() ? 'no service' : 'no answer';
  }
}
