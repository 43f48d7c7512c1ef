// Prompts to token ids: what `tokenizer.json` and `prompts.json` of a model say, as the package reads them.

/** Rust's and Python's classes of characters, which know all letters, as JavaScript spells them. */
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";

const NORMALIZERS = {
  NFC: () => (text) => text.normalize("NFC"),
  NFD: () => (text) => text.normalize("NFD"),
  NFKC: () => (text) => text.normalize("NFKC"),
  NFKD: () => (text) => text.normalize("NFKD"),
  Lowercase: () => (text) => Array.from(text, (each) => each.toLowerCase()).join(""),
  StripAccents: () => (text) => text.replace(/\p{Mn}/gu, ""),
  Strip: ({ strip_left, strip_right }) => (text) =>
    text.replace(strip_left ? /^\s+/u : "", "").replace(strip_right ? /\s+$/u : "", ""),
  Replace: ({ pattern, content }) => {
    const source = pattern.Regex === undefined ? escaped(pattern.String) : pattern.Regex.replaceAll("\\w", WORD);
    const found = new RegExp(source, "gu");
    return (text) => text.replace(found, () => content);
  },
  Precompiled: ({ precompiled_charsmap }) => precompiled(precompiled_charsmap),
  Sequence: ({ normalizers }) => {
    const all = normalizers.map(normalizer);
    return (text) => all.reduce((made, each) => each(made), text);
  },
};

function normalizer(facts) {
  return facts === null ? (text) => text : known(NORMALIZERS, facts)(facts);
}

const SPLITTERS = {
  WhitespaceSplit: () => (pieces) => pieces.flatMap((piece) => piece.split(/\s+/u).filter(Boolean)),
  Metaspace: ({ replacement, prepend_scheme, split }) => (pieces) =>
    pieces.flatMap((piece, index) => {
      let text = piece.replaceAll(" ", replacement);
      const begins = prepend_scheme === "always" || (prepend_scheme === "first" && index === 0);
      if (begins && !text.startsWith(replacement)) text = replacement + text;
      if (!split) return [text];
      const parts = text.split(new RegExp(`(?=${escaped(replacement)})`, "u"));
      return parts.filter(Boolean);
    }),
  Sequence: ({ pretokenizers }) => {
    const all = pretokenizers.map(splitter);
    return (pieces) => all.reduce((made, each) => each(made), pieces);
  },
};

function splitter(facts) {
  return facts === null ? (pieces) => pieces : known(SPLITTERS, facts)(facts);
}

function known(table, facts) {
  if (!Object.hasOwn(table, facts.type)) throw new Error(`the tokenizer has a part not known here: ${facts.type}`);
  return table[facts.type];
}

const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/** SentencePiece's table of characters: a trie as a double array, then the texts that take their place. */
function precompiled(base64) {
  const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
  const size = new DataView(bytes.buffer).getUint32(0, true);
  const trie = new Uint32Array(bytes.slice(4, 4 + size).buffer), texts = bytes.subarray(4 + size);
  const encoder = new TextEncoder(), decoder = new TextDecoder();
  const offset = (unit) => (unit >>> 10) << ((unit & 0x200) >>> 6);

  /** What the shortest beginning that stands in the table is replaced by, and its length; or null. */
  const found = (input) => {
    let node = offset(trie[0]);
    for (let index = 0; index < input.length; index++) {
      node ^= input[index];
      const unit = trie[node];
      if ((unit & 0x800000ff) >>> 0 !== input[index]) return null;
      node ^= offset(unit);
      if ((unit >>> 8) & 1) {
        const start = trie[node] & 0x7fffffff;
        return decoder.decode(texts.subarray(start, texts.indexOf(0, start)));
      }
    }
    return null;
  };
  const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });
  return (text) =>
    Array.from(graphemes.segment(text), ({ segment }) => {
      const cluster = encoder.encode(segment);
      const whole = cluster.length < 6 ? found(cluster) : null; // as the library looks up short clusters whole
      return whole ?? Array.from(segment, (each) => found(encoder.encode(each)) ?? each).join("");
    }).join("");
}

/** A model that knows whole words. */
class WordLevel {
  constructor({ vocab, unk_token }) {
    this.ids = new Map(Object.entries(vocab));
    this.unknown = this.ids.get(unk_token);
  }

