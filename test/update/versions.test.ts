/** The order of versions: pairs in order, texts that do not sort. */
import t from 'tap';
import { checkVersion, compareVersions, isVersion } from '../../src/update/versions.js';

/** In ascending order; the middle is the example of Semantic Versioning 2.0, section 11. */
const ascending = [
  '0.0.0',
  '0.0.9',
  '0.0.10',
  '0.9.0',
  '1.0.0-alpha',
  '1.0.0-alpha.1',
  '1.0.0-alpha.beta',
  '1.0.0-beta',
  '1.0.0-beta.2',
  '1.0.0-beta.11',
  '1.0.0-rc.1',
  '1.0.0',
  '1.0.1',
  '1.10.0',
  '2.0.0',
  '10.0.0',
];

t.test('every pair compares as its places do', async (t) => {
  for (const [i, a] of ascending.entries()) {
    for (const [j, b] of ascending.entries()) t.equal(Math.sign(compareVersions(a, b)), Math.sign(i - j), `${a} and ${b}`);
  }
});

t.test('what does not sort is refused', async (t) => {
  for (const text of [
    '',
    '1',
    '1.2',
    '1.2.3.4',
    'v1.2.3',
    '1.2.3+build',
    '01.2.3',
    '1.2.3-',
    '1.2.3-a..b',
    '1.2.3-01',
    '1.2.x',
    ' 1.2.3',
    '1.2.3\n',
    '1.2.3-é',
  ]) {
    t.notOk(isVersion(text), JSON.stringify(text));
    t.throws(() => checkVersion(text), { code: 'UPDATE_VERSION' });
  }
  t.notOk(isVersion(`1.2.3-${'a'.repeat(80)}`), 'one that is too long');
  t.notOk(isVersion('1234567890.0.0'), 'a number that is too large');
  t.equal(checkVersion('1.2.3-rc.1'), '1.2.3-rc.1');
});
