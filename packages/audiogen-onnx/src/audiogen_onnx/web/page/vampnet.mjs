// VampNet: from a clip to new codes around what is kept of it, and to sound, as `audiogen-onnx vamp` goes about it.

import { int64 } from "./graphs.mjs";
import { decoded } from "./musicgen.mjs";
import { Random } from "./random.mjs";
import { draw } from "./sampling.mjs";
import { even, gainTo, loudness, peak, SILENCE } from "./sound.mjs";

const fround = Math.fround;

const WIDEST = 1024; // frames of a window, at most
const CONTEXT = 2.5; // seconds of what was made that a window of the coarse network sees; of the fine one a quarter
const FADE = 0.01; // seconds of the cross-fades between a clip and what was made
const LEAST_EXPONENTIAL = 2 ** -27; // what numpy gives as 0 now and then would draw what was ruled out, as 0 / 0
const LEAST_UNIFORM = fround(1e-20), MOST_UNIFORM = 1 - 2 ** -24; // between them Gumbel noise is finite

export class VampNet {
  /**
   * facts    of the model: codec, coarse and fine network, defaults of everything that can be asked
   * graphs   coarse, fine, codec.encoder and codec.decoder
   */
  constructor(facts, graphs) {
    Object.assign(this, { ...facts, graphs });
  }

  get sampleRate() {
    return this.codec.sample_rate;
  }

  frames(seconds) {
    return Math.ceil((seconds * this.codec.sample_rate) / this.codec.hop_length);
  }

  /**
   * The codes of a clip and what is made of them: of each channel, rows of Int32Array, one for each codebook.
   *
   * channels  Float32Array each, at the rate of the codec
   * asked     seed, and what `defaults` has
   * told      called with (steps done, steps in all); what it throws ends the work
   */
  async codes(channels, asked, told) {
    const options = { ...this.defaults, ...asked }, { gain } = this.levels(channels);
    const given = [];
    for (const channel of channels) given.push(await this.encode(channel.map((each) => each * fround(gain))));
    const random = new Random(options.seed);
    const mask = this.mask(options, given[0][0].length, random);
    const parts = this.parts(options);
    const steps = parts.map((part) => part.windows(mask).length * part.options.steps * channels.length);
    const all = steps.reduce((sum, each) => sum + each, 0);
    let done = 0;
    const made = [];
    for (const codes of given) {
      // all channels draw the same numbers: what is alike in them stays alike
      const noise = random.copy(), rows = codes.map((row) => Int32Array.from(row));
      for (const part of parts) await part.run(rows, mask, noise, () => told(++done, all));
      made.push(rows);
    }
    return { made, mask };
  }

  /** The two networks: the coarse one makes the first rows, the fine one, which sees them, the rest. */
  parts(options) {
    const { temperature, mask_temperature: heat, top_p: topP } = options;
    const fine = options.fine_temperature ?? temperature;
    const asked = [
      ["coarse", CONTEXT, { steps: options.steps, temperature, heat, topP }],
      ["fine", CONTEXT / 4, { steps: options.fine_steps, temperature: fine, heat, topP }],
    ];
    return asked.map(([name, seconds, own]) => {
      const context = this.frames(seconds), after = Math.floor(context / 5);
      const window = Math.min(this.frames(this[name].window_seconds), WIDEST);
      return new Part(this.graphs, name, this[name], this.codec.codebook_size, own, window, context - after, after);
    });
  }

  /** Rows of codes of sound that is as loud as the networks know it. */
  async encode(samples) {
    const { hop_length: hop, codebooks } = this.codec, encoder = await this.graphs.open("codec.encoder");
    const whole = new Float32Array(Math.ceil(samples.length / hop) * hop);
    whole.set(samples);
    const codes = (await encoder.run({ audio: [whole, [1, 1, whole.length]] })).codes.data;
    const frames = whole.length / hop;
    return Array.from({ length: codebooks }, (_, book) =>
      Int32Array.from(codes.subarray(book * frames, (book + 1) * frames), Number),
    );
  }