  encode(piece) {
    return [{ id: this.ids.get(piece) ?? this.unknown, text: piece }];
  }
}

/** A model that cuts a piece into the parts that are likeliest together (Kudo 2018, arXiv 1804.10959). */
class Unigram {
  constructor({ vocab, unk_id, byte_fallback }) {
    if (byte_fallback) throw new Error("the tokenizer falls back to bytes, which is not known here");
    this.pieces = new Map(vocab.map(([piece, score], id) => [piece, { id, score }]));
    this.unknown = unk_id;
    this.worst = vocab.reduce((least, [, score]) => Math.min(least, score), Infinity) - 10;
    this.longest = vocab.reduce((most, [piece]) => Math.max(most, [...piece].length), 0);
  }

  encode(piece) {
    const letters = [...piece], count = letters.length;
    const best = [{ score: 0, from: -1, id: -1 }];
    for (let end = 1; end <= count; end++) best.push({ score: -Infinity, from: -1, id: -1 });
    for (let start = 0; start < count; start++) {
      const base = best[start].score;
      let text = "", single = false;
      for (let end = start + 1; end <= Math.min(count, start + this.longest); end++) {
        text += letters[end - 1];
        const found = this.pieces.get(text);
        if (found === undefined) continue;
        if (end === start + 1) single = true;
        const score = base + found.score;
        if (score > best[end].score) best[end] = { score, from: start, id: found.id };
      }
      const score = base + this.worst;
      if (!single && score > best[start + 1].score) best[start + 1] = { score, from: start, id: this.unknown };
    }
    const made = [];
    for (let end = count; end > 0; end = best[end].from)
      made.unshift({ id: best[end].id, text: letters.slice(best[end].from, end).join("") });
    return joined(made, this.unknown);
  }
}

/** Unknown parts that follow one another are one. */
function joined(parts, unknown) {
  return parts.reduce((made, part) => {
    const last = made.at(-1);
    if (last && last.id === unknown && part.id === unknown) last.text += part.text;
    else made.push({ ...part });
    return made;
  }, []);
}

const MODELS = { WordLevel, Unigram };

export const LONG_PROMPT = 2000; // characters from which on a prompt is cut
export const LONG_TOKENS = 512; // to so many tokens

/** A tokenizer of T5. Every text ends in `</s>`. */
export class Tokenizer {
  /** stored: tokenizer.json; prompts: prompts.json, or null. Throws for parts that are not known here. */
  constructor(stored, prompts) {
    this.normalize = normalizer(stored.normalizer);
    this.split = splitter(stored.pre_tokenizer);
    this.model = new (known(MODELS, stored.model))(stored.model);
    this.added = new Map((stored.added_tokens ?? []).map(({ content, id }) => [content, id]));
    this.end = this.added.get("</s>") ?? this.model.encode("</s>")[0].id;
    const names = [...this.added.keys()].sort((a, b) => b.length - a.length).map(escaped);
    this.marks = names.length ? new RegExp(`(${names.join("|")})`, "u") : null;
    this.prompts = prompts === null ? null : new Prompts(prompts);
  }

  /** A prompt -> its token ids, and what the model makes nothing of, or only something near. */
  encode(prompt) {
    const [text, near] = this.prompts === null ? [prompt, []] : this.prompts.understood(prompt);
    const tokens = (this.marks ? text.split(this.marks) : [text]).flatMap((part) => {
      if (this.added.has(part)) return [{ id: this.added.get(part), text: part }];
      if (!part) return [];
      return this.split([this.normalize(part)]).flatMap((piece) => this.model.encode(piece));
    });
    const unknown = new Set(tokens.filter(({ id }) => id === this.model.unknown).map((each) => each.text));
    const ids = tokens.map(({ id }) => id);
    const kept = prompt.length > LONG_PROMPT ? ids.slice(0, LONG_TOKENS - 1) : ids;
    return { ids: [...kept, this.end], near, unknown: [...unknown] };
  }
}

const CLOSE = 0.04; // of a tempo that counts as the one asked for, as a share
const LETTER = "[\\p{L}\\p{N}_]";
const LEFT_OUT = "it is left out; a negative prompt stays away from it";

