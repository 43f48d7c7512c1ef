// MusicGen: from a prompt to codes, and from codes to sound, as `audiogen-onnx musicgen` goes about it.

import { int64 } from "./graphs.mjs";
import { Random } from "./random.mjs";
import { filtered, likeliest, pick } from "./sampling.mjs";
import { Tokenizer } from "./text.mjs";

const fround = Math.fround;

const HIDDEN = -3.0e38; // added to scores of what is not seen
const ROUNDING = 1e-6; // frames
const STRIDE_SHARE = 0.6; // how far windows are apart, as a share of their length

/** Bits of the random numbers that tokens are drawn by. */
const BITS = 23;

export class MusicGen {
  /**
   * facts    of the model: config, codec, defaults, speeds of its positions
   * graphs   text, cross, decoder, and codec.decoder
   * texts    tokenizer.json and prompts.json, parsed; the latter may be null
   */
  constructor(facts, graphs, { tokenizer, prompts }) {
    Object.assign(this, { ...facts, graphs });
    this.tokenizer = new Tokenizer(tokenizer, prompts);
  }

  get sampleRate() {
    return this.codec.sample_rate;
  }

  /**
   * The codes of a clip: rows of Int32Array, one for each codebook.
   *
   * asked  prompt (null: anything), seconds, seed, and what `defaults` has
   * told   called with (frames done, frames in all) as they are made; what it throws ends the work
   */
  async codes(asked, told) {
    const { config } = this, options = { ...this.defaults, ...asked };
    const rate = this.codec.sample_rate / this.codec.hop_length;
    const frames = Math.ceil(options.seconds * rate - ROUNDING);
    const limit = Math.floor(config.window_seconds * rate + ROUNDING);
    const stride =
      options.stride_seconds == null
        ? Math.max(1, Math.floor(STRIDE_SHARE * limit + ROUNDING))
        : Math.floor(options.stride_seconds * rate + ROUNDING);
    const rows = await this.rows(options);
    const sampler = new Sampler(options, config.codebooks);
    const made = Array.from({ length: config.codebooks }, () => []);
    for (const window of windows(frames, limit, stride)) {
      const prompt = made.map((row) => row.slice(row.length - window.prompt));
      const run = new WindowRun(config, prompt, window.frames);
      await this.fill(run, rows, sampler, (known) => told(made[0].length + known, frames));
      run.codes().forEach((row, book) => made[book].push(...row.slice(window.prompt)));
    }
    return made.map((row) => Int32Array.from(row));
  }

  /** What conditions each row of the network: keys and values of the texts, and what joins the predictions. */
  async rows({ prompt, negative_prompt: negative = null, guidance_scale: scale }) {
    const guided = scale !== 1 && (prompt !== null || negative !== null);
    const texts = guided ? [prompt, negative] : [prompt];
    const vectors = await Promise.all(texts.map((text) => (text === null ? null : this.text(text))));
    const { width } = this.config;
    const lengths = vectors.map((each) => (each === null ? 0 : each.length / width));
    const longest = Math.max(1, ...lengths);
    const whole = new Float32Array(texts.length * longest * width), bias = new Float32Array(texts.length * longest);
    vectors.forEach((each, row) => {
      if (each === null) return; // zeros, of which nothing comes
      whole.set(each, row * longest * width);
      bias.fill(HIDDEN, row * longest + lengths[row], (row + 1) * longest);
    });
    const cross = await this.graphs.open("cross");
    const given = await cross.run({ text: [whole, [texts.length, longest, width]] });
    return { count: texts.length, scale, given: { ...given, cross_bias: [bias, [texts.length, 1, 1, longest]] } };
  }

  async text(prompt) {
    const { ids } = this.tokenizer.encode(prompt), dims = [1, ids.length];
    const graph = await this.graphs.open("text");
    const mask = new Uint8Array(ids.length).fill(1);
    return (await graph.run({ ids: [int64(ids), dims], mask: [mask, dims] })).vectors.data;
  }

  /** Draw the tokens of a window that are not known. */
  async fill(run, rows, sampler, told) {
    const { config } = this, decoder = await this.graphs.open("decoder");
    const books = config.codebooks, size = config.codebook_size;
    let caches = this.empty(decoder, rows.count), done = 0;
    for (let column = run.first; column < run.steps; column++) {
      const from = done, count = column - from; // the first call takes all that is known before
      const tokens = new BigInt64Array(rows.count * books * count);
      for (let row = 0; row < rows.count; row++)
        for (let book = 0; book < books; book++)
          for (let step = 0; step < count; step++)
            tokens[(row * books + book) * count + step] = BigInt(run.tokens[book][from + step]);
      done = column;
      const made = await decoder.run({
        ...rows.given,
        ...caches,
        tokens: [tokens, [rows.count, books, count]],
        positions: [this.positions(from, done), [1, count, config.width]],
        keep: [new BigInt64Array(rows.count).fill(BigInt(count - 1)), [rows.count, 1, 1]],
        lengths: [new Int32Array(rows.count).fill(done - 1), [rows.count]],
        total: [Int32Array.of(done), [1]],
      });
      caches = Object.fromEntries(Object.keys(caches).map((name) => [name, made[name.slice("past_".length)]]));
      const logits = joined(made.logits.data, rows, books * size);
      if (!logits.every(Number.isFinite)) throw new Error("the model gave numbers that are not finite");
      const drawn = sampler.step(logits, size);
      run.tokens.forEach((row, book) => {
        if (row[column] === UNKNOWN) row[column] = drawn[book];
      });
      await told(Math.max(0, column - Math.max(...config.delays) - (run.first - 1)));
    }
  }

