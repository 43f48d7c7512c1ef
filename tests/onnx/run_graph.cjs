// Runs graphs in onnxruntime-node: node run_graph.cjs JOBS.json PACKAGES
// JOBS: [{graph, inputs: {name: {type, dims, file}}, outputs: {name: file}}]; files hold raw little-endian numbers.
const fs = require("fs");
const path = require("path");
const ort = require(require.resolve("onnxruntime-node", { paths: [path.resolve(process.argv[3])] }));

const ARRAYS = { float32: Float32Array, int64: BigInt64Array };

function read(entry) {
  const bytes = fs.readFileSync(entry.file);
  const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  return new ort.Tensor(entry.type, new ARRAYS[entry.type](copy), entry.dims);
}

async function main() {
  for (const job of JSON.parse(fs.readFileSync(process.argv[2], "utf8"))) {
    const session = await ort.InferenceSession.create(job.graph, { intraOpNumThreads: 1 });
    const inputs = Object.fromEntries(Object.entries(job.inputs).map(([name, entry]) => [name, read(entry)]));
    const made = await session.run(inputs);
    for (const [name, file] of Object.entries(job.outputs)) {
      const { data } = made[name];
      fs.writeFileSync(file, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    }
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
