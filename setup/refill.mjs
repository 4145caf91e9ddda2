/**
 * Refills comment paragraphs of TypeScript that run past the line limit, which Biome leaves alone. A part of `npm run format`: it changes comments
 * only, and only paragraphs with a line that is too long.
 */
const commentLine = /^(\s*)(\* |\/\/ )(\S.*)$/;

/** Words of `text` in lines of at most `columns`. */
function fill(text, columns) {
  const lines = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    const length = [...line].length + 1 + [...word].length;
    if (line !== '' && length > columns) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return line === '' ? lines : [...lines, line];
}

/** A one-line block comment past the limit becomes a block, so that it has a paragraph to fill. */
function openBlock(line, columns) {
  const match = /^(\s*)\/\*\* (.*) \*\/$/.exec(line);
  return match && [...line].length > columns ? [`${match[1]}/**`, `${match[1]} * ${match[2]}`, `${match[1]} */`] : [line];
}

/** The text with its comments refilled to `columns`. List items, tags and tables begin a paragraph of their own. */
export function refillComments(text, columns) {
  const lines = text.split('\n').flatMap((line) => openBlock(line, columns));
  const result = [];
  for (let at = 0; at < lines.length; ) {
    const first = commentLine.exec(lines[at]);
    if (!first) {
      result.push(lines[at]);
      at += 1;
      continue;
    }
    const prefix = first[1] + first[2];
    const paragraph = [];
    const start = at;
    for (; at < lines.length; at += 1) {
      const match = commentLine.exec(lines[at]);
      const isContinued = match && match[1] + match[2] === prefix && (at === start || !/^[-*|@]/.test(match[3]));
      if (!isContinued) break;
      paragraph.push(match[3]);
    }
    const kept = lines.slice(start, at);
    const isTooLong = kept.some((line) => [...line].length > columns);
    result.push(...(isTooLong ? fill(paragraph.join(' '), columns - prefix.length).map((line) => prefix + line) : kept));
  }
  return result.join('\n');
}
