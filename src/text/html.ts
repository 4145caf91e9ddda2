/**
 * HTML character references, decoded the two ways that the reference's prompt cleaning does: as Python's html.unescape (every reference, also those
 * without a semicolon) and as ftfy (only unambiguous ones). Owned by clean.ts; it knows nothing of prompts and never touches markup.
 */
import { decodeHTML, decodeHTMLStrict } from 'entities';

/** What the bytes 0x80 .. 0x9f mean in Windows-1252; the five unassigned ones stay control characters. */
const WINDOWS_1252 =
  '\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f' +
  '\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178';

/** Reads the C1 control characters of a text as the Windows-1252 characters they were meant to be. */
export function c1ToWindows1252(text: string): string {
  return text.replace(/[\x80-\x9f]/g, (c) => WINDOWS_1252[c.charCodeAt(0) - 0x80] ?? c);
}

/** The byte that a character has in Windows-1252, where unassigned bytes pass through as in Latin-1; undefined for all other characters. */
export function windows1252Byte(char: string): number | undefined {
  const index = WINDOWS_1252.indexOf(char);
  if (index >= 0) return 0x80 + index;
  const code = char.charCodeAt(0);
  return code <= 0xff ? code : undefined;
}

/** The character of a numeric reference, by the rules of the HTML standard as Python applies them: some numbers stand for nothing at all. */
function numericCharacter(code: number): string {
  if (code === 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return '\ufffd';
  if (code >= 0x80 && code <= 0x9f) return WINDOWS_1252[code - 0x80] ?? '';
  const control = code < 0x20 && code !== 0x09 && code !== 0x0a && code !== 0x0c && code !== 0x0d;
  const nonCharacter = (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
  return control || code === 0x7f || nonCharacter ? '' : String.fromCodePoint(code);
}

function decodeReference(whole: string, body: string): string {
  if (!body.startsWith('#')) return decodeHTML(whole);
  const hexadecimal = body[1] === 'x' || body[1] === 'X';
  const digits = body.slice(hexadecimal ? 2 : 1).replace(';', '');
  return numericCharacter(Number.parseInt(digits, hexadecimal ? 16 : 10));
}

/** Python's html.unescape: one pass over all references, legacy names without a semicolon included. */
export function unescapeHtml(text: string): string {
  return text.replace(/&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu, decodeReference);
}

/** A name that somebody's software put in capitals, as in "P&EACUTE;REZ"; null when there is no such name or the capitals mean something else. */
function upperCasedEntity(reference: string): string | null {
  if (reference !== reference.toUpperCase() || decodeHTML(reference) !== reference) return null;
  const lower = reference.toLowerCase();
  const decoded = decodeHTMLStrict(lower);
  return decoded === lower ? null : decoded.toUpperCase();
}

/** ftfy's unescape_html: only references that end in a semicolon and decode as a whole. */
export function unescapeUnambiguousHtml(text: string): string {
  return text.replace(/&#?[0-9A-Za-z]{1,24};/g, (reference) => {
    if (reference.startsWith('&#')) {
      const decoded = unescapeHtml(reference);
      return decoded.includes(';') ? reference : decoded;
    }
    const decoded = decodeHTMLStrict(reference);
    return decoded === reference ? (upperCasedEntity(reference) ?? reference) : decoded;
  });
}
