// What the modules of the page compute, for the tests: jobs come as JSON on standard input, results go out as JSON.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const place = process.argv[2];
const load = (name) => import(pathToFileURL(path.join(place, name)).href);
const { Random } = await load("random.mjs");
const { Tokenizer } = await load("text.mjs");
const { draw, filtered, pick } = await load("sampling.mjs");
const { loudness, wav } = await load("sound.mjs");
const { plan, VampNet } = await load("vampnet.mjs");
const { windows } = await load("musicgen.mjs");

const floats = (numbers) => Float32Array.from(numbers);

const JOBS = {
  random({ seed, order }) {
    const random = new Random(seed);
    return order.map(([kind, count]) => Array.from({ length: count }, () => (kind === "bits" ? random.bits(23) : random[kind]())));
  },
  tokens({ tokenizer, prompts, texts }) {
    const read = (file) => (file === null ? null : JSON.parse(fs.readFileSync(file, "utf8")));
    const known = new Tokenizer(read(tokenizer), read(prompts));
    return texts.map((text) => known.encode(text));
  },
  picks: ({ rows, numbers, filters }) => rows.map((row, at) => pick(filtered(floats(row), filters), numbers[at])),
  draws: ({ rows, noise, filters }) => rows.map((row, at) => draw(floats(row), noise && floats(noise[at]), filters)),
  loudness: ({ channels, rate }) => loudness(channels.map(floats), rate),
  wav: ({ channels, rate }) => Array.from(wav(channels.map(floats), rate)),
  plan: ({ frames, size, before, after }) => plan(frames, size, before, after),
  windows: ({ total, limit, stride }) => windows(total, limit, stride),
  mask({ codec, asked, frames, seed }) {
    return new VampNet({ codec }, null).mask(asked, frames, new Random(seed));
  },
};

const jobs = JSON.parse(fs.readFileSync(0, "utf8"));
console.log(JSON.stringify(jobs.map(([name, asked]) => JOBS[name](asked))));
