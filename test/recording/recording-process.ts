/** Records without end and prints, after every flush, how many steps are safe: what kill.test.ts kills. Not a test itself. */
import { writeSync } from 'node:fs';
import { configOf, Watched } from './support.js';

const [, , dir = '', mode = 'full'] = process.argv;
const watched = await Watched.open(configOf(dir, { mode: mode as 'full' }));
watched.call({ method: 'reset', options: { prompt: 'x' } });
for (let round = 0; ; round++) {
  watched.move(37 + ((round * 31) % 200));
  if (round % 3 === 0) watched.see();
  watched.call();
  await watched.flushed();
  writeSync(1, `${watched.steps}\n`);
}
