/** A worker whose policy is the scripted expert, which fails at every third seed. At seed 666 the process dies. Not a test itself. */
import { serveEpisodes } from '../../src/evaluation/worker.js';
import { ExpertPolicy } from './expert-policy.js';

serveEpisodes(async ({ checkpoint }) => {
  if (checkpoint.endsWith('/missing')) throw new Error('no such checkpoint');
  return new ExpertPolicy((seed) => {
    if (seed === 666) process.exit(3);
    return seed % 3 === 2;
  });
});