  /** Keys and values of nothing, which grow with the run. */
  empty(decoder, rows) {
    const { layers, heads, width } = this.config;
    const wide = Math.ceil(width / heads / 8) * 8; // as the graph has heads
    const kind = decoder.types.get("past_keys.0") === "int8" ? Int8Array : Float32Array;
    const caches = {};
    for (let layer = 0; layer < layers; layer++)
      for (const part of ["keys", "values"])
        caches[`past_${part}.${layer}`] = [new kind(rows * heads * wide), [rows, heads, 1, wide]];
    return caches;
  }

  /** What is added for where the vectors from `start` to `stop` stand. */
  positions(start, stop) {
    const { width, clock = [] } = this.config, half = width / 2;
    const made = new Float32Array((stop - start) * width);
    for (let place = start; place < stop; place++)
      for (let wave = 0; wave < half; wave++) {
        const period = clock[wave - (half - clock.length)];
        const angle =
          period === undefined
            ? fround(place * this.speeds[wave])
            : fround((2 * Math.PI * (place % period)) / period);
        made[(place - start) * width + wave] = Math.cos(angle);
        made[(place - start) * width + half + wave] = Math.sin(angle);
      }
    return made;
  }

  /** The sound of codes: a Float32Array for each channel, of exactly `seconds`. */
  async sound(codes, seconds) {
    const sides = this.config.channels === 2 ? [0, 1].map((side) => codes.filter((_, at) => at % 2 === side)) : [codes];
    const channels = [];
    for (const side of sides) channels.push(await decoded(this.graphs, this.codec, side));
    return channels.map((each) => each.subarray(0, Math.round(seconds * this.sampleRate)));
  }
}

/** The sound of rows of codes by the graph of a codec; rows that it has beyond these add nothing. */
export async function decoded(graphs, codec, rows) {
  const decoder = await graphs.open("codec.decoder"), frames = rows[0].length;
  const codes = new BigInt64Array(codec.codebooks * frames).fill(-1n);
  rows.slice(0, codec.codebooks).forEach((row, book) => codes.set(int64(row), book * frames));
  return (await decoder.run({ codes: [codes, [1, codec.codebooks, frames]] })).audio.data;
}

/** Logits (rows, n) -> (n), away from the second row towards the first. */
function joined(logits, { count, scale }, size) {
  if (count === 1) return logits.slice(0, size);
  const made = new Float32Array(size);
  for (let index = 0; index < size; index++) {
    const other = logits[size + index];
    made[index] = other + fround(fround(scale) * fround(logits[index] - other));
  }
  return made;
}

/** Windows of a clip of `total` frames, each beginning with the end of the one before. */
export function windows(total, limit, stride) {
  if (total <= limit) return [{ prompt: 0, frames: total }];
  const made = [];
  let prompt = 0;
  for (let start = 0; start + prompt < total; start += stride) {
    const frames = Math.min(total - start, limit);
    if (prompt < frames) made.push({ prompt, frames });
    prompt = Math.max(frames - stride, 0);
  }
  return made;
}

const UNKNOWN = -1;

/** The tokens of one window: codebook k is late by delays[k] steps, and before all stands the special token. */
class WindowRun {
  constructor({ delays, codebook_size: special }, prompt, frames) {
    this.delays = delays;
    this.frames = frames;
    this.steps = 1 + frames + Math.max(...delays);
    this.first = prompt[0].length + 1;
    this.tokens = delays.map((late, book) => {
      const row = new Int32Array(this.steps).fill(special);
      row.fill(UNKNOWN, 1 + late, 1 + late + frames);
      row.set(prompt[book], 1 + late);
      return row;
    });
  }

  codes() {
    return this.tokens.map((row, book) => row.slice(1 + this.delays[book], 1 + this.delays[book] + this.frames));
  }
}

/** Draws tokens, with a random number for each codebook and step. */
class Sampler {
  constructor({ seed, temperature, top_k: topK, top_p: topP, min_p: minP }, codebooks) {
    this.filters = { topK, topP, minP };
    this.temperatures = Array.isArray(temperature) ? temperature : Array(codebooks).fill(temperature);
    this.random = new Random(seed);
  }

  /** Logits (K * N) -> a token of each codebook. */
  step(logits, size) {
    return this.temperatures.map((temperature, book) => {
      const number = this.random.bits(BITS) / 2 ** BITS;
      if (temperature === 0) return likeliest(logits, book * size, size);
      const rate = fround(1 / fround(temperature));
      const row = logits.subarray(book * size, (book + 1) * size).map((logit) => logit * rate);
      return pick(filtered(row, this.filters), number);
    });
  }
}
