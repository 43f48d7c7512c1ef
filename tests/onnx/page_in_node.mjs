// Models of a written page, run by its own modules in node: node page_in_node.mjs SITE native|wasm PACKAGES, by
// onnxruntime-node or onnxruntime-web. Jobs come as JSON on standard input, codes and sound go out as JSON.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [site, kind, packages] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(site, name)).href);
const ort =
  kind === "wasm"
    ? await import(pathToFileURL(path.join(packages, "node_modules/onnxruntime-web/dist/ort.node.min.mjs")).href)
    : createRequire(path.join(packages, "package.json"))("onnxruntime-node");
const { Graph, Graphs } = await load("graphs.mjs");
const { MusicGen } = await load("musicgen.mjs");
const { VampNet } = await load("vampnet.mjs");

if (kind === "wasm") ort.env.wasm.numThreads = 1;

/** onnxruntime-node opens files, and no bytes with others beside them. */
class Files extends Graphs {
  async session(name) {
    const file = path.join(site, this.graphs[name].graph.file);
    return new Graph(this.ort, await this.ort.InferenceSession.create(file, this.how));
  }
}

function read(file) {
  return file === null ? null : JSON.parse(fs.readFileSync(path.join(site, file.file), "utf8"));
}

function samples(file) {
  const bytes = fs.readFileSync(file);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

const models = JSON.parse(fs.readFileSync(path.join(site, "models.json"), "utf8"));
const made = [];
for (const { model, asked, clip } of JSON.parse(fs.readFileSync(0, "utf8"))) {
  const facts = models[model];
  const bytes = async ({ file }) => new Uint8Array(fs.readFileSync(path.join(site, file)));
  const graphs = new (kind === "wasm" ? Graphs : Files)(ort, facts.graphs, bytes, { intraOpNumThreads: 1 });
  let codes, sound;
  if (facts.family === "musicgen") {
    const texts = { tokenizer: read(facts.texts.tokenizer), prompts: read(facts.texts.prompts) };
    const musicgen = new MusicGen(facts, graphs, texts), rows = await musicgen.codes(asked, () => {});
    codes = [rows];
    sound = await musicgen.sound(rows, asked.seconds);
  } else {
    const vampnet = new VampNet(facts, graphs), channels = clip.map(samples);
    codes = (await vampnet.codes(channels, asked, () => {})).made;
    sound = await vampnet.sound(codes, channels, asked);
  }
  made.push({ codes: codes.map((rows) => rows.map((row) => Array.from(row))), sound: sound.map((each) => Array.from(each)) });
}
console.log(JSON.stringify(made));
