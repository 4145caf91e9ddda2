/**
 * Prompt cleaning, equal to what the reference does before it tokenises: ftfy's text fixes, HTML unescaping twice, whitespace collapse and strip.
 * One fix is left out on purpose: the repair of mojibake (docs/TEXT.md says why); `findMojibake` finds it so that callers can warn.
 * Pure functions; nothing here reads files or knows tokens.
 */
import { PremotorError } from '../errors.js';
import { c1ToWindows1252, unescapeHtml, unescapeUnambiguousHtml, windows1252Byte } from './html.js';

/** ftfy cuts longer texts into pieces; no instruction for a robot comes near, so more is refused instead. */
export const PROMPT_LENGTH_MAX = 1_000_000;

/** What Python's `\s` and str.strip() take for whitespace. JavaScript's `\s` differs: it has U+FEFF and lacks U+001C .. U+001F and U+0085. */
const PYTHON_SPACE = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+';
const SPACES = new RegExp(PYTHON_SPACE, 'g');
const OUTER_SPACES = new RegExp(`^${PYTHON_SPACE}|${PYTHON_SPACE}$`, 'g');

/** Ligatures and digraphs of Latin letters; ligatures of other scripts are left alone because they may be meant. */
const LATIN_LIGATURES = /[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06]/g;
/** The ideographic space and the halfwidth and fullwidth forms of ASCII, katakana and Hangul. */
const WIDTH_FORMS = /[\u3000\uff01-\uffef]/g;
const LONE_SURROGATES = /\p{Surrogate}/gu;
const LINE_BREAKS = /\r\n|[\r\u2028\u2029\x85]/g;
const TERMINAL_ESCAPES = /\x1b\[[\p{Nd};]*[a-zA-Z]/gu;
/** Control characters that make no whitespace, deprecated Arabic ones, the byte order mark, annotation marks and the object replacement character. */
const CONTROL_CHARACTERS = /[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;

function splitLigature(char: string): string {
  // Compatibility normalisation would also turn the long s of U+FB05 into a plain s; ftfy keeps it.
  return char === '\ufb05' ? '\u017ft' : char.normalize('NFKC');
}

/** One round of fixes over one line, in ftfy's order; the order matters because later fixes see what earlier ones made. */
function fixOnce(line: string, decodes: boolean): string {
  let text = decodes ? unescapeUnambiguousHtml(line) : line;
  text = c1ToWindows1252(text);
  text = text.replace(LATIN_LIGATURES, splitLigature);
  text = text.replace(WIDTH_FORMS, (char) => char.normalize('NFKC'));
  text = text.replace(/[\u201c-\u201f]/g, '"').replace(/[\u02bc\u2018-\u201b]/g, "'");
  text = text.replace(LINE_BREAKS, '\n');
  text = text.replace(LONE_SURROGATES, '\ufffd');
  text = text.replace(TERMINAL_ESCAPES, '').replace(CONTROL_CHARACTERS, '');
  return text.normalize('NFC');
}

/** ftfy.fix_text without its mojibake repair: each line is fixed until nothing changes any more. */
function fixText(text: string): string {
  // A literal "<" says that the text is HTML source, whose references belong there; from that line on they are kept.
  let decodes = true;
  let fixed = '';
  for (const line of text.split(/(?<=\n)/)) {
    decodes &&= !line.includes('<');
    let before: string;
    let after = line;
    do {
      before = after;
      after = fixOnce(before, decodes);
    } while (after !== before);
    fixed += after;
  }
  return fixed;
}

const strip = (text: string): string => text.replace(OUTER_SPACES, '');

/** Cleans an instruction as the reference does before tokenising. Errors: TEXT_INVALID (not a string, or absurdly long). */
export function cleanPrompt(raw: string): string {
  if (typeof raw !== 'string' || raw.length > PROMPT_LENGTH_MAX) {
    const found = typeof raw === 'string' ? `${raw.length} characters` : typeof raw;
    const expected = `a string of at most ${PROMPT_LENGTH_MAX} characters`;
    throw new PremotorError('TEXT_INVALID', `The prompt must be ${expected}, found ${found}. Give a shorter instruction.`, { expected, found });
  }
  return strip(strip(unescapeHtml(unescapeHtml(fixText(raw)))).replace(SPACES, ' '));
}

/** True when `bytes` from `at` start one well-formed UTF-8 sequence of two to four bytes; returns its length, else 0. */
function utf8SequenceLength(bytes: readonly (number | undefined)[], at: number): number {
  const lead = bytes[at] ?? 0;
  const length = lead >= 0xc2 && lead <= 0xdf ? 2 : lead >= 0xe0 && lead <= 0xef ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i] ?? 0;
    if (byte < 0x80 || byte > 0xbf) return 0;
  }
  return length;
}

/**
 * The first piece of `raw` that looks like UTF-8 read as Windows-1252 or Latin-1 (as in "donâ€™t"), or null. The reference would try to
 * repair it; premotor leaves it as it is, so the caller should warn.
 */
export function findMojibake(raw: string): string | null {
  const chars = [...raw];
  const bytes = chars.map(windows1252Byte);
  for (let i = 0; i < chars.length; i++) {
    const length = utf8SequenceLength(bytes, i);
    if (length > 0) return chars.slice(i, i + length).join('');
  }
  return null;
}
