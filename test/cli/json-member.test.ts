/** One member of a JSON text is replaced, and no other character. */
import fc from 'fast-check';
import t from 'tap';
import { replaceMember } from '../../src/cli/json-member.js';

t.test('everything else stays as it was written', async (t) => {
  const text = '{\n  "q01": [-1.0, 1e-3],\n  "ladder": [{"a": "}]\\""}, 2],\n\t"prompt" :"ladder"\n}\n';
  t.equal(replaceMember(text, 'ladder', [{ a: 1 }]), text.replace('[{"a": "}]\\""}, 2]', '[\n    {\n      "a": 1\n    }\n  ]'));
  t.equal(replaceMember(text, 'prompt', 'x'), text.replace('"ladder"\n}', '"x"\n}'));
  t.equal(replaceMember(text, 'q01', 3), text.replace('[-1.0, 1e-3]', '3'));
});

t.test('only the outermost object counts', async (t) => {
  const text = '{"inner": {"ladder": 1}, "text": "\\"ladder\\": 2", "\\u006cadder": true}';
  t.equal(replaceMember(text, 'ladder', 4), text.replace('true', '4'));
  t.throws(() => replaceMember('{"inner": {"ladder": 1}}', 'ladder', 4), RangeError);
  t.throws(() => replaceMember('{}', 'ladder', 4), RangeError);
  t.equal(replaceMember('{"ladder":1}', 'ladder', 22), '{"ladder":22}');
});

t.test('any object: the member has the value, the others keep theirs', async () => {
  const key = fc.string({ maxLength: 6 });
  const object = fc.dictionary(key, fc.jsonValue({ maxDepth: 3 }), { minKeys: 1, maxKeys: 6 });
  fc.assert(
    fc.property(object, fc.nat(), fc.jsonValue({ maxDepth: 2 }), fc.constantFrom(undefined, 1, 4, '\t'), (before, pick, value, indent) => {
      const names = Object.keys(before);
      const name = names[pick % names.length] as string;
      const after = JSON.parse(replaceMember(JSON.stringify(before, null, indent), name, value));
      const members = Object.entries(JSON.parse(JSON.stringify(before)) as Record<string, unknown>);
      const wanted = Object.fromEntries(members.map(([at, old]) => [at, at === name ? value : old]));
      return JSON.stringify(after) === JSON.stringify(wanted);
    }),
  );
});