const NOTHING_NEAR = "nothing is near it";
const SINGERS = ["female", "male"].flatMap((whose) => ["vocals", "vocal", "voice", "singer"].map((what) => `${whose} ${what}`));
const VOICES = [
  ...["vocals", "vocal", "vocalist", "voice", "voices", "sung", "singing", "singer", "singers", "chorus"],
  ...["choir", "choral", "lyrics", "rapper", "rapping", "a cappella", "acapella", "opera", "humming", ...SINGERS],
]; // as in audiogen_core/prompts.py

const plain = (text) => text.toLowerCase().split(/\s+/u).filter(Boolean).join(" ");

/** What a small model makes of the words people type. */
class Prompts {
  constructor({ knows, means, nearest, bpm, limits }) {
    [this.means, this.nearest, this.bpm] = [means, nearest, bpm].map((each) => new Map(Object.entries(each)));
    for (const voice of VOICES) this.nearest.set(voice, "");
    this.ofTempo = limits.tempo;
    this.styles = Object.entries(knows.style ?? {})
      .flatMap(([style, each]) => each.map((word) => ({ style, word, said: new RegExp(`(?<!${LETTER})${escaped(word)}(?!${LETTER})`, "u") })))
      .sort((a, b) => b.word.length - a.word.length);
    this.ignored = new Map();
    for (const [about, instead] of Object.entries(limits))
      for (const word of Object.values(knows[about] ?? {}).flat()) this.ignored.set(word.toLowerCase(), instead);
    const own = Object.values(knows).flatMap((names) => Object.values(names).flat());
    const sayings = [...own, ...this.means.keys(), ...this.nearest.keys()].sort((a, b) => b.length - a.length);
    const words = sayings.map((saying) => saying.split(" ").map(escaped).join("\\s+")).join("|");
    const number = "(?<bpm>\\p{Nd}{1,4}(?:\\.\\p{Nd}+)?)\\s*(?:bpm|beats\\s+per\\s+minute)";
    const no = "(?:(?<no>no|not|without)\\s+(?:(?:an?|any)\\s+)?)?";
    this.sayings = new RegExp(`(?<!${LETTER})${no}(?:${number}|(?<saying>${words}))(?!${LETTER})`, "giu");
  }

  /** A prompt in the model's words, and what it cannot follow, each a sentence. */
  understood(text) {
    const near = new Map();
    const won = new Map(); // style -> the word that asks for it
    for (const { 0: said, groups } of text.matchAll(this.sayings)) {
      const style = groups.no || this.nearest.has(plain(said)) ? undefined : this.style(this.means.get(plain(said)) ?? plain(said));
      if (style !== undefined && !won.has(style)) won.set(style, said);
    }
    const made = text.replace(this.sayings, (said, no, bpm, saying) => {
      const word = plain(said);
      if (no && !this.means.has(word) && !this.nearest.has(word)) {
        if (!saying || !this.nearest.has(plain(saying))) near.set(said, LEFT_OUT);
        return "";
      }
      if (bpm) return this.tempo(said, Number(bpm), near);
      const meant = this.means.get(word) ?? word;
      if (this.nearest.has(word)) {
        const nearest = this.nearest.get(word);
        const style = this.style(nearest);
        const [winner] = won.values();
        const lost = style !== undefined && winner !== undefined && !won.has(style);
        const told = nearest ? `the nearest is ${nearest}` : NOTHING_NEAR;
        near.set(said, lost ? `${told}, but ${winner} won` : told);
        if (lost) return "";
        if (style !== undefined && !won.has(style)) won.set(style, said);
      } else if (this.ignored.has(meant)) near.set(said, this.ignored.get(meant));
      return this.nearest.get(word) ?? this.means.get(word) ?? said;
    });
    return [made, Array.from(near, ([said, instead]) => `${said} (${instead})`)];
  }

  /** The style that some of the model's words ask for, if any. */
  style(words) {
    return this.styles.find(({ said }) => said.test(words.toLowerCase()))?.style;
  }

  tempo(said, wanted, near) {
    const far = ([, bpm]) => Math.abs(bpm - wanted);
    const [word, bpm] = [...this.bpm].reduce((best, each) => (far(each) < far(best) ? each : best));
    if (this.ofTempo !== undefined) near.set(said, this.ofTempo);
    else if (Math.abs(bpm - wanted) > CLOSE * wanted) near.set(said, `the nearest is ${word}, ${bpm} bpm`);
    return word;
  }
}