  /** Where codes are made: rows of booleans, one for each codebook. */
  mask(options, frames, random) {
    const { codebooks } = this.codec, somewhere = options.infill !== null;
    const period = options.period ?? (somewhere ? 0 : 7), keep = options.keep ?? (somewhere ? codebooks : 3);
    const begin = this.frames(options.prefix), end = frames - this.frames(options.suffix);
    const moved = period > 1 ? Math.floor(random.uniform() * period) : 0;
    const step = Math.min(period, frames);
    const free = Array.from({ length: frames }, (_, frame) => {
      const prompt = period > 0 && ((((frame - moved) % frames) + frames) % frames) % step === 0;
      return !prompt && frame >= begin && frame < end;
    });
    const [first, last] = somewhere ? this.region(options.infill, frames) : [0, frames];
    return Array.from({ length: codebooks }, (_, book) =>
      free.map((each, frame) => (book >= keep || each) && frame >= first && frame < last),
    );
  }

  /** The frames that lie at least partly between two times. */
  region([start, end], frames) {
    const rate = this.codec.sample_rate / this.codec.hop_length;
    const [first, last] = [start, end].map((time) => Math.round(Math.min(time, frames / rate) * rate * 1e6) / 1e6);
    if (!(start >= 0 && start < end)) throw new Error("the part to make anew goes from a time to a later one");
    if (Math.floor(first) >= frames)
      throw new Error(`the part to make anew begins at ${start} s, but the clip ends at ${(frames / rate).toFixed(2)} s`);
    return [Math.floor(first), Math.ceil(last)];
  }

  /** How loud a clip is, and what its samples are multiplied by before they are encoded. */
  levels(channels) {
    const level = loudness(channels, this.sampleRate), top = peak(channels);
    const mean = Math.max(SILENCE, level - 10 * Math.log10(channels.length));
    const gain = gainTo(this.codec.loudness, mean);
    return { level, top, gain: top ? Math.min(gain, 1 / top) : gain };
  }

  /** The sound of codes that were made of a clip: as long and as loud, the clip itself outside `infill`. */
  async sound(made, channels, { infill = null } = {}) {
    const { level, top, gain } = this.levels(channels), length = channels[0].length;
    const sound = [];
    for (const rows of made) sound.push((await decoded(this.graphs, this.codec, rows)).subarray(0, length));
    if (infill === null) {
      const factor = fround(gainOut(loudness(sound, this.sampleRate), peak(sound), level, top));
      return sound.map((channel) => channel.map((each) => each * factor));
    }
    const factor = fround(1 / gain), fade = Math.max(1, even(FADE * this.sampleRate));
    const [start, stop] = infill.map((time) => even(time * this.sampleRate));
    return sound.map((channel, at) =>
      channel.map((each, time) => {
        const theirs = channels[at][time];
        const weight = fround(Math.min(1, Math.min(time - start, stop - 1 - time) / fade));
        return weight > 0 ? theirs + weight * fround(each * factor - theirs) : theirs;
      }),
    );
  }
}

/** What sets a result to the loudness and, at most, the peak of its clip, unless one of both is silent. */
function gainOut(measured, top, wanted, wantedTop) {
  const gain = measured === SILENCE || wanted === SILENCE ? 1 : gainTo(wanted, measured);
  return top ? Math.min(gain, Math.max(1, wantedTop) / top) : gain;
}

/** One of the two networks, and how it fills clips of any length. */
class Part {
  constructor(graphs, name, { codebooks, conditioning_codebooks: kept }, size, options, window, before, after) {
    Object.assign(this, { graphs, name, codebooks, kept, size, options, window, before, after });
  }

  /** The windows in which there is something to make. */
  windows(mask) {
    const rows = mask.slice(this.kept, this.codebooks);
    return plan(mask[0].length, this.window, this.before, this.after).filter(({ first, last }) =>
      rows.some((row) => row.slice(first, last).includes(true)),
    );
  }

  /** Fill the masked places of the rows that this network makes, window by window; `codes` are changed. */
  async run(codes, mask, noise, told) {
    const todo = mask.map((row) => [...row]);
    for (const { start, stop, first, last } of this.windows(mask)) {
      const cut = (rows) => rows.slice(0, this.codebooks).map((row) => row.slice(start, stop));
      const made = await this.fill(cut(codes), cut(todo).slice(this.kept), noise, told);
      made.forEach((row, at) => codes[this.kept + at].set(row.subarray(first - start, last - start), first));
      for (const row of todo) row.fill(false, 0, last);
    }
  }

