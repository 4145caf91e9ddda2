/**
 * Changes one member of a JSON object in its text and leaves every other character as it is: numbers keep their digits, lines their breaks. For files
 * that people write and a command completes. Pure; the text must be valid JSON.
 */

interface Span {
  readonly from: number;
  readonly to: number;
}

/** The end of the JSON value that begins at `from`. */
function valueEnd(text: string, from: number): number {
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    const character = text[at] as string;
    if (character === '"') {
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
    } else if ('{['.includes(character)) depth++;
    else if ('}]'.includes(character)) {
      if (depth === 0) return at;
      depth--;
    } else if (depth === 0 && (character === ',' || /\s/.test(character))) return at;
    else continue;
    if (depth === 0) return at + 1;
  }
  return text.length;
}

const skip = (text: string, from: number, what: RegExp): number => {
  let at = from;
  while (at < text.length && what.test(text[at] as string)) at++;
  return at;
};

/** Where the value of a member of the outermost object stands. */
function memberSpan(text: string, name: string): Span | undefined {
  for (let at = skip(text, text.indexOf('{') + 1, /[\s,]/); text[at] === '"'; ) {
    const keyEnd = valueEnd(text, at);
    const from = skip(text, keyEnd, /[\s:]/);
    const to = valueEnd(text, from);
    if (JSON.parse(text.slice(at, keyEnd)) === name) return { from, to };
    at = skip(text, to, /[\s,]/);
  }
  return undefined;
}

/** The text with the member's value replaced, written with two spaces of indentation. The member must be there. */
export function replaceMember(text: string, name: string, value: unknown): string {
  const span = memberSpan(text, name);
  if (!span) throw new RangeError(`the object has no member "${name}"`);
  return text.slice(0, span.from) + JSON.stringify(value, null, 2).replaceAll('\n', '\n  ') + text.slice(span.to);
}
