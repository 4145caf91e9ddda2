/** An engine process that answers every prediction as if it belonged to the episode before. Used by test/policy/isolated.test.ts. */
import type { ChildProcess } from 'node:child_process';
import type { Reply, Request } from '../../src/policy/protocol.js';

const cache = { capacity: 1, valid: 0, committed: 0, predicted: 0, checksum: '' };

process.on('message', (message) => {
  const { generation, episode, id, ...request } = message as Request;
  const envelope = { generation, id, episode: request.kind === 'call' && request.method === 'predict' ? episode - 1 : episode };
  const body = request.kind === 'open' ? { kind: 'ready', job: {}, info: { warnings: [] }, cache } : { kind: 'result', value: null, cache };
  (process as unknown as ChildProcess).send({ ...envelope, ...body } as unknown as Reply, () => {
    if (request.kind === 'call' && request.method === 'close') process.exit(0);
  });
});
process.on('disconnect', () => process.exit(0));