  /** One window: the rows that are made. All masked places are drawn, and the least sure of them again. */
  async fill(codes, mask, noise, told) {
    const { steps, heat } = this.options, frames = codes[0].length, books = mask.length, places = frames * books;
    // In one row, frame by frame, and in a frame codebook by codebook.
    const tokens = new Int32Array(places), open = new Uint8Array(places);
    mask.forEach((row, book) =>
      row.forEach((masked, frame) => {
        open[frame * books + book] = masked;
        tokens[frame * books + book] = masked ? this.size : codes[this.kept + book][frame];
      }),
    );
    const count = open.reduce((sum, each) => sum + each, 0);
    let current = tokens.slice();
    for (let step = 0; step < steps && count; step++) {
      const chances = await this.draw(codes, current, tokens, noise);
      const progress = fround((step + 1) / steps);
      let left = Math.floor(fround(gamma(progress) * count));
      if (step + 1 < steps) {
        const opened = chances.reduce((sum, each) => sum + (each < Infinity), 0);
        left = Math.max(1, Math.min(opened - 1, left)); // each step settles a place at least, and leaves one
      }
      const again = leastSure(chances, left, fround(fround(heat) * fround(1 - progress)), noise);
      current = tokens.map((token, place) => (again[place] ? this.size : token));
      if (step + 1 < steps) tokens.set(current); // in the last step all that was drawn stays
      await told();
    }
    return mask.map((_, book) => Int32Array.from({ length: frames }, (_, frame) => tokens[frame * books + book]));
  }

  /** Draw `tokens` where they are masked; the probability of each, Infinity of those that are settled. */
  async draw(codes, current, tokens, noise) {
    const books = this.codebooks - this.kept, frames = codes[0].length, { size } = this;
    const asked = new BigInt64Array(this.codebooks * frames);
    for (let book = 0; book < this.codebooks; book++)
      for (let frame = 0; frame < frames; frame++) {
        const known = book < this.kept ? codes[book][frame] : current[frame * books + book - this.kept];
        asked[book * frames + frame] = BigInt(known);
      }
    const graph = await this.graphs.open(this.name);
    const logits = (await graph.run({ codes: [asked, [1, this.codebooks, frames]] })).logits.data;
    const chances = new Float32Array(tokens.length).fill(Infinity), draws = this.options.temperature > 0;
    const exponential = draws ? new Float32Array(size) : null;
    for (let place = 0; place < tokens.length; place++) {
      // noise for settled places too: so it is the same, whatever is open
      if (draws)
        for (let index = 0; index < size; index++)
          exponential[index] = Math.max(noise.exponential(), LEAST_EXPONENTIAL);
      if (tokens[place] !== size) continue;
      const row = ((place % books) * frames + Math.floor(place / books)) * size;
      [tokens[place], chances[place]] = draw(logits.subarray(row, row + size), exponential, this.options);
      if (Number.isNaN(chances[place])) throw new Error("the model gave numbers that are not finite");
    }
    return chances;
  }
}

/** Share of codes still masked at `progress`: a quarter of a cosine, never below 1e-10. */
function gamma(progress) {
  const angle = fround(fround(progress * fround(Math.PI)) / 2);
  return Math.max(fround(1e-10), Math.min(1, fround(Math.cos(angle))));
}

/** The places with the lowest confidence, `number` of them: log(chance) + heat * Gumbel noise. */
function leastSure(chances, number, heat, noise) {
  const log = (value) => fround(Math.log(value));
  const confidence = chances.map((chance) => {
    const uniform = Math.min(MOST_UNIFORM, Math.max(LEAST_UNIFORM, noise.uniform()));
    return log(chance) + fround(heat * -log(-log(uniform)));
  });
  const cut = Float32Array.from(confidence).sort()[Math.min(number, confidence.length - 1)];
  return confidence.map((each) => each < cut);
}

/** Windows of equal size over a clip, each frame coming out of exactly one of them. */
export function plan(frames, size, before, after) {
  [before, after] = [Math.min(before, Math.floor(size / 3)), Math.min(after, Math.floor(size / 8))];
  if (frames <= size) return [{ start: 0, stop: frames, first: 0, last: frames }];
  const count = 1 + Math.ceil((frames - size) / (size - before - after));
  const starts = Array.from({ length: count }, (_, index) => even((index * (frames - size)) / (count - 1)));
  const firsts = [0, ...starts.slice(1).map((start) => start + before), frames];
  return starts.map((start, index) => ({ start, stop: start + size, first: firsts[index], last: firsts[index + 1] }));
}
